package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"grapevine/block"
	"grapevine/wire"
)

// SnapshotOptions say how a snapshot is made.
type SnapshotOptions struct {
	Algorithm string // of the state hash
	// Attest returns this peer's attestation of a manifest, marshalled, to lay
	// beside the snapshot. Nil: none.
	Attest func(name [32]byte) ([]byte, error)
	Keep   int // how many of the channel's snapshots stay, the newest; 0: all
}

// CutEvery has cut called with the world state at each height that is a multiple of
// every, as blocks are judged, whatever comes together in one commit; 0 ends that.
// Cut is called while a commit ends: it MUST NOT block, and has to close the World.
func (l *Ledger) CutEvery(every uint64, cut func(*World)) {
	release, err := l.appending.take(l.db)
	if err != nil {
		return // nothing is judged any more
	}
	defer release()
	l.cuts.Store(&cuts{every, cut})
}

// cuts is when snapshots are wanted. The zero value is never.
type cuts struct {
	every uint64
	cut   func(*World)
}

// at reports whether the state of a height is wanted.
func (c *cuts) at(height uint64) bool {
	return c != nil && c.every > 0 && height > 0 && height%c.every == 0
}

// cutAt hands the state of a mark out that has just become durable, before anything
// is written behind it.
func (l *Ledger) cutAt(m stateMark) {
	c := l.cuts.Load()
	if !c.at(m.height) {
		return
	}
	done, err := l.enter()
	if err != nil {
		return
	}
	c.cut(&World{l: l, snap: l.db.pebble.NewSnapshot(), mark: m, done: done})
}

// Snapshot writes the state as a snapshot beside the store, while commits go on,
// and returns it; one that is there already is returned as it is.
func (w *World) Snapshot(ctx context.Context, o SnapshotOptions) (*Snapshot, error) {
	s, err := w.snapshot(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("channel %s: snapshot at height %d: %w", w.l.name, w.mark.height, err)
	}
	return s, nil
}

func (w *World) snapshot(ctx context.Context, o SnapshotOptions) (_ *Snapshot, err error) {
	d := w.l.db
	if w.mark.height == 0 {
		return nil, fmt.Errorf("there is no state: %w", ErrUnjudged)
	}
	d.making.Lock()
	defer d.making.Unlock()
	for _, s := range w.l.Snapshots() {
		if s.Manifest.Height == w.mark.height {
			return s, nil
		}
	}
	blocks, m, err := w.manifest()
	if err != nil {
		return nil, err
	}
	m.Algorithm = o.Algorithm
	fs, dir := d.gate.FS, d.snapshotPath(w.l.name, heightName(w.mark.height))
	if err := errors.Join(removeDir(fs, dir), makeDir(fs, d.folder.dir, dir)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeDir(fs, dir))
		}
	}()
	index, err := w.write(ctx, fs, dir, m)
	if err != nil {
		return nil, err
	}
	raw, err := wire.Marshal(m)
	if err != nil {
		return nil, err
	}
	s, err := newSnapshot(fs, dir, raw, index)
	if err != nil {
		return nil, err
	}
	if o.Attest != nil {
		a, err := o.Attest(s.Name)
		if err != nil {
			return nil, fmt.Errorf("attest it: %w", err)
		}
		if err := s.Attest([][]byte{a}); err != nil {
			return nil, err
		}
	}
	if err := writeFrames(fs, dir, headFile, append([][]byte{raw, index}, blocks...)); err != nil {
		return nil, err
	}
	for _, old := range d.hold(s, o.Keep) {
		if err := old.remove(); err != nil {
			d.log.Warnf("channel %s: %v", w.l.name, err)
		}
	}
	return s, nil
}

// manifest says what is known before the state is written, and brings the blocks.
func (w *World) manifest() (blocks [][]byte, m *wire.SnapshotManifest, err error) {
	l, h := w.l, w.mark.height
	v, err := l.Verdict(h - 1)
	if err != nil {
		return nil, nil, err
	}
	configs, err := l.configs(h)
	if err != nil {
		return nil, nil, err
	}
	last := configs[len(configs)-1]
	m = &wire.SnapshotManifest{
		Format: snapshotFormat, Channel: l.name, Genesis: l.record.genesis[:], Height: h,
		CommitHash: v.CommitHash, StateHash: v.StateHash[:], Codes: v.Codes, Config: last,
	}
	if last != h-1 {
		configs = append(configs, h-1)
	}
	for _, n := range configs {
		raw, err := l.Block(n)
		if err != nil {
			return nil, nil, err
		}
		hash, _, err := identify(raw, n)
		if err != nil {
			return nil, nil, err
		}
		if n == last {
			m.ConfigHash = hash[:]
		}
		if n == h-1 {
			m.BlockHash = hash[:]
		}
		blocks = append(blocks, raw)
	}
	if len(blocks) > maxHeadBlocks {
		return nil, nil, fmt.Errorf("%d configurations, %d are the most that fit a snapshot", len(blocks), maxHeadBlocks)
	}
	return blocks, m, nil
}

// configs lists the configuration blocks below a height, from block 0 on.
func (l *Ledger) configs(below uint64) ([]uint64, error) {
	lowest := l.Lowest()
	var found []uint64 // falling
	for n := below; n > lowest; {
		raw, err := l.Block(n - 1)
		if err != nil {
			return nil, err
		}
		b, err := block.Decode(raw)
		if err != nil {
			return nil, l.wrap(n-1, errors.Join(ErrCorrupt, err))
		}
		if block.IsConfig(b) {
			found, n = append(found, n-1), n-1
			continue
		}
		at, err := block.LastConfigOf(b)
		if err != nil || at >= n-1 {
			return nil, l.wrap(n-1, errors.Join(ErrCorrupt, err))
		}
		found, n = append(found, at), at
	}
	slices.Reverse(found)
	kept, err := l.keptBelow(lowest)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 { // what a block above lowest named may be among those below
		below = found[0]
	}
	kept = slices.DeleteFunc(kept, func(n uint64) bool { return n >= below })
	if found = append(kept, found...); len(found) == 0 || found[0] != 0 {
		return nil, fmt.Errorf("channel %s: block 0 isn't kept: %w", l.name, ErrCorrupt)
	}
	return found, nil
}

// ConfigBefore is the number of the newest configuration block below n > 0, kept
// for ever as they all are.
func (l *Ledger) ConfigBefore(n uint64) (uint64, error) {
	all, err := l.configs(n)
	if err != nil {
		return 0, err
	}
	return all[len(all)-1], nil
}

// keptBelow lists the blocks kept below a number that the ledger was pruned to: the
// configurations.
func (l *Ledger) keptBelow(lowest uint64) (kept []uint64, err error) {
	done, err := l.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	c := l.record.number
	err = l.walk(l.db.pebble, blockKey(c, 0), blockKey(c, lowest), func(k, _ []byte) (bool, error) {
		key, err := parseKey(k)
		kept = append(kept, key.number)
		return true, err
	})
	return kept, err
}

// write writes the chunks, and completes the manifest.
func (w *World) write(ctx context.Context, fs vfs.FS, dir string, m *wire.SnapshotManifest) (index []byte, err error) {
	f, err := fs.Create(fs.PathJoin(dir, dataFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 0, w.l.db.chunkBytes+w.l.db.chunkBytes/4)
	end := func() error {
		if err := errors.Join(ctx.Err(), w.l.db.writable(len(buf))); err != nil {
			return err
		}
		if len(buf) > MaxChunk || m.Chunks == MaxChunks {
			return fmt.Errorf("the state is too large: chunk %d of %d bytes", m.Chunks, len(buf))
		}
		hash := sha256.Sum256(buf)
		index = append(binary.BigEndian.AppendUint32(index, uint32(len(buf))), hash[:]...)
		m.Chunks++
		m.Bytes += uint64(len(buf))
		_, err := f.Write(buf)
		buf = buf[:0]
		return err
	}
	c := w.l.record.number
	for _, prefix := range [][]byte{statePrefix(c, kindExpiry), statePrefix(c, kindEntry), key{channel: c, kind: kindTx}.append(nil)[:prefixLen]} {
		err := w.l.walk(w.snap, prefix, after(prefix), func(k, v []byte) (bool, error) {
			if k[0] == spaceChannel {
				if at, err := parseKey(k); err != nil || at.number >= w.mark.height {
					return err == nil, err
				}
			}
			buf = appendPair(buf, k[5:], v)
			m.Records++
			if len(buf) >= w.l.db.chunkBytes {
				return true, end()
			}
			return true, nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(buf) > 0 {
		if err := end(); err != nil {
			return nil, err
		}
	}
	root := wire.HashParts([]byte(wire.DomainChunks), index)
	m.Root = root[:]
	return index, errors.Join(f.Sync(), syncDir(fs, dir)) // before there is a head
}
