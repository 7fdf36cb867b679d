package serve

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"os"
	"sync/atomic"
	"time"
)

// lookEvery is how often the files of a TLS certificate are looked at.
const lookEvery = time.Second

// A pair is a TLS certificate in two files, which may be replaced while the node
// runs. It is safe for concurrent use.
type pair struct {
	cert, key string
	log       *Log
	now       atomic.Pointer[tls.Certificate]
	changed   func(tls.Certificate) error // told of another; nil: nobody
	seen      [sha256.Size]byte           // of the files as they were last looked at; watch's own
}

// newPair loads a pair from its files.
func newPair(cert, key string, log *Log) (*pair, error) {
	p := &pair{cert: cert, key: key, log: log}
	p.seen = p.digest() // before it is read: what comes between is read again
	c, err := loadPair(cert, key)
	if err != nil {
		return nil, err
	}
	p.now.Store(c)
	return p, nil
}

// config is how a server shows the pair's newest certificate.
func (p *pair) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.now.Load(), nil }}
}

// watch takes up what the files hold whenever it is another certificate that
// fits its key. While they are being replaced they may not fit: the one before is
// shown until they do.
func (p *pair) watch(ctx context.Context) error {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		d := p.digest()
		if d == p.seen {
			continue
		}
		c, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err == nil && p.changed != nil {
			err = p.changed(c)
		}
		p.seen = d
		if err != nil {
			p.log.Warn("the new TLS certificate can't be used; the one before is shown on", "file", p.cert, "err", err)
			continue
		}
		p.now.Store(&c)
	}
}

// digest tells contents of the files apart; those that can't be read are empty.
func (p *pair) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, f := range []string{p.cert, p.key} {
		raw, err := os.ReadFile(f)
		if err != nil {
			raw = nil
		}
		sum := sha256.Sum256(raw)
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}
