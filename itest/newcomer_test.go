package itest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel"
	"grapevine/election"
	"grapevine/itest/figures"
	"grapevine/ledger"
	"grapevine/ledger/state"
	"grapevine/msp"
	"grapevine/node"
)

// A mill makes verified blocks one after the other, each with one valid transaction
// that writes a value under a key of its own, and keeps none.
type mill struct {
	w         *World
	conf      *channel.Config
	endorsers []msp.Signer
	tip       block.Tip
	rng       *rand.ChaCha8
}

func newMill(t testing.TB, w *World) *mill {
	conf, err := channel.Parse(w.Genesis)
	require.NoError(t, err)
	m := &mill{w: w, conf: conf, tip: w.Tip(), rng: rand.NewChaCha8([32]byte{5})}
	for _, o := range w.Orgs[:2] {
		s, err := o.Identity("endorser", "peer")
		require.NoError(t, err)
		m.endorsers = append(m.endorsers, s)
	}
	return m
}

func (m *mill) next(t testing.TB, size int) block.Verified {
	p := tx.Proposal{Channel: ChannelName, Creator: m.w.client, Endorsers: m.endorsers, Time: time.Now(), Chaincode: "kv"}
	if m.tip.Height == 1 {
		p.Chaincode, p.RWSet = tx.Lifecycle, tx.Define("kv")
	} else {
		value := make([]byte, size)
		m.rng.Read(value)
		p.RWSet = tx.Write("kv", fmt.Sprintf("key%d", m.tip.Height), value)
	}
	env, _, err := tx.Endorse(p)
	require.NoError(t, err)
	raw, err := proto.Marshal(env)
	require.NoError(t, err)
	b := &common.Block{
		Header: &common.BlockHeader{Number: m.tip.Height, PreviousHash: m.tip.Hash[:]}, Data: &common.BlockData{Data: [][]byte{raw}},
	}
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	require.NoError(t, block.Sign(b, m.w.Orderer, 0, nil))
	c, err := block.CheckBlock(m.conf.Rules(), b)
	require.NoError(t, err)
	v, err := block.Verify(m.conf.Rules(), m.tip, c)
	require.NoError(t, err)
	m.tip = block.Tip{Height: v.Number() + 1, Hash: v.Hash()}
	return v
}

// idle is an ordering service that never has a block.
type idle struct{}

func (idle) Blocks(ctx context.Context, _ uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

// TestSoakNewcomer measures how long a newcomer takes to a channel of 100,000 blocks
// and a state of 200 MB, by all blocks and by a snapshot, from three peers on
// loopback. GRAPEVINE_NEWCOMER says another number of blocks.
func TestSoakNewcomer(t *testing.T) {
	blocks := 100_000
	if v := os.Getenv("GRAPEVINE_NEWCOMER"); v != "" {
		var err error
		blocks, err = strconv.Atoi(v)
		require.NoError(t, err)
	} else if os.Getenv("GRAPEVINE_SOAK") == "" && !figures.Long() {
		t.Skip("GRAPEVINE_SOAK isn't set")
	}
	const size, peers = 2000, 3
	listen, endpoint := loopback(t, peers+2)
	w, err := NewWorld(3, endpoint(0), endpoint(1), endpoint(2))
	require.NoError(t, err)
	params := map[string]any{"blocks": blocks, "valueBytes": size, "peers": peers}
	var r figures.Records

	base := t.TempDir()
	first := filepath.Join(base, "first")
	began := time.Now()
	tip := grow(t, w, first, blocks, size)
	t.Logf("%d blocks made and judged in %v", blocks, time.Since(began))

	var nodes []*node.Node
	for i := range peers {
		cfg := newcomerConfig(t, w, i, 0, listen(i), endpoint(i))
		cfg.Dir = filepath.Join(base, fmt.Sprintf("peer%d", i))
		require.NoError(t, os.CopyFS(cfg.Dir, os.DirFS(first)))
		n, err := node.Open(cfg)
		require.NoError(t, err)
		run(t, n)
		nodes = append(nodes, n)
	}
	require.NoError(t, os.RemoveAll(first))
	began = time.Now()
	for i, n := range nodes {
		c, err := n.Channel(ChannelName)
		require.NoError(t, err)
		s, err := c.Snapshot(t.Context())
		require.NoError(t, err)
		if i == 0 {
			r.Add("snapshot.make", params, "s", time.Since(began).Seconds())
			r.Add("snapshot.size", params, "bytes", float64(s.Manifest.Bytes))
			r.Add("snapshot.chunks", params, "", float64(s.Manifest.Chunks))
			t.Logf("snapshot of %d bytes, %d chunks made in %v", s.Manifest.Bytes, s.Manifest.Chunks, time.Since(began))
		}
	}
	var took [2]time.Duration
	for i, by := range []node.SyncMode{node.SyncSnapshot, node.SyncGenesis} {
		cfg := newcomerConfig(t, w, i, 1, listen(peers+i), endpoint(peers+i))
		cfg.Dir, cfg.Bootstrap = filepath.Join(base, string(by)), []string{endpoint(i)}
		n, err := node.Open(cfg)
		require.NoError(t, err)
		began := time.Now()
		_, err = n.JoinBy(t.Context(), w.Genesis, by)
		require.NoError(t, err)
		run(t, n)
		took[i] = arrives(t, n, tip, began)
		t.Logf("by %s: %v", by, took[i])
		r.Add("newcomer.by."+string(by), params, "s", took[i].Seconds())
		mine, err := n.Channel(ChannelName)
		require.NoError(t, err)
		theirs, err := nodes[0].Channel(ChannelName)
		require.NoError(t, err)
		require.Equal(t, theirs.Ledger().State(), mine.Ledger().State(), "another state")
	}
	r.Add("newcomer.ratio", params, "genesis:snapshot", took[1].Seconds()/took[0].Seconds())
	figures.Save(t, "newcomer", r)
}

// grow makes a node's data folder with a chain in it, judged.
func grow(t *testing.T, w *World, dir string, blocks, size int) block.Tip {
	db, err := ledger.Open(filepath.Join(dir, "ledger"), ledger.Options{})
	require.NoError(t, err)
	raw, err := proto.Marshal(w.Genesis)
	require.NoError(t, err)
	genesis, err := block.Genesis(raw)
	require.NoError(t, err)
	l, err := db.Create(ChannelName, genesis)
	require.NoError(t, err)
	require.NoError(t, node.Judge(t.Context(), l, nil))
	m := newMill(t, w)
	var batch []block.Verified
	for range blocks - 1 {
		if batch = append(batch, m.next(t, size)); len(batch) == 256 {
			require.NoError(t, l.Append(batch...))
			batch = nil
		}
	}
	require.NoError(t, l.Append(batch...))
	require.Equal(t, m.tip, l.Tip())
	require.Equal(t, m.tip.Height, l.State().Height)
	v, err := l.Verdict(m.tip.Height - 1)
	require.NoError(t, err)
	require.Equal(t, []byte{0}, v.Codes, "its transactions aren't valid")
	require.NoError(t, db.Close())
	return m.tip
}

func newcomerConfig(t *testing.T, w *World, org, k int, listen []string, endpoint string) node.Config {
	o := w.Orgs[org]
	name := fmt.Sprintf("peer%d.%s", k, o.Domain)
	signer, err := o.Identity(name, "peer")
	require.NoError(t, err)
	m, err := definition(o)
	require.NoError(t, err)
	cfg := node.Default()
	cfg.Name, cfg.NetworkID, cfg.Signer, cfg.MSP, cfg.Log = name, "test", signer, m, testLog()
	cfg.Listen, cfg.ExternalEndpoint, cfg.Judge, cfg.Leader = listen, endpoint, true, election.Standby
	cfg.Source = func(string, func() *channel.Config) node.Source { return idle{} }
	return cfg
}

// arrives waits until a node's state stands at a tip.
func arrives(t *testing.T, n *node.Node, tip block.Tip, began time.Time) time.Duration {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		c, err := n.Channel(ChannelName)
		require.NoError(t, err)
		require.NoError(t, c.Halted())
		if s := c.Ledger().State(); s.Height == tip.Height && s.Blocks == tip {
			break
		}
		require.Less(t, time.Since(began), time.Hour, "%+v", c.Arriving())
	}
	return time.Since(began)
}

// A ledger that begins with a snapshot of a real network's chain, taken at any
// height, goes on to the same codes, commit hashes and state as one that began with
// block 0; and a snapshot made of it is the same to the byte.
func TestRecordedChainsFromSnapshots(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			r := record(t, network)
			all := r.verified(t)
			full, whole := r.kept(t, all[0])
			defer func() { require.NoError(t, full.Close()) }()
			for h, v := range all {
				if h > 0 {
					require.NoError(t, whole.Append(v))
				}
				if (h+1)%5 == 0 || h == len(all)-1 {
					snapshotOf(t, whole)
				}
			}
			for _, s := range whole.Snapshots() {
				db, _ := r.kept(t, all[0])
				l := takeOver(t, db, s, all[0].Hash())
				require.NoError(t, node.Judge(t.Context(), l, nil))
				require.NoError(t, l.Append(all[s.Manifest.Height:]...))
				require.Equal(t, whole.State(), l.State())
				for n := s.Manifest.Height - 1; n < uint64(len(all)); n++ {
					want, err := whole.Verdict(n)
					require.NoError(t, err)
					got, err := l.Verdict(n)
					require.NoError(t, err)
					require.Equal(t, want, got, "codes, commit hash and state hash of block %d", n)
				}
				require.Equal(t, whole.Snapshots()[0].Name, snapshotOf(t, l).Name)
				_, err := l.Block(1)
				if s.Manifest.Height > 3 && !all[1].IsConfig() {
					require.ErrorIs(t, err, ledger.ErrPruned)
				}
				require.NoError(t, db.Close())
			}
			require.NotEmpty(t, whole.Snapshots())
		})
	}
}

func (r *recording) kept(t *testing.T, genesis block.Verified) (*ledger.DB, *ledger.Ledger) {
	db, err := ledger.Open("ledger", ledger.Options{InMemory: true})
	require.NoError(t, err)
	l, err := db.Create(r.conf.Channel(), genesis)
	require.NoError(t, err)
	require.NoError(t, node.Judge(t.Context(), l, nil))
	return db, l
}

func snapshotOf(t *testing.T, l *ledger.Ledger) *ledger.Snapshot {
	w, err := l.World(t.Context())
	require.NoError(t, err)
	s, err := w.Snapshot(t.Context(), ledger.SnapshotOptions{Algorithm: state.Algorithm})
	require.NoError(t, errors.Join(err, w.Close()))
	return s
}

// takeOver restores a snapshot of another store.
func takeOver(t *testing.T, db *ledger.DB, s *ledger.Snapshot, genesis [32]byte) *ledger.Ledger {
	proof, err := s.Blocks()
	require.NoError(t, err)
	in, err := db.Receive(s.Manifest.Channel, s.Raw, s.Index(), proof, nil)
	require.NoError(t, err)
	for i := range s.Chunks() {
		c, err := s.Chunk(i)
		require.NoError(t, err)
		require.NoError(t, in.Put(i, c))
	}
	blocks, _, err := node.VerifySnapshotBlocks(genesis, s.Manifest, proof)
	require.NoError(t, err)
	l, err := node.RestoreSnapshot(t.Context(), db, in, blocks, nil)
	require.NoError(t, err)
	return l
}
