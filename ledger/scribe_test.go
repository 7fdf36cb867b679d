package ledger

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
)

// A scribe is an executor whose rules are its own, and such that each outcome
// depends on all that a view tells: keys that come and go, reminders, ranges,
// transactions known.
type scribe struct {
	stopAt uint64 // can't judge this block; 0: any
	fail   error  // what Execute returns
	told   int    // blocks that Prepare was told of
}

func (s *scribe) Prepare(bs []*common.Block) { s.told += len(bs) }

func (s *scribe) Execute(v View, carry []byte, b *common.Block) (*Effects, error) {
	n := b.Header.Number
	switch {
	case s.fail != nil:
		return nil, s.fail
	case s.stopAt > 0 && n == s.stopAt:
		return nil, fmt.Errorf("block %d is beyond me: %w", n, ErrUnjudged)
	}
	h := sha256.New()
	h.Write(carry)
	x := &Effects{CommitHash: bytes.Repeat([]byte{byte(n)}, 32)}
	written := make(map[Key]*Entry)
	set := func(k Key, e *Entry) { written[k] = e }
	for i, entry := range b.Data.Data {
		id, digest := idOf(entry)
		known, err := v.HasTx(id)
		if err != nil {
			return nil, err
		}
		if known {
			x.Codes = append(x.Codes, 9)
			continue
		}
		x.Codes = append(x.Codes, 0)
		k := Key{Namespace: "n\x00s", Key: fmt.Sprintf("key\x00%d", digest[0]%16)}
		old, err := v.Get(k)
		if err != nil {
			return nil, err
		}
		e := &Entry{Block: n, Tx: uint64(i), Value: append([]byte(id), digest[:]...), Metadata: digest[:digest[1]%3]}
		gone := old != nil && digest[2]%3 == 0
		if old != nil {
			h.Write(old.Value)
		}
		if gone {
			e = nil
		}
		set(k, e)
		x.Touches = append(x.Touches, Touch{Namespace: k.Namespace, Key: k.Key, Tx: uint64(i), Deleted: gone})
		hidden := Key{Namespace: "ns", Collection: "c", Key: string(digest[:])}
		set(hidden, &Entry{Block: n, Tx: uint64(i), Value: digest[:]})
		x.Schedule = append(x.Schedule, Expiry{Key: hidden, At: n + 3, Written: n})
	}
	for r, err := range v.Expiring(n) {
		if err != nil {
			return nil, err
		}
		e, err := v.Get(r.Key)
		if err != nil {
			return nil, err
		}
		if e != nil && e.Block == r.Written && written[r.Key] == nil {
			set(r.Key, nil)
		}
	}
	for f, err := range v.Range("n\x00s", "key\x003", "key\x008") {
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(h, "%s %d %d", f.Key, f.Block, f.Tx)
	}
	for k, e := range written {
		x.Writes = append(x.Writes, Write{Key: k, Entry: e})
	}
	slices.SortFunc(x.Writes, func(a, b Write) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Collection, b.Collection), cmp.Compare(a.Key.Key, b.Key.Key))
	})
	x.Carry = h.Sum(nil)
	x.StateHash = sha256.Sum256(x.Carry)
	return x, nil
}

func idOf(entry []byte) (string, [32]byte) {
	var env common.Envelope
	if proto.Unmarshal(entry, &env) == nil {
		if h, _, err := block.Header(&env); err == nil {
			return h.TxId, sha256.Sum256(entry)
		}
	}
	return "", sha256.Sum256(entry)
}

// A fold is what a scribe makes of the first blocks of a chain: every pair that
// the store must then hold for the state, by key without the channel's number.
type fold struct {
	height  uint64
	carry   []byte
	entries map[Key]*Entry
	txs     map[string]bool
	remind  map[uint64][]Expiry
	pairs   map[string]string
}

func newFold() *fold {
	return &fold{
		entries: make(map[Key]*Entry), txs: make(map[string]bool), remind: make(map[uint64][]Expiry), pairs: make(map[string]string),
	}
}

// foldTo folds the first height blocks of a chain.
func foldTo(all []block.Verified, height uint64) *fold {
	f := newFold()
	for _, v := range all[:height] {
		f.take(v.Block())
	}
	return f
}

func (f *fold) view() View {
	return View{
		Get: func(k Key) (*Entry, error) { return f.entries[k], nil },
		Range: func(ns, from, to string) iter.Seq2[Found, error] {
			return func(yield func(Found, error) bool) {
				var keys []string
				for k := range f.entries {
					if k.Namespace == ns && k.Collection == "" && k.Key >= from && k.Key < to {
						keys = append(keys, k.Key)
					}
				}
				slices.Sort(keys)
				for _, k := range keys {
					e := f.entries[Key{Namespace: ns, Key: k}]
					if !yield(Found{Key: k, Block: e.Block, Tx: e.Tx}, nil) {
						return
					}
				}
			}
		},
		HasTx: func(id string) (bool, error) { return f.txs[id], nil },
		Expiring: func(at uint64) iter.Seq2[Expiry, error] {
			return func(yield func(Expiry, error) bool) {
				for _, r := range f.remind[at] {
					if !yield(r, nil) {
						return
					}
				}
			}
		},
	}
}

func (f *fold) take(b *common.Block) {
	x, err := (&scribe{}).Execute(f.view(), f.carry, b)
	if err != nil {
		panic(err)
	}
	n := f.height
	put := func(k []byte, v []byte) { f.pairs[string(short(k))] = string(v) }
	for _, w := range x.Writes {
		if w.Entry == nil {
			delete(f.entries, w.Key)
			delete(f.pairs, string(short(entryKey(0, w.Key))))
			continue
		}
		f.entries[w.Key] = w.Entry
		put(entryKey(0, w.Key), marshalEntry(w.Entry))
	}
	for _, t := range x.Touches {
		v := []byte{0}
		if t.Deleted {
			v[0] = 1
		}
		put(touchKey(0, t.Namespace, t.Key, n, t.Tx), v)
	}
	for _, e := range x.Schedule {
		f.remind[e.At] = append(f.remind[e.At], e)
		put(expiryKey(0, e.At, e.Key), appendNumber(nil, e.Written))
	}
	for _, e := range f.remind[n] {
		delete(f.pairs, string(short(expiryKey(0, n, e.Key))))
	}
	put(verdictKey(0, n), Verdict{x.Codes, x.CommitHash, x.StateHash}.marshal())
	put(stateKey(0), stateMark{n + 1, x.StateHash, x.Carry}.marshal())
	for _, entry := range b.Data.Data {
		if id, _ := idOf(entry); id != "" {
			f.txs[id] = true
		}
	}
	f.carry = x.Carry
	f.height++
}

// short is a key without the channel's number.
func short(k []byte) []byte { return append([]byte{k[0]}, k[5:]...) }

// holds checks that the store has the fold's state, and nothing else of it.
func (f *fold) holds(d *DB, l *Ledger) error {
	got := make(map[string]string)
	for _, space := range []byte{spaceChannel, spaceState} {
		lower := binary.BigEndian.AppendUint32([]byte{space}, l.record.number)
		it, err := d.pebble.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(lower)})
		if err != nil {
			return err
		}
		for ok := it.First(); ok; ok = it.Next() {
			kind := it.Key()[5]
			if space == spaceState || kind == kindVerdict || kind == kindState {
				v, err := it.ValueAndErr()
				if err != nil {
					return err
				}
				got[string(short(it.Key()))] = string(v)
			}
		}
		if err := it.Close(); err != nil {
			return err
		}
	}
	if !maps.Equal(got, f.pairs) {
		for k, v := range f.pairs {
			if w, ok := got[k]; !ok || w != v {
				return fmt.Errorf("state at height %d: under %s is %q, want %q", f.height, hex.EncodeToString([]byte(k)), w, v)
			}
		}
		return fmt.Errorf("state at height %d: %d pairs, want %d", f.height, len(got), len(f.pairs))
	}
	if t := l.State(); t.Height != f.height {
		return fmt.Errorf("the state stands at %d, want %d", t.Height, f.height)
	}
	return nil
}

// judged lets a scribe judge a ledger, up to its height.
func judged(l *Ledger, s *scribe) error {
	l.Judge(s)
	return l.CatchUp(context.Background(), nil)
}
