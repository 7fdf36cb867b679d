package ledger

// A lock is held across writes, which a failed disk never ends: who waits for it
// then goes with the disk's failure.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// take takes the lock, unless the disk has failed.
func (k lock) take(d *DB) (release func(), err error) {
	select {
	case k <- struct{}{}:
		return func() { <-k }, nil
	default:
	}
	select {
	case k <- struct{}{}:
		return func() { <-k }, nil
	case <-d.gate.failed:
		return nil, d.failure()
	}
}

// alone enters the store as the one who appends to the ledger: until release
// nobody else does, and nothing that was appended before is under way.
func (l *Ledger) alone() (release func(), err error) {
	done, err := l.enter()
	if err != nil {
		return nil, err
	}
	let, err := l.appending.take(l.db)
	if err != nil {
		done()
		return nil, err
	}
	release = func() {
		let()
		done()
	}
	if err := l.settled(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// aside does work that writes beside Pebble, and returns its error, or, if the
// disk fails or is full meanwhile, that: it then goes on by itself when there is
// room. The caller has entered the store.
func (d *DB) aside(work func() error) error {
	c := &commit{done: make(chan struct{})}
	d.users.Add(1)
	go func() {
		defer d.users.Done()
		defer close(c.done)
		c.err = work()
	}()
	return d.await(c)
}
