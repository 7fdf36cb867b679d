package node

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"grapevine/ledger"
	"grapevine/msp"
)

// bansKey is where bans are kept: PKI-IDs in hexadecimal, and until when.
const bansKey = "bans"

// forEver is the end of a ban without one.
var forEver = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Ban refuses a peer here for a while, or, with 0, until Unban: its connections
// are closed, its handshakes refused, and it isn't dialled. It lasts through
// restarts. What others do with the peer is theirs to decide.
func (n *Node) Ban(id msp.PKIID, d time.Duration) error {
	if id == n.Identity().PKIID() {
		return fmt.Errorf("banning %s: this is the node itself: %w", id, ErrNoPeer)
	}
	until := forEver
	if d > 0 {
		until = n.guard.now().Add(d)
	}
	if err := n.keepBans(n.guard.ban(id, until)); err != nil {
		return err
	}
	if p, _, ok := n.guard.find(id); ok {
		return n.Disconnect(p)
	}
	return nil
}

// Unban lifts a ban; one that isn't there is no error.
func (n *Node) Unban(id msp.PKIID) error { return n.keepBans(n.guard.ban(id, time.Time{})) }

func (n *Node) keepBans(all map[msp.PKIID]time.Time) error {
	text := map[string]time.Time{}
	for id, until := range all {
		text[id.String()] = until
	}
	b, err := json.Marshal(text)
	if err != nil {
		return fmt.Errorf("keeping the bans: %w", err)
	}
	if err := n.db.PutMeta(bansKey, b); err != nil {
		return fmt.Errorf("keeping the bans: %w", err)
	}
	return nil
}

func (n *Node) loadBans() error {
	b, err := n.db.Meta(bansKey)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	text := map[string]time.Time{}
	if err == nil {
		err = json.Unmarshal(b, &text)
	}
	if err != nil {
		return fmt.Errorf("reading the bans: %w", err)
	}
	for s, until := range text {
		id, err := hex.DecodeString(s)
		if err != nil || len(id) != len(msp.PKIID{}) {
			return fmt.Errorf("reading the bans: %q is no PKI-ID", s)
		}
		n.guard.ban(msp.PKIID(id), until)
	}
	return nil
}

// Banned returns the identities that are banned.
func (n *Node) Banned() []msp.PKIID {
	return slices.SortedFunc(maps.Keys(n.guard.banned()), func(a, b msp.PKIID) int { return slices.Compare(a[:], b[:]) })
}

// ban notes that an identity is banned until then, the zero time lifting it, and
// returns all bans.
func (g *guard) ban(id msp.PKIID, until time.Time) map[msp.PKIID]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bans[id] = until
	now := g.now()
	maps.DeleteFunc(g.bans, func(_ msp.PKIID, t time.Time) bool { return !t.After(now) })
	return maps.Clone(g.bans)
}

func (g *guard) isBanned(id msp.PKIID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bans[id].After(g.now())
}

// banned returns all bans in force.
func (g *guard) banned() map[msp.PKIID]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	out := maps.Clone(g.bans)
	maps.DeleteFunc(out, func(_ msp.PKIID, t time.Time) bool { return !t.After(now) })
	return out
}
