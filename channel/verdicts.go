package channel

import (
	"crypto/x509"
	"sync"
	"time"

	"grapevine/msp"
	"grapevine/wire"
)

const (
	// believed is for how long a yes is remembered. A new configuration ends it,
	// and the end of a certificate that was shown; the end of a CA's in the
	// configuration is noticed so much later.
	believed = 10 * time.Minute
	// maxVerdicts is how many are remembered; then all are forgotten.
	maxVerdicts = 4096
)

// verdicts are the identities that one configuration has accepted: the same are
// judged again and again, at the cost of several signatures. The zero value is
// empty. It is safe for concurrent use.
type verdicts struct {
	mu  sync.Mutex
	yes map[[32]byte]span // guarded by mu
}

type span struct{ from, to time.Time }

// accept asks judge, unless it said yes to the same certificates lately.
func (v *verdicts) accept(id *msp.Identity, intermediates [][]byte, now time.Time, judge func() error) error {
	key := wire.HashParts(append([][]byte{[]byte(id.MSPID()), id.Certificate().Raw}, intermediates...)...)
	v.mu.Lock()
	s, ok := v.yes[key]
	v.mu.Unlock()
	if ok && !now.Before(s.from) && now.Before(s.to) {
		return nil
	}
	if err := judge(); err != nil {
		return err
	}
	s = span{now, now.Add(believed)}
	until := func(c *x509.Certificate) {
		if c.NotAfter.Before(s.to) {
			s.to = c.NotAfter
		}
	}
	until(id.Certificate())
	for _, der := range intermediates {
		if c, err := x509.ParseCertificate(der); err == nil { // else the judge made nothing of it either
			until(c)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.yes == nil || len(v.yes) >= maxVerdicts {
		v.yes = make(map[[32]byte]span)
	}
	v.yes[key] = s
	return nil
}
