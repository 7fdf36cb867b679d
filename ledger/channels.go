package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"grapevine/block"
)

// Create starts a channel with its block 0. Doing it again with the same block
// returns the ledger there is; another block gets ErrExists. It is durable when it
// returns.
func (d *DB) Create(channel string, genesis block.Verified) (*Ledger, error) {
	l, err := d.create(channel, genesis)
	if err != nil {
		return nil, fmt.Errorf("create channel %s: %w", channel, err)
	}
	return l, nil
}

func (d *DB) create(channel string, genesis block.Verified) (*Ledger, error) {
	if channel == "" || genesis.IsZero() || genesis.Number() != 0 {
		return nil, errors.New("not a channel's name and its block 0")
	}
	release, err := d.admin.take(d)
	if err != nil {
		return nil, err
	}
	defer release()
	if l, err := d.Channel(channel); err == nil {
		if l.record.genesis != genesis.Hash() {
			return nil, fmt.Errorf("another genesis block is kept: %w", ErrExists)
		}
		return l, nil
	}
	if err := d.writable(len(genesis.Bytes())); err != nil {
		return nil, err
	}
	done, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	number, err := d.nextNumber()
	if err != nil {
		return nil, err
	}
	l := newLedger(d, channel, record{number: number, genesis: genesis.Hash()})
	c := charter{record: l.record, name: channel, genesis: genesis.Bytes()}
	if err := d.aside(func() error { return d.keepCharter(c) }); err != nil {
		return nil, err
	}
	b := d.pebble.NewBatch()
	m := l.write(b, mark{}, genesis)
	set(b, tipKey(number), m.marshal())
	set(b, recordKey(channel), l.record.marshal())
	set(b, nextKey(), binary.BigEndian.AppendUint32(nil, number+1))
	_, err = d.commit(b, func() {
		l.settle(m)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.channels[channel] = l
		if d.closed {
			l.sub.end(fmt.Errorf("channel %s: %w", channel, ErrClosed))
		}
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Drop forgets a channel: its blocks, its indexes and its record, in one durable
// step. Its ledger answers ErrNotFound from then on. ErrNotFound if there is none.
func (d *DB) Drop(name string) error {
	release, err := d.admin.take(d)
	if err != nil {
		return fmt.Errorf("drop channel %s: %w", name, err)
	}
	defer release()
	l, err := d.Channel(name)
	if err != nil {
		return err
	}
	done, err := d.enter()
	if err != nil {
		return fmt.Errorf("drop channel %s: %w", name, err)
	}
	defer done()
	let, err := l.appending.take(d)
	if err != nil {
		return fmt.Errorf("drop channel %s: %w", name, err)
	}
	defer let()
	if err := errors.Join(l.settled(), d.failure()); err != nil {
		return fmt.Errorf("drop channel %s: %w", name, err)
	}
	gone := fmt.Errorf("channel %s was dropped: %w", name, ErrNotFound)
	b := d.pebble.NewBatch()
	lower, upper := channelSpan(l.record.number)
	stateLower, stateUpper := stateSpan(l.record.number)
	set(b, droppedKey(l.record.number), nil)
	if err := errors.Join(b.Delete(recordKey(name), nil), b.DeleteRange(lower, upper, nil), b.DeleteRange(stateLower, stateUpper, nil)); err != nil {
		return fmt.Errorf("drop channel %s: %w", name, err)
	}
	l.dropped.Store(&gone) // first, or a read in between would find the channel damaged
	l.pending, err = d.commit(b, func() {
		d.witness.see(l.record.number, 0)
		l.sub.end(gone)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.channels, name)
	})
	if err == nil {
		err = d.aside(func() error { return d.gate.Remove(d.gate.PathJoin(d.folder.dir, charterName(l.record.number))) })
	}
	if err != nil && !isNotExist(err) {
		return fmt.Errorf("drop channel %s: %w", name, err)
	}
	if err := d.removeSnapshots(name); err != nil {
		return fmt.Errorf("drop channel %s: %w", name, err)
	}
	return nil
}

// load reads the records of all channels, or, where they are damaged, their
// charters, and holds them against the heights that the witness saw. It runs before
// anything else.
func (d *DB) load(heights map[uint32]uint64, charters map[uint32]charter) error {
	records := make(map[string]record)
	err := d.pass(context.Background(), []byte{spaceRecord}, []byte{spaceRecord + 1}, func(k, v []byte) error {
		r, err := parseRecord(v)
		if err != nil {
			return fmt.Errorf("channel %s: %w", k[1:], err)
		}
		records[string(k[1:])] = r
		return nil
	})
	lost := err != nil && (damaged(err) || errors.Is(err, ErrCorrupt))
	switch {
	case lost && len(charters) > 0:
		d.log.Errorf("the records of channels are damaged, and read from their charters: %v", err)
		for _, c := range charters {
			records[c.name] = c.record
		}
	case err != nil:
		return fmt.Errorf("read the records of channels: %w", explain(err))
	}
	for name, r := range records {
		l := newLedger(d, name, r)
		if err := l.load(heights[r.number]); err != nil {
			l.Halt(err)
		} else if lost {
			l.Halt(fmt.Errorf("the channel's record: %w", ErrCorrupt))
		}
		delete(heights, r.number)
		d.channels[name] = l
	}
	for number, height := range heights {
		switch _, err := d.get(droppedKey(number)); {
		case errors.Is(err, ErrNotFound):
			return fmt.Errorf("a channel of %d blocks is lost without a trace; to go on without it, remove the file %s: %w", height, witnessName, ErrCorrupt)
		case err != nil && (!lost || !errors.Is(err, ErrCorrupt)):
			return fmt.Errorf("read which channels were dropped: %w", err)
		}
	}
	return nil
}

func (d *DB) nextNumber() (uint32, error) {
	v, err := d.get(nextKey())
	switch {
	case errors.Is(err, ErrNotFound):
		return 1, nil
	case err != nil:
		return 0, fmt.Errorf("read the next channel number: %w", err)
	case len(v) != 4:
		return 0, fmt.Errorf("next channel number of %d bytes: %w", len(v), ErrCorrupt)
	}
	return binary.BigEndian.Uint32(v), nil
}
