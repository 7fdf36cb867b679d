package orderer_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/deliver"
	"grapevine/orderer"
)

// A cluster is orderers of one channel, each over its own folder, configuration and listener.
type cluster struct {
	t       testing.TB
	w       *world
	hub     *hub
	members []*member
	suspect time.Duration // without a leader; 0: the default
	sent    int
}

type member struct {
	*node   // nil while it is down
	dir     string
	address string // gRPC
	links   string // consenter's host:port
	conf    atomic.Pointer[channel.Config]
	signer  string // common name
}

func newCluster(t testing.TB, consenters int, batch *ab.BatchSize, timeout time.Duration) *cluster {
	t.Helper()
	c := &cluster{t: t, w: newWorldOf(t, consenters, batch, timeout), hub: newHub()}
	for range consenters {
		c.add()
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.kill(i)
		}
	})
	return c
}

// add makes one more member, which is not started.
func (c *cluster) add() *member {
	i := len(c.members)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c.t, err)
	m := &member{dir: c.t.TempDir(), address: l.Addr().String(), links: fmt.Sprintf("127.0.0.1:%d", 7051+i), signer: fmt.Sprintf("orderer%d", i+1)}
	require.NoError(c.t, l.Close())
	if c.w.keys[m.signer] == nil {
		c.w.identity(c.w.orderers, m.signer, "orderer")
	}
	c.members = append(c.members, m)
	return m
}

// start runs members on their folders.
func (c *cluster) start(which ...int) {
	c.t.Helper()
	for _, i := range which {
		m := c.members[i]
		conf := c.w.config
		m.conf.Store(conf)
		access := func() deliver.Access {
			conf := m.conf.Load()
			return deliver.Access{Sequence: conf.Sequence(), MSPs: conf.MSPs(), Readers: conf.Policy("/Channel/Readers")}
		}
		n, server := c.w.open(m.dir, func(cc *orderer.ChainConfig, s *orderer.ServerConfig, h *deliver.Handler) {
			m.configure(c.t, cc.Ledger)
			seat := c.w.seats[i]
			cc.Channel = func() orderer.Channel { return m.conf.Load() }
			cc.Keys, cc.Links = keys(seat), port{c.hub, m.links}
			cc.Certificate = func() *tls.Certificate { return &seat }
			cc.Signer = c.w.load("OrdererMSP", c.w.keys[m.signer])
			cc.Heartbeat = 200 * time.Millisecond
			cc.Endpoints = c.endpoints
			cc.Committed = m.committed
			cc.SuspectAfter(c.suspect)
			s.Certificate = cc.Certificate
			inner := h.Channels
			h.Channels = func(name string) (deliver.Channel, bool) {
				ch, ok := inner(name)
				ch.Access = access
				return ch, ok
			}
		})
		m.node = n
		c.hub.counts(m.links, n.chain.Voting)
		n.serveAt(server, c.w.orderers, m.address)
	}
}

func (m *member) configure(t testing.TB, l orderer.Ledger) {
	t.Helper()
	for n := l.Tip().Height; n > 0; n-- {
		raw, err := l.Block(n - 1)
		require.NoError(t, err)
		b, err := block.Decode(raw)
		require.NoError(t, err)
		if block.IsConfig(b) {
			conf, err := channel.Parse(b)
			require.NoError(t, err)
			m.conf.Store(conf)
			return
		}
	}
}

func (m *member) committed(bs []block.Verified) error {
	for _, v := range bs {
		if v.IsConfig() {
			next, err := m.conf.Load().Next(v.Block())
			if err != nil {
				return err
			}
			m.conf.Store(next)
		}
	}
	return nil
}

func (c *cluster) endpoints() (all []orderer.Endpoint) {
	for _, m := range c.members {
		all = append(all, orderer.Endpoint{Address: m.address, Roots: c.w.orderers.TLSPool()})
	}
	return all
}

// kill ends a member; its folder stays.
func (c *cluster) kill(i int) {
	c.t.Helper()
	if m := c.members[i]; m.node != nil {
		require.NoError(c.t, m.stop())
		m.node = nil
	}
}

// isolate cuts a member's links, not its gRPC.
func (c *cluster) isolate(i int, off bool) {
	var all []string
	for _, m := range c.members {
		all = append(all, m.links)
	}
	c.hub.isolate(c.members[i].links, all, off)
}

// leader waits until one member leads that isn't among those given.
func (c *cluster) leader(but ...int) int {
	c.t.Helper()
	found := -1
	require.Eventually(c.t, func() bool {
		for i, m := range c.members {
			if m.node == nil || contains(but, i) {
				continue
			}
			select {
			case <-m.chain.Ready():
				found = i
				return true
			default:
			}
		}
		return false
	}, waitLimit, 5*time.Millisecond)
	return found
}

func contains(list []int, i int) bool {
	for _, v := range list {
		if v == i {
			return true
		}
	}
	return false
}

// submit has envelopes ordered, by whichever members are given.
func (c *cluster) submit(count int, by ...int) {
	c.t.Helper()
	var nodes []*node
	for _, i := range by {
		nodes = append(nodes, c.members[i].node)
	}
	client := c.w.clientOf(nil, nodes...)
	for range count {
		a, err := client.Submit(ctxFor(c.t, waitLimit), c.w.tx(c.sent, 100))
		require.NoError(c.t, err)
		require.Equal(c.t, common.Status_SUCCESS, a.Status, a.Info)
		c.sent++
	}
}

// same waits until the members given are equally high, and have the same blocks, each with a signature that holds.
func (c *cluster) same(which ...int) {
	c.t.Helper()
	var top uint64
	for _, i := range which {
		top = max(top, c.members[i].ledger.Height())
	}
	var tips []block.Tip
	for _, i := range which {
		m := c.members[i]
		require.NoError(c.t, m.ledger.Wait(ctxFor(c.t, waitLimit), top), "member %d", i)
		tips = append(tips, m.ledger.Tip())
	}
	for _, tip := range tips {
		require.Equal(c.t, tips[0], tip)
	}
}

// Three nodes make the same blocks, each with its own signature; when the leader goes, the others go on, and it catches up
// when it is back. An envelope that a follower is given reaches the leader.
func TestThreeNodesAgree(t *testing.T) {
	c := newCluster(t, 3, batchOf(1), time.Second)
	c.start(0, 1, 2)
	first := c.leader()
	for i := range 3 {
		c.submit(3, i) // one of them leads
	}
	c.same(0, 1, 2)
	for i, m := range c.members {
		require.Len(t, m.entries(), 9)
		require.Equal(t, m.signer, m.signed(1), "member %d serves its own signature", i)
	}
	c.kill(first)
	rest := []int{(first + 1) % 3, (first + 2) % 3}
	c.leader()
	c.submit(5, rest...)
	c.same(rest...)
	c.start(first)
	c.submit(1, first)
	c.same(0, 1, 2)
	require.Len(t, c.members[first].entries(), 15, "none is ordered again")
}

// Without a quorum nothing is ordered, and clients are told; with its return, what they send is.
func TestWithoutQuorum(t *testing.T) {
	c := newCluster(t, 3, batchOf(1), time.Second)
	c.start(0, 1, 2)
	c.leader()
	c.submit(2, 0, 1, 2)
	c.isolate(0, true)
	c.isolate(1, true)
	for i := range 3 {
		select {
		case <-c.members[i].chain.Errored():
		case <-time.After(waitLimit):
			require.FailNow(t, "a leader without a quorum leads on")
		}
		require.ErrorIs(t, c.members[i].chain.Order(t.Context(), c.w.tx(0, 1)), orderer.NotLeader)
	}
	c.isolate(0, false)
	c.isolate(1, false)
	c.submit(2, 0)
	c.same(0, 1, 2)
}

// A node whose log the leader has cut off meanwhile gets its blocks from the others, and signs them.
func TestCatchesUpFromTheOthers(t *testing.T) {
	c := newCluster(t, 3, batchOf(1), time.Second)
	c.start(0, 1, 2)
	away := (c.leader() + 1) % 3
	c.submit(2, 0, 1, 2)
	c.same(0, 1, 2)
	c.kill(away)
	rest := []int{(away + 1) % 3, (away + 2) % 3}
	c.leader()
	c.submit(300, rest...)
	for _, i := range rest {
		require.NoError(t, c.members[i].chain.Snapshot())
	}
	c.start(away)
	c.submit(3, rest...)
	c.same(0, 1, 2)
	m := c.members[away]
	require.Equal(t, m.signer, m.signed(250))
	c.submit(3, away)
	c.same(0, 1, 2)
}

// signed is the common name of who signed a block, as a node has it.
func (n *node) signed(number uint64) string {
	t := n.world.t
	t.Helper()
	raw, err := n.ledger.Block(number)
	require.NoError(t, err)
	return signerOf(t, raw)
}
