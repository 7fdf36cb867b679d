package node

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/blocksync"
	"grapevine/channel"
	"grapevine/election"
	"grapevine/ledger"
	"grapevine/msp"
	"grapevine/wire"
)

// A press is an ordering service in one process, whose transactions are valid and
// write to a chaincode kv of their own definition.
type press struct {
	w         *world
	signer    msp.Signer
	creator   msp.Signer
	endorsers []msp.Signer
	rng       *rand.ChaCha8

	mu     sync.Mutex
	blocks []*common.Block // guarded by mu
	grown  chan struct{}   // guarded by mu
}

func newPress(w *world, orgs ...int) *press {
	p := &press{w: w, grown: make(chan struct{}), rng: rand.NewChaCha8([32]byte{7})}
	var err error
	p.signer, err = w.orderer.Identity("orderer0", "orderer")
	require.NoError(w.t, err)
	p.creator, err = w.orgs[0].Identity("User1@org1", "client")
	require.NoError(w.t, err)
	for _, o := range orgs {
		p.endorsers = append(p.endorsers, w.identity(o, "endorser"))
	}
	p.blocks = []*common.Block{w.genesis("mychannel", orgs...)}
	p.order(tx.Proposal{Chaincode: tx.Lifecycle, RWSet: tx.Define("kv")})
	return p
}

// order cuts a block of one transaction.
func (p *press) order(t tx.Proposal) {
	t.Channel, t.Creator, t.Endorsers, t.Time = "mychannel", p.creator, p.endorsers, time.Now()
	env, _, err := tx.Endorse(t)
	require.NoError(p.w.t, err)
	raw, err := proto.Marshal(env)
	require.NoError(p.w.t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.blocks[len(p.blocks)-1].Header
	prev := block.HeaderHash(last)
	b := &common.Block{Header: &common.BlockHeader{Number: last.Number + 1, PreviousHash: prev[:]}, Data: &common.BlockData{Data: [][]byte{raw}}}
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	require.NoError(p.w.t, block.Sign(b, p.signer, 0, nil))
	p.blocks = append(p.blocks, b)
	close(p.grown)
	p.grown = make(chan struct{})
}

// write orders n blocks, each of which writes size bytes under a key of its own.
func (p *press) write(n, size int) {
	for range n {
		value := make([]byte, size)
		p.rng.Read(value)
		p.order(tx.Proposal{Chaincode: "kv", RWSet: tx.Write("kv", fmt.Sprintf("k%d", p.rng.Uint64()), value)})
	}
}

func (p *press) source(string, func() *channel.Config) Source { return p }

func (p *press) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for n := from; ; {
			p.mu.Lock()
			grown, ready := p.grown, n < uint64(len(p.blocks))
			var b *common.Block
			if ready {
				b = p.blocks[n]
			}
			p.mu.Unlock()
			if ready {
				n++
				if !yield(b, nil) {
					return
				}
				continue
			}
			select {
			case <-grown:
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

// town is three peers of three organisations that make snapshots, and a place for a
// newcomer of the first.
type town struct {
	*bubble
	press *press
	nodes []*Node
	where string
	cfg   Config // the newcomer's
}

func newTown(t *testing.T, b *bubble, every uint64, newcomer func(c *Config)) *town {
	v := &town{bubble: b, press: newPress(b.world, 0, 1, 2)}
	for i := range 3 {
		c, where := b.node(i, fmt.Sprintf("peer0.org%d", i+1))
		c.ExternalEndpoint, c.Leader, c.Source, c.Judge = where, election.Static, v.press.source, true
		c.Snapshots.Every = every
		if i == 0 {
			v.where = where
		}
		v.nodes = append(v.nodes, start(t, c, v.press.blocks[0]))
	}
	c, where := b.node(0, "peer1.org1")
	c.ExternalEndpoint, c.Leader, c.Source, c.Judge = where, election.Standby, v.press.source, true
	c.Bootstrap = []string{v.where}
	newcomer(&c)
	v.cfg = c
	b.nw.Start()
	for _, n := range v.nodes[1:] {
		require.NoError(t, n.host.Connect(t.Context(), at(t, v.nodes[0], "")))
	}
	return v
}

// settled waits until all hold so many blocks and have made their snapshots.
func (v *town) settled(t *testing.T, height, snapshot uint64) {
	t.Helper()
	for range 600 {
		time.Sleep(100 * time.Millisecond)
		done := true
		for _, n := range v.nodes {
			c, err := n.Channel("mychannel")
			require.NoError(t, err)
			list := c.Ledger().Snapshots()
			done = done && c.Ledger().State().Height == height && (snapshot == 0 || len(list) > 0 && list[0].Manifest.Height == snapshot)
		}
		if done {
			return
		}
	}
	require.Fail(t, "the town doesn't settle")
}

// reaches waits until a node's channel is as high as the press and has the state of
// the others.
func (v *town) reaches(t *testing.T, n *Node) *ledger.Ledger {
	t.Helper()
	v.press.mu.Lock()
	height := uint64(len(v.press.blocks))
	v.press.mu.Unlock()
	for range 3000 {
		time.Sleep(100 * time.Millisecond)
		c, err := n.Channel("mychannel")
		require.NoError(t, err)
		if s := c.Ledger().State(); s.Height == height {
			o, err := v.nodes[1].Channel("mychannel")
			require.NoError(t, err)
			want := o.Ledger().State()
			require.Equal(t, want, s)
			a, err := o.Ledger().Verdict(height - 1)
			require.NoError(t, err)
			b, err := c.Ledger().Verdict(height - 1)
			require.NoError(t, err)
			require.Equal(t, a, b, "commit hash and codes")
			return c.Ledger()
		}
	}
	c, _ := n.Channel("mychannel")
	require.Failf(t, "the newcomer doesn't come", "%+v %v", c.Arriving(), c.Halted())
	return nil
}

// A newcomer takes a snapshot from three peers at once, one of which gives wrong
// chunks and is named; it then goes on by blocks, and serves the snapshot itself.
func TestNewcomerBySnapshot(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		log, figures := newSaid(), prometheus.NewRegistry()
		v := newTown(t, b, 20, func(c *Config) { c.Sync, c.Log, c.Metrics = SyncSnapshot, slog.New(log), figures })
		v.press.write(30, 300_000) // 20 blocks of them in the snapshot: several chunks
		v.settled(t, 32, 20)
		liar, err := v.nodes[2].Channel("mychannel")
		require.NoError(t, err)
		lib := liar.library()
		honest := lib.Chunk
		lib.Chunk = func(name [32]byte, i uint64) ([]byte, error) {
			c, err := honest(name, i)
			c = bytes.Clone(c)
			c[len(c)/2] ^= 1
			return c, err
		}
		liar.view.Handle(wire.KindSnapshots, func(s network.Stream) { liar.sync.ServeSnapshots(s, s.Conn().RemotePeer(), lib) })
		n := start(t, v.cfg, v.press.blocks[0])
		led := v.reaches(t, n)
		require.Equal(t, uint64(19), led.Lowest(), "it came by blocks")
		require.Contains(t, log.String(), blocksync.BadSnapshot.Code())
		require.Contains(t, log.String(), v.nodes[2].PeerID().String(), "the liar isn't named")
		require.Len(t, led.Snapshots(), 1, "others can take it from here")
		require.GreaterOrEqual(t, len(led.Snapshots()[0].Attestations()), 2)
		_, err = led.Block(5)
		require.ErrorIs(t, err, ledger.ErrPruned)
		require.Equal(t, 1.0, counted(t, figures, "grapevine_snapshots_restored_total"))
		require.Positive(t, counted(t, figures, "grapevine_snapshot_refused_total", "reason", blocksync.BadSnapshot.Code(), "member", n.nameOf(v.nodes[2].PeerID())))
		require.Positive(t, counted(t, figures, "grapevine_rejected_total", "reason", blocksync.BadSnapshot.Code()))
		require.Equal(t, 1.0, counted(t, figures, "grapevine_snapshots"))
		require.Equal(t, 20.0, counted(t, figures, "grapevine_snapshot_height"))
		require.Zero(t, counted(t, figures, "grapevine_snapshots_made_total"))
		v.press.write(12, 100)
		led = v.reaches(t, n)
		require.NoError(t, led.Halted())
	})
}

// A newcomer that is stopped half-way goes on where it was.
func TestNewcomerResumes(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		v := newTown(t, b, 20, func(c *Config) {
			c.Sync, c.InMemory, c.Dir = SyncSnapshot, false, t.TempDir()
		})
		v.press.write(22, 300_000)
		v.settled(t, 24, 20)
		for _, n := range v.nodes { // slow, so that it is caught in the middle
			c, err := n.Channel("mychannel")
			require.NoError(t, err)
			lib := c.library()
			quick := lib.Chunk
			lib.Chunk = func(name [32]byte, i uint64) ([]byte, error) {
				time.Sleep(1500 * time.Millisecond)
				return quick(name, i)
			}
			c.view.Handle(wire.KindSnapshots, func(s network.Stream) { c.sync.ServeSnapshots(s, s.Conn().RemotePeer(), lib) })
		}
		n, err := Open(v.cfg)
		require.NoError(t, err)
		_, err = n.Join(t.Context(), v.press.blocks[0])
		require.NoError(t, err)
		stop := running(t, n)
		var a Arriving
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			c, err := n.Channel("mychannel")
			require.NoError(t, err)
			if a = c.Arriving(); a.Chunks > 0 && a.Left < a.Chunks {
				break
			}
		}
		require.Greater(t, a.Left, 0, "%+v", a)
		require.Less(t, a.Left, a.Chunks)
		stop()
		n = start(t, v.cfg)
		led := v.reaches(t, n)
		require.Equal(t, uint64(19), led.Lowest())
		c, err := n.Channel("mychannel")
		require.NoError(t, err)
		require.Equal(t, SyncGenesis, c.Arriving().Mode)
	})
}

// What too few organisations attest isn't taken; SyncAuto goes by blocks then.
func TestTooFewAttest(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		v := newTown(t, b, 0, func(c *Config) { c.Sync = SyncAuto; c.Snapshots.Ahead = 1 })
		v.press.write(10, 100)
		v.settled(t, 12, 0)
		one, err := v.nodes[0].Channel("mychannel")
		require.NoError(t, err)
		s, err := one.Snapshot(t.Context())
		require.NoError(t, err)
		orgs, _ := Attesters(one.Config(), s.Name, s.Attestations(), time.Now())
		require.Equal(t, []string{"Org1MSP"}, orgs)
		orgs, _ = Attesters(one.Config(), [32]byte{1}, s.Attestations(), time.Now())
		require.Empty(t, orgs, "an attestation of another snapshot counts")
		n := start(t, v.cfg, v.press.blocks[0])
		led := v.reaches(t, n)
		require.Zero(t, led.Lowest())
		synctest.Wait()
	})
}

// SyncAuto takes a snapshot that is far ahead, and prunes what gets old.
func TestAutoTakesASnapshot(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		v := newTown(t, b, 40, func(c *Config) {
			c.Sync, c.Transfer.Off = SyncAuto, true // without blocks of others
			c.Snapshots.Ahead, c.Snapshots.Blocks = 30, 10
		})
		v.press.write(60, 100)
		v.settled(t, 62, 40)
		v.cfg.Transfer.Off = true
		n := start(t, v.cfg, v.press.blocks[0])
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			if c, err := n.Channel("mychannel"); err == nil && c.Ledger().Height() >= 40 {
				break
			}
		}
		c, err := n.Channel("mychannel")
		require.NoError(t, err)
		require.GreaterOrEqual(t, c.Ledger().Lowest(), uint64(39))
	})
}
