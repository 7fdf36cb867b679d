package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"grapevine/block"
	"grapevine/blocksync"
	"grapevine/ledger"
	"grapevine/wire"
)

// SyncMode says how a newcomer to a channel comes to what the others hold.
type SyncMode string

const (
	// SyncGenesis is by every block from block 0 on, judged by itself. The default.
	SyncGenesis SyncMode = "genesis"
	// SyncSnapshot is by a snapshot that enough organisations attest; it waits for one.
	SyncSnapshot SyncMode = "snapshot"
	// SyncAuto is by blocks, but if such a snapshot turns up soon and is far ahead, by
	// that.
	SyncAuto SyncMode = "auto"

	// fetching is what SyncAuto becomes once a snapshot was found.
	fetching SyncMode = "auto, by snapshot"
)

// Waits of a newcomer.
const (
	askTime   = 15 * time.Second // for one question about snapshots
	askEvery  = 2 * time.Second  // between two looks for who has what
	scoutTime = time.Minute      // SyncAuto looks for so long, once it knows another member
	giveUp    = 2 * time.Minute  // without a chunk, SyncAuto goes on by blocks
)

// errReopen ends a channel's loops so that it is opened again over another ledger,
// or in another mode.
var errReopen = errors.New("the channel is opened again")

// ParseSync reads a mode; "" is SyncGenesis.
func ParseSync(s string) (SyncMode, bool) {
	switch m := SyncMode(cmp.Or(s, string(SyncGenesis))); m {
	case SyncGenesis, SyncSnapshot, SyncAuto:
		return m, true
	}
	return "", false
}

func syncKey(ch string) string { return "sync/" + ch }

// newcomer is how a channel comes by a snapshot.
type newcomer struct {
	mode SyncMode

	mu     sync.Mutex
	fetch  *blocksync.Fetch  // guarded by mu: nil until a snapshot is chosen
	height uint64            // guarded by mu: that snapshot's
	chunks int               // guarded by mu
	why    string            // guarded by mu: why none is chosen
	bad    map[[32]byte]bool // guarded by mu: snapshots that weren't what they say
}

// modeOf reads how a channel is to come to what others hold.
func (n *Node) modeOf(led *ledger.Ledger) (SyncMode, error) {
	if led.Lowest() > 0 { // it came by one
		return SyncGenesis, nil
	}
	v, err := n.db.Meta(syncKey(led.Name()))
	if errors.Is(err, ledger.ErrNotFound) || len(v) == 0 {
		return SyncGenesis, nil
	}
	return SyncMode(v), err
}

// settleMode notes that a channel goes on in another way.
func (c *Channel) settleMode(m SyncMode) error {
	if m == SyncGenesis {
		return c.node.db.PutMeta(syncKey(c.name), nil)
	}
	return c.node.db.PutMeta(syncKey(c.name), []byte(m))
}

// bySnapshot reports whether the channel takes no blocks until it has its snapshot.
func (c *Channel) bySnapshot() bool { return c.fresh.mode == SyncSnapshot || c.fresh.mode == fetching }

// An offered snapshot, and who has it.
type offered struct {
	name         [32]byte
	raw          []byte
	manifest     *wire.SnapshotManifest
	attestations [][]byte
	holders      []peer.ID
}

// offers asks all connected members which snapshots they have, and returns those
// that can be of this channel, the highest first.
func (c *Channel) offers(ctx context.Context) []*offered {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var mu sync.Mutex
	found := make(map[[32]byte]*offered)
	var g errgroup.Group
	g.SetLimit(16)
	for _, p := range c.Connected() {
		g.Go(func() error {
			list, err := c.askOffers(ctx, p)
			if err != nil {
				c.blame(p, err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for _, o := range list {
				if have := found[o.name]; have != nil {
					have.attestations = append(have.attestations, o.attestations...)
					have.holders = append(have.holders, p)
				} else {
					found[o.name] = o
				}
			}
			return nil
		})
	}
	_ = g.Wait() // they return nil
	all := make([]*offered, 0, len(found))
	for _, o := range found {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b *offered) int {
		return cmp.Or(cmp.Compare(b.manifest.Height, a.manifest.Height), bytes.Compare(a.name[:], b.name[:]))
	})
	return all
}

func (c *Channel) askOffers(ctx context.Context, p peer.ID) ([]*offered, error) {
	s, err := c.view.Stream(ctx, p, wire.KindSnapshots)
	if err != nil {
		return nil, err
	}
	list, err := blocksync.Offers(ctx, s)
	if err != nil {
		return nil, err
	}
	var out []*offered
	for _, o := range list {
		m, err := ledger.ParseManifest(o.Manifest)
		if err != nil || m.Channel != c.name || !bytes.Equal(m.Genesis, c.genesis[:]) {
			return nil, fmt.Errorf("its snapshot at height %d: %w", m.GetHeight(), errors.Join(blocksync.BadSnapshot, err))
		}
		out = append(out, &offered{
			name: ledger.ManifestName(o.Manifest), raw: o.Manifest, manifest: m, attestations: o.Attestation, holders: []peer.ID{p},
		})
	}
	return out, nil
}

// blame counts a refusal under its reason, and names who caused it.
func (c *Channel) blame(p peer.ID, err error) {
	if r := wire.ReasonOf(err); r != nil {
		name := c.node.nameOf(p)
		c.node.metrics.refused(c.name, r)
		c.node.metrics.snapshots.refused.WithLabelValues(c.name, r.Code(), name).Inc()
		c.log.Warn("refused what a peer sent of a snapshot", "peer", p, "name", name, "reason", r.Code(), "err", err)
	}
}

// A choice is a snapshot that enough organisations attest, under the configuration
// that its own blocks lead to.
type choice struct {
	*offered
	index  []byte
	proof  [][]byte // blocks, as they came
	blocks []block.Verified
	orgs   []string
	good   [][]byte
}

// choose takes the highest of the snapshots offered above a height that holds, as far as can be
// said before its chunks are here.
func (c *Channel) choose(ctx context.Context, above uint64) (*choice, string) {
	why := "no member offers a snapshot"
	for _, o := range c.offers(ctx) {
		c.fresh.mu.Lock()
		bad := c.fresh.bad[o.name]
		c.fresh.mu.Unlock()
		if bad || o.manifest.Height <= above {
			continue
		}
		for _, p := range o.holders {
			x, short, err := c.examine(ctx, o, p)
			if err != nil {
				c.blame(p, err)
				continue
			}
			if short == "" {
				return x, ""
			}
			why = short
			break // the same from all
		}
	}
	return nil, why
}

// examine takes the head of a snapshot from a peer. Short says what it lacks to be
// trusted.
func (c *Channel) examine(ctx context.Context, o *offered, p peer.ID) (x *choice, short string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	s, err := c.view.Stream(ctx, p, wire.KindSnapshots)
	if err != nil {
		return nil, "", err
	}
	x = &choice{offered: o}
	if x.index, x.proof, err = blocksync.Head(ctx, s, o.name); err != nil {
		return nil, "", err
	}
	root := wire.HashParts([]byte(wire.DomainChunks), x.index)
	if !bytes.Equal(root[:], o.manifest.Root) {
		return nil, "", fmt.Errorf("another index: %w", blocksync.BadSnapshot)
	}
	blocks, conf, err := VerifySnapshotBlocks(c.genesis, o.manifest, x.proof)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", blocksync.BadSnapshot, err)
	}
	x.blocks = blocks
	x.orgs, x.good = Attesters(conf, o.name, o.attestations, c.node.guard.now())
	if need := c.node.cfg.Snapshots.enough(conf); len(x.orgs) < need {
		return nil, fmt.Sprintf("the snapshot at height %d is attested by %d of the %d organisations that it takes", o.manifest.Height, len(x.orgs), need), nil
	}
	return x, "", nil
}

// scout looks, beside the blocks that come, for a snapshot that is far ahead.
func (c *Channel) scout(ctx context.Context) error {
	if c.fresh.mode != SyncAuto {
		<-ctx.Done()
		return ctx.Err()
	}
	var until time.Time
	for {
		if len(c.Connected()) > 0 {
			if until.IsZero() {
				until = time.Now().Add(scoutTime)
			}
			if x, _ := c.choose(ctx, c.ledger.Height()+c.node.cfg.Snapshots.withDefaults().Ahead); x != nil {
				c.log.Info("a snapshot is far ahead: going on by it", "height", x.manifest.Height, "held", c.ledger.Height(), "attested by", x.orgs)
				if err := c.settleMode(fetching); err != nil {
					return err
				}
				return errReopen
			}
			if time.Now().After(until) {
				if err := c.settleMode(SyncGenesis); err != nil {
					return err
				}
				<-ctx.Done()
				return ctx.Err()
			}
		}
		if sleep(ctx, askEvery); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// comeBySnapshot finds, takes and restores a snapshot, and ends with errReopen when
// the ledger stands at it, or when it gives up.
func (c *Channel) comeBySnapshot(ctx context.Context) error {
	since := time.Now()
	for {
		x, why := c.choose(ctx, c.ledger.Height())
		c.fresh.tell(why)
		if x != nil {
			err := c.takeSnapshot(ctx, x)
			switch {
			case err == nil:
				if err := c.settleMode(SyncGenesis); err != nil {
					return err
				}
				return errReopen
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, ledger.ErrBadSnapshot):
				// Enough organisations attest what can't be: whoever they are, they are told.
				c.log.Error("a snapshot isn't what it is attested to be", "height", x.manifest.Height, "attested by", x.orgs, "err", err)
				c.fresh.forgo(x.name)
			case errors.Is(err, ledger.ErrFull):
				if err := c.node.db.Room(ctx); err != nil {
					return err
				}
			case errors.Is(err, errNobody):
				c.log.Warn("nobody gives a snapshot's chunks any more", "height", x.manifest.Height)
			default:
				return fmt.Errorf("taking a snapshot: %w", err)
			}
		}
		if c.fresh.mode == fetching && time.Since(since) > giveUp {
			c.log.Warn("no snapshot came: going on by blocks", "why", why)
			if err := c.settleMode(SyncGenesis); err != nil {
				return err
			}
			return errReopen
		}
		if sleep(ctx, askEvery); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// errNobody: for too long no chunk came.
var errNobody = errors.New("nobody gives it")

// takeSnapshot fetches what is missing of a snapshot, from all who have it, and
// restores the ledger from it.
func (c *Channel) takeSnapshot(ctx context.Context, x *choice) error {
	in, err := c.node.db.Receive(c.name, x.raw, x.index, x.proof, x.good)
	if err != nil {
		return err
	}
	sizes := make([]int64, in.Chunks())
	for i := range sizes {
		sizes[i] = in.Size(i)
	}
	f := blocksync.NewFetch(blocksync.FetchConfig{
		Name: in.Name, Sizes: sizes, Has: in.Has, Put: in.Put, Wrong: ledger.ErrBadSnapshot,
		Open: func(ctx context.Context, p peer.ID) (network.Stream, error) {
			return c.view.Stream(ctx, p, wire.KindSnapshots)
		},
		Refused: func(p peer.ID, r *wire.Reason) { c.blame(p, r) },
		Quiet:   c.node.cfg.Transfer.Quiet,
	})
	c.fresh.begin(f, in)
	c.log.Info("taking a snapshot", "height", in.Manifest.Height, "bytes", in.Manifest.Bytes, "chunks", in.Chunks(), "missing", in.Left(), "attested by", x.orgs)
	for _, p := range x.holders {
		f.Holds(p)
	}
	g, gctx := errgroup.WithContext(ctx)
	done := errors.New("all is here")
	g.Go(func() error {
		if err := f.Run(gctx); err != nil {
			return err
		}
		return done
	})
	g.Go(func() error { return c.findHolders(gctx, f, in.Name) })
	if err := g.Wait(); !errors.Is(err, done) {
		return err
	}
	if _, err := RestoreSnapshot(ctx, c.node.db, in, x.blocks, nil); err != nil {
		return err
	}
	c.node.metrics.snapshots.restored.WithLabelValues(c.name).Inc()
	c.log.Info("the ledger stands at the snapshot", "height", in.Manifest.Height)
	return nil
}

// findHolders tells a fetch who has the snapshot, as members come and go.
func (c *Channel) findHolders(ctx context.Context, f *blocksync.Fetch, name [32]byte) error {
	known, last, moved := map[peer.ID]bool{}, -1, time.Now()
	for {
		if sleep(ctx, askEvery); ctx.Err() != nil {
			return ctx.Err()
		}
		if left, _, _ := f.Progress(); left != last {
			last, moved = left, time.Now()
		} else if time.Since(moved) > giveUp/2 {
			return errNobody
		}
		here := map[peer.ID]bool{}
		for _, o := range c.offers(ctx) {
			if o.name == name {
				for _, p := range o.holders {
					here[p] = true
					f.Holds(p)
				}
			}
		}
		for p := range known {
			if !here[p] {
				f.Gone(p)
			}
		}
		known = here
	}
}

func (n *newcomer) tell(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.why = why
}

func (n *newcomer) begin(f *blocksync.Fetch, in *ledger.Incoming) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fetch, n.height, n.chunks = f, in.Manifest.Height, in.Chunks()
}

func (n *newcomer) forgo(name [32]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bad[name] = true
}

// Arriving tells how a channel comes by a snapshot.
type Arriving struct {
	Mode         SyncMode       // SyncGenesis: it doesn't, or did
	Waiting      string         // why no snapshot is chosen; ""
	Height       uint64         // of the snapshot that is being taken; 0: none
	Left, Chunks int            // of it: missing, in all
	Bytes        int64          // that came since the start
	From         map[string]int // chunks that each peer brought, by name
}

// GatherAttestations asks the members for their attestations of the snapshots that
// this peer holds, and keeps those that count with them.
func (c *Channel) GatherAttestations(ctx context.Context) {
	have := c.ledger.Snapshots()
	if len(have) == 0 {
		return
	}
	for _, o := range c.offers(ctx) {
		for _, s := range have {
			if s.Name != o.name {
				continue
			}
			before := s.Attestations()
			_, good := Attesters(c.conf.Load(), s.Name, append(before, o.attestations...), c.node.guard.now())
			if len(good) <= len(before) {
				continue
			}
			if err := s.Attest(good); err != nil {
				c.log.Warn("attestations of a snapshot can't be kept", "height", s.Manifest.Height, "err", err)
			}
		}
	}
}

// Arriving tells how the channel comes by a snapshot.
func (c *Channel) Arriving() Arriving {
	c.fresh.mu.Lock()
	a := Arriving{Mode: c.fresh.mode, Waiting: c.fresh.why, Height: c.fresh.height, Chunks: c.fresh.chunks, From: map[string]int{}}
	f := c.fresh.fetch
	c.fresh.mu.Unlock()
	if a.Mode == fetching {
		a.Mode = SyncAuto
	}
	if f != nil {
		var from map[peer.ID]int
		a.Left, a.Bytes, from = f.Progress()
		for p, n := range from {
			a.From[c.node.nameOf(p)] += n
		}
	}
	return a
}

// reopen opens a channel again whose loops ended for that.
func (n *Node) reopenChannel(c *Channel) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.channels[c.name] != c {
		return nil // it was left, or the node ends
	}
	if err := c.close(); err != nil {
		return err
	}
	led, err := n.db.Channel(c.name)
	if err == nil {
		_, err = n.add(led)
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.halted = fmt.Errorf("opening the channel again: %w", err)
		c.log.Error("the channel has stopped; the node's other channels go on", "err", c.halted)
	}
	return nil
}
