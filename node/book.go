package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/ledger"
	"grapevine/membership"
)

// The address book of a channel: where its members can be dialled, kept on
// disk, so that a network whose peers all restart finds itself without
// bootstrap peers. What it holds is a hint: who is there, the handshake proves.
const (
	bookSoon  = 5 * time.Second // from an event of membership until it is looked whether the book changed
	bookEvery = time.Minute     // between two such looks without one
	maxBook   = 1024
)

// A contact is one line of the book.
type contact struct {
	Peer     string `json:"peer"`
	MSPID    string `json:"mspId"`
	Endpoint string `json:"endpoint,omitempty"`
	Internal string `json:"internal,omitempty"`
}

func bookKey(ch string) string { return "book/" + ch }

// readBook reads the channel's book.
func (c *Channel) readBook() error {
	b, err := c.node.db.Meta(bookKey(c.name))
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the address book: %w", err)
	}
	var all []contact
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("the address book: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range all {
		if p, err := peer.Decode(v.Peer); err == nil && len(c.book) < maxBook {
			c.book[p] = v
		}
	}
	return nil
}

// contacts are the members that can be dialled: of all heard of, those that have
// not left, and of the book those that were not heard of since the start.
func (c *Channel) contacts(all []membership.Member) []membership.Member {
	var out []membership.Member
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range all {
		delete(c.book, m.Peer)
		if !m.Self && m.State != membership.Left && c.node.endpoint(m) != "" {
			out = append(out, m)
		}
	}
	for p, v := range c.book {
		if m := (membership.Member{Peer: p, MSPID: v.MSPID, Endpoint: v.Endpoint, Internal: v.Internal}); c.node.endpoint(m) != "" {
			out = append(out, m)
		}
	}
	return out
}

// keepBook writes the book when it has changed, until ctx ends.
func (c *Channel) keepBook(ctx context.Context) error {
	t := time.NewTimer(bookSoon)
	defer t.Stop()
	at := time.Now().Add(bookSoon)
	var last []byte
	var known []membership.Member
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.stirred:
			if soon := time.Now().Add(bookSoon); soon.Before(at) {
				at = soon
				t.Reset(bookSoon)
			}
			continue
		case <-t.C:
			at = time.Now().Add(bookEvery)
			t.Reset(bookEvery)
		}
		now := c.contacts(c.members.List())
		if slices.EqualFunc(now, known, func(a, b membership.Member) bool {
			return a.Peer == b.Peer && a.MSPID == b.MSPID && a.Endpoint == b.Endpoint && a.Internal == b.Internal
		}) {
			continue // as nearly always
		}
		known = now
		all := []contact{}
		for _, m := range now {
			c.spare(m.Peer) // it may be an anchor peer's address
			if len(all) < maxBook {
				all = append(all, contact{m.Peer.String(), m.MSPID, m.Endpoint, m.Internal})
			}
		}
		slices.SortFunc(all, func(a, b contact) int { return strings.Compare(a.Peer, b.Peer) })
		b, err := json.Marshal(all)
		if err != nil {
			return fmt.Errorf("the address book: %w", err)
		}
		if bytes.Equal(b, last) || len(all) == 0 && last == nil {
			continue
		}
		if err := c.node.db.PutMeta(bookKey(c.name), b); err != nil {
			return fmt.Errorf("keeping the address book: %w", err)
		}
		last = b
	}
}
