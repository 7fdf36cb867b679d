package blocksync

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// alone gives no streams.
func alone(c *Config) {
	c.Open = func(context.Context, peer.ID) (network.Stream, error) { return nil, errors.New("nobody") }
}

func TestPushInAnyOrder(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t).grow(20, 100)
		n := newNode(t, nil, c, 1, alone)
		defer n.close()
		kind, _ := n.Source()
		require.Equal(t, "none", kind)
		n.start()
		for i := len(c.raw) - 1; i > 0; i-- {
			n.Offer(n.check(c.raw[i]), "a", "push")
			n.Offer(n.check(c.raw[i]), "b", "push") // doubled
		}
		n.reach(21, time.Second)
		require.Equal(t, c.tip, n.led.Tip())
		synctest.Wait()
		kind, name := n.Source()
		require.Equal(t, "push", kind)
		require.Equal(t, peer.ID("a").String(), name)
		require.True(t, n.Has(20, c.hash(20)))
		require.False(t, n.Has(20, [32]byte{1}))
		require.False(t, n.Has(21, c.hash(20)))
		n.Offer(n.check(c.raw[20]), "a", "orderer/orderer0:7050") // stale: changes nothing
		synctest.Wait()
		blocks, bytes, _ := n.Buffered()
		require.Zero(t, blocks)
		require.Zero(t, bytes)
	})
}

// B10: a block with valid signatures and a wrong link is dropped, and the right
// one takes its place.
func TestBadLinkIsDropped(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t).grow(10, 100)
		other := newChain(t).grow(3, 50).grow(7, 10) // same genesis, other blocks
		n := newNode(t, nil, c, 1, alone)
		defer n.close()
		var conflicts int
		n.c.Conflict = func(held, second *block.Checked) {
			require.Equal(t, held.Number(), second.Number())
			conflicts++
		}
		n.start()
		n.Offer(n.check(other.raw[5]), "evil", "push")
		n.Offer(n.check(c.raw[5]), "good", "push") // the first stays, the second is told of
		require.Equal(t, 1, conflicts)
		for i := 1; i < 5; i++ {
			n.Offer(n.check(c.raw[i]), "good", "push")
		}
		n.reach(5, time.Second)
		synctest.Wait()
		require.Contains(t, n.refusals(), "reject block.bad_link")
		require.Contains(t, n.refusals(), "ignore blocksync.conflict")
		for i := 5; i <= 10; i++ {
			n.Offer(n.check(c.raw[i]), "good", "push")
		}
		n.reach(11, time.Second)
		require.Equal(t, c.tip, n.led.Tip())
	})
}

// Blocks that were checked under the rules before a configuration are judged
// again after it, and one that no longer holds is dropped.
func TestConfigurationBetween(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t).grow(3, 10)
		stale := c.fork(4)
		stale.grow(2, 20) // 4 and 5 as if no configuration came
		c.reconfigure().grow(2, 30)
		n := newNode(t, nil, c, 1, alone)
		defer n.close()
		n.start()
		n.Offer(n.check(stale.raw[5]), "evil", "push") // holds under the old rules
		for i := 1; i < 5; i++ {
			n.Offer(n.check(c.raw[i]), "good", "push")
		}
		n.reach(5, time.Second)
		synctest.Wait()
		require.EqualValues(t, 5, n.led.Height(), "committed under old rules")
		require.NotEmpty(t, n.refusals())
		n.Offer(n.check(c.raw[5]), "good", "push")
		n.Offer(n.check(c.raw[6]), "good", "push")
		n.reach(7, time.Second)
		require.Equal(t, c.tip, n.led.Tip())
	})
}

// fussy is a ledger whose appends fail as told.
type fussy struct {
	Ledger
	fail func() error
	sets []int // blocks of each append
}

func (f *fussy) Append(bs ...block.Verified) error {
	if err := f.fail(); err != nil {
		return err
	}
	f.sets = append(f.sets, len(bs))
	return f.Ledger.Append(bs...)
}

func (f *fussy) Range(from, to uint64) iter.Seq2[[]byte, error] { return f.Ledger.Range(from, to) }

func TestFullDiskPausesAndGoesOn(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t).grow(5, 10)
		errFull := errors.New("disk full")
		fullUntil := time.Now().Add(time.Minute)
		tries := 0
		n := newNode(t, nil, c, 1, alone, func(conf *Config) {
			conf.Ledger = &fussy{Ledger: conf.Ledger, fail: func() error {
				if tries++; time.Now().Before(fullUntil) {
					return errFull
				}
				return nil
			}}
			conf.Retriable = func(err error) bool { return errors.Is(err, errFull) }
		})
		defer n.close()
		n.start()
		for i := 1; i <= 5; i++ {
			n.Offer(n.check(c.raw[i]), "a", "push")
		}
		time.Sleep(30 * time.Second)
		require.ErrorIs(t, n.Paused(), errFull)
		n.reach(6, 35*time.Second)
		require.Less(t, time.Since(fullUntil), 5*time.Second, "resumed late")
		require.Less(t, tries, 60, "spins on a full disk")
		synctest.Wait()
		require.NoError(t, n.Paused())
	})
}

func TestOtherLedgerErrorsEndRun(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t).grow(1, 10)
		broken := errors.New("input/output error")
		n := newNode(t, nil, c, 1, alone, func(conf *Config) {
			conf.Ledger = &fussy{Ledger: conf.Ledger, fail: func() error { return broken }}
		})
		n.start()
		n.Offer(n.check(c.raw[1]), "a", "push")
		require.ErrorIs(t, <-n.over, broken)
		require.NoError(t, n.db.Close())
	})
}

// While an append runs, what comes gathers into one batch; alone, a block is
// appended at once. A configuration ends its batch.
func TestBatches(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t).grow(10, 10).reconfigure().grow(10, 10)
		var led *fussy
		n := newNode(t, nil, c, 1, alone, func(conf *Config) {
			led = &fussy{Ledger: conf.Ledger, fail: func() error {
				time.Sleep(10 * time.Millisecond)
				return nil
			}}
			conf.Ledger = led
		})
		defer n.close()
		n.start()
		n.Offer(n.check(c.raw[1]), "a", "push")
		synctest.Wait() // in Append now
		for i := 2; i <= 11; i++ {
			n.Offer(n.check(c.raw[i]), "a", "push")
		}
		n.reach(12, time.Second)
		synctest.Wait()
		require.Equal(t, []int{1, 10}, led.sets)
		for i := 12; i <= 21; i++ {
			n.Offer(n.check(c.raw[i]), "a", "push")
		}
		n.reach(22, time.Second)
	})
}

func TestRoom(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t).grow(9, 100)
		n := newNode(t, nil, c, 1, alone, func(conf *Config) { conf.Window = 4 })
		defer n.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, n.Room(ctx, 4))
		short, stop := context.WithTimeout(ctx, time.Second)
		require.ErrorIs(t, n.Room(short, 5), context.DeadlineExceeded)
		stop()
		n.start()
		waited := make(chan error, 1)
		go func() { waited <- n.Room(ctx, 5) }()
		synctest.Wait()
		require.Empty(t, waited)
		n.Offer(n.check(c.raw[1]), "a", "push")
		require.NoError(t, <-waited)
	})
}
