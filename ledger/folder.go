package ledger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The marker says that a folder is ours and in which format. A new store begins
// under the second name, which becomes the first when the store has been made: a
// crash before that lost nothing that was acknowledged, and one after it can't
// make a store whose files are gone look like a new one.
const (
	markerName    = "GRAPEVINE"
	markerNewName = "GRAPEVINE.new"
	markerText    = "grapevine ledger, format %d\n"
)

// folder is the folder of a store.
type folder struct {
	fs   *gate
	dir  string
	made bool // it held a whole store before we came
	lock *pebble.Lock
}

// openFolder makes sure that dir is ours to use, and locks it.
func openFolder(fs *gate, dir string) (*folder, error) {
	f := &folder{fs: fs, dir: dir}
	if err := f.find(); err != nil {
		return nil, err
	}
	if err := f.inspect(); err != nil { // before the lock, which leaves a file behind
		return nil, err
	}
	lock, err := pebble.LockDirectory(f.dir, fs)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			return nil, fmt.Errorf("lock: %w", err)
		}
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	f.lock = lock
	err = f.inspect() // again, since another may have been at it until now
	if err == nil && !f.made {
		err = f.begin()
	}
	if err != nil {
		return nil, errors.Join(err, f.unlock())
	}
	return f, nil
}

// find makes the folder if it is missing. A lock is known by its path, so the
// path is made unique first.
func (f *folder) find() error {
	_, err := f.fs.Stat(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		err = f.make(f.dir)
	}
	if err != nil {
		return err
	}
	if vfs.Root(f.fs) != vfs.Default {
		return nil
	}
	if f.dir, err = filepath.Abs(f.dir); err != nil {
		return err
	}
	f.dir, err = filepath.EvalSymlinks(f.dir)
	return err
}

// make makes a folder and those above it, each durable in the one above.
func (f *folder) make(dir string) error {
	parent := f.fs.PathDir(dir)
	if _, err := f.fs.Stat(parent); errors.Is(err, os.ErrNotExist) && parent != dir {
		if err := f.make(parent); err != nil {
			return err
		}
	}
	if err := f.fs.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return f.fs.syncDir(parent)
}

// inspect reads what the folder holds and changes nothing.
func (f *folder) inspect() error {
	names, err := f.fs.List(f.dir)
	if err != nil {
		return err
	}
	begun, other := false, ""
	f.made = false
	for _, name := range names {
		switch name {
		case markerName:
			f.made = true
		case markerNewName:
			begun = true
		case "LOCK", "lost+found":
		default:
			other = name
		}
	}
	if !f.made {
		if other != "" && !begun {
			return fmt.Errorf("the folder holds %s, which isn't the ledger's: %w", other, ErrForeign)
		}
		return nil
	}
	if err := f.readMarker(); err != nil {
		return err
	}
	if _, err := pebble.Peek(f.dir, f.fs); err != nil {
		// Pebble has no sentinel for a format it doesn't know.
		if strings.Contains(err.Error(), "unknown format major version") {
			return fmt.Errorf("%w: %w", ErrForeign, err)
		}
		return explainOpen(err, true)
	}
	return nil
}

func (f *folder) readMarker() error {
	file, err := f.fs.Open(f.fs.PathJoin(f.dir, markerName))
	if err != nil {
		return fmt.Errorf("read the folder's marker: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, 256))
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("read the folder's marker: %w", err)
	}
	var version int
	if _, err := fmt.Sscanf(string(text), markerText, &version); err != nil {
		return fmt.Errorf("the folder's marker %s reads %q: %w", markerName, text, ErrForeign)
	}
	if version != formatVersion {
		return fmt.Errorf("the store has format %d, and this program knows %d: %w", version, formatVersion, ErrForeign)
	}
	return nil
}

// begin marks the folder as ours before the first file of the store is made.
func (f *folder) begin() error {
	file, err := f.fs.Create(f.fs.PathJoin(f.dir, markerNewName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, markerText, formatVersion)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return f.fs.syncDir(f.dir)
}

// finish marks the store as made.
func (f *folder) finish() error {
	if f.made {
		return nil
	}
	f.made = true
	if err := f.fs.Rename(f.fs.PathJoin(f.dir, markerNewName), f.fs.PathJoin(f.dir, markerName)); err != nil {
		return err
	}
	return f.fs.syncDir(f.dir)
}

func (f *folder) unlock() error { return f.lock.Close() }
