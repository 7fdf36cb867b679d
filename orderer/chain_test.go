package orderer_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/deliver"
	"grapevine/orderer"
)

func batchOf(count uint32) *ab.BatchSize {
	return &ab.BatchSize{MaxMessageCount: count, AbsoluteMaxBytes: 1 << 20, PreferredMaxBytes: 1 << 19}
}

func TestOneNodeOrders(t *testing.T) {
	w := newWorld(t, batchOf(3), 50*time.Millisecond)
	dir := t.TempDir()
	n := w.start(dir).ready()
	require.Equal(t, uint64(1), n.chain.Leader().ID)
	var all sync.WaitGroup
	for i := range 7 {
		all.Go(func() {
			if err := n.chain.Order(t.Context(), w.tx(i, 10)); err != nil {
				t.Errorf("envelope %d: %v", i, err)
			}
		})
	}
	all.Wait()
	require.Len(t, n.entries(), 7)
	require.GreaterOrEqual(t, n.ledger.Height(), uint64(4), "at most three in a block")
	require.NoError(t, n.stop())
	require.ErrorIs(t, n.chain.Order(t.Context(), w.tx(0, 1)), orderer.NotLeader)

	again := w.start(dir).ready()
	require.NoError(t, again.chain.Order(t.Context(), w.tx(8, 10)))
	require.Len(t, again.entries(), 8)
	require.NoError(t, again.stop())
}

// A ledger that has come from elsewhere, such as an imported chain, is gone on with: its blocks' Raft indexes belong to
// another log.
func TestBeginsOnAnOldChain(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	dir := t.TempDir()
	n := w.start(dir).ready()
	for i := range 5 {
		require.NoError(t, n.chain.Order(t.Context(), w.tx(i, 10)))
	}
	require.NoError(t, n.stop())
	anew := w.start(dir, func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) { c.Dir = dir + "/anew" }).ready()
	for i := range 3 {
		require.NoError(t, anew.chain.Order(t.Context(), w.tx(i, 10)))
	}
	require.Len(t, anew.entries(), 8)
	require.NoError(t, anew.stop())
}

// A ledger that lost blocks which the log no longer has is refused, and said so.
func TestRefusesLostBlocks(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	dir := t.TempDir()
	n := w.start(dir).ready()
	for i := range 3 {
		require.NoError(t, n.chain.Order(t.Context(), w.tx(i, 10)))
	}
	require.NoError(t, n.chain.Snapshot())
	require.NoError(t, n.stop())
	short := w.start(dir, func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
		c.Ledger = shortened{c.Ledger}
	})
	<-short.ran
	require.ErrorIs(t, short.stop(), orderer.LostBlocks)
}

// shortened is a ledger that has but two of its blocks.
type shortened struct{ orderer.Ledger }

func (s shortened) Tip() block.Tip {
	raw, err := s.Block(1)
	if err != nil {
		panic(err)
	}
	b, err := block.Decode(raw)
	if err != nil {
		panic(err)
	}
	return block.Tip{Height: 2, Hash: block.HeaderHash(b.Header)}
}

// faulty is a ledger whose next appends fail.
type faulty struct {
	orderer.Ledger
	mu    sync.Mutex
	fails int // guarded by mu
	err   error
}

func (f *faulty) Append(bs ...block.Verified) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails != 0 {
		f.fails--
		return f.err
	}
	return f.Ledger.Append(bs...)
}

var errFull = errors.New("full")

// A full disk holds the orders back; they go on when there is room.
func TestWaitsForTheDisk(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	n := w.start(t.TempDir(), func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
		c.Ledger = &faulty{Ledger: c.Ledger, fails: 2, err: errFull}
		c.Transient = func(err error) bool { return errors.Is(err, errFull) }
	}).ready()
	require.NoError(t, n.chain.Order(t.Context(), w.tx(0, 10)))
	require.Len(t, n.entries(), 1)
	require.NoError(t, n.stop())
}

// A disk that stays full doesn't keep the node from ending, and the order isn't lost: it is in the log.
func TestEndsWhileTheDiskIsFull(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	dir := t.TempDir()
	full := &faulty{fails: -1, err: errFull}
	n := w.start(dir, func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
		full.Ledger = c.Ledger
		c.Ledger = full
		c.Transient = func(err error) bool { return errors.Is(err, errFull) }
	}).ready()
	result := make(chan error, 1)
	go func() { result <- n.chain.Order(t.Context(), w.tx(0, 10)) }()
	require.Eventually(t, func() bool { full.mu.Lock(); defer full.mu.Unlock(); return full.fails < -1 }, 5*time.Second, time.Millisecond)
	n.stop()
	require.Error(t, <-result)

	again := w.start(dir).ready()
	require.NoError(t, again.chain.Order(t.Context(), w.tx(1, 10)))
	require.Len(t, again.entries(), 2)
	require.NoError(t, again.stop())
}

// An error that doesn't pass ends the chain, and with it every order.
func TestBrokenLedgerEndsTheChain(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	broken := errors.New("broken")
	n := w.start(t.TempDir(), func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
		c.Ledger = &faulty{Ledger: c.Ledger, fails: -1, err: broken}
	}).ready()
	require.ErrorIs(t, n.chain.Order(t.Context(), w.tx(0, 10)), broken)
	require.ErrorIs(t, n.stop(), broken)
}

// The log doesn't grow for ever: what became blocks is cut off, and what is left suffices to go on.
func TestLogIsCutOff(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	dir := t.TempDir()
	n := w.start(dir, func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) { c.CutOffAfter(100 << 10) }).ready()
	for i := range 12 {
		require.NoError(t, n.chain.Order(t.Context(), w.tx(i, 10<<10)))
	}
	require.Eventually(t, func() bool {
		found, err := filepath.Glob(filepath.Join(dir, "raft", "snapshots", "*", "state.bin"))
		return err == nil && len(found) > 0
	}, waitLimit, 10*time.Millisecond)
	require.NoError(t, n.stop())
	again := w.start(dir).ready()
	require.NoError(t, again.chain.Order(t.Context(), w.tx(12, 10)))
	require.Len(t, again.entries(), 13)
	require.NoError(t, again.stop())
}

// A full disk under Raft's log holds the orders back too; its votes are written when there is room.
func TestWaitsForTheLogsDisk(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	for after := range int64(6) { // from the first write at the start to the first entries
		n := w.start(t.TempDir(), func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
			c.Damage(after, 1, fmt.Errorf("write: %w", syscall.ENOSPC))
		}).ready()
		require.NoError(t, n.chain.Order(t.Context(), w.tx(0, 10)))
		require.NoError(t, n.stop())
	}
}
