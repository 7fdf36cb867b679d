package membership

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"grapevine/msp"
)

type pair struct{ incarnation, sequence uint64 }

func (n pair) above(m pair) bool {
	return n.incarnation > m.incarnation || n.incarnation == m.incarnation && n.sequence > m.sequence
}

// TestMaxRegister holds the view against S7 written down directly: per identity
// the highest pair ever accepted, through deaths, expulsions and restarts.
func TestMaxRegister(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := bubbleEpoch.Add(time.Hour)
		v := newView(3 * time.Second)
		model := make(map[msp.PKIID]pair)
		var sent []message
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 8000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				v.tick(now)
			case 1: // restart
				w := newView(v.expiry)
				require.NoError(t, w.decode(v.encode()))
				v = w
			case 2:
				v.expel(msp.PKIID{byte(rapid.IntRange(0, 2).Draw(t, "who"))})
			default:
				var m message
				if len(sent) > 0 && rapid.Bool().Draw(t, "replay") {
					m = rapid.SampledFrom(sent).Draw(t, "old")
				} else {
					ms := uint64(now.UnixMilli())
					m.member.PKIID = msp.PKIID{byte(rapid.IntRange(0, 2).Draw(t, "who"))}
					m.member.Incarnation = rapid.SampledFrom([]uint64{0, 1, ms - 5000, ms, ms + 29_999, ms + 30_001, math.MaxUint64}).Draw(t, "incarnation")
					m.member.Sequence = rapid.SampledFrom([]uint64{0, 1, 2, 3, 1 << 40, math.MaxUint64}).Draw(t, "sequence")
					m.sentAt = now.Add(time.Duration(rapid.IntRange(-40_000, 40_000).Draw(t, "skew")) * time.Millisecond)
					m.notAfter = bubbleEpoch.Add(20 * 365 * 24 * time.Hour)
					m.digest = [32]byte(fmt.Appendf(make([]byte, 0, 32), "%032d", len(sent)))
					sent = append(sent, m)
				}
				id, n := m.member.PKIID, pair{m.member.Incarnation, m.member.Sequence}
				_, known := model[id]
				want := (!known || n.above(model[id])) && n.sequence > 0 &&
					n.incarnation <= uint64(now.UnixMilli())+30_000 &&
					!m.sentAt.After(now.Add(skew)) && now.Sub(m.sentAt) <= v.expiry+skew
				_, err := v.accept(m, now)
				require.Equal(t, want, err == nil, "%v at %v: %v", n, model[id], err)
				if err == nil {
					model[id] = n
					require.Equal(t, n.incarnation, v.marks[id].member.Incarnation)
					require.Equal(t, Alive, v.marks[id].member.State)
				}
			}
			for id, n := range model {
				require.Equal(t, n, pair{v.marks[id].incarnation, v.marks[id].sequence}, "the mark moved")
			}
		}
	})
}

func TestMarksAreBounded(t *testing.T) {
	now := bubbleEpoch
	v := newView(3 * time.Second)
	add := func(i int, org string) error {
		m := message{sentAt: now, notAfter: now.Add(24 * time.Hour)}
		m.member = Member{MSPID: org, Incarnation: 1, Sequence: 1}
		copy(m.member.PKIID[:], fmt.Sprintf("%032d", i))
		_, err := v.accept(m, now)
		return err
	}
	for i := range maxMarks {
		org := "Big"
		if i%4 == 0 {
			org = "Small"
		}
		require.NoError(t, add(i, org))
	}
	require.ErrorIs(t, add(maxMarks, "New"), Full, "nobody may be forgotten yet")
	now = now.Add(2 * time.Minute)
	require.ErrorIs(t, add(maxMarks, "New"), Full, "the living may not be forgotten")
	for id := range v.marks {
		v.turn(id, Dead, now)
	}
	v.tick(now)
	require.NoError(t, add(maxMarks+1, "New"))
	require.Len(t, v.marks, maxMarks)
	small := 0
	for _, m := range v.marks {
		if m.member.MSPID == "Small" {
			small++
		}
	}
	require.Equal(t, maxMarks/4, small, "the smaller organisation paid")
	now = now.Add(25 * time.Hour)
	v.tick(now)
	require.Empty(t, v.marks, "kept beyond the certificate's end")
}
