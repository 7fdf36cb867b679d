package state

import (
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
)

// What follows reads rwset.TxReadWriteSet and what it holds in place. A set is
// checked whole once (checkSets), so that the iterators can't fail.

// A space is what a transaction did in one namespace.
type space struct {
	name   string
	public []byte // kvrwset.KVRWSet
	raw    []byte // rwset.NsReadWriteSet, for its collections
}

// A collection is what a transaction did to the hashes of one.
type collection struct {
	name   string
	hashed []byte // kvrwset.HashedRWSet
}

// A version as read; none says that the key was absent.
type version struct {
	block, tx uint64
	known     bool
}

type read struct {
	key string // of a collection: the key's hash
	version
}

type write struct {
	key    string // of a collection: the key's hash
	value  []byte // of a collection: its hash
	delete bool
}

// A metadataWrite replaces all metadata of a key; without entries it removes them.
type metadataWrite struct {
	key     string
	entries []byte // the message, for its entries
}

type rangeQuery struct {
	from, to  string
	exhausted bool
	reads     []byte // kvrwset.QueryReads
	merkle    []byte // kvrwset.QueryReadsMerkleSummary, nil where there are reads
}

// spaces yields the namespaces of a checked set, in its order.
func spaces(raw []byte) iter.Seq[space] {
	return messages(raw, 2, func(m []byte) (s space) {
		s.raw = m
		each(m, func(f field) {
			switch {
			case f.is(1):
				s.name = string(f.bytes)
			case f.is(2):
				s.public = f.bytes
			}
		})
		return s
	})
}

func (s space) collections() iter.Seq[collection] {
	return messages(s.raw, 3, func(m []byte) (c collection) {
		each(m, func(f field) {
			switch {
			case f.is(1):
				c.name = string(f.bytes)
			case f.is(2):
				c.hashed = f.bytes
			}
		})
		return c
	})
}

func (s space) reads() iter.Seq[read]                   { return messages(s.public, 1, readOf) }
func (s space) ranges() iter.Seq[rangeQuery]            { return messages(s.public, 2, rangeOf) }
func (s space) writes() iter.Seq[write]                 { return messages(s.public, 3, writeOf) }
func (s space) metadataWrites() iter.Seq[metadataWrite] { return messages(s.public, 4, metadataOf) }

func (c collection) reads() iter.Seq[read]   { return messages(c.hashed, 1, readOf) }
func (c collection) writes() iter.Seq[write] { return messages(c.hashed, 2, writeOf) }
func (c collection) metadataWrites() iter.Seq[metadataWrite] {
	return messages(c.hashed, 3, metadataOf)
}

// messages yields the occurrences of a repeated message.
func messages[T any](raw []byte, num protowire.Number, of func([]byte) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		// The message was checked, so that no error is left.
		_ = walk(raw, func(f field) bool { return !f.is(num) || yield(of(f.bytes)) })
	}
}

// each visits the fields of a checked message.
func each(raw []byte, visit func(f field)) {
	_ = walk(raw, func(f field) bool { visit(f); return true }) // it was checked
}

func readOf(m []byte) (r read) {
	each(m, func(f field) {
		switch {
		case f.is(1):
			r.key = string(f.bytes)
		case f.is(2):
			r.known = true
			each(f.bytes, func(f field) {
				switch {
				case f.counts(1):
					r.block = f.number
				case f.counts(2):
					r.tx = f.number
				}
			})
		}
	})
	return r
}

func rangeOf(m []byte) (q rangeQuery) {
	each(m, func(f field) {
		switch {
		case f.is(1):
			q.from = string(f.bytes)
		case f.is(2):
			q.to = string(f.bytes)
		case f.counts(3):
			q.exhausted = f.number != 0
		case f.is(4): // of the two, the last one counts
			q.reads, q.merkle = sub(q.reads, f.bytes), nil
		case f.is(5):
			q.reads, q.merkle = nil, sub(q.merkle, f.bytes)
		}
	})
	return q
}

// writeOf reads a public or a hashed write: their fields have the same numbers.
func writeOf(m []byte) (w write) {
	each(m, func(f field) {
		switch {
		case f.is(1):
			w.key = string(f.bytes)
		case f.counts(2):
			w.delete = f.number != 0
		case f.is(3):
			w.value = f.bytes
		}
	})
	return w
}

func metadataOf(m []byte) metadataWrite {
	w := metadataWrite{entries: m}
	each(m, func(f field) {
		if f.is(1) {
			w.key = string(f.bytes)
		}
	})
	return w
}

// all yields the entries, a name maybe more than once; the last one counts.
func (w metadataWrite) all() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for e := range messages(w.entries, 2, writeEntryOf) {
			if !yield(e.name, e.value) {
				return
			}
		}
	}
}

type metadataEntry struct {
	name  string
	value []byte
}

func writeEntryOf(m []byte) (e metadataEntry) {
	each(m, func(f field) {
		switch {
		case f.is(1):
			e.name = string(f.bytes)
		case f.is(2):
			e.value = f.bytes
		}
	})
	return e
}

// checkSets refuses what Fabric can't read as a set.
func checkSets(raw []byte) error {
	return check(raw, func(f field) error {
		if !f.is(2) {
			return nil
		}
		var public []byte
		if err := check(f.bytes, func(f field) error {
			switch {
			case f.is(1):
				return text(f.bytes)
			case f.is(2):
				public = f.bytes
			case f.is(3):
				return checkCollection(f.bytes)
			}
			return nil
		}); err != nil {
			return err
		}
		return checkPublic(public)
	})
}

func checkCollection(raw []byte) error {
	var hashed []byte
	if err := check(raw, func(f field) error {
		switch {
		case f.is(1):
			return text(f.bytes)
		case f.is(2):
			hashed = f.bytes
		}
		return nil
	}); err != nil {
		return err
	}
	return check(hashed, func(f field) error {
		switch {
		case f.is(1):
			return checkVersioned(f.bytes, false)
		case f.is(2):
			return check(f.bytes, whatever)
		case f.is(3):
			return checkMetadata(f.bytes, false)
		}
		return nil
	})
}

func checkPublic(raw []byte) error {
	return check(raw, func(f field) error {
		switch {
		case f.is(1):
			return checkVersioned(f.bytes, true)
		case f.is(2):
			return checkRange(f.bytes)
		case f.is(3):
			return check(f.bytes, func(f field) error {
				if f.is(1) {
					return text(f.bytes)
				}
				return nil
			})
		case f.is(4):
			return checkMetadata(f.bytes, true)
		}
		return nil
	})
}

// checkVersioned checks a read, whose key is text or a hash.
func checkVersioned(raw []byte, named bool) error {
	return check(raw, func(f field) error {
		switch {
		case f.is(1) && named:
			return text(f.bytes)
		case f.is(2):
			return check(f.bytes, whatever)
		}
		return nil
	})
}

func checkMetadata(raw []byte, named bool) error {
	return check(raw, func(f field) error {
		switch {
		case f.is(1) && named:
			return text(f.bytes)
		case f.is(2):
			return check(f.bytes, func(f field) error {
				if f.is(1) {
					return text(f.bytes)
				}
				return nil
			})
		}
		return nil
	})
}

func checkRange(raw []byte) error {
	return check(raw, func(f field) error {
		switch {
		case f.is(1), f.is(2):
			return text(f.bytes)
		case f.is(4):
			return check(f.bytes, func(f field) error {
				if f.is(1) {
					return checkVersioned(f.bytes, true)
				}
				return nil
			})
		case f.is(5):
			return check(f.bytes, whatever)
		}
		return nil
	})
}

func whatever(field) error { return nil }
