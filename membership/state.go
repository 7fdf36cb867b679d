package membership

import (
	"grapevine/msp"
	"grapevine/wire"
)

// state returns what we say of our world state; nothing while there is none.
func (m *Members) state() (height uint64, hash []byte) {
	if m.c.State == nil {
		return 0, nil
	}
	h, sum := m.c.State()
	if h == 0 {
		return 0, nil
	}
	return h, sum[:]
}

// badState reports whether what is said of a world state is neither nothing nor
// whole.
func badState(height uint64, hash []byte) bool {
	return (height == 0) != (len(hash) == 0) || len(hash) != 0 && len(hash) != 32
}

// stated takes in what a member says of its world state. Called under mu.
func (m *Members) stated(id msp.PKIID, mspID string, height uint64, hash []byte) {
	if m.c.OnState != nil && len(hash) == 32 {
		m.c.OnState(id, mspID, height, [32]byte(hash))
	}
}

// stateNews adds our world state to a word, if it is news to its receiver. Called
// under mu.
func (m *Members) stateNews(t *talk, w *wire.Word) {
	if h, hash := m.state(); h != t.state {
		t.state = h
		w.StateHeight, w.StateHash = h, hash
	}
}

// Report tells those who listen that something was found out about a member:
// Diverged or Agreed.
func (m *Members) Report(k Kind, id msp.PKIID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.view.marks[id]; v != nil && v.heard {
		m.notify(Event{Kind: k, Member: v.member})
	}
}
