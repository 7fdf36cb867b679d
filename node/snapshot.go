package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"grapevine/block"
	"grapevine/blocksync"
	"grapevine/channel"
	"grapevine/ledger"
	"grapevine/ledger/state"
	"grapevine/msp"
	"grapevine/wire"
)

// Snapshots says which snapshots of the world state a peer makes and trusts, and how
// much of a chain it keeps. The zero value makes none and keeps all.
type Snapshots struct {
	// Every has one made at each height that is a multiple of it; 0: none. Only peers
	// that make theirs at the same heights can vouch for each other's.
	Every uint64
	// Keep is how many stay, the newest; 0: 2.
	Keep int
	// Attested is how many organisations must attest a snapshot before it is taken;
	// 0: most of the channel's application organisations.
	Attested int
	// Ahead is how many blocks a snapshot must be ahead of what is held for [SyncAuto]
	// to take it; 0: 1000.
	Ahead uint64
	// Blocks has older blocks than the newest so many forgotten; 0: none. Those of
	// configurations stay.
	Blocks uint64
}

func (s Snapshots) withDefaults() Snapshots {
	if s.Keep <= 0 {
		s.Keep = 2
	}
	if s.Ahead == 0 {
		s.Ahead = 1000
	}
	return s
}

// A cutter takes the state out of the ledger at the heights at which a snapshot is
// wanted, and holds the newest until there is time for it.
type cutter struct {
	ready chan struct{} // holds one while there is a world

	mu    sync.Mutex
	world *ledger.World // guarded by mu
	over  bool          // guarded by mu
}

// cut is called while a commit ends.
func (k *cutter) cut(w *ledger.World) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w, k.world = k.world, w
	if k.over {
		w, k.world = k.world, nil
	}
	if w != nil {
		_ = w.Close() // a snapshot missed: the next one comes
	}
	select {
	case k.ready <- struct{}{}:
	default:
	}
}

func (k *cutter) take() *ledger.World {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.world
	k.world = nil
	return w
}

func (k *cutter) close() error {
	k.mu.Lock()
	k.over = true
	k.mu.Unlock()
	if w := k.take(); w != nil {
		return w.Close()
	}
	return nil
}

// makeSnapshots makes the snapshots that are wanted, until ctx ends.
func (c *Channel) makeSnapshots(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.cutter.ready:
		}
		w := c.cutter.take()
		if w == nil {
			continue
		}
		if _, err := c.write(ctx, w); err != nil && ctx.Err() == nil {
			c.log.Warn("no snapshot could be made", "height", w.Height(), "err", err)
		}
	}
}

// Snapshot makes a snapshot of the world state as it is now, or returns the one
// that there is at this height.
func (c *Channel) Snapshot(ctx context.Context) (*ledger.Snapshot, error) {
	w, err := c.ledger.World(ctx)
	if err != nil {
		return nil, err
	}
	return c.write(ctx, w)
}

// write makes a snapshot of a world, and closes it.
func (c *Channel) write(ctx context.Context, w *ledger.World) (_ *ledger.Snapshot, err error) {
	defer func() { err = errors.Join(err, w.Close()) }()
	began := time.Now()
	s, err := w.Snapshot(ctx, ledger.SnapshotOptions{
		Algorithm: state.Algorithm, Keep: c.node.cfg.Snapshots.withDefaults().Keep, Attest: c.attestSnapshot,
	})
	if err == nil {
		c.node.metrics.snapshots.made.WithLabelValues(c.name).Inc()
		c.log.Info("snapshot", "height", s.Manifest.Height, "bytes", s.Manifest.Bytes, "chunks", s.Manifest.Chunks, "took", time.Since(began).Round(time.Millisecond))
	}
	return s, err
}

// attestSnapshot signs what this peer itself has found the state to be.
func (c *Channel) attestSnapshot(name [32]byte) ([]byte, error) {
	s := c.node.cfg.Signer
	a := &wire.SnapshotAttestation{
		MspId: s.Identity().MSPID(), Certificate: s.Identity().Certificate().Raw, Chain: c.node.cfg.Chain,
		MadeAt: uint64(c.node.guard.now().UnixMilli()),
	}
	var err error
	if a.Signature, err = s.Sign(attested(name, a.MadeAt)); err != nil {
		return nil, err
	}
	return wire.Marshal(a)
}

// attested is what an attestation's signature is over.
func attested(name [32]byte, madeAt uint64) []byte {
	h := wire.HashParts([]byte(wire.DomainAttestation), name[:], binary.BigEndian.AppendUint64(nil, madeAt))
	return h[:]
}

// Attesters are the organisations whose members attest a snapshot, under a
// configuration and by the live judge's rules, with one attestation of each; those
// that don't hold are passed over.
func Attesters(conf *channel.Config, name [32]byte, attestations [][]byte, now time.Time) (orgs []string, good [][]byte) {
	for _, raw := range attestations {
		a := new(wire.SnapshotAttestation)
		if wire.Unmarshal(raw, a) != nil || slices.Contains(orgs, a.MspId) {
			continue
		}
		if !slices.ContainsFunc(conf.Orgs(), func(o channel.Org) bool { return o.MSPID == a.MspId }) {
			continue
		}
		id, err := msp.FromDER(a.MspId, a.Certificate)
		if err != nil || conf.Member(id, a.Chain, now) != nil || id.Verify(attested(name, a.MadeAt), a.Signature) != nil {
			continue
		}
		orgs, good = append(orgs, a.MspId), append(good, raw)
	}
	return orgs, good
}

// enough is how many organisations have to attest a snapshot.
func (s Snapshots) enough(conf *channel.Config) int {
	if s.Attested > 0 {
		return s.Attested
	}
	return len(conf.Orgs())/2 + 1
}

// VerifySnapshotBlocks follows the blocks of a snapshot from a channel's block 0, which is
// trusted, to the one before the snapshot's height: each configuration block must be
// signed as the one before it demands, none may be left out, and the last block must
// be the one that the manifest names. It returns them, and the configuration in
// force behind them.
func VerifySnapshotBlocks(genesis [32]byte, m *wire.SnapshotManifest, raw [][]byte) ([]block.Verified, *channel.Config, error) {
	bad := func(err error) ([]block.Verified, *channel.Config, error) {
		return nil, nil, fmt.Errorf("blocks of a snapshot: %w: %w", ledger.ErrBadSnapshot, err)
	}
	if len(raw) == 0 {
		return bad(errors.New("there are none"))
	}
	first, err := block.Genesis(raw[0])
	if err != nil {
		return bad(err)
	}
	if first.Hash() != genesis {
		return bad(fmt.Errorf("block 0 has the header hash %x", first.Hash()))
	}
	conf, err := channel.Parse(first.Block())
	if err != nil {
		return bad(err)
	}
	if conf.Channel() != m.Channel {
		return bad(fmt.Errorf("they are of channel %q", conf.Channel()))
	}
	all := []block.Verified{first}
	for _, b := range raw[1:] {
		checked, err := block.Check(conf.Rules(), b)
		if err != nil {
			return bad(err)
		}
		// Nothing but its signatures says that it follows: the blocks between aren't here.
		v, err := block.Verify(conf.Rules(), block.Tip{Height: checked.Number(), Hash: [32]byte(checked.Block().Header.PreviousHash)}, checked)
		if err != nil {
			return bad(err)
		}
		all = append(all, v)
		if !v.IsConfig() {
			break
		}
		if conf, err = conf.Next(v.Block()); err != nil {
			return bad(err)
		}
	}
	last := all[len(all)-1]
	hash := last.Hash()
	if len(all) != len(raw) || last.Number() != m.Height-1 || !bytes.Equal(hash[:], m.BlockHash) || conf.Number() != m.Config {
		return bad(fmt.Errorf("they lead to block %d under configuration block %d", last.Number(), conf.Number()))
	}
	return all, conf, nil
}

// library is what this peer gives of its snapshots.
func (c *Channel) library() blocksync.Library {
	find := func(name [32]byte) *ledger.Snapshot {
		for _, s := range c.ledger.Snapshots() {
			if s.Name == name {
				return s
			}
		}
		return nil
	}
	held := func(err error) error { // what was removed meanwhile isn't held
		if errors.Is(err, ledger.ErrNotFound) {
			return nil
		}
		return err
	}
	return blocksync.Library{
		Offers: func() (out [][]byte) {
			for _, s := range c.ledger.Snapshots() {
				b, err := wire.Marshal(&wire.SnapshotOffer{Manifest: s.Raw, Attestation: s.Attestations()})
				if err == nil && len(b) <= wire.MaxOffer && len(out) < 16 {
					out = append(out, b)
				}
			}
			return out
		},
		Head: func(name [32]byte) ([][]byte, error) {
			s := find(name)
			if s == nil {
				return nil, nil
			}
			blocks, err := s.Blocks()
			if err != nil {
				return nil, held(err)
			}
			return append([][]byte{s.Index()}, blocks...), nil
		},
		Chunk: func(name [32]byte, i uint64) ([]byte, error) {
			s := find(name)
			if s == nil || i >= uint64(s.Chunks()) {
				return nil, nil
			}
			b, err := s.Chunk(int(i))
			if err == nil {
				c.node.metrics.snapshots.chunks.WithLabelValues(c.name).Inc()
				c.node.metrics.snapshots.bytes.WithLabelValues(c.name).Add(float64(len(b)))
			}
			if errors.Is(err, ledger.ErrCorrupt) {
				c.log.Error("a snapshot is damaged and is removed", "height", s.Manifest.Height, "err", err)
				return nil, c.ledger.RemoveSnapshot(s)
			}
			return b, held(err)
		},
	}
}

func (c *Channel) serveSnapshots(s network.Stream) {
	c.sync.ServeSnapshots(s, s.Conn().RemotePeer(), c.library())
}

// pruneOld forgets blocks as the configuration says, until ctx ends. It does so a
// tenth of what is kept at a time.
func (c *Channel) pruneOld(ctx context.Context) error {
	keep := c.node.cfg.Snapshots.Blocks
	if keep == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		if err := c.ledger.Wait(ctx, c.ledger.Lowest()+keep+max(keep/10, 1)); err != nil {
			return err
		}
		before := c.ledger.Lowest()
		err := c.ledger.Prune(ctx, c.ledger.Height()-keep)
		switch {
		case errors.Is(err, ledger.ErrFull):
			if err := c.node.db.Room(ctx); err != nil {
				return err
			}
		case err != nil:
			return err
		case c.ledger.Lowest() == before: // what isn't judged stays
			if err := c.ledger.Wait(ctx, c.ledger.Height()+1); err != nil {
				return err
			}
		default:
			c.log.Info("pruned", "lowest", c.ledger.Lowest(), "height", c.ledger.Height())
		}
	}
}

// A tally adds up a state that is being restored, on all cores.
type tally struct {
	next  chan []ledger.Item
	group sync.WaitGroup

	mu  sync.Mutex
	all state.Tally // guarded by mu
}

func newTally() *tally {
	t := &tally{next: make(chan []ledger.Item)}
	for range runtime.GOMAXPROCS(0) {
		t.group.Go(func() {
			var own state.Tally
			for items := range t.next {
				for i := range items {
					own.Add(items[i].Key, &items[i].Entry)
				}
			}
			t.mu.Lock()
			defer t.mu.Unlock()
			t.all.Join(&own)
		})
	}
	return t
}

func (t *tally) Add(items []ledger.Item) { t.next <- items }

func (t *tally) Done(commitHash []byte) ([32]byte, []byte) {
	t.end()
	m := t.all.Mark(commitHash)
	return m.StateHash(), m.Marshal()
}

// end ends the tally's goroutines; after that it may be called again.
func (t *tally) end() {
	if t.next != nil {
		close(t.next)
		t.group.Wait()
		t.next = nil
	}
}

// RestoreSnapshot restores a ledger from a snapshot that is all here, by Fabric's rules: see
// [ledger.DB.Restore].
func RestoreSnapshot(ctx context.Context, db *ledger.DB, in *ledger.Incoming, blocks []block.Verified, progress func(chunk, chunks int)) (*ledger.Ledger, error) {
	if in.Manifest.Algorithm != state.Algorithm {
		return nil, fmt.Errorf("the state hash is by %q, this program's by %q: %w", in.Manifest.Algorithm, state.Algorithm, ledger.ErrBadSnapshot)
	}
	t := newTally()
	defer t.end()
	return db.Restore(ctx, ledger.Restoration{Snapshot: in, Blocks: blocks, Tally: t, Progress: progress})
}
