package blocksync

import (
	"runtime"
	"sync"
)

// checkers are as many goroutines as there are cores, which check blocks in the
// order in which they came. They live as long as Run: a goroutine for each block
// would grow its stack for each. What is queued is bounded by the budget of bytes.
type checkers struct {
	mu     sync.Mutex
	queued sync.Cond // of mu
	queue  []func()  // guarded by mu
	over   bool      // guarded by mu
}

func newCheckers() *checkers {
	c := &checkers{}
	c.queued.L = &c.mu
	return c
}

// do has a check done.
func (c *checkers) do(check func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, check)
	c.queued.Signal()
}

// run checks until the function returned is called, which returns when all that
// was queued is done.
func (c *checkers) run() (stop func()) {
	var running sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for check := c.next(); check != nil; check = c.next() {
				check()
			}
		})
	}
	return func() {
		c.mu.Lock()
		c.over = true
		c.queued.Broadcast()
		c.mu.Unlock()
		running.Wait()
	}
}

// next waits for a check; nil if there will be none.
func (c *checkers) next() func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 {
		if c.over {
			return nil
		}
		c.queued.Wait()
	}
	check := c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	return check
}
