package election

import (
	"bytes"
	"time"

	"grapevine/msp"
)

// An act is what a claim says.
type act int

const (
	standing act = 1 + iota // the claimant asks for votes
	leading                 // the claimant leads: a heartbeat
	yielding                // the claimant leads no longer
)

func (a act) String() string { return [...]string{"none", "standing", "leading", "yielding"}[a] }

// Reach says whether a peer can get blocks from the ordering service.
type reach int

const (
	cut    reach = iota // no orderer answers it, or it hasn't asked, or it never leads
	barred              // one answers, but it was a bad leader lately: it leads if nobody else can
	able                // one answers
)

// A claim is what a peer says of itself, signed, so that others can pass it on.
// What ranks it is fixed for its term: two peers that compare two claims come to
// the same end, whenever they do.
type claim struct {
	id     msp.PKIID
	act    act
	term   uint64
	seq    uint64 // milliseconds since 1970, and above all that the claimant used before
	reach  reach  // when it stood
	height uint64 // when it stood
	since  uint64 // milliseconds since 1970: leads since; 0 while it stands
	unfit  bool   // it stands, or stood, against a leader that brings no blocks

	orderer string // that it is connected to, now; empty: none
	raw     []byte // as it was signed; nil for one of our own that isn't yet
	// by is who signs it, if the signature wasn't checked: it came from the
	// claimant itself, whom the connection proves. It MUST be checked before the
	// claim is passed on. Owned by who has the claim: the shell, then the machine's
	// goroutine.
	by *msp.Identity
}

// repeats says whether a claim says again what d says: of another moment.
func (c *claim) repeats(d *claim) bool {
	return c.act == d.act && c.term == d.term && c.since == d.since && c.unfit == d.unfit && c.same(d)
}

// same says whether two claims of one claimant and term agree in what must not
// change.
func (c *claim) same(d *claim) bool {
	return c.reach == d.reach && c.height == d.height && (c.since == d.since || c.since == 0 || d.since == 0)
}

// beats ranks two claims of one act: the higher term; then who reaches an
// orderer, is higher, has the lower PKI-ID.
func (c *claim) beats(d *claim) bool {
	switch {
	case d == nil:
		return true
	case c.term != d.term:
		return c.term > d.term
	}
	return outranks(c.reach, c.height, c.id, d.reach, d.height, d.id)
}

func outranks(r reach, height uint64, id msp.PKIID, r2 reach, height2 uint64, id2 msp.PKIID) bool {
	switch {
	case r != r2:
		return r > r2
	case height != height2:
		return height > height2
	}
	return bytes.Compare(id[:], id2[:]) < 0
}

// A ballot is what one peer says to another on their own connection. Only the
// claim in it is signed.
type ballot struct {
	claim  *claim     // that the sender makes or supports; nil: none
	vote   *claimName // the candidate that the sender votes for
	term   uint64     // the highest that the sender knows
	reach  reach
	height uint64
	ask    bool // tell me whom you support, and what comes new for a while
}

// A claimName names a claim: at most one counts for each term and claimant.
type claimName struct {
	id   msp.PKIID
	term uint64
}

func (c *claim) name() *claimName { return &claimName{c.id, c.term} }

func millis(t time.Time) uint64 { return uint64(t.UnixMilli()) }
