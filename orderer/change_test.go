package orderer_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/orderer"
)

// listed are the consenters of seats, as a configuration has them.
func (c *cluster) listed(seats ...int) *etcdraft.ConfigMetadata {
	out := &etcdraft.ConfigMetadata{}
	for _, i := range seats {
		text := pemOf(c.t, c.w.seats[i])
		out.Consenters = append(out.Consenters, &etcdraft.Consenter{Host: "127.0.0.1", Port: uint32(7051 + i), ClientTlsCert: text, ServerTlsCert: text})
	}
	return out
}

// reconfigure has the member that leads, and isn't among those given, order a configuration with other consenters.
func (c *cluster) reconfigure(meta *etcdraft.ConfigMetadata, but ...int) {
	c.t.Helper()
	c.reconfigureBy(func() int { return c.leader(but...) }, meta)
}

// reconfigureBy has the member that who names do it.
func (c *cluster) reconfigureBy(who func() int, meta *etcdraft.ConfigMetadata) {
	c.t.Helper()
	for {
		err := c.propose(c.members[who()], meta)
		if errors.Is(err, orderer.NotLeader) {
			continue // it fell meanwhile
		}
		require.NoError(c.t, err)
		return
	}
}

func (c *cluster) propose(m *member, meta *etcdraft.ConfigMetadata) error {
	c.t.Helper()
	return m.chain.Order(ctxFor(c.t, waitLimit), c.proposal(m, meta))
}

// proposal is the signed update of m's configuration to other metadata.
func (c *cluster) proposal(m *member, meta *etcdraft.ConfigMetadata) *common.Envelope {
	t := c.t
	t.Helper()
	conf := m.conf.Load()
	raw, err := m.ledger.Block(conf.Number())
	require.NoError(t, err)
	b, err := block.Decode(raw)
	require.NoError(t, err)
	now, err := block.ConfigEnvelope(b)
	require.NoError(t, err)
	has := now.Config.ChannelGroup.Groups["Orderer"].Values["ConsensusType"]
	var kind ab.ConsensusType
	require.NoError(t, proto.Unmarshal(has.Value, &kind))
	kind.Metadata = marshal(t, meta)
	value := func(v *common.ConfigValue) *common.ConfigGroup {
		return &common.ConfigGroup{Groups: map[string]*common.ConfigGroup{"Orderer": {Values: map[string]*common.ConfigValue{"ConsensusType": v}}}}
	}
	u := &common.ConfigUpdate{
		ChannelId: channelName, ReadSet: value(&common.ConfigValue{Version: has.Version}),
		WriteSet: value(&common.ConfigValue{Version: has.Version + 1, ModPolicy: has.ModPolicy, Value: marshal(t, &kind)}),
	}
	u.ReadSet.Groups["Orderer"].Values = nil
	admin := c.w.identity(c.w.orderers, "Admin", "admin")
	signed := &common.ConfigUpdateEnvelope{ConfigUpdate: marshal(t, u)}
	s := &common.ConfigSignature{SignatureHeader: marshal(t, &common.SignatureHeader{Creator: admin.Identity().Serialized(), Nonce: []byte("nonce")})}
	s.Signature, err = admin.Sign(append(append([]byte{}, s.SignatureHeader...), signed.ConfigUpdate...))
	require.NoError(t, err)
	signed.Signatures = append(signed.Signatures, s)
	env, err := tx.SignedEnvelope(common.HeaderType_CONFIG_UPDATE, channelName, signed, admin, time.Now())
	require.NoError(t, err)
	return env
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return b
}

// voters waits until the leader's Raft, which isn't among those given, has the voters with these ids.
func (c *cluster) voters(ids []string, but ...int) {
	c.t.Helper()
	var have []string
	if !await(func() bool {
		have = nil
		for _, s := range c.members[c.leader(but...)].chain.Voters() {
			have = append(have, s.Suffrage.String()+" "+string(s.ID))
		}
		var want []string
		for _, id := range ids {
			want = append(want, raft.Voter.String()+" "+id)
		}
		return sameStrings(have, want)
	}) {
		require.FailNow(c.t, "voters", "has %v, wants %v", have, ids)
	}
}

func await(ok func() bool) bool {
	end := time.After(waitLimit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			return false
		}
	}
	return true
}

func sameStrings(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	seen := map[string]bool{}
	for _, s := range a {
		seen[s] = true
	}
	for _, s := range b {
		if !seen[s] {
			return false
		}
	}
	return true
}

// A node that isn't a consenter follows; a configuration makes it one, and another makes it a follower again, while
// envelopes are ordered. The chain says who the consenters were, as Fabric's does.
func TestConsentersComeAndGo(t *testing.T) {
	c := newCluster(t, 3, batchOf(1), time.Second)
	c.w.seat(3)
	c.add()
	c.start(0, 1, 2)
	c.leader()
	c.submit(3, 0, 1, 2)
	c.start(3)
	c.same(0, 1, 2, 3)
	_, is := c.members[3].chain.Self()
	require.False(t, is)
	require.Error(t, c.members[3].chain.Order(t.Context(), c.w.tx(0, 1)))

	c.reconfigureBy(func() int { return (c.leader() + 1) % 3 }, c.listed(0, 1, 2, 3)) // one that hands it on to the leader
	c.voters([]string{"1", "2", "3", "4"})
	c.submit(3, 3)
	c.same(0, 1, 2, 3)
	require.Equal(t, c.members[3].signer, c.members[3].signed(c.members[3].ledger.Height()-1))

	lead := c.leader()
	gone := (lead + 1) % 4
	var left []int
	for i := range 4 {
		if i != gone {
			left = append(left, i)
		}
	}
	c.reconfigure(c.listed(left...))
	c.submit(2, left...)
	c.same(0, 1, 2, 3)
	require.Len(t, c.members[left[0]].chain.Consenters(), 3)
	require.True(t, await(func() bool { return c.members[gone].chain.Voters() == nil }), "it takes part no more")
	c.submit(2, left...)
	c.same(0, 1, 2, 3)

	// The leader itself, and then it comes back as another.
	lead = c.leader(gone)
	c.reconfigure(c.listed(removeFrom(left, lead)...))
	rest := removeFrom(left, lead)
	c.leader(gone, lead)
	c.submit(2, rest...)
	c.reconfigure(c.listed(append(rest, lead)...), gone, lead)
	require.True(t, await(func() bool {
		self, ok := c.members[lead].chain.Self()
		return ok && self.ID == 5
	}))
	c.submit(2, lead)
	c.same(0, 1, 2, 3)
}

func removeFrom(list []int, i int) (out []int) {
	for _, v := range list {
		if v != i {
			out = append(out, v)
		}
	}
	return out
}

// One becomes three, and is one again.
func TestGrowsFromOne(t *testing.T) {
	c := newCluster(t, 1, batchOf(1), time.Second)
	for i := 1; i < 3; i++ {
		c.w.seat(i)
		c.add()
	}
	c.start(0, 1, 2)
	c.submit(2, 0)
	c.reconfigure(c.listed(0, 1))
	c.voters([]string{"1", "2"})
	c.reconfigure(c.listed(0, 1, 2))
	c.voters([]string{"1", "2", "3"})
	c.submit(2, 2)
	c.reconfigure(c.listed(1, 2))
	c.voters([]string{"2", "3"}, 0)
	c.submit(2, 1, 2)
	c.reconfigure(c.listed(2), 0)
	c.voters([]string{"3"}, 0, 1)
	c.submit(2, 2)
	c.same(0, 1, 2)
}

// Who was away when it was removed learns it from the others' blocks.
func TestRemovedWhileAway(t *testing.T) {
	c := newCluster(t, 3, batchOf(1), time.Second)
	c.suspect = 300 * time.Millisecond
	c.start(0, 1, 2)
	away := (c.leader() + 1) % 3
	c.submit(2, 0, 1, 2)
	c.kill(away)
	rest := removeFrom([]int{0, 1, 2}, away)
	c.reconfigure(c.listed(rest...))
	c.voters([]string{fmt.Sprint(rest[0] + 1), fmt.Sprint(rest[1] + 1)})
	c.submit(2, rest...)
	c.start(away)
	c.same(0, 1, 2)
	require.True(t, await(func() bool {
		_, is := c.members[away].chain.Self()
		return !is && c.members[away].chain.Voters() == nil
	}))
	c.submit(1, rest...)
	c.same(0, 1, 2)
}

// A node that comes back without its folder has forgotten what it agreed to: it doesn't vote until a leader has brought it
// level, so that one that lacks what was agreed on can't be chosen with its help.
func TestWithoutMemory(t *testing.T) {
	c := newCluster(t, 3, batchOf(1), time.Second)
	c.start(0, 1, 2)
	lead := c.leader()
	behind, forgets := (lead+1)%3, (lead+2)%3
	c.submit(1, lead)
	c.same(0, 1, 2)
	c.kill(behind)
	c.submit(3, lead) // agreed on by the leader and the one that is about to forget
	c.same(lead, forgets)
	c.kill(forgets)
	c.members[forgets].dir = t.TempDir()
	c.isolate(lead, true) // its gRPC still answers
	c.start(behind, forgets)
	require.True(t, await(func() bool { return c.hub.dialled(c.members[lead].links) > 20 }), "they look for the leader, and elect nobody")
	for _, i := range []int{behind, forgets} {
		require.Zero(t, c.members[i].chain.Leader().ID)
	}
	c.isolate(lead, false)
	client := c.w.clientOf(nil, c.members[behind].node, c.members[forgets].node)
	a, err := client.Submit(ctxFor(t, waitLimit), c.w.tx(100, 100))
	require.NoError(t, err)
	require.Equal(t, common.Status_SUCCESS, a.Status)
	c.same(0, 1, 2)
	for _, m := range c.members {
		require.Len(t, m.entries(), 5)
	}
	// It votes now.
	c.kill(lead)
	c.submit(1, behind, forgets)
	c.same(behind, forgets)
}
