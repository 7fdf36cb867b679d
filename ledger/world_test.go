package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// someChain is a chain with transactions that come again and a configuration.
func someChain(tb testing.TB, name string, n int) []block.Verified {
	c, genesis := newChain(tb, name)
	all := []block.Verified{genesis}
	for i := range n {
		if i%11 == 5 {
			all = append(all, c.reconfigure())
			continue
		}
		all = append(all, c.next(40, fmt.Sprintf("%s%d", name, i), "again", fmt.Sprintf("%s%d+", name, i)))
	}
	return all
}

func TestStateFollows(t *testing.T) {
	fs := vfs.NewMem()
	all := someChain(t, "c1", 60)
	d, err := Open("data", Options{fs: fs})
	require.NoError(t, err)
	l, err := d.Create("c1", all[0])
	require.NoError(t, err)
	require.Equal(t, StateTip{Blocks: l.Tip(), Unjudged: errNobody}, l.State())
	_, err = l.Verdict(0)
	require.ErrorIs(t, err, ErrUnjudged)
	_, err = l.Verdict(1)
	require.ErrorIs(t, err, ErrNotFound)

	s := &scribe{}
	l.Judge(s)
	require.Zero(t, l.State().Height, "Judge alone judges nothing")
	require.NoError(t, l.Append(all[1:10]...))
	require.NoError(t, foldTo(all, 10).holds(d, l))
	require.Equal(t, 10, s.told)
	l.Judge(nil)
	require.NoError(t, l.Append(all[10:30]...))
	require.Equal(t, uint64(10), l.State().Height)
	require.NoError(t, judged(l, s))
	require.NoError(t, foldTo(all, 30).holds(d, l))
	require.NoError(t, l.Append(all[30:]...))
	f := foldTo(all, uint64(len(all)))
	require.NoError(t, f.holds(d, l))

	for i := range all {
		v, err := l.Verdict(uint64(i))
		require.NoError(t, err)
		require.Len(t, v.Codes, len(all[i].TxIDs()))
		require.Equal(t, byte(i), v.CommitHash[0])
	}
	require.NoError(t, d.Close())

	d, err = Open("data", Options{fs: fs})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	l, err = d.Channel("c1")
	require.NoError(t, err)
	require.NoError(t, f.holds(d, l))
	require.Equal(t, l.Tip(), l.State().Blocks)
	require.NoError(t, d.Drop("c1"))
	lower, upper := stateSpan(l.record.number)
	require.Zero(t, countKeys(t, d, lower, upper))
}

// The same state comes of the same blocks, however they were batched and whenever
// they were judged.
func TestStateIsAFold(t *testing.T) {
	all := someChain(t, "c1", 40)
	var hashes [][32]byte
	for _, step := range []int{1, 3, 40} {
		d := openMem(t, vfs.NewMem())
		l, err := d.Create("c1", all[0])
		require.NoError(t, err)
		l.Judge(&scribe{})
		for i := 1; i < len(all); i += step {
			require.NoError(t, l.Append(all[i:min(i+step, len(all))]...))
		}
		require.NoError(t, foldTo(all, uint64(len(all))).holds(d, l))
		hashes = append(hashes, l.State().Hash)
	}
	require.Equal(t, hashes[0], hashes[1])
	require.Equal(t, hashes[0], hashes[2])
}

// Where a block can't be judged the state stays, blocks go on, and who can judge it
// goes on from there.
func TestUnjudged(t *testing.T) {
	all := someChain(t, "c1", 40)
	d := openMem(t, vfs.NewMem())
	l, err := d.Create("c1", all[0])
	require.NoError(t, err)
	l.Judge(&scribe{stopAt: 7})
	require.NoError(t, l.Append(all[1:20]...))
	require.Equal(t, uint64(20), l.Height())
	require.NoError(t, foldTo(all, 7).holds(d, l))
	require.Equal(t, uint64(20), l.State().Blocks.Height)
	require.ErrorIs(t, l.State().Unjudged, ErrUnjudged)
	require.ErrorContains(t, l.State().Unjudged, "block 7 is beyond me")
	require.NoError(t, l.Append(all[20]))
	_, err = l.Verdict(6)
	require.NoError(t, err)
	_, err = l.Verdict(7)
	require.ErrorIs(t, err, ErrUnjudged)
	require.ErrorContains(t, err, "block 7 is beyond me")
	require.NoError(t, l.CatchUp(context.Background(), nil))

	require.NoError(t, judged(l, &scribe{}))
	require.NoError(t, l.State().Unjudged)
	require.NoError(t, foldTo(all, 21).holds(d, l))

	// Another error fails the append, and nothing of it is kept.
	broken := errors.New("broken")
	l.Judge(&scribe{fail: broken})
	require.ErrorIs(t, l.Append(all[21:]...), broken)
	require.Equal(t, uint64(21), l.Height())
	require.NoError(t, foldTo(all, 21).holds(d, l))
	l.Judge(&scribe{})
	require.NoError(t, l.Append(all[21:]...))
	require.NoError(t, foldTo(all, uint64(len(all))).holds(d, l))
}

// A long way behind is made up in parts, beside blocks that come.
func TestCatchUp(t *testing.T) {
	all := someChain(t, "c1", 2*judgeBlocks+nearBlocks+10)
	d := openMem(t, vfs.NewMem())
	l, err := d.Create("c1", all[0])
	require.NoError(t, err)
	require.NoError(t, l.Append(all[1:len(all)-2]...))
	l.Judge(&scribe{})
	require.NoError(t, l.Append(all[len(all)-2]))
	require.Zero(t, l.State().Height, "Append makes up for little only")
	var seen []uint64
	require.NoError(t, l.CatchUp(context.Background(), func(state, height uint64) { seen = append(seen, state, height) }))
	h := uint64(len(all) - 1)
	require.Equal(t, []uint64{judgeBlocks, h, 2 * judgeBlocks, h, h, h}, seen)
	require.NoError(t, l.Append(all[len(all)-1]))
	require.NoError(t, foldTo(all, uint64(len(all))).holds(d, l))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, l.CatchUp(ctx, nil), context.Canceled)
}

// A state forgotten and judged again is the same.
func TestForgetState(t *testing.T) {
	fs := vfs.NewMem()
	all := someChain(t, "c1", 30)
	d, err := Open("data", Options{fs: fs})
	require.NoError(t, err)
	l, err := d.Create("c1", all[0])
	require.NoError(t, err)
	l.Judge(&scribe{})
	require.NoError(t, l.Append(all[1:]...))
	hash := l.State().Hash
	require.NoError(t, l.ForgetState())
	require.NoError(t, newFold().holds(d, l))
	require.NoError(t, d.Close())
	d, err = Open("data", Options{fs: fs})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	l, err = d.Channel("c1")
	require.NoError(t, err)
	require.NoError(t, newFold().holds(d, l))
	require.NoError(t, judged(l, &scribe{}))
	require.NoError(t, foldTo(all, uint64(len(all))).holds(d, l))
	require.Equal(t, hash, l.State().Hash)
}

func TestWorld(t *testing.T) {
	ctx := context.Background()
	all := someChain(t, "c1", 30)
	d := openMem(t, vfs.NewMem())
	l, err := d.Create("c1", all[0])
	require.NoError(t, err)
	w, err := l.World(ctx)
	require.NoError(t, err)
	require.Zero(t, w.Height())
	require.NoError(t, w.Close())
	l.Judge(&scribe{})
	require.NoError(t, l.Append(all[1:20]...))
	old, err := l.World(ctx)
	require.NoError(t, err)
	require.NoError(t, l.Append(all[20:]...))
	now, err := l.World(ctx)
	require.NoError(t, err)
	for w, height := range map[*World]uint64{old: 20, now: uint64(len(all))} {
		f := foldTo(all, height)
		require.Equal(t, height, w.Height())
		v, err := l.Verdict(height - 1)
		require.NoError(t, err)
		require.Equal(t, v.StateHash, w.Hash())
		n := 0
		var last Key
		for x, err := range w.All() {
			require.NoError(t, err)
			require.Equal(t, marshalEntry(f.entries[x.Key]), marshalEntry(&x.Entry))
			require.True(t, n == 0 || last.Namespace < x.Namespace || last.Namespace == x.Namespace && last.Key < x.Key.Key)
			got, err := w.Get(x.Key)
			require.NoError(t, err)
			require.Equal(t, marshalEntry(&x.Entry), marshalEntry(got))
			last = x.Key
			n++
		}
		require.Len(t, f.entries, n)
		var keys []string
		for x, err := range w.Range("n\x00s", "key\x002", "key\x009") {
			require.NoError(t, err)
			keys = append(keys, x.Key.Key)
		}
		var want []string
		for k := range f.entries {
			if k.Namespace == "n\x00s" && k.Key >= "key\x002" && k.Key < "key\x009" {
				want = append(want, k.Key)
			}
		}
		slices.Sort(want)
		require.Equal(t, want, keys)
		for range w.Range("n\x00s", "", "") {
			break
		}
		for range w.Range("n\x00s", "b", "a") {
			t.Fatal("a range that ends before it begins")
		}
		_, err = w.Get(Key{Namespace: "none"})
		require.ErrorIs(t, err, ErrNotFound)
		places := 0
		for k := range f.entries {
			if k.Collection != "" {
				continue
			}
			var last Past
			for p, err := range w.History(k.Namespace, k.Key) {
				require.NoError(t, err)
				require.True(t, last.Block < p.Block || last.Block == p.Block && last.Tx < p.Tx || places == 0 || last == Past{})
				last = p
				places++
			}
			e := f.entries[k]
			require.Equal(t, Past{Block: e.Block, Tx: e.Tx}, last)
		}
		require.Positive(t, places)
		require.NoError(t, w.Close())
	}
}

// What a damaged store says of the state halts the channel.
func TestDamagedState(t *testing.T) {
	for name, damage := range map[string]func(d *DB, l *Ledger){
		"an entry": func(d *DB, l *Ledger) {
			lower, _ := stateSpan(l.record.number)
			require.NoError(t, d.pebble.Set(append(lower, kindEntry), []byte{0xff}, nil))
		},
		"an entry's key": func(d *DB, l *Ledger) {
			lower, _ := stateSpan(l.record.number)
			require.NoError(t, d.pebble.Set(append(lower, kindEntry, 0, 5), []byte{1, 1, 0}, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := someChain(t, "c1", 5)
			d := openMem(t, vfs.NewMem())
			l, err := d.Create("c1", all[0])
			require.NoError(t, err)
			require.NoError(t, judged(l, &scribe{}))
			damage(d, l)
			w, err := l.World(context.Background())
			require.NoError(t, err)
			var last error
			for _, err := range w.All() {
				last = err
			}
			require.ErrorIs(t, last, ErrCorrupt)
			require.NoError(t, w.Close())
			require.ErrorIs(t, l.Halted(), ErrHalted)
		})
	}
	t.Run("a verdict", func(t *testing.T) {
		all := someChain(t, "c1", 5)
		d := openMem(t, vfs.NewMem())
		l, err := d.Create("c1", all[0])
		require.NoError(t, err)
		require.NoError(t, judged(l, &scribe{}))
		require.NoError(t, d.pebble.Delete(verdictKey(l.record.number, 0), nil))
		_, err = l.Verdict(0)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorIs(t, l.Halted(), ErrHalted)
	})
	t.Run("the record", func(t *testing.T) {
		all := someChain(t, "c1", 5)
		fs := vfs.NewMem()
		d, err := Open("data", Options{fs: fs})
		require.NoError(t, err)
		l, err := d.Create("c1", all[0])
		require.NoError(t, err)
		set := stateMark{height: 9}.marshal()
		require.NoError(t, d.pebble.Set(stateKey(l.record.number), set, nil))
		require.NoError(t, d.Close())
		d, err = Open("data", Options{fs: fs})
		require.NoError(t, err)
		l, err = d.Channel("c1")
		require.NoError(t, err)
		require.ErrorIs(t, l.Halted(), ErrCorrupt)
		require.NoError(t, d.Close())
	})
}

func FuzzStateCodecs(f *testing.F) {
	f.Add(entryKey(1, Key{Namespace: "a\x00", Collection: "b", Key: "c"})[6:])
	f.Add(marshalEntry(&Entry{Block: 1, Tx: 2, Value: []byte("v"), Metadata: []byte("m")}))
	f.Add(Verdict{[]byte{0, 9}, make([]byte, 32), [32]byte{1}}.marshal())
	f.Add(stateMark{5, [32]byte{2}, []byte("carry")}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := parseEntryKey(b); err == nil {
			require.Equal(t, b, entryKey(1, k)[6:])
		}
		if e, err := parseEntry(b); err == nil {
			again, err := parseEntry(marshalEntry(e))
			require.NoError(t, err)
			require.Equal(t, e, again)
		}
		if v, err := parseVerdict(b); err == nil {
			require.Equal(t, b, v.marshal())
		}
		if s, err := parseStateMark(b); err == nil {
			require.Equal(t, b, s.marshal())
		}
	})
}
