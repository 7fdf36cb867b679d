package ledger

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

func TestRange(t *testing.T) {
	d, l, c := fresh(t, "c")
	bs := append([]block.Verified{}, c.some(40, 3000)...)
	require.NoError(t, l.Append(bs[:20]...))
	flush(t, d)
	require.NoError(t, l.Append(bs[20:]...))

	numbers := func(from, to uint64) (ns []int, err error) {
		for raw, e := range l.Range(from, to) {
			if e != nil {
				require.NoError(t, err, "an error is the last thing")
				err = e
				continue
			}
			h, e := header(raw)
			require.NoError(t, e)
			n := int(h.Number)
			ns = append(ns, n)
			if n > 0 {
				require.Equal(t, bs[n-1].Bytes(), raw)
			}
		}
		return ns, err
	}
	for _, c := range []struct{ from, to, n uint64 }{{0, 41, 41}, {5, 6, 1}, {18, 23, 5}, {40, 1 << 60, 1}, {7, 7, 0}, {9, 3, 0}} {
		ns, err := numbers(c.from, c.to)
		require.NoError(t, err)
		require.Len(t, ns, int(c.n))
		if c.n > 0 {
			require.Equal(t, int(c.from), ns[0])
		}
	}
	_, err := numbers(41, 50)
	require.ErrorIs(t, err, ErrNotFound)
	for range l.Range(0, 41) {
		break // leaves nothing open: Close would say so
	}
}

func TestBlocksFollowTheTip(t *testing.T) {
	_, l, c := fresh(t, "c")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	got := make(chan uint64)
	ended := make(chan error, 1)
	go func() {
		for b, err := range l.Blocks(ctx, 0) {
			if err != nil {
				ended <- err
				return
			}
			got <- b.Header.Number
		}
	}()
	require.Equal(t, uint64(0), <-got)
	next := uint64(1)
	for _, n := range []int{1, 3, 40} {
		require.NoError(t, l.Append(c.some(n, 100)...))
		for range n {
			require.Equal(t, next, <-got)
			next++
		}
	}
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestBlocksEnd(t *testing.T) {
	t.Run("by close", func(t *testing.T) {
		c, genesis := newChain(t, "c")
		d, err := Open("ledger", Options{fs: vfs.NewMem()})
		require.NoError(t, err)
		l, err := d.Create("c", genesis)
		require.NoError(t, err)
		require.NoError(t, l.Append(c.some(3, 10)...))
		seen := make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			for b, err := range l.Blocks(context.Background(), 0) {
				if err != nil {
					ended <- err
				} else if b.Header.Number == 3 {
					close(seen)
				}
			}
		}()
		<-seen
		require.NoError(t, d.Close())
		require.ErrorIs(t, <-ended, ErrClosed)
	})
	t.Run("by their consumer, who holds up nobody", func(t *testing.T) {
		c, genesis := newChain(t, "c")
		d, err := Open("ledger", Options{fs: vfs.NewMem()})
		require.NoError(t, err)
		l, err := d.Create("c", genesis)
		require.NoError(t, err)
		require.NoError(t, l.Append(c.some(30, 10)...))
		for _, err := range l.Blocks(context.Background(), 2) {
			require.NoError(t, err)
			require.NoError(t, d.Close(), "while the consumer is at a block")
			break
		}
	})
	t.Run("by their context, in the midst", func(t *testing.T) {
		_, l, c := fresh(t, "c")
		require.NoError(t, l.Append(c.some(30, 10)...))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		n := 0
		var last error
		for _, err := range l.Blocks(ctx, 0) {
			if last = err; err == nil {
				n++
			}
			cancel()
		}
		require.Equal(t, 1, n)
		require.ErrorIs(t, last, context.Canceled)
	})
}

func TestWait(t *testing.T) {
	_, l, c := fresh(t, "c")
	require.NoError(t, l.Wait(context.Background(), 1))
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, l.Wait(ctx, 2), context.DeadlineExceeded)
	reached := make(chan error)
	go func() { reached <- l.Wait(context.Background(), 3) }()
	require.NoError(t, l.Append(c.some(1, 1)...))
	require.NoError(t, l.Append(c.some(1, 1)...))
	require.NoError(t, <-reached)
}

// Writers on two channels, readers on both, and what they see is never ahead of
// what is announced.
func TestConcurrency(t *testing.T) {
	d := openMem(t, vfs.NewMem())
	const blocks = 60
	var wg sync.WaitGroup
	for _, name := range []string{"one", "two"} {
		c, genesis := newChain(t, name)
		bs := c.some(blocks, 2000)
		l, err := d.Create(name, genesis)
		require.NoError(t, err)
		wg.Go(func() {
			for i := 0; i < blocks; i += 3 {
				require.NoError(t, l.Append(bs[i:i+3]...))
			}
		})
		wg.Go(func() { // a second writer of the same blocks
			for _, b := range bs {
				if err := l.Append(b); err != nil && !errors.Is(err, ErrGap) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			n := uint64(0)
			for b, err := range l.Blocks(context.Background(), 0) {
				require.NoError(t, err)
				require.Equal(t, n, b.Header.Number)
				if n++; n == blocks+1 {
					return
				}
			}
		})
		wg.Go(func() {
			for h := uint64(0); h <= blocks; {
				h = l.Height()
				_, err := l.Block(h - 1)
				require.NoError(t, err)
				if _, err := l.ByHash(bs[blocks-1].Hash()); err == nil {
					require.Equal(t, uint64(blocks+1), l.Height())
				}
				for _, err := range l.Range(h-1, h+10) {
					require.NoError(t, err)
				}
			}
		})
	}
	wg.Wait()
}
