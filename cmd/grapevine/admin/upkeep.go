package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
	"grapevine/node"
)

// LedgerChecks is `ledger verify` and `ledger scrub`.
type LedgerChecks struct {
	Meta
	OK    bool          `json:"ok"`
	Items []LedgerCheck `json:"items"`
}

// LedgerCheck is what was read of one channel's ledger, found, and made good.
type LedgerCheck struct {
	Channel    string         `json:"channel"`
	OK         bool           `json:"ok"` // nothing is damaged, any more
	Height     uint64         `json:"height"`
	Blocks     uint64         `json:"blocks"`  // read
	Entries    uint64         `json:"entries"` // of the world state, read
	Bytes      uint64         `json:"bytes"`   // of both
	StateHash  string         `json:"stateHash"`
	Damage     LedgerDamage   `json:"damage"` // what is left of it
	Findings   []string       `json:"findings"`
	Failures   []BlockFailure `json:"failures"` // of verify alone: blocks that don't hold
	Repaired   LedgerRepair   `json:"repaired"`
	ElapsedSec float64        `json:"elapsedSec"`
}

// LedgerDamage is what is known to be damaged.
type LedgerDamage struct {
	Blocks []uint64 `json:"blocks"`
	Index  bool     `json:"index"`
	State  bool     `json:"state"`
	Tip    bool     `json:"tip"`
	Tables int      `json:"tables"` // files of the store
	Lost   uint64   `json:"lost"`   // blocks at the end, which come again as new ones do
}

// LedgerRepair is what was made good.
type LedgerRepair struct {
	Tables int    `json:"tables"`
	Blocks uint64 `json:"blocks"`
	Index  int    `json:"index"` // entries
	Tip    bool   `json:"tip"`
	State  bool   `json:"state"`
	Lost   uint64 `json:"lost"`
}

// LedgerRebuild is `ledger rebuild-state`.
type LedgerRebuild struct {
	Meta
	Items []RebuiltState `json:"items"`
}

// RebuiltState is a channel's world state, made anew from its blocks.
type RebuiltState struct {
	Channel    string  `json:"channel"`
	Height     uint64  `json:"height"`
	Before     string  `json:"before"` // state hash
	StateHash  string  `json:"stateHash"`
	Same       bool    `json:"same"` // both are of one height, and equal
	ElapsedSec float64 `json:"elapsedSec"`
}

// LedgerUpkeep is how whole a channel's ledger is, as its node knows.
type LedgerUpkeep struct {
	Meta
	Channel   string       `json:"channel"`
	Damage    LedgerDamage `json:"damage"`
	Found     uint64       `json:"found"` // damages, since the start
	Repaired  LedgerRepair `json:"repaired"`
	Failure   string       `json:"failure"` // why the last repair left something
	Scrubbing bool         `json:"scrubbing"`
	Height    uint64       `json:"height"`
	Blocks    uint64       `json:"blocks"` // read by the present scrub, or the last
	Bytes     uint64       `json:"bytes"`
	Scrubbed  Time         `json:"scrubbed"` // when the last ended
}

// Checked makes the object of what a scrub found and a repair did.
func Checked(l *ledger.Ledger, s ledger.Scrubbed, r ledger.Repaired, took time.Duration) LedgerCheck {
	_, hash := validity(l.State())
	c := LedgerCheck{
		Channel: l.Name(), Height: s.Height, Blocks: s.Blocks, Entries: s.Entries, Bytes: s.Bytes, StateHash: hash,
		Damage: damageOf(l.Damage()), Findings: s.Why, Repaired: LedgerRepair(r), ElapsedSec: took.Seconds(),
	}
	c.OK = l.Damage().None() && !errors.Is(l.Halted(), ledger.ErrCorrupt)
	return c
}

func damageOf(d ledger.Damage) LedgerDamage { return LedgerDamage(d) }

// Check reads all that is kept of the channel and holds it against itself; with
// repair what follows from the rest is made good.
func (c *Chain) Check(ctx context.Context, repair bool, told func(ledger.Scrubbed)) (LedgerCheck, error) {
	began := time.Now()
	var r ledger.Repaired
	s, err := c.Ledger.Scrub(ctx, ledger.Scrubbing{Hash: node.StateHash, Told: told})
	if err == nil && repair {
		var failed error
		if r, failed = c.Ledger.Repair(ctx, nil); failed != nil && !errors.Is(failed, ledger.ErrCorrupt) {
			err = failed
		}
	}
	return Checked(c.Ledger, s, r, time.Since(began)), err
}

// Rebuild drops the world state and judges all blocks again.
func (c *Chain) Rebuild(ctx context.Context, progress func(state, height uint64)) (RebuiltState, error) {
	return rebuild(c.Ledger, func() error {
		if err := c.Ledger.ForgetState(); err != nil {
			return err
		}
		return node.Judge(ctx, c.Ledger, progress)
	})
}

// renewed is how a node comes to a world state that is made anew.
func renewed(l *ledger.Ledger) string {
	if l.Lowest() == 0 {
		return "grapevine ledger rebuild-state " + l.Name()
	}
	return "begin anew from a snapshot: grapevine channel leave " + l.Name() + " --purge; grapevine channel join " + l.Name() + " --block GENESIS --sync snapshot"
}

// rebuild tells what becomes of a state that is made anew.
func rebuild(l *ledger.Ledger, again func() error) (RebuiltState, error) {
	began, before := time.Now(), l.State()
	err := again()
	if errors.Is(err, ledger.ErrPruned) {
		err = fault.Newf("STA020", "the world state of %s can't be made anew here", l.Name()).
			Because(fmt.Sprintf("blocks below %d aren't kept, and their transactions made it", l.Lowest())).
			Do(renewed(l)).From(err)
	}
	after := l.State()
	out := RebuiltState{Channel: l.Name(), Height: after.Height, ElapsedSec: time.Since(began).Seconds()}
	if before.Height > 0 {
		out.Before = hex.EncodeToString(before.Hash[:])
	}
	if after.Height > 0 {
		out.StateHash = hex.EncodeToString(after.Hash[:])
	}
	out.Same = before.Height == after.Height && before.Hash == after.Hash
	if err == nil && after.Unjudged != nil {
		err = fault.New("STA003", "").Because(after.Unjudged.Error()).From(after.Unjudged)
	}
	return out, err
}

// scrub reads a channel's ledger through; with ?repair=true what it finds is made
// good. Without, the node's own upkeep does that a little later.
func (s *Server) scrub(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	repair := r.URL.Query().Get("repair") == "true"
	if c.peer == nil {
		out, err := c.Check(r.Context(), repair, nil)
		return &LedgerChecks{OK: out.OK, Items: []LedgerCheck{out}}, err
	}
	began := time.Now()
	did, done, err := c.peer.Scrub(r.Context(), repair, 0)
	if err != nil && !errors.Is(err, ledger.ErrCorrupt) {
		return nil, err
	}
	out := Checked(c.Ledger, did, done, time.Since(began))
	return &LedgerChecks{OK: out.OK, Items: []LedgerCheck{out}}, nil
}

func (s *Server) rebuild(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	if c.peer == nil || !s.Peer.Judges() {
		return nil, fault.New("STA003", "").Because("this node judges no transactions")
	}
	out, err := rebuild(c.Ledger, func() error { return c.peer.RebuildState(r.Context(), nil) })
	if err != nil {
		return nil, err
	}
	return &LedgerRebuild{Items: []RebuiltState{out}}, nil
}

func (s *Server) upkeep(r *http.Request) (any, error) {
	c, err := s.fetcher(r)
	if err != nil {
		return nil, err
	}
	u := c.Upkeep()
	out := &LedgerUpkeep{
		Channel: c.Name(), Damage: damageOf(u.Damage), Found: u.Found, Repaired: LedgerRepair(u.Repaired), Scrubbing: u.Scrubbing,
		Height: u.Scrub.Height, Blocks: u.Scrub.Blocks, Bytes: u.Scrub.Bytes, Scrubbed: Time{u.Scrubbed},
	}
	if u.Failure != nil {
		out.Failure = u.Failure.Error()
	}
	return out, nil
}

// damaged tells of a channel whose ledger is damaged.
func (s *Status) damaged(c *node.Channel) {
	u := c.Upkeep()
	if u.Damage.None() {
		return
	}
	what := fmt.Sprintf("the ledger of %s is damaged: %d blocks, index %v, state %v; it is being repaired", c.Name(), len(u.Damage.Blocks), u.Damage.Index, u.Damage.State)
	if u.Failure != nil {
		what += fmt.Sprintf(", so far in vain: %v", u.Failure)
	}
	s.problem("STA030", "error", what, "see what is left: grapevine ledger scrub "+c.Name())
}

// diverged tells of world states that differ between peers.
func (s *Status) diverged(c *node.Channel) {
	d := c.Divergence()
	if d.None() {
		return
	}
	var who []string
	for _, m := range d.Members {
		who = append(who, fmt.Sprintf("%s of %s (since height %d)", c.MemberName(m.ID), m.MSPID, m.Since))
	}
	names := strings.Join(who, ", ")
	switch {
	case d.Self:
		s.problem("STA031", "error", fmt.Sprintf("this node's world state of %s isn't that of most organisations: it differs from that of %s", c.Name(), names),
			renewed(c.Ledger()))
	case d.Decided:
		s.problem("STA031", "warning", fmt.Sprintf("the world state of %s differs from that of most organisations at %s", c.Name(), names),
			"let its operator make it anew: grapevine ledger rebuild-state "+c.Name())
	default:
		s.problem("STA031", "error", fmt.Sprintf("the world state of %s differs between this node and %s, and no majority of organisations says whose is wrong", c.Name(), names),
			"compare them: grapevine state hash "+c.Name()+" --at HEIGHT")
	}
}

// Scrub has a node read a channel's ledger through.
func (r Remote) Scrub(ctx context.Context, repair bool) (*LedgerChecks, error) {
	return send[LedgerChecks](ctx, r.Client, http.MethodPost, channelPath(r.Name)+"/scrub", url.Values{"repair": {fmt.Sprint(repair)}}, nil)
}

// Rebuild has a node make a channel's world state anew.
func (r Remote) Rebuild(ctx context.Context) (*LedgerRebuild, error) {
	return send[LedgerRebuild](ctx, r.Client, http.MethodPost, channelPath(r.Name)+"/rebuild", nil, nil)
}

// Upkeep asks how whole a channel's ledger is.
func (r Remote) Upkeep(ctx context.Context) (*LedgerUpkeep, error) {
	return get[LedgerUpkeep](ctx, r.Client, channelPath(r.Name)+"/upkeep", nil)
}
