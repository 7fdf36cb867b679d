package admin

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A status warns a week before a certificate of the node ends, and says how to
// get another.
func TestStatusWarnsOfEnds(t *testing.T) {
	for _, c := range []struct {
		left           time.Duration
		use            string
		code, severity string
		fix            string
	}{
		{8 * 24 * time.Hour, "sign", "", "", ""},
		{6*24*time.Hour + time.Hour, "sign", "CERT007", "warning", "grapevine ca issue peer0.org1"},
		{time.Hour, "tls", "CERT007", "warning", "grapevine ca issue peer0.org1 --tls"},
		{-time.Hour, "tls", "CERT004", "error", "grapevine ca issue peer0.org1 --tls"},
	} {
		var s Status
		s.certificate(c.use, "peer0.org1", &x509.Certificate{NotAfter: time.Now().Add(c.left)})
		require.Len(t, s.Certificates, 1)
		if c.code == "" {
			require.Empty(t, s.Problems)
			continue
		}
		require.Len(t, s.Problems, 1)
		p := s.Problems[0]
		require.Equal(t, []string{c.code, c.severity, c.fix}, []string{p.Code, p.Severity, p.Fix})
	}
}
