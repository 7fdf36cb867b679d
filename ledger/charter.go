package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"grapevine/block"
)

// A charter is a small file beside the store for each channel: its name, its
// record, its block 0 and its newest configuration block. It is read where the
// store's own can't be: then all else of a channel can be made again, in the end
// from other peers, whom only the configuration knows.
//
//	CRC-32C of the rest(4) record(37) length of the name(2) name length of block 0(4) block 0 newest configuration block, if another
type charter struct {
	record  record
	name    string
	genesis []byte
	config  []byte // empty: block 0 is the newest
}

const charterPrefix = "CHARTER-"

func charterName(number uint32) string { return charterPrefix + strconv.FormatUint(uint64(number), 10) }

func (c charter) marshal() []byte {
	b := append(make([]byte, 4), c.record.marshal()...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(c.name)))
	b = append(b, c.name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.genesis)))
	b = append(append(b, c.genesis...), c.config...)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func parseCharter(b []byte) (c charter, err error) {
	if len(b) < 4+recordLen+2 || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return c, fmt.Errorf("a channel's charter of %d bytes: %w", len(b), ErrCorrupt)
	}
	if c.record, err = parseRecord(b[4 : 4+recordLen]); err != nil {
		return c, err
	}
	b = b[4+recordLen:]
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n+4 {
		return c, fmt.Errorf("a channel's charter is cut short: %w", ErrCorrupt)
	}
	c.name, b = string(b[:n]), b[n:]
	n = int(binary.BigEndian.Uint32(b))
	if b = b[4:]; len(b) < n {
		return c, fmt.Errorf("a channel's charter is cut short: %w", ErrCorrupt)
	}
	c.genesis, c.config = b[:n:n], b[n:]
	return c, nil
}

// verified returns block 0, if it is the channel's.
func (c charter) verified() (block.Verified, error) {
	v, err := block.Genesis(c.genesis)
	if err == nil && v.Hash() != c.record.genesis {
		err = fmt.Errorf("the charter of channel %s holds another block 0: %w", c.name, ErrCorrupt)
	}
	return v, err
}

// whole is the record of a chain from its beginning on: what is left of it, only the
// store knows.
func (r record) whole() record {
	r.kept = span{}
	return r
}

// configures reports whether the charter holds the channel's newest configuration
// block, of a number.
func (c charter) configures(n uint64) bool {
	if n == 0 {
		return len(c.config) == 0
	}
	h, err := header(c.config)
	return err == nil && h.GetNumber() == n
}

// keepCharter makes a channel's charter durable.
func (d *DB) keepCharter(c charter) error {
	dir := d.folder.dir
	name := d.gate.PathJoin(dir, charterName(c.record.number))
	f, err := d.gate.Create(name+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("keep the charter of channel %s: %w", c.name, err)
	}
	_, err = f.Write(c.marshal())
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = errors.Join(d.gate.Rename(name+".new", name), d.gate.syncDir(dir))
	}
	if err != nil {
		return fmt.Errorf("keep the charter of channel %s: %w", c.name, err)
	}
	return nil
}

// charters reads those that are whole, by number. Others are no reason to fail:
// the store has it all too.
func (d *DB) charters() (map[uint32]charter, error) {
	names, err := d.gate.List(d.folder.dir)
	if err != nil {
		return nil, err
	}
	all := make(map[uint32]charter)
	for _, name := range names {
		number, ok := strings.CutPrefix(name, charterPrefix)
		n, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil {
			continue
		}
		if c, err := d.charter(uint32(n)); err == nil {
			all[uint32(n)] = c
		} else {
			d.log.Warnf("the file %s can't be used: %v", name, err)
		}
	}
	return all, nil
}

// charter reads that of one channel.
func (d *DB) charter(number uint32) (c charter, err error) {
	f, err := d.gate.Open(d.gate.PathJoin(d.folder.dir, charterName(number)))
	if err != nil {
		return c, err
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return c, err
	}
	if c, err = parseCharter(b); err == nil && c.record.number != number {
		err = fmt.Errorf("it is that of another channel: %w", ErrCorrupt)
	}
	return c, err
}

// amend keeps the newest configuration block, which is durable, in the charter.
func (l *Ledger) amend() error {
	c, err := l.charter()
	if err != nil {
		return err
	}
	return l.db.aside(func() error { return l.db.keepCharter(c) })
}

// charter makes the channel's from its blocks.
func (l *Ledger) charter() (c charter, err error) {
	c = charter{record: l.record.whole(), name: l.name}
	number := l.record.number
	if c.genesis, err = l.db.get(blockKey(number, 0)); err != nil {
		return c, err
	}
	if n := l.sub.get().config; n > 0 {
		c.config, err = l.db.get(blockKey(number, n))
	}
	return c, err
}

// fromCharter returns a block that the charter holds.
func (l *Ledger) fromCharter(n uint64) ([]byte, error) {
	c, err := l.db.charter(l.record.number)
	if err != nil {
		return nil, err
	}
	for _, raw := range [][]byte{c.genesis, c.config} {
		if h, err := header(raw); err == nil && h.GetNumber() == n && (n > 0 || block.HeaderHash(h) == l.record.genesis) {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("the channel's charter lacks it: %w", ErrNotFound)
}

// tally holds the charters against the channels that the store has: what lacks is
// written, and what a crash left behind is removed.
func (d *DB) tally(has map[uint32]charter) error {
	live := make(map[uint32]bool)
	for _, l := range d.ledgers() {
		n := l.record.number
		live[n] = true
		if c, ok := has[n]; ok && c.record == l.record.whole() && c.name == l.name && c.configures(l.sub.get().config) {
			continue
		}
		c, err := l.charter()
		if err != nil {
			continue // damaged: it is written when that has been made good
		}
		if err := d.keepCharter(c); err != nil {
			return err
		}
	}
	for n := range has {
		if !live[n] {
			if err := d.gate.Remove(d.gate.PathJoin(d.folder.dir, charterName(n))); err != nil {
				return err
			}
		}
	}
	return nil
}

// refound puts the channels of charters into an empty store: block 0 of each.
func (d *DB) refound(all map[uint32]charter) error {
	b := d.pebble.NewBatch()
	next := uint32(1)
	for _, n := range slices.Sorted(maps.Keys(all)) {
		c := all[n]
		v, err := c.verified()
		if err != nil {
			return errors.Join(err, b.Close())
		}
		l := newLedger(d, c.name, c.record)
		m := l.write(b, mark{}, v)
		set(b, tipKey(n), m.marshal())
		set(b, recordKey(c.name), c.record.marshal())
		next = max(next, n+1)
	}
	set(b, nextKey(), binary.BigEndian.AppendUint32(nil, next))
	if err := explain(d.pebble.Apply(b, pebble.Sync)); err != nil {
		return errors.Join(err, b.Close())
	}
	return b.Close()
}

// setAside is the folder that what is left of a store that can't be opened is
// moved to; a number follows.
const setAside = "damaged-"

// rescue moves the files of a store that can't be opened aside, if the charters of
// its channels are there to begin anew with. The folder is locked meanwhile.
func (d *DB) rescue(dir string) (err error) {
	d.folder = &folder{fs: d.gate, dir: dir}
	if err := d.folder.find(); err != nil {
		return err
	}
	lock, err := pebble.LockDirectory(d.folder.dir, d.gate)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	all, err := d.charters()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no charter of a channel is left to begin anew with: %w", ErrCorrupt)
	}
	for _, c := range all {
		if _, err := c.verified(); err != nil {
			return err
		}
	}
	names, err := d.gate.List(d.folder.dir)
	if err != nil {
		return err
	}
	into := ""
	for n := 1; into == ""; n++ {
		if s := setAside + strconv.Itoa(n); !slices.Contains(names, s) {
			into = s
		}
	}
	if err := d.gate.MkdirAll(d.gate.PathJoin(d.folder.dir, into), 0o750); err != nil {
		return err
	}
	for _, name := range names {
		switch {
		case name == markerName, name == markerNewName, name == witnessName, name == "LOCK", name == "lost+found":
		case strings.HasPrefix(name, charterPrefix), strings.HasPrefix(name, setAside), name == snapshotsDir:
		default:
			if err := d.gate.Rename(d.gate.PathJoin(d.folder.dir, name), d.gate.PathJoin(d.folder.dir, into, name)); err != nil {
				return err
			}
		}
	}
	if err := d.gate.syncDir(d.folder.dir); err != nil {
		return err
	}
	d.log.Errorf("the store couldn't be opened for damage: it was moved to %s, and its %d channels begin anew from block 0", d.gate.PathJoin(d.folder.dir, into), len(all))
	return nil
}
