package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The witness is a small file beside the store that knows how high each channel
// had come. Pebble reads its log up to the first record that is damaged, and for
// most damage can't tell it from a write that a crash cut off: whatever had been
// acknowledged behind it is gone without a word (PROMISES.md T39). The witness is
// written after each commit is durable and never synced, so it costs next to
// nothing, never claims too much, and after kill -9 claims all; only the loss of
// power may leave it behind the truth. A channel that stands lower than its
// witness says has lost blocks it had told others of, and halts.
//
// One slot per channel number: height(8), CRC-32C of number and height(4), zero(4).
type witness struct {
	gate *gate
	log  Logger
	file vfs.File

	mu     sync.Mutex
	broken bool // guarded by mu: it couldn't be written, and that was said
}

const (
	witnessName = "HEIGHTS"
	slotLen     = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openWitness opens the witness of a folder and returns the heights it knows.
func openWitness(g *gate, dir string, log Logger) (*witness, map[uint32]uint64, error) {
	f, err := g.FS.OpenReadWrite(g.FS.PathJoin(dir, witnessName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, nil, fmt.Errorf("open the witness: %w", err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read the witness: %w", err), f.Close())
	}
	heights := make(map[uint32]uint64)
	for n := uint32(0); len(b) >= slotLen; n, b = n+1, b[slotLen:] {
		h := binary.BigEndian.Uint64(b)
		// A slot that a crash tore, or that decayed, knows nothing.
		if h > 0 && slot(n, h) == [slotLen]byte(b[:slotLen]) {
			heights[n] = h
		}
	}
	return &witness{gate: g, log: log, file: f}, heights, nil
}

// see writes a channel's height, which is durable; 0 forgets the channel.
func (w *witness) see(number uint32, height uint64) {
	b := slot(number, height)
	w.gate.ops.RLock()
	defer w.gate.ops.RUnlock()
	if w.gate.shut.Load() {
		return
	}
	// Without it nothing is lost but this one check.
	if _, err := w.file.WriteAt(b[:], int64(number)*slotLen); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.broken {
			w.broken = true
			w.log.Warnf("the witness of the store's heights can't be written: %v", err)
		}
	}
}

func (w *witness) close() error { return w.file.Close() }

func slot(number uint32, height uint64) (s [slotLen]byte) {
	if height == 0 {
		return s
	}
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], number)
	binary.BigEndian.PutUint64(s[:], height)
	sum := crc32.Update(crc32.Checksum(n[:], castagnoli), castagnoli, s[:8])
	binary.BigEndian.PutUint32(s[8:], sum)
	return s
}
