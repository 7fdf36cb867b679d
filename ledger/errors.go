package ledger

import "grapevine/wire"

// What the ledger refuses, and why. All are our own trouble and no peer's, so
// their verdict is Ignore, but for ErrFork, which is proof of a broken ordering
// service. Each comes wrapped with the channel and what was being done.
var (
	// ErrNotFound: the channel, block, hash, transaction or fact is not kept here.
	ErrNotFound = wire.NewReason("ledger.not_found", wire.Ignore)
	// ErrPruned: the block, or what is asked about it, lies below the lowest block
	// kept. ErrNotFound is wrapped beside it.
	ErrPruned = wire.NewReason("ledger.pruned", wire.Ignore)
	// ErrBadSnapshot: a snapshot isn't one of this channel, or isn't whole.
	ErrBadSnapshot = wire.NewReason("ledger.bad_snapshot", wire.Reject)
	// ErrExists: Create for a channel that is kept under another genesis block.
	ErrExists = wire.NewReason("ledger.exists", wire.Ignore)
	// ErrUnjudged: transactions aren't judged here, or no longer, for the reason
	// wrapped beside it; so there is no world state at that height.
	ErrUnjudged = wire.NewReason("ledger.unjudged", wire.Ignore)
	// ErrGap: a block that doesn't follow the one before it.
	ErrGap = wire.NewReason("ledger.gap", wire.Ignore)
	// ErrFork: another header at a height that is already held.
	ErrFork = wire.NewReason("ledger.fork", wire.Halt)
	// ErrHalted: the channel, or the whole store, takes no more blocks; the
	// reason is wrapped beside it. Reads go on.
	ErrHalted = wire.NewReason("ledger.halted", wire.Ignore)
	// ErrFull: the disk is full. Nothing is lost; the same Append may be tried
	// again, and does nothing if it went through after all.
	ErrFull = wire.NewReason("ledger.full", wire.Ignore)
	// ErrCorrupt: what the disk gave back isn't what was written.
	ErrCorrupt = wire.NewReason("ledger.corrupt", wire.Ignore)
	// ErrDisk: the disk failed a write or a sync. Only a restart can tell what
	// it holds, so the process should end (exit code 74).
	ErrDisk = wire.NewReason("ledger.disk_failed", wire.Ignore)
	// ErrForeign: the folder holds something else, or a newer format. It is
	// left untouched.
	ErrForeign = wire.NewReason("ledger.foreign_store", wire.Ignore)
	// ErrLocked: another process, or another DB in this one, holds the folder.
	ErrLocked = wire.NewReason("ledger.locked", wire.Ignore)
	// ErrClosed: the DB is closed.
	ErrClosed = wire.NewReason("ledger.closed", wire.Ignore)
)
