package channel

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/msp/ca"
)

// A yes is remembered for the same certificates, for a while and no longer than
// they last; a no never.
func TestVerdictsAreRemembered(t *testing.T) {
	now := time.Now()
	org, err := ca.NewOrg("Org1MSP", "org1.example.com", now)
	require.NoError(t, err)
	one, err := org.Identity("peer0.org1.example.com", "peer")
	require.NoError(t, err)
	two, err := org.Identity("peer1.org1.example.com", "peer")
	require.NoError(t, err)
	var v verdicts
	asked := 0
	accept := func(id *msp.Identity, shown [][]byte, at time.Time, verdict error) {
		t.Helper()
		require.Equal(t, verdict, v.accept(id, shown, at, func() error { asked++; return verdict }))
	}
	no := errors.New("no")
	a, end := one.Identity(), one.Identity().Certificate().NotAfter
	for i, k := range []struct {
		id    *msp.Identity
		shown [][]byte
		at    time.Time
		no    error
		asked bool
	}{
		{a, nil, now, no, true},
		{a, nil, now, no, true},
		{a, nil, now, nil, true},
		{a, nil, now.Add(time.Minute), nil, false},
		{a, [][]byte{two.Identity().Certificate().Raw}, now, nil, true},
		{two.Identity(), nil, now, nil, true},
		{a, nil, now.Add(-time.Hour), nil, true},
		{a, nil, now.Add(believed), nil, true},
		{a, nil, end.Add(-time.Second), nil, true},
		{a, nil, end, no, true},
	} {
		before := asked
		accept(k.id, k.shown, k.at, k.no)
		require.Equal(t, k.asked, asked > before, i)
	}
}
