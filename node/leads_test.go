package node

import (
	"context"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"grapevine/channel"
	"grapevine/election"
)

// still is an ordering service at an address that has nothing to say.
type still string

func (still) Blocks(ctx context.Context, _ uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

func (s still) Source() string { return string(s) }

// Everybody knows who leads which organisation, as far as it tells: two static
// leaders, of which a warning is due, an elected one that pulls from an address
// which only its own configuration names, and one without an external endpoint,
// invisible to others, which hears of them through its own organisation's peer.
func TestLeads(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		const inConfig, override = "127.0.0.1:7050", "10.9.8.7:7050"
		g := b.genesis("mychannel", 0, 1, 2)
		logs := map[string]*said{}
		regs := map[string]*prometheus.Registry{}
		node := func(org int, name string, mode election.Mode, source string, hidden bool) Config {
			c, at := b.node(org, name)
			logs[name], regs[name] = newSaid(), c.Metrics.(*prometheus.Registry)
			c.Leader, c.Log = mode, slog.New(logs[name])
			c.Source = func(string, func() *channel.Config) Source { return still(source) }
			if !hidden {
				c.ExternalEndpoint = at
			}
			return c
		}
		twin, err := Open(node(0, "peer1.org1", election.Static, inConfig, false))
		require.NoError(t, err)
		_, err = twin.Join(t.Context(), g)
		require.NoError(t, err)
		first := start(t, node(0, "peer0.org1", election.Static, inConfig, false), g)
		elected := start(t, node(1, "peer0.org2", election.Dynamic, override, false), g)
		idle := start(t, node(1, "peer1.org2", election.Standby, inConfig, false), g)
		open := start(t, node(2, "peer0.org3", election.Standby, inConfig, false), g)
		hidden := start(t, node(2, "peer1.org3", election.Dynamic, inConfig, true), g)
		b.nw.Start()
		for _, n := range []*Node{elected, idle, open} {
			require.NoError(t, n.host.Connect(t.Context(), at(t, first, "")))
		}
		require.NoError(t, hidden.host.Connect(t.Context(), at(t, open, "")))
		leads := func(n *Node) (all []OrgLead) {
			c, err := n.Channel("mychannel")
			require.NoError(t, err)
			return c.Leads()
		}
		summary := func(n *Node) (out []string) {
			for _, o := range leads(n) {
				s := o.Org + " " + o.Mode
				for _, l := range o.Leaders {
					s += " " + l.Name
					if l.Orderer != "" {
						s += "@" + l.Orderer
					}
				}
				out = append(out, s)
			}
			return out
		}
		time.Sleep(12 * time.Second)
		one := "org1 static peer0.org1@" + inConfig
		require.Equal(t, []string{one, "org2 dynamic peer0.org2", "org3 standby"}, summary(first))
		require.Equal(t, summary(first), summary(idle))
		require.Equal(t, []string{one, "org2 dynamic peer0.org2", "org3 dynamic peer1.org3@" + inConfig}, summary(hidden), "it knows itself, and others through its neighbour")
		require.Equal(t, summary(hidden), summary(open))
		of2 := leads(first)[1].Leaders[0]
		require.Equal(t, elected.PeerID(), of2.Peer)
		require.Positive(t, of2.Term)
		require.Less(t, time.Since(of2.Since), 15*time.Second)
		require.Equal(t, leads(elected)[1].Leaders[0].Since.UnixMilli(), of2.Since.UnixMilli())
		for name, want := range map[string]float64{"peer0.org1": 1, "peer0.org2": 1, "peer1.org2": 0, "peer1.org3": 1} {
			require.Equal(t, want, counted(t, regs[name], "gossip_leader_election_leader", "channel", "mychannel"), name)
		}
		require.Equal(t, 1.0, counted(t, regs["peer1.org2"], "grapevine_leader_changes_total", "channel", "mychannel"))
		c, err := idle.Channel("mychannel")
		require.NoError(t, err)
		require.Equal(t, "peer0.org2", c.Status().Leader)

		stop := running(t, twin)
		require.NoError(t, twin.host.Connect(t.Context(), at(t, first, "")))
		time.Sleep(25 * time.Second)
		require.Equal(t, one+" peer1.org1@"+inConfig, summary(elected)[0], "who leads longest counts")
		const warning = "code=election.many_static"
		for _, name := range []string{"peer0.org1", "peer1.org1"} {
			require.Equal(t, 1, strings.Count(logs[name].String(), warning), name)
		}
		require.NotContains(t, logs["peer0.org2"].String(), warning, "it isn't theirs to mend")
		stop()
		time.Sleep(25 * time.Second)
		require.Equal(t, one, summary(elected)[0], "who left leads no more")
		require.Equal(t, 1, strings.Count(logs["peer0.org1"].String(), warning))
	})
}
