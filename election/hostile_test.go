package election

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/wire"
)

// TestHostile is the election group of the catalogue, where it is a matter of
// who says it; terms stand in TestHostileTerms. Players 0 to 4 are peers of
// Org1; 5 is no member of the channel, 6 of Org2, 7 of Org2 and unheard of.
func TestHostile(t *testing.T) {
	late := time.Duration(0)
	for _, k := range []struct {
		id   string
		from int
		what func() *wire.Ballot
		want *wire.Reason
	}{
		{"E1/its own", 6, func() *wire.Ballot { return ballotOf(claimOf(6, nil)) }, WrongOrg},
		{"E1/passed on", 1, func() *wire.Ballot { return ballotOf(claimOf(6, nil)) }, WrongOrg},
		{"E1/passed on by it", 6, func() *wire.Ballot { return ballotOf(claimOf(1, nil)) }, WrongOrg},
		{"E2/its own", 5, func() *wire.Ballot { return ballotOf(claimOf(5, nil)) }, NotMember},
		{"E2/passed on", 1, func() *wire.Ballot { return ballotOf(claimOf(5, nil)) }, NotMember},
		{"E2/unheard of", 1, func() *wire.Ballot { return ballotOf(claimOf(7, nil)) }, Unknown},
		{"E2/no connection known", 99, func() *wire.Ballot { return ballotOf(claimOf(1, nil)) }, NotMember},
		{"E3/unsigned", 1, func() *wire.Ballot {
			s := claimOf(1, nil)
			s.Signature = nil
			return ballotOf(s)
		}, BadSignature},
		{"E3/for another channel", 1, func() *wire.Ballot {
			return ballotOf(claimOf(1, func(c *wire.Claim) { c.Tag = make([]byte, 32) }))
		}, WrongChannel},
		{"E3/replayed late", 1, func() *wire.Ballot {
			return ballotOf(claimOf(2, func(c *wire.Claim) { c.Sequence -= 41_000 }))
		}, StaleTerm},
		{"E3/from the future", 1, func() *wire.Ballot {
			return ballotOf(claimOf(2, func(c *wire.Claim) { c.Sequence += 31_000 }))
		}, StaleTerm},
		{"E6", 1, func() *wire.Ballot {
			late = time.Until(players()[1].Identity().Certificate().NotAfter) + time.Second
			return ballotOf(claimOf(1, nil))
		}, msp.Expired},
		{"E7", 1, func() *wire.Ballot {
			s := claimOf(1, func(c *wire.Claim) {
				id := players()[2].pki()
				c.PkiId, c.Act = id[:], wire.Claim_ACT_YIELDING
			})
			return ballotOf(s)
		}, BadSignature},
		{"W/no act", 1, func() *wire.Ballot {
			return ballotOf(claimOf(1, func(c *wire.Claim) { c.Act = 0 }))
		}, Malformed},
		{"W/a short id", 1, func() *wire.Ballot {
			return ballotOf(claimOf(1, func(c *wire.Claim) { c.PkiId = c.PkiId[1:] }))
		}, Malformed},
		{"W/a long address", 1, func() *wire.Ballot {
			return ballotOf(claimOf(1, func(c *wire.Claim) { c.Orderer = strings.Repeat("o", 257) }))
		}, Malformed},
		{"W/term 0", 1, func() *wire.Ballot { return ballotOf(claimOf(1, func(c *wire.Claim) { c.Term = 0 })) }, Malformed},
		{"W/leads since never", 1, func() *wire.Ballot { return ballotOf(claimOf(1, func(c *wire.Claim) { c.Since = 0 })) }, Malformed},
		{"W/a vote for half an id", 1, func() *wire.Ballot { return &wire.Ballot{Vote: make([]byte, 16)} }, Malformed},
		{"W/reach of 3", 1, func() *wire.Ballot { return &wire.Ballot{Reach: 3} }, Malformed},
		{"W/no claim but bytes", 1, func() *wire.Ballot { return &wire.Ballot{Claim: []byte{1, 2, 3}} }, wire.TrailingBytes},
	} {
		t.Run(k.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newCompany(t, 1).members[0]
				late = 0
				w := k.what()
				time.Sleep(late)
				from := host(k.from)
				err := m.Hear(from, w, time.Now())
				require.ErrorIs(t, err, k.want)
				require.Empty(t, m.heard, "nothing reaches the machine")
				require.Empty(t, m.proven)
			})
		})
	}
	t.Run("E5/good ones", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newCompany(t, 1).members[0]
			require.NoError(t, m.Hear(host(1), ballotOf(claimOf(1, nil)), time.Now()), "its own")
			require.NoError(t, m.Hear(host(1), ballotOf(claimOf(2, nil)), time.Now()), "passed on")
			require.NoError(t, m.Hear(host(1), ballotOf(claimOf(0, nil)), time.Now()), "ours, of an earlier life")
			require.NoError(t, m.Hear(host(1), ballotOf(claimOf(1, func(c *wire.Claim) { c.Sequence -= 3_600_000 })), time.Now()), "by a clock that is slow, on its own connection")
			require.Len(t, m.heard, 4)
		})
	})
}

// E8: who says too much is cut off, and who leads stays.
func TestClaimsAtOneKilohertz(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 3)
		defer c.stop()
		for _, m := range c.members {
			m.start()
		}
		time.Sleep(3 * time.Second)
		leader := c.leaders()[0]
		victim := c.members[0]
		if victim == leader {
			victim = c.members[1]
		}
		liar := players()[4]
		victim.Arrived(liar.host)
		taken, closed := 0, 0
		for i := range 5000 {
			time.Sleep(time.Millisecond)
			switch err := victim.Hear(liar.host, ballotOf(claimOf(4, func(c *wire.Claim) {
				c.Term, c.Act, c.Since, c.Height = 1, wire.Claim_ACT_STANDING, 0, uint64(i)
			})), time.Now()); wire.VerdictOf(err) {
			case wire.Accept:
				taken++
			case wire.Close:
				require.ErrorIs(t, err, RateLimit)
				closed++
			}
		}
		require.LessOrEqual(t, taken, burst+5*perSecond+1)
		require.GreaterOrEqual(t, closed, 4000)
		require.Equal(t, []*member{leader}, c.leaders())
		require.Equal(t, leader.pki(), victim.State().Leader.PKIID)
	})
}

// A refusal that is its sender's fault ends the stream it came on, and is
// counted once.
func TestRefusedStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 2)
		defer c.stop()
		for _, m := range c.members {
			m.start()
		}
		time.Sleep(3 * time.Second)
		s, err := c.members[1].open(t.Context(), c.members[0].host)
		require.NoError(t, err)
		jump := ballotOf(claimOf(1, func(c *wire.Claim) { c.Term = ^uint64(0) }))
		require.NoError(t, wire.WriteFrame(s, must(wire.Marshal(jump))))
		_, err = s.Read(make([]byte, 1))
		require.Error(t, err, "reset")
		c.members[0].mu.Lock()
		defer c.members[0].mu.Unlock()
		jumps := 0
		for _, r := range c.members[0].refused {
			if r == "election.term_jump" {
				jumps++
			}
		}
		require.Equal(t, 1, jumps, "%v", c.members[0].refused)
	})
}

// FuzzMessage: whatever comes, nothing panics, every refusal has a reason, and
// only what its claimant signed is proven.
func FuzzMessage(f *testing.F) {
	f.Add(must(wire.Marshal(ballotOf(claimOf(1, nil)))))
	f.Add(must(wire.Marshal(&wire.Ballot{Ask: true, Height: 1})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newCompany(t, 1).members[0]
		w := new(wire.Ballot)
		err := wire.Unmarshal(b, w)
		if err == nil {
			err = m.Hear(players()[1].host, w, time.Now())
		}
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
			require.Empty(t, m.heard)
			return
		}
		h := <-m.heard
		if c := h.ballot.claim; c != nil {
			s := new(wire.SignedClaim)
			require.NoError(t, wire.Unmarshal(w.Claim, s))
			sum := wire.HashParts([]byte(wire.DomainClaim), s.Claim)
			for _, p := range players() {
				if p.pki() == c.id {
					require.NoError(t, p.Identity().Verify(sum[:], s.Signature))
				}
			}
		}
		again := must(m.encode(h.ballot))
		require.Equal(t, b, again)
	})
}
