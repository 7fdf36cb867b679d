package channel

import (
	"fmt"
	"math"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

func ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%032d", i)
	}
	return out
}

func control(c *pb.ControlMessage) *pb.RPC { return &pb.RPC{Control: c} }

func ptr[T any](v T) *T { return &v }

// TestLimits sends one RPC a number of times within a heartbeat, names the
// cases by their ids in the catalogue, and says how many may pass.
func TestLimits(t *testing.T) {
	blocks := wire.TopicBlocks
	subs := func(n int) *pb.RPC {
		r := &pb.RPC{}
		for range n {
			r.Subscriptions = append(r.Subscriptions, &pb.RPC_SubOpts{Topicid: &blocks, Subscribe: ptr(true)})
		}
		return r
	}
	for _, c := range []struct {
		name        string
		rpc         *pb.RPC
		times, pass int
		want        *wire.Reason
	}{
		{"W8", subs(maxSubscriptions + 1), 1, 0, SubscriptionLimit},
		{"G8 too many", control(&pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &blocks, MessageIDs: ids(10)}}}), 11, 10, IHaveLimit},
		{"G8 too long", control(&pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &blocks, MessageIDs: ids(5001)}}}), 1, 0, IHaveLimit},
		{"G9", control(&pb.ControlMessage{Iwant: []*pb.ControlIWant{{MessageIDs: ids(1)}}}), 100, maxIWants, IWantLimit},
		{"G10", control(&pb.ControlMessage{Graft: []*pb.ControlGraft{{TopicID: ptr("unknown")}}}), 1, 0, UnknownTopic},
		{"G10 IHAVE", control(&pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: ptr("unknown"), MessageIDs: ids(1)}}}), 1, 0, UnknownTopic},
		{"G10 PRUNE", control(&pb.ControlMessage{Prune: []*pb.ControlPrune{{TopicID: ptr("unknown")}}}), 1, 0, UnknownTopic},
		{"G12", control(&pb.ControlMessage{Prune: []*pb.ControlPrune{{TopicID: &blocks, Backoff: ptr(uint64(math.MaxUint64))}}}), 1, 0, BadBackoff},
		{"G13", control(&pb.ControlMessage{Prune: []*pb.ControlPrune{{TopicID: &blocks, Peers: make([]*pb.PeerInfo, 1)}}}), 1, 0, PXForbidden},
		{"G14 too many", control(&pb.ControlMessage{Idontwant: []*pb.ControlIDontWant{{MessageIDs: ids(1)}}}), 1001, 1000, IDontWantLimit},
		{"G14 too long", control(&pb.ControlMessage{Idontwant: []*pb.ControlIDontWant{{MessageIDs: ids(65)}}}), 1, 0, IDontWantLimit},
		{"G15", subs(1), 700, maxSubscriptionN, RateLimit},
		{"RPCs", &pb.RPC{}, maxRPCs + 1, maxRPCs, RateLimit},
		{"GRAFTs", control(&pb.ControlMessage{Graft: []*pb.ControlGraft{{TopicID: &blocks}}}), 100, maxGrafts, RateLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l limits
			now := time.Unix(1, 0)
			passed := 0
			for range c.times {
				if err := l.check("peer", c.rpc, now); err == nil {
					passed++
				} else {
					require.ErrorIs(t, err, c.want)
				}
			}
			require.Equal(t, c.pass, passed)
			require.NoError(t, l.check("another", &pb.RPC{}, now))
			if c.pass > 0 {
				require.NoError(t, l.check("peer", c.rpc, now.Add(heartbeat)), "a heartbeat later it may again")
			}
		})
	}
}

// G11: a GRAFT within the back-off that we, or it, asked for.
func TestGraftBackoff(t *testing.T) {
	blocks := wire.TopicBlocks
	graft := control(&pb.ControlMessage{Graft: []*pb.ControlGraft{{TopicID: &blocks}}})
	now := time.Unix(1, 0)

	m := &Mesh{trace: &trace{}}
	m.trace.mesh = m
	m.limits.meter("pruned", now).prune(blocks, now.Add(pruneBackoff))
	require.ErrorIs(t, m.limits.check("pruned", graft, now.Add(pruneBackoff-1)), GraftBackoff)
	require.NoError(t, m.limits.check("pruned", graft, now.Add(pruneBackoff)))

	prune := control(&pb.ControlMessage{Prune: []*pb.ControlPrune{{TopicID: &blocks, Backoff: ptr(uint64(3))}}})
	require.NoError(t, m.limits.check("pruner", prune, now))
	require.ErrorIs(t, m.limits.check("pruner", graft, now.Add(2*time.Second)), GraftBackoff)
	require.NoError(t, m.limits.check("pruner", graft, now.Add(3*time.Second)))
}

func TestMetersAreBounded(t *testing.T) {
	var l limits
	for i := range 3 * maxMeters {
		require.NoError(t, l.check(peer.ID(fmt.Sprint(i)), &pb.RPC{}, time.Unix(1, 0)))
	}
	require.LessOrEqual(t, len(l.meters), maxMeters)
}

// T16: the second offence puts a peer on the graylist, for an hour.
func TestSecondOffenceGraylists(t *testing.T) {
	o := newOffences()
	now := time.Unix(1, 0)
	require.False(t, o.many("p", now))
	o.add("p", now)
	require.False(t, o.many("p", now))
	o.add("p", now.Add(time.Minute))
	require.True(t, o.many("p", now.Add(time.Minute)))
	require.False(t, o.many("p", now.Add(offenceTime)))
	require.False(t, o.many("q", now))
	require.Less(t, float64(offenderScore+ownOrgScore+100), float64(graylistThreshold), "no good deed outweighs it")
	for i := range 3 * maxOffenders {
		o.add(peer.ID(fmt.Sprint(i)), now)
	}
	require.LessOrEqual(t, o.last.Len(), maxOffenders)
}

// The parameters are ones that GossipSub starts with, whatever n is.
func TestParams(t *testing.T) {
	for n := range 1001 {
		p := meshParams(n)
		require.LessOrEqual(t, p.Dlo, p.D)
		require.LessOrEqual(t, p.D, p.Dhi)
		require.LessOrEqual(t, p.Dscore, p.Dhi)
		require.Less(t, p.Dout, p.Dlo)
		require.Less(t, p.Dout, p.D/2)
		require.LessOrEqual(t, p.HistoryGossip, p.HistoryLength)
	}
}
