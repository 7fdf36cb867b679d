package serve

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"grapevine/msp"
)

// lookEvery is how often files that may be replaced are looked at.
const lookEvery = time.Second

// files are some that may be replaced while the node runs, folders with all that
// lies in them. While they are being replaced they may not fit each other: what
// was loaded before is used until they do.
type files struct {
	what  string // for people
	paths []string
	load  func() error
	log   *Log
	seen  [sha256.Size]byte // as they were last looked at; watch's own
}

// newFiles loads files for the first time.
func newFiles(what string, log *Log, load func() error, paths ...string) (*files, error) {
	f := &files{what: what, paths: paths, load: load, log: log}
	f.seen = f.digest() // before they are read: what comes between is read again
	return f, load()
}

// watch loads the files whenever they hold something else.
func (f *files) watch(ctx context.Context) error {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		d := f.digest()
		if d == f.seen {
			continue
		}
		f.seen = d
		if err := f.load(); err != nil {
			f.log.Warn("what "+f.what+" holds now can't be used; what it held before is used on", "files", f.paths, "err", err)
		}
	}
}

// digest tells contents of the files apart; those that can't be read are empty.
func (f *files) digest() [sha256.Size]byte {
	h := sha256.New()
	add := func(path string) {
		raw, err := os.ReadFile(path)
		if err != nil {
			raw = nil
		}
		sum := sha256.Sum256(append([]byte(path+"\x00"), raw...))
		h.Write(sum[:])
	}
	for _, p := range f.paths {
		if info, err := os.Stat(p); err != nil || !info.IsDir() {
			add(p)
			continue
		}
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				add(path)
			}
			return nil // what can't be read is as if it weren't there
		})
		if err != nil {
			f.log.Debug("walking a folder", "folder", p, "err", err)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// A pair is a TLS certificate in two files. It is safe for concurrent use.
type pair struct {
	*files
	now     atomic.Pointer[tls.Certificate]
	changed func(tls.Certificate) error // told of another, which it may refuse; nil: nobody
}

// newPair loads a pair from its files.
func newPair(cert, key string, log *Log) (*pair, error) {
	p := &pair{}
	var err error
	p.files, err = newFiles("a TLS certificate", log, func() error {
		c, err := loadPair(cert, key)
		if err == nil && p.now.Load() != nil && p.changed != nil {
			err = p.changed(*c)
		}
		if err == nil {
			p.now.Store(c)
		}
		return err
	}, cert, key)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// config is how a server shows the pair's newest certificate.
func (p *pair) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.now.Load(), nil }}
}

// A pool is trusted certificates in files. It is safe for concurrent use.
type pool struct {
	*files
	now atomic.Pointer[x509.CertPool]
}

// newPool loads a pool from its files.
func newPool(paths []string, log *Log) (*pool, error) {
	p := &pool{}
	var err error
	p.files, err = newFiles("trusted certificates", log, func() error {
		c, err := loadPool(paths)
		if err == nil {
			p.now.Store(c)
		}
		return err
	}, paths...)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// An mspFolder is a node's identity and organisation in their folder. It is safe for concurrent use.
type mspFolder struct {
	*files
	now     atomic.Pointer[Identity]
	changed func(s msp.Signer, chain [][]byte, m *msp.MSP) error // told of another; set before watch runs
}

// newMSPFolder loads a node's identity from its folder.
func newMSPFolder(mspID, dir string, log *Log) (*mspFolder, error) {
	o := &mspFolder{}
	var err error
	o.files, err = newFiles("the MSP folder", log, func() error {
		id, err := LoadIdentity(mspID, dir, log.Logger)
		if err == nil && o.now.Load() != nil && o.changed != nil {
			err = o.changed(id.Signer, id.Chain, id.MSP)
		}
		if err == nil {
			o.now.Store(id)
		}
		return err
	}, dir)
	if err != nil {
		return nil, err
	}
	return o, nil
}
