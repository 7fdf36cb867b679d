package blocksync

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// An event is what happened.
type event interface{ event() }

type (
	evHeld struct {
		number uint64
		size   int64
		from   peer.ID
		slice  uint64 // that brought it; 0: none did
	} // the window took it in
	evDropped struct{ number uint64 } // the window let it go: missing again
	evSized   struct {
		number uint64
		size   int64
	} // how large a block is that is coming, as its frame says
	evCommitted struct{ height uint64 }
	evAnnounced struct {
		number uint64
		size   int64
		from   []peer.ID
	}
	evExpected struct {
		number uint64
		until  time.Time
	} // it is on its way by push until then
	evHeight struct {
		peer   peer.ID
		height uint64
	}
	evGone  struct{ peer peer.ID }
	evBad   struct{ peer peer.ID } // what it sent turned out wrong
	evMoved struct {
		id    uint64
		bytes int64
	} // bytes of a slice came
	evArrived struct {
		id     uint64
		number uint64
	} // a block of a slice was taken: it is in the window, or was already
	evParked struct {
		id     uint64
		parked bool
	} // a block of a slice waits for a configuration block, or no longer
	evRead   struct{ id uint64 } // all of a slice has been read
	evDone   struct{ id uint64 } // and taken
	evFailed struct {
		id             uint64
		fault          fault
		lowest, height uint64 // what its status said, if it came that far
	}
	evHurry struct{} // somebody asks for what is missing
	evTick  struct{}
)

func (evHeld) event()      {}
func (evDropped) event()   {}
func (evSized) event()     {}
func (evCommitted) event() {}
func (evAnnounced) event() {}
func (evExpected) event()  {}
func (evHeight) event()    {}
func (evGone) event()      {}
func (evBad) event()       {}
func (evMoved) event()     {}
func (evArrived) event()   {}
func (evParked) event()    {}
func (evRead) event()      {}
func (evDone) event()      {}
func (evHurry) event()     {}
func (evFailed) event()    {}
func (evTick) event()      {}

// fault says why a slice ended early.
type fault int

const (
	ours    fault = iota // no room, shut down: not the peer's doing
	broken               // the stream ended, was reset or couldn't be opened
	lacking              // it doesn't hold the first block
	busy                 // it is at its limits
	wrong                // what it sent is no honest peer's
)

// An effect is what the shell has to do.
type effect interface{ effect() }

type (
	fxFetch struct {
		id       uint64
		peer     peer.ID
		from, to uint64 // to is not included
		wait     time.Duration
		body     bool // of a block that was announced; else it was missed
	}
	fxCancel struct {
		id   uint64
		slow bool
	} // slow: the peer's doing
	fxBan struct {
		peer peer.ID
		d    time.Duration
	}
	fxLied    struct{ peer peer.ID } // claimed a height that isn't there
	fxLowered struct{ peer peer.ID } // claims less than before
	fxWake    struct{ at time.Time } // replaces the last
)

func (fxFetch) effect()   {}
func (fxCancel) effect()  {}
func (fxBan) effect()     {}
func (fxLied) effect()    {}
func (fxLowered) effect() {}
func (fxWake) effect()    {}
