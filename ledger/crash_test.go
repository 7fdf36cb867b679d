package ledger

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// A scenario is a play of single acts on a store: create, append, judged or not,
// judge what was not, drop, keep a fact, flush, close and open again. After each crash the store must stand
// exactly where some act ended, and not before the last one that returned.
type scenario struct {
	fs     *vfs.MemFS // what outlives a crash
	chains map[string]*script
	db     *DB

	cloning sync.RWMutex // see disk

	mu     sync.Mutex
	states []standing // guarded by mu: states[i] is the store after i acts
	acked  int        // guarded by mu: states before this one are history
}

// A script is the blocks that a channel will have.
type script struct {
	all   []block.Verified // block 0 first
	folds []*fold          // by height of the state
}

// A state is what a store holds: the height of each channel and of its world
// state, and a fact.
type standing struct {
	heights, judged map[string]uint64
	fact            string
}

func (s standing) clone() standing {
	return standing{maps.Clone(s.heights), maps.Clone(s.judged), s.fact}
}

func (s standing) equal(o standing) bool {
	return s.fact == o.fact && maps.Equal(s.heights, o.heights) && maps.Equal(s.judged, o.judged)
}

// scripts are made once: signing takes longer than crashing.
var scripts = sync.OnceValue(func() map[string]*script {
	m := make(map[string]*script)
	for _, name := range []string{"small", "middle", "large", "gone"} {
		c, genesis := newChain(noTest{}, name)
		s := &script{all: []block.Verified{genesis}}
		for i := range 60 {
			size := 300
			switch {
			case name == "large" && i%7 == 3:
				size = 60_000
			case name == "large", name == "middle" && i%3 > 0:
				size = 2_500
			}
			if i == 20 {
				s.all = append(s.all, c.reconfigure())
				continue
			}
			s.all = append(s.all, c.next(size, fmt.Sprintf("%s%d", name, i), "again"))
		}
		for i := range len(s.all) + 1 {
			s.folds = append(s.folds, foldTo(s.all, uint64(i)))
		}
		m[name] = s
	}
	return m
})

func newScenario(fs *vfs.MemFS) *scenario {
	return &scenario{fs: fs, chains: scripts(), states: []standing{{heights: map[string]uint64{}, judged: map[string]uint64{}}}}
}

// act does one thing that leads from the last state to the next.
func (s *scenario) act(t testing.TB, next standing, do func() error) {
	s.mu.Lock()
	s.states = append(s.states, next)
	s.mu.Unlock()
	require.NoError(t, do())
	s.mu.Lock()
	s.acked = len(s.states) - 1
	s.mu.Unlock()
}

// play does n random acts on fs, a view of s.fs, and closes the store.
func (s *scenario) play(t testing.TB, fs vfs.FS, rng *rand.Rand, n int) {
	var err error
	s.db, err = Open("ledger", Options{fs: fs, CacheBytes: 1 << 20})
	require.NoError(t, err)
	for range n {
		s.random(t, fs, rng)
	}
	require.NoError(t, s.db.Close())
}

func (s *scenario) random(t testing.TB, fs vfs.FS, rng *rand.Rand) {
	var err error
	next := s.states[len(s.states)-1].clone()
	name := []string{"small", "large", "gone"}[rng.IntN(3)]
	all := s.chains[name].all
	l, missing := s.db.Channel(name)
	switch p := rng.IntN(100); {
	case missing != nil:
		next.heights[name], next.judged[name] = 1, 0
		s.act(t, next, func() error { _, err := s.db.Create(name, all[0]); return err })
	case p < 10 && l.State().Height < l.Height():
		next.judged[name] = l.Height()
		s.act(t, next, func() error { return judged(l, &scribe{}) })
	case p < 70 && l.Height() < uint64(len(all)):
		from := l.Height()
		to := min(from+1+rng.Uint64N(4), uint64(len(all)))
		next.heights[name] = to
		l.Judge(nil)
		if next.judged[name] == from && rng.IntN(8) > 0 {
			l.Judge(&scribe{})
			next.judged[name] = to
		}
		s.act(t, next, func() error { return l.Append(all[from:to]...) })
	case p < 80:
		next.fact = fmt.Sprint(rng.Uint32())
		s.act(t, next, func() error { return s.db.PutMeta("fact", []byte(next.fact)) })
	case p < 86 && name == "gone":
		delete(next.heights, name)
		delete(next.judged, name)
		s.act(t, next, func() error { return s.db.Drop(name) })
	case p < 95:
		flush(t, s.db)
	default:
		require.NoError(t, s.db.Close())
		s.db, err = Open("ledger", Options{fs: fs, CacheBytes: 1 << 20})
		require.NoError(t, err)
	}
}

// A wreck is what a crash left, and the states it may stand in.
type wreck struct {
	fs      *vfs.MemFS
	where   string
	allowed []standing
}

// crash takes what would be left of the disk if the power went now.
func (s *scenario) crash(where string, percent int, rng *rand.Rand) wreck {
	s.mu.Lock()
	acked := s.acked
	s.mu.Unlock()
	w := wreck{where: fmt.Sprintf("%s, %d %% of what isn't synced kept", where, percent)}
	s.cloning.Lock()
	w.fs = s.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
	s.cloning.Unlock()
	s.mu.Lock()
	w.allowed = append(w.allowed, s.states[acked:]...)
	s.mu.Unlock()
	return w
}

// disk is a scenario's file system. MemFS takes its own lock twice in one of its
// operations, which deadlocks when a clone is wanted in between.
type disk struct {
	vfs.FS
	s *scenario
}

func (d disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	d.s.cloning.RLock()
	defer d.s.cloning.RUnlock()
	return d.FS.ReuseForWrite(old, name, c)
}

// inspect opens a wreck, finds which state it stands in, and checks every key.
func (s *scenario) inspect(w wreck) (*DB, standing, error) {
	d, err := Open("ledger", Options{fs: w.fs, CacheBytes: 1 << 20})
	if err != nil {
		return nil, standing{}, err
	}
	got := standing{heights: make(map[string]uint64), judged: make(map[string]uint64)}
	for _, name := range d.Channels() {
		l, err := d.Channel(name)
		if err != nil {
			return d, got, err
		}
		if err := l.Halted(); err != nil {
			return d, got, err
		}
		got.heights[name], got.judged[name] = l.Height(), l.State().Height
	}
	if v, err := d.Meta("fact"); err == nil {
		got.fact = string(v)
	}
	for _, st := range w.allowed {
		if st.equal(got) {
			return d, got, s.whole(d, got)
		}
	}
	return d, got, fmt.Errorf("the store stands at %v, allowed are %v", got, w.allowed)
}

// whole checks that the store holds st and nothing else.
func (s *scenario) whole(d *DB, st standing) error {
	for name, height := range st.heights {
		l, err := d.Channel(name)
		if err != nil {
			return err
		}
		if err := s.chains[name].matches(d, l, height, st.judged[name]); err != nil {
			return fmt.Errorf("channel %s: %w", name, err)
		}
	}
	return nil
}

func (c *script) matches(d *DB, l *Ledger, height, judged uint64) error {
	if err := c.folds[judged].holds(d, l); err != nil {
		return err
	}
	keys := 1 + int(judged) + min(1, int(judged)) // tip, verdicts, state record
	for i, b := range c.all[:height] {
		raw, err := l.Block(uint64(i))
		if err != nil {
			return err
		}
		if !bytes.Equal(raw, b.Bytes()) {
			return fmt.Errorf("block %d has other bytes", i)
		}
		keys += 2
		for j, id := range b.TxIDs() {
			if id == "" {
				continue
			}
			keys++
			n, k, err := l.ByTxID(id)
			if err != nil {
				return err
			}
			if id != "again" && (n != uint64(i) || k != j) || id == "again" && n > 1 {
				return fmt.Errorf("transaction %s at %d, %d", id, n, k)
			}
		}
	}
	if last := c.all[height-1]; l.Tip() != (block.Tip{Height: height, Hash: last.Hash()}) {
		return fmt.Errorf("the tip is %v", l.Tip())
	}
	if _, n, err := l.ConfigBlock(); err != nil || height > 21 && n != 21 || height <= 21 && n != 0 {
		return fmt.Errorf("config block %d: %w", n, err)
	}
	lower, upper := channelSpan(l.record.number)
	if n := countKeys(noTest{}, d, lower, upper); n != keys {
		return fmt.Errorf("%d keys, want %d", n, keys)
	}
	return nil
}

// goesOn checks that a recovered store takes what comes next.
func (s *scenario) goesOn(d *DB, st standing) error {
	for name, height := range st.heights {
		all := s.chains[name].all
		if height == uint64(len(all)) {
			continue
		}
		l, err := d.Channel(name)
		if err != nil {
			return err
		}
		l.Judge(&scribe{})
		if err := l.Append(all[height]); err != nil {
			return err
		}
		if err := s.chains[name].matches(d, l, height+1, height+1); err != nil {
			return err
		}
	}
	return nil
}

// judge opens a wreck and reports what is wrong with it.
func (s *scenario) judge(w wreck) error {
	d, st, err := s.inspect(w)
	if err == nil {
		err = s.goesOn(d, st)
	}
	if d != nil {
		if e := d.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("crash at %s: %w", w.where, err)
	}
	return nil
}

// crashRound plays a scenario, crashes at every operation of the file system, at
// each with a share of the unsynced data kept, and then crashes the recovery of
// one wreck in the same way. It returns the number of crashes.
func crashRound(t *testing.T, seed uint64, acts int) int {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := newScenario(vfs.NewCrashableMem())
	var crashes int
	var wrecks []wreck
	var mu sync.Mutex // Pebble's goroutines come to the injector at once
	at := func(recovering bool) errorfs.InjectorFunc {
		return func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			crashes++
			where := fmt.Sprintf("seed %d, operation %d (%d %s)", seed, crashes, op.Kind, op.Path)
			if recovering {
				where += " while recovering"
			}
			for _, percent := range []int{0, []int{20, 50, 80, 100}[rng.IntN(4)]} {
				wrecks = append(wrecks, s.crash(where, percent, rng))
			}
			return nil
		}
	}
	drain := func() []wreck {
		mu.Lock()
		defer mu.Unlock()
		ws := wrecks
		wrecks = nil
		return ws
	}
	s.play(t, errorfs.Wrap(disk{s.fs, s}, at(false)), rand.New(rand.NewPCG(seed, 2)), acts)
	first := drain()
	for _, w := range first {
		require.NoError(t, s.judge(wreck{w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}), w.where, w.allowed}))
	}
	// A crash, and another while it is repaired.
	w := first[rng.IntN(len(first))]
	d, st, err := s.inspect(wreck{w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}), w.where, w.allowed})
	require.NoError(t, err)
	require.NoError(t, d.Close())
	again := &scenario{fs: w.fs, chains: s.chains, states: []standing{st}}
	s = again
	again.play(t, errorfs.Wrap(disk{again.fs, again}, at(true)), rand.New(rand.NewPCG(seed, 3)), 3)
	for _, w := range drain() {
		require.NoError(t, again.judge(w))
	}
	return 2 * crashes
}

// TestCrash is F-C1 and F-C6: at least 2,000 crash points.
func TestCrash(t *testing.T) {
	total, enough, acts := 0, 2000, 40
	if raced {
		enough, acts = 200, 8
	}
	for seed := uint64(1); total < enough; seed++ {
		total += crashRound(t, seed, acts)
	}
	t.Logf("%d crashes", total)
}

// soakCrashes is how many crash points a soak run has at least.
const soakCrashes = 10_000

// TestSoakCrash is F-C2: GRAPEVINE_SOAK says how long it crashes new scenarios, at
// least as long as it takes for so many.
func TestSoakCrash(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("GRAPEVINE_SOAK"))
	if err != nil {
		t.Skip("GRAPEVINE_SOAK gives no duration, such as 10m")
	}
	start := time.Now()
	total := 0
	for seed := uint64(start.UnixNano()); time.Since(start) < d || total < soakCrashes; seed++ {
		total += crashRound(t, seed, 120)
	}
	t.Logf("%d crashes", total)
}

// noTest stands for a test where there is none.
type noTest struct{ testing.TB }

func (noTest) Helper()                        {}
func (noTest) Errorf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
func (noTest) FailNow()                       { panic("failed") }
func (noTest) Name() string                   { return "" }
