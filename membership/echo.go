package membership

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

// Errors of Ping.
var (
	ErrUnknown  = errors.New("no such member")
	ErrNobody   = errors.New("neither it nor anybody who may know it is connected")
	ErrNoAnswer = errors.New("no answer")
)

// ours is set in the nonces of Ping, and never in the detector's, which count.
const ours = 1 << 63

// An Echo is a member's answer to Ping.
type Echo struct {
	RTT time.Duration
	Via peer.ID // the member that passed it on; empty: it came directly
}

// Ping asks a member for an echo: on its connection, or through some who are
// connected. It changes nothing in what is believed of it.
func (m *Members) Ping(ctx context.Context, id msp.PKIID) (Echo, error) {
	heard := make(chan peer.ID, 1)
	nonce := ours | rand.Uint64()
	began := time.Now()
	direct, err := m.shout(id, nonce, heard)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.echoes, nonce)
	}()
	if err != nil {
		return Echo{}, err
	}
	select {
	case from := <-heard:
		e := Echo{RTT: time.Since(began)}
		if !direct {
			e.Via = from
		}
		return e, nil
	case <-ctx.Done():
		return Echo{}, errors.Join(ErrNoAnswer, ctx.Err())
	}
}

// shout sends Ping's words, and says whether they went to the member itself.
func (m *Members) shout(id msp.PKIID, nonce uint64, heard chan peer.ID) (direct bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.view.marks[id]
	if v == nil || !v.heard {
		return false, ErrUnknown
	}
	m.echoes[nonce] = heard
	if t := m.talks[m.hosts[id]]; t != nil {
		m.send(t, &wire.Word{Ping: nonce})
		return true, nil
	}
	n := 0
	for _, t := range m.talks { // in no order
		if n < helpers && v.open(t.mspID) {
			m.send(t, &wire.Word{Ping: nonce, Target: id[:]})
			n++
		}
	}
	if n == 0 {
		return false, ErrNobody
	}
	return false, nil
}

// echoed hands an answer to the Ping that waits for it. Called under mu.
func (m *Members) echoed(from peer.ID, nonce uint64) {
	if heard := m.echoes[nonce]; heard != nil {
		select {
		case heard <- from:
		default: // another way was quicker
		}
	}
}
