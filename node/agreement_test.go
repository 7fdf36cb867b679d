package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/msp"
)

func TestAgreement(t *testing.T) {
	id := func(b byte) msp.PKIID { return msp.PKIID{b} }
	hash := func(b byte, h uint64) (x [32]byte) { x[0], x[1] = b, byte(h); return x }
	const true_, false_ = 1, 2
	type say struct {
		id     byte
		org    string
		height uint64
		what   byte
	}
	for name, c := range map[string]struct {
		says    []say
		self    bool
		decided bool
		named   []byte
	}{
		"all agree":                      {says: []say{{1, "a", 5, true_}, {2, "b", 4, true_}}},
		"one of three":                   {says: []say{{1, "b", 5, true_}, {2, "c", 5, false_}}, decided: true, named: []byte{2}},
		"ours":                           {says: []say{{1, "b", 5, false_}, {2, "c", 5, false_}}, self: true, decided: true, named: []byte{1, 2}},
		"two, and no majority":           {says: []say{{1, "b", 5, false_}}, named: []byte{1}},
		"others differ among themselves": {says: []say{{1, "b", 5, false_}, {2, "c", 5, 3}}, named: []byte{1, 2}},
		"many of one organisation are one": {says: []say{
			{1, "b", 5, false_}, {2, "b", 5, false_}, {3, "b", 5, false_}, {4, "c", 5, true_},
		}, decided: true, named: []byte{1, 2, 3}},
		"an organisation counts as most of its own": {says: []say{
			{1, "b", 5, false_}, {2, "b", 5, true_}, {3, "b", 5, true_}, {4, "c", 5, true_},
		}, decided: true, named: []byte{1}},
		"one of our own": {says: []say{{1, "a", 5, false_}, {2, "b", 5, true_}}, decided: true, named: []byte{1}},
		"above us":       {says: []say{{1, "b", 9, false_}, {2, "c", 9, false_}}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgreement("a")
			for _, s := range c.says {
				require.True(t, a.tell(id(s.id), s.org, s.height, hash(s.what, s.height)))
			}
			own := func(at uint64) func(uint64) ([32]byte, bool) {
				return func(h uint64) ([32]byte, bool) { return hash(true_, h), h <= at }
			}
			a.compare(own(6))
			d := a.judge()
			require.Equal(t, c.self, d.Self)
			require.Equal(t, c.decided, d.Decided)
			var named []byte
			for _, m := range d.Members {
				named = append(named, m.ID[0])
			}
			require.Equal(t, c.named, named)
			// What was told of a height that we reach later is compared then.
			a.compare(own(9))
			require.Equal(t, name == "above us" || c.self, a.judge().Self)
			// Whoever comes back to the same state isn't named any more.
			for _, s := range c.says {
				require.True(t, a.tell(id(s.id), s.org, s.height+1, hash(true_, s.height+1)))
				require.True(t, a.tell(id(s.id), s.org, s.height+1, hash(true_, s.height+1)), "not compared yet")
			}
			a.compare(own(20))
			require.True(t, a.judge().None())
			for _, s := range c.says {
				require.False(t, a.tell(id(s.id), s.org, s.height+1, hash(true_, s.height+1)), "said and compared before")
				require.True(t, a.tell(id(s.id), s.org, s.height+1, hash(false_, s.height+1)), "another state")
			}
		})
	}
}
