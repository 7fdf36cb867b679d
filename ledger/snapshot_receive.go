package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Incoming is a snapshot on its way here: its head, and those of its chunks that
// came, in a folder of its own. It outlives a restart, and whatever a crash made of
// its chunks, for each is known by its hash: none is taken for one that it isn't.
// One channel has one at a time. Its methods are safe for concurrent use.
type Incoming struct {
	*Snapshot
	db *DB

	mu   sync.Mutex
	have []bool // guarded by mu: chunks that are on their place
	left int    // guarded by mu: how many aren't
}

// Receive begins to take a snapshot for a channel, or goes on with it if it is the
// one under way; another one under way is discarded. Attested lies beside it.
func (d *DB) Receive(channel string, manifest, index []byte, blocks, attested [][]byte) (*Incoming, error) {
	done, err := d.enter()
	if err != nil {
		return nil, fmt.Errorf("receive a snapshot of channel %s: %w", channel, err)
	}
	defer done()
	in, err := d.receive(channel, manifest, index, blocks, attested)
	if err != nil {
		return nil, fmt.Errorf("receive a snapshot of channel %s: %w", channel, err)
	}
	return in, nil
}

func (d *DB) receive(channel string, manifest, index []byte, blocks, attested [][]byte) (*Incoming, error) {
	fs, dir := d.gate.FS, d.snapshotPath(channel, incomingDir)
	s, err := newSnapshot(fs, dir, manifest, index)
	if err != nil {
		return nil, err
	}
	if s.Manifest.Channel != channel {
		return nil, fmt.Errorf("it is of channel %q: %w", s.Manifest.Channel, ErrBadSnapshot)
	}
	if old, err := d.incoming(channel); err == nil && old != nil && old.Name == s.Name {
		return old, old.Attest(attested)
	}
	if err := d.writable(int(s.Manifest.Bytes)); err != nil { // it is written twice: here, and into the store
		return nil, err
	}
	if err := errors.Join(removeDir(fs, dir), makeDir(fs, d.folder.dir, dir)); err != nil {
		return nil, err
	}
	f, err := fs.Create(fs.PathJoin(dir, dataFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Sync(), f.Close(), s.Attest(attested)); err != nil {
		return nil, err
	}
	if err := writeFrames(fs, dir, headFile, append([][]byte{manifest, index}, blocks...)); err != nil {
		return nil, err
	}
	return &Incoming{Snapshot: s, db: d, have: make([]bool, len(s.refs)), left: len(s.refs)}, nil
}

// Incoming returns the snapshot that is under way to a channel, having looked which
// of its chunks are here; nil if none is.
func (d *DB) Incoming(channel string) (*Incoming, error) {
	done, err := d.enter()
	if err != nil {
		return nil, fmt.Errorf("snapshot under way to channel %s: %w", channel, err)
	}
	defer done()
	in, err := d.incoming(channel)
	if err != nil {
		return nil, fmt.Errorf("snapshot under way to channel %s: %w", channel, err)
	}
	return in, nil
}

func (d *DB) incoming(channel string) (*Incoming, error) {
	fs, dir := d.gate.FS, d.snapshotPath(channel, incomingDir)
	s, err := openSnapshot(fs, dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, removeDir(fs, dir)
	case err != nil || s.Manifest.Channel != channel:
		d.log.Warnf("channel %s: the snapshot under way can't be read and is discarded: %v", channel, err)
		return nil, removeDir(fs, dir)
	}
	in := &Incoming{Snapshot: s, db: d, have: make([]bool, len(s.refs))}
	for i := range s.refs {
		_, err := s.Chunk(i)
		in.have[i] = err == nil
		if err != nil {
			in.left++
		}
	}
	return in, nil
}

// Has reports whether a chunk is here, and Left how many aren't.
func (in *Incoming) Has(i int) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.have[i]
}

// Left is how many chunks aren't here yet.
func (in *Incoming) Left() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.left
}

// Put keeps a chunk. ErrBadSnapshot: it isn't the one.
func (in *Incoming) Put(i int, chunk []byte) error {
	if i < 0 || i >= len(in.refs) || len(chunk) != int(in.refs[i].size) || sha256.Sum256(chunk) != in.refs[i].hash {
		return fmt.Errorf("chunk %d of a snapshot: %w", i, ErrBadSnapshot)
	}
	done, err := in.db.enter()
	if err == nil {
		defer done()
		err = in.put(i, chunk)
	}
	if err != nil {
		return fmt.Errorf("keep chunk %d of a snapshot: %w", i, err)
	}
	return nil
}

func (in *Incoming) put(i int, chunk []byte) error {
	if err := in.db.writable(len(chunk)); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.have[i] {
		return nil
	}
	f, err := in.fs.OpenReadWrite(in.fs.PathJoin(in.dir, dataFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(chunk, in.refs[i].at)
	if err := errors.Join(err, f.Close()); err != nil {
		if noSpace(err) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		return err
	}
	in.have[i] = true
	in.left--
	return nil
}

// Discard deletes what came.
func (in *Incoming) Discard() error {
	done, err := in.db.enter()
	if err != nil {
		return err
	}
	defer done()
	return in.remove()
}

// settle makes of a snapshot that is all here and was restored one of the channel's
// snapshots, for others to take.
func (in *Incoming) settle() error {
	fs := in.fs
	f, err := fs.OpenReadWrite(fs.PathJoin(in.dir, dataFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	dir := in.db.snapshotPath(in.Manifest.Channel, heightName(in.Manifest.Height))
	if err := errors.Join(removeDir(fs, dir), fs.Rename(in.dir, dir), syncDir(fs, fs.PathDir(dir))); err != nil {
		return err
	}
	s, err := openSnapshot(fs, dir)
	if err != nil {
		return err
	}
	in.db.hold(s, 0)
	return nil
}
