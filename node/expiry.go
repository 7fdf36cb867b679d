package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"grapevine/orderer"
)

const (
	// warnBefore is how long before a certificate ends its node begins to say so.
	warnBefore = 7 * 24 * time.Hour
	// warnEvery is how often it says so.
	warnEvery = 24 * time.Hour
	// lookEvery is how often it looks.
	lookEvery = time.Minute
)

// watchExpiry shows how long the node's certificates, by their use, are valid
// still, and warns in time.
func (s *stack) watchExpiry(ctx context.Context, m *metrics, certificates func() map[string]*x509.Certificate) error {
	said := map[string]time.Time{}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		now := s.guard.now()
		for use, c := range certificates() {
			left := c.NotAfter.Sub(now)
			m.expiry.WithLabelValues(use).Set(left.Seconds())
			if left < warnBefore && now.Sub(said[use]) >= warnEvery {
				said[use] = now
				s.log.Warn("a certificate of this node ends soon", "use", use, "subject", c.Subject.String(), "notAfter", c.NotAfter, "left", left.Round(time.Minute))
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Certificates are the node's own, by their use: "sign", and "tls" if it shows
// one to others; of several the one that ends first.
func (n *Node) Certificates() map[string]*x509.Certificate {
	out := map[string]*x509.Certificate{"sign": n.Identity().Certificate()}
	for _, get := range []func() *tls.Certificate{n.cfg.Orderers.Certificate, n.cfg.Clients.Certificate, n.cfg.Relay.Certificate} {
		if get == nil {
			continue
		}
		if pair := get(); pair != nil && pair.Leaf != nil && (out["tls"] == nil || pair.Leaf.NotAfter.Before(out["tls"].NotAfter)) {
			out["tls"] = pair.Leaf
		}
	}
	return out
}

// Certificates are the node's own, by their use.
func (o *Orderer) Certificates() map[string]*x509.Certificate {
	return map[string]*x509.Certificate{"sign": o.Identity().Certificate(), "tls": o.pairs()[0].Leaf}
}

// SetCertificate shows another TLS certificate from the next handshake on. With
// the key of the one before, this node is the same consenter; with another it is
// one once the configuration names it, and until then by the one before.
func (o *Orderer) SetCertificate(pair tls.Certificate) error {
	if len(pair.Certificate) == 0 {
		return errors.New("no TLS certificate")
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return fmt.Errorf("TLS certificate: %w", err)
	}
	pair.Leaf = leaf
	o.mu.Lock()
	defer o.mu.Unlock()
	all := []tls.Certificate{pair}
	for _, p := range o.pairs() {
		if key := orderer.KeyOf(p.Leaf); key != orderer.KeyOf(leaf) && o.named(key) {
			all = append(all, p)
		}
	}
	o.tls.Store(&all)
	o.log.Info("another TLS certificate is shown", "subject", leaf.Subject.String(), "notAfter", leaf.NotAfter)
	return nil
}

// named says whether a channel's configuration names a consenter by a key. mu is
// held.
func (o *Orderer) named(key orderer.Key) bool {
	for _, c := range o.chains {
		if slices.ContainsFunc(c.chain.Voting(), func(v orderer.Consenter) bool { return v.Holds(key) }) {
			return true
		}
	}
	return false
}
