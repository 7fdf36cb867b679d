package ledger

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"grapevine/wire"
)

// Snapshots lie in files beside the store, one folder for each, below one for
// each channel, whose name is a hash: no name from the network becomes a path.
//
//	snapshots/HEX(SHA-256(channel))[:32]/HEIGHT/data      the chunks, one behind the other
//	                                           attested  frames: attestations
//	                                           head      frames: manifest, index, blocks
//
// Head comes last and goes first: a folder without it holds no snapshot, and Open
// removes it. Nothing of this is Pebble's, and nothing waits for it: a disk that
// fails or is full ends the snapshot alone.
const (
	snapshotsDir  = "snapshots"
	incomingDir   = "incoming"
	headFile      = "head"
	attestedFile  = "attested"
	dataFile      = "data"
	freshSuffix   = ".new"
	maxHeadBlocks = 1 << 14 // configurations that a chain may have had
)

// Snapshot is the state behind the blocks below a height, in chunks. Its methods
// are safe for concurrent use.
type Snapshot struct {
	Manifest *wire.SnapshotManifest // to be read only
	Raw      []byte                 // the manifest, marshalled
	Name     [32]byte

	fs    vfs.FS
	dir   string
	index []byte
	refs  []chunkRef

	mu       sync.Mutex
	attested [][]byte // guarded by mu
}

// Index is what the manifest's root is the hash of.
func (s *Snapshot) Index() []byte { return s.index }

// Chunks is how many chunks there are.
func (s *Snapshot) Chunks() int { return len(s.refs) }

// Size is how many bytes chunk i has.
func (s *Snapshot) Size(i int) int64 { return int64(s.refs[i].size) }

// Chunk reads a chunk. ErrCorrupt: it isn't what was written; ErrNotFound: the
// snapshot is gone.
func (s *Snapshot) Chunk(i int) ([]byte, error) {
	if i < 0 || i >= len(s.refs) {
		return nil, fmt.Errorf("chunk %d of %d: %w", i, len(s.refs), ErrNotFound)
	}
	f, err := s.fs.Open(s.fs.PathJoin(s.dir, dataFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("chunk %d: %w", i, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("chunk %d: %w", i, err)
	}
	b := make([]byte, s.refs[i].size)
	_, err = f.ReadAt(b, s.refs[i].at)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("chunk %d: %w: %w", i, ErrCorrupt, err)
	}
	if sha256.Sum256(b) != s.refs[i].hash {
		return nil, fmt.Errorf("chunk %d has another hash: %w", i, ErrCorrupt)
	}
	return b, nil
}

// Blocks reads the blocks that lead to the snapshot: each configuration block from
// block 0 to the one in force, and, if that isn't it, block height-1.
func (s *Snapshot) Blocks() (blocks [][]byte, err error) {
	f, err := s.fs.Open(s.fs.PathJoin(s.dir, headFile))
	if errors.Is(err, os.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot of height %d: %w", s.Manifest.Height, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	frames, err := readFrames(f, 2+maxHeadBlocks)
	if err != nil || len(frames) < 3 {
		return nil, fmt.Errorf("snapshot of height %d: %w", s.Manifest.Height, errors.Join(ErrCorrupt, err))
	}
	return frames[2:], nil
}

// Attestations are those that lie beside the snapshot, marshalled.
func (s *Snapshot) Attestations() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attested)
}

// Attest lays attestations beside the snapshot in the place of those there are. It
// is durable when it returns.
func (s *Snapshot) Attest(all [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := writeFrames(s.fs, s.dir, attestedFile, all); err != nil {
		return fmt.Errorf("attestations of a snapshot: %w", err)
	}
	s.attested = slices.Clone(all)
	return nil
}

// Snapshots lists a channel's snapshots, the highest first.
func (l *Ledger) Snapshots() []*Snapshot {
	l.db.mu.Lock()
	defer l.db.mu.Unlock()
	return slices.Clone(l.db.snapshots[l.name])
}

// hold adds a snapshot to the list, and returns those of its channel beyond the
// newest keep; 0 keeps all.
func (d *DB) hold(s *Snapshot, keep int) (over []*Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := s.Manifest.Channel
	all := append(slices.Clone(d.snapshots[name]), s)
	slices.SortFunc(all, func(a, b *Snapshot) int { return cmp.Compare(b.Manifest.Height, a.Manifest.Height) })
	if keep > 0 && len(all) > keep {
		all, over = all[:keep], all[keep:]
	}
	d.snapshots[name] = all
	return over
}

// RemoveSnapshot deletes a snapshot; who is reading it gets ErrNotFound.
func (l *Ledger) RemoveSnapshot(s *Snapshot) error {
	done, err := l.db.enter()
	if err != nil {
		return err
	}
	defer done()
	l.db.mu.Lock()
	l.db.snapshots[l.name] = slices.DeleteFunc(slices.Clone(l.db.snapshots[l.name]), func(o *Snapshot) bool { return o == s })
	l.db.mu.Unlock()
	return s.remove()
}

// remove deletes a snapshot's files.
func (s *Snapshot) remove() error {
	if err := s.fs.Remove(s.fs.PathJoin(s.dir, headFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a snapshot: %w", err)
	}
	if err := errors.Join(syncDir(s.fs, s.dir), removeDir(s.fs, s.dir)); err != nil {
		return fmt.Errorf("remove a snapshot: %w", err)
	}
	return nil
}

// openSnapshot reads a snapshot's head and attestations.
func openSnapshot(fs vfs.FS, dir string) (_ *Snapshot, err error) {
	f, err := fs.Open(fs.PathJoin(dir, headFile))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head, err := readFrames(f, 2) // the blocks are read when they are asked for
	if err != nil || len(head) < 2 {
		return nil, errors.Join(ErrCorrupt, err)
	}
	s, err := newSnapshot(fs, dir, head[0], head[1])
	if err != nil {
		return nil, err
	}
	a, err := fs.Open(fs.PathJoin(dir, attestedFile))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.attested, err = readFrames(a, wire.MaxItems)
	return s, errors.Join(err, a.Close())
}

func newSnapshot(fs vfs.FS, dir string, manifest, index []byte) (*Snapshot, error) {
	m, err := ParseManifest(manifest)
	if err != nil {
		return nil, err
	}
	refs, err := parseIndex(m, index)
	if err != nil {
		return nil, err
	}
	return &Snapshot{Manifest: m, Raw: manifest, Name: ManifestName(manifest), fs: fs, dir: dir, index: index, refs: refs}, nil
}

// loadSnapshots finds the snapshots that lie beside the store, and removes what is
// none: what was being made or removed, and those of channels that aren't here.
func (d *DB) loadSnapshots() error {
	fs, root := d.gate.FS, d.gate.FS.PathJoin(d.folder.dir, snapshotsDir)
	of := make(map[string]string)
	for name := range d.channels {
		of[snapshotFolder(name)] = name
	}
	folders, err := list(fs, root)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		name, ok := of[folder]
		if !ok {
			if err := removeDir(fs, fs.PathJoin(root, folder)); err != nil {
				return err
			}
			continue
		}
		kept, err := list(fs, fs.PathJoin(root, folder))
		if err != nil {
			return err
		}
		for _, k := range kept {
			if k == incomingDir {
				continue
			}
			dir := fs.PathJoin(root, folder, k)
			s, err := openSnapshot(fs, dir)
			if err != nil || s.Manifest.Channel != name || k != heightName(s.Manifest.Height) {
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					d.log.Warnf("channel %s: the snapshot %s can't be read and is removed: %v", name, k, err)
				}
				if err := removeDir(fs, dir); err != nil {
					return err
				}
				continue
			}
			d.hold(s, 0)
		}
	}
	return nil
}

// removeSnapshots deletes all snapshots of a channel that isn't here any more.
func (d *DB) removeSnapshots(channel string) error {
	d.making.Lock()
	defer d.making.Unlock()
	d.mu.Lock()
	delete(d.snapshots, channel)
	d.mu.Unlock()
	return removeDir(d.gate.FS, d.snapshotPath(channel))
}

func (d *DB) snapshotPath(channel string, more ...string) string {
	return d.gate.FS.PathJoin(append([]string{d.folder.dir, snapshotsDir, snapshotFolder(channel)}, more...)...)
}

func snapshotFolder(channel string) string {
	h := sha256.Sum256([]byte(channel))
	return hex.EncodeToString(h[:16])
}

func heightName(h uint64) string { return strconv.FormatUint(h, 10) }

// Small file work. A folder that isn't there is an empty one.

func list(fs vfs.FS, dir string) ([]string, error) {
	names, err := fs.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

func syncDir(fs vfs.FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeDir deletes a folder, so that nothing of it comes back.
func removeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(fs.RemoveAll(dir), syncDir(fs, fs.PathDir(dir)))
}

// makeDir makes a folder below the store's, each of its parents durable.
func makeDir(fs vfs.FS, root, dir string) error {
	if dir == root {
		return nil
	}
	parent := fs.PathDir(dir)
	if err := makeDir(fs, root, parent); err != nil {
		return err
	}
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	return errors.Join(fs.MkdirAll(dir, 0o750), syncDir(fs, parent))
}

// writeFrames writes a file of frames whole or not at all.
func writeFrames(fs vfs.FS, dir, name string, frames [][]byte) error {
	path := fs.PathJoin(dir, name)
	f, err := fs.Create(path+freshSuffix, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	for _, b := range frames {
		if err = wire.WriteFrame(f, b); err != nil {
			break
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, fs.Remove(path+freshSuffix))
	}
	return errors.Join(fs.Rename(path+freshSuffix, path), syncDir(fs, dir))
}

// readFrames reads the first frames of a file, at most so many.
func readFrames(r io.Reader, most int) (frames [][]byte, err error) {
	for len(frames) < most {
		b, err := wire.ReadFrame(r, max(wire.MaxBlock, MaxIndex))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		frames = append(frames, b)
	}
	return frames, nil
}

// sameBytes is bytes.Equal for a hash.
func sameBytes(h [32]byte, b []byte) bool { return bytes.Equal(h[:], b) }
