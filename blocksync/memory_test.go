package blocksync

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What waits and what is being read and checked stay within the buffer together,
// but for the block that is next.
func TestMemoryIsBounded(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		const buffer, size = 256 << 10, 20_000
		w := simulate(t, 5)
		defer w.close()
		c := newChain(t).grow(200, size)
		n := newNode(t, w.hosts[0], c, 1, func(conf *Config) { conf.BufferBytes = buffer })
		defer n.close()
		n.start()
		for _, h := range w.hosts[1:] {
			s := newNode(t, h, c, len(c.raw))
			defer s.close()
			n.Height(h.ID(), uint64(len(c.raw)))
		}
		n.reach(uint64(len(c.raw)), time.Minute)
		synctest.Wait()
		s := n.Status()
		require.Greater(t, s.Peak, int64(buffer/2), "it hardly used its buffer")
		require.LessOrEqual(t, s.Peak, int64(buffer+maxCopies*2*size))
		require.Zero(t, s.Buffered)
		require.Empty(t, n.refusals())
	})
}
