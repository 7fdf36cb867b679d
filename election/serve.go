package election

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

const (
	clocks    = 30 * time.Second // clocks may differ so much
	judgedFor = 10 * time.Second // Admit's yes is remembered
	maxProven = 1024
	burst     = 60 // ballots of one peer at once
	perSecond = 25 // and on the average
)

// proof is the newest claim of a claimant that was verified.
type proof struct {
	claim *claim
	until time.Time // Admit is asked again
}

// bucket bounds what a peer may say.
type bucket struct {
	tokens float64
	filled time.Time
}

func (b *bucket) spend(now time.Time) bool {
	if b.filled.IsZero() {
		b.tokens = burst
	} else {
		b.tokens = min(b.tokens+now.Sub(b.filled).Seconds()*perSecond, burst)
	}
	b.filled = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// Serve reads what a member says on a stream, until the stream ends.
func (e *Election) Serve(s network.Stream, from peer.ID) {
	e.mu.Lock()
	e.streams[s] = from
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.streams, s)
		e.mu.Unlock()
		_ = s.Reset() // nothing more is read from it
	}()
	in := wire.Ahead(s)
	for {
		b, err := wire.ReadFrame(in, wire.MaxBallot)
		if err == nil {
			w := new(wire.Ballot)
			if err = wire.Unmarshal(b, w); err == nil {
				err = e.Hear(from, w, time.Now())
			}
		}
		if err != nil {
			r := wire.ReasonOf(err)
			if r != nil && !errors.Is(err, io.EOF) && e.c.Refused != nil {
				e.c.Refused(from, r)
			}
			if r == nil || r.Verdict() != wire.Ignore {
				return
			}
		}
	}
}

// shut ends the streams that a peer speaks on.
func (e *Election) shut(p peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s, from := range e.streams {
		if from == p {
			_ = s.Reset() // its reader returns
		}
	}
}

// Hear takes one ballot of a connected member in: what can be said of it without
// knowing the term is said at once.
func (e *Election) Hear(from peer.ID, w *wire.Ballot, now time.Time) error {
	who, _, ok := e.c.Bound(from)
	if !ok {
		return fmt.Errorf("ballot of %s: %w", from, NotMember)
	}
	e.mu.Lock()
	if e.buckets[from] == nil {
		e.buckets[from] = new(bucket)
	}
	spent := e.buckets[from].spend(now)
	e.mu.Unlock()
	if !spent {
		return fmt.Errorf("ballot of %s: %w", from, RateLimit)
	}
	if who.MSPID() != e.mspID {
		return fmt.Errorf("ballot of %s of %s: %w", from, who.MSPID(), WrongOrg)
	}
	b, signed, err := decode(w)
	if err != nil {
		return fmt.Errorf("ballot of %s: %w", from, err)
	}
	if signed != nil {
		c, err := e.prove(signed, who, now)
		if err != nil {
			return fmt.Errorf("ballot of %s: %w", from, err)
		}
		b.claim = c
	}
	select {
	case e.heard <- heard{who.PKIID(), from, b}:
	default: // what counts is said again
	}
	return nil
}

// prove verifies a claim that a peer made or passed on.
//
// A signature is there so that a claim can be passed on: who makes a claim on a
// connection of its own is known by the handshake. So a claimant that says again
// what it has proven, as a leader does with each beat, is believed for judgedFor
// without a look at the signature, and the claim is marked: [run.tell] looks
// before it is passed on. A bad signature thus gains nothing but to be followed,
// by those who hear the claimant itself, in a term that it has proven before,
// and for judgedFor at the longest.
func (e *Election) prove(s *wire.SignedClaim, from *msp.Identity, now time.Time) (*claim, error) {
	c, err := parse(e.c.Tag, s)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	p, ok := e.proven[c.id]
	e.mu.Unlock()
	judged := ok && now.Before(p.until)
	if judged && bytes.Equal(c.raw, p.claim.raw) {
		return p.claim, nil
	}
	who, direct := from, c.id == from.PKIID()
	if !direct {
		if age := now.Sub(time.UnixMilli(int64(c.seq))); age > clocks+10*time.Second || age < -clocks {
			return nil, fmt.Errorf("claim of %s, made %v ago: %w", c.id, age, StaleTerm)
		}
		if who, ok = e.c.Known(c.id); !ok && c.id != e.id {
			return nil, fmt.Errorf("claim of %s: %w", c.id, Unknown)
		}
		if c.id == e.id {
			who = e.c.Self.Identity()
		}
	}
	if who.MSPID() != e.mspID {
		return nil, fmt.Errorf("claim of %s of %s: %w", who.Name(), who.MSPID(), WrongOrg)
	}
	if now.After(who.Certificate().NotAfter) {
		return nil, fmt.Errorf("claim of %s: %w", who.Name(), msp.Expired)
	}
	if judged && direct && c.repeats(p.claim) {
		c.by = who
		return c, nil
	}
	if !judged {
		p.until = now.Add(judgedFor)
		if err := e.c.Admit(who, now); err != nil {
			if r := wire.ReasonOf(err); r == nil || r.Verdict() != wire.Reject {
				err = fmt.Errorf("%w: %w", NotMember, err)
			}
			return nil, fmt.Errorf("claim of %s: %w", who.Name(), err)
		}
	}
	if err := e.verify(s, who); err != nil {
		return nil, err
	}
	p.claim = c
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.proven) >= maxProven {
		clear(e.proven)
	}
	e.proven[c.id] = p
	return c, nil
}

// verify checks a claim's signature.
func (e *Election) verify(s *wire.SignedClaim, by *msp.Identity) error {
	e.checks.Add(1)
	sum := wire.HashParts([]byte(wire.DomainClaim), s.Claim)
	if err := by.Verify(sum[:], s.Signature); err != nil {
		return fmt.Errorf("claim of %s: %w: %w", by.Name(), BadSignature, err)
	}
	return nil
}

// vouch checks a claim that came from the claimant alone, before it is passed
// on. If it is bad, the claimant has to prove what it says next.
func (e *Election) vouch(c *claim) error {
	if c.by == nil {
		return nil
	}
	s := new(wire.SignedClaim)
	err := wire.Unmarshal(c.raw, s)
	if err == nil {
		err = e.verify(s, c.by)
	}
	if err != nil {
		e.mu.Lock()
		delete(e.proven, c.id)
		e.mu.Unlock()
		return err
	}
	c.by = nil
	return nil
}
