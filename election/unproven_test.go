package election

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// unsigned is a beat without a signature.
func unsigned(i int, f func(*wire.Claim)) *wire.Ballot {
	s := claimOf(i, f)
	s.Signature = nil
	return ballotOf(s)
}

// E3: a leader that says again what it has proven is believed on its own
// connection, for a while; for anything else a signature is asked.
func TestSignaturesThatAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newCompany(t, 1).members[0]
		since := uint64(time.Now().UnixMilli())
		beat := func(c *wire.Claim) { c.Since = since }
		hear := func(from int, w *wire.Ballot) error { return m.Hear(host(from), w, time.Now()) }
		require.NoError(t, hear(1, ballotOf(claimOf(1, beat))))
		require.EqualValues(t, 1, m.checks.Load())
		for range 18 {
			time.Sleep(500 * time.Millisecond)
			require.NoError(t, hear(1, ballotOf(claimOf(1, beat))))
			require.NoError(t, hear(1, unsigned(1, beat)))
		}
		require.EqualValues(t, 1, m.checks.Load(), "of 37 claims")
		for name, change := range map[string]func(*wire.Claim){
			"another term":   func(c *wire.Claim) { c.Term++ },
			"it yields":      func(c *wire.Claim) { c.Act = wire.Claim_ACT_YIELDING },
			"another height": func(c *wire.Claim) { c.Height++ },
			"another reach":  func(c *wire.Claim) { c.Reach = 1 },
			"since earlier":  func(c *wire.Claim) { c.Since-- },
			"unfit":          func(c *wire.Claim) { c.Unfit = true },
		} {
			require.ErrorIs(t, hear(1, unsigned(1, func(c *wire.Claim) { beat(c); change(c) })), BadSignature, name)
		}
		require.ErrorIs(t, hear(2, unsigned(1, beat)), BadSignature, "passed on")
		time.Sleep(judgedFor - 9*time.Second)
		require.ErrorIs(t, hear(1, unsigned(1, beat)), BadSignature, "proven long ago")
	})
}

// A claim that nobody has checked isn't passed on: who would do so is spared the
// blame, and who made it has to prove the next.
func TestUnprovenClaimsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 2)
		defer c.stop()
		victim, other := c.members[0], c.members[1]
		victim.start()
		other.start()
		time.Sleep(3 * time.Second)
		liar, since := players()[4], uint64(time.Now().UnixMilli())
		beat := func(c *wire.Claim) { c.Since = since }
		victim.Arrived(liar.host)
		require.NoError(t, victim.Hear(liar.host, ballotOf(claimOf(4, beat)), time.Now()))
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, liar.pki(), victim.State().Leader.PKIID, "by its term")
		require.Equal(t, liar.pki(), other.State().Leader.PKIID, "it is passed on")
		refused := 0
		for range 20 { // other hears nothing of it directly, so it asks victim
			time.Sleep(500 * time.Millisecond)
			if err := victim.Hear(liar.host, unsigned(4, beat), time.Now()); err != nil {
				require.ErrorIs(t, err, BadSignature)
				refused++
			}
		}
		require.Greater(t, refused, 10, "found out when it was to be passed on")
		require.Len(t, c.leaders(), 1, "it is followed no more")
		victim.mu.Lock()
		require.True(t, slices.Contains(victim.refused, BadSignature.Code()), "%v", victim.refused)
		victim.mu.Unlock()
		other.mu.Lock()
		require.False(t, slices.Contains(other.refused, BadSignature.Code()), "%v", other.refused)
		other.mu.Unlock()
	})
}
