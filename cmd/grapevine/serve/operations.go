package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
)

const shutdown = 2 * time.Second

// operations is the HTTP listener for those who run the node: health, version,
// metrics, profiles and the admin API, which only administrators may change the
// node by.
type operations struct {
	l     net.Listener
	files []*files // that it is served by
	srv   *http.Server
}

// serverTLS is how a listener for those who run the node is served: with the
// newest certificate, to clients of the newest roots. The files are to be watched.
func serverTLS(c conf.TLS, log *Log) (*tls.Config, []*files, error) {
	shown, err := newPair(c.Cert, c.Key, log)
	if err != nil {
		return nil, nil, err
	}
	roots, err := newPool(c.ClientRoots, log)
	if err != nil {
		return nil, nil, err
	}
	ask := tls.VerifyClientCertIfGiven
	if c.ClientAuth {
		ask = tls.RequireAndVerifyClientCert
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		t := shown.config()
		t.ClientCAs, t.ClientAuth = roots.now.Load(), ask
		return t, nil
	}}, []*files{shown.files, roots.files}, nil
}

// newOperations binds the listener; nil if none is configured.
func newOperations(c conf.Operations, id *mspFolder, s *admin.Server, reg *prometheus.Registry, log *Log) (*operations, error) {
	if c.Listen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, startFault(fmt.Errorf("operations.listenAddress %s: %w", c.Listen, err), "")
	}
	var watched []*files
	if c.TLS.Enabled {
		t, files, err := serverTLS(c.TLS, log)
		if err != nil {
			return nil, closing(err, l.Close())
		}
		l, watched = tls.NewListener(l, t), files
	}
	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"/healthz": s.Health, "/readyz": s.Health, "/version": s.Version,
		"/livez": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") },
	} {
		mux.HandleFunc("GET "+path, h)
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "it can only be read", http.StatusMethodNotAllowed)
		})
	}
	private := http.NewServeMux()
	if c.Metrics == "prometheus" {
		private.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	}
	whole, reading := s.Whole(), s.ReadOnly()
	private.HandleFunc("/api/v1/", func(w http.ResponseWriter, r *http.Request) {
		if id.now.Load().administrator(r.TLS) {
			whole.ServeHTTP(w, r)
		} else {
			reading.ServeHTTP(w, r)
		}
	})
	private.HandleFunc("GET /logspec", log.get)
	private.HandleFunc("PUT /logspec", log.put)
	if c.TLS.Enabled || loopback(l.Addr()) {
		private.HandleFunc("GET /debug/pprof/", pprof.Index)
		private.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		private.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	mux.Handle("/", known(c.TLS.Enabled, private))
	return &operations{l, watched, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}}, nil
}

func (o *operations) address() string { return o.l.Addr().String() }

func (o *operations) run(ctx context.Context) error {
	return admin.ServeHTTP(ctx, o.srv, o.l, shutdown)
}

// known asks for a verified client certificate where the listener has TLS.
func known(required bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if required && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
			http.Error(w, "a client certificate is required", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopback(a net.Addr) bool {
	p, err := netip.ParseAddrPort(a.String())
	return err == nil && p.Addr().IsLoopback()
}

// startFault says of what keeps a node with this data folder from starting what
// it is.
func startFault(err error, dir string) error {
	var path *fs.PathError
	line, _, _ := strings.Cut(err.Error(), "\n")
	busy := func(why string) error { return fault.New(fault.BadPort, "").Because(line, why).From(err) }
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return busy("another process listens there")
	case errors.Is(err, syscall.EACCES) && strings.Contains(line, "bind"):
		return busy("a port below 1024 needs privileges")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return busy("the address isn't this machine's")
	case errors.As(err, &path) && within(dir, path.Path):
		return fault.Newf(fault.Unreadable, "the data folder %s can't be used", dir).Because(line).From(err).
			Do("check its path and permissions, or name another: peer.fileSystemPath (FileLedger.Location for an orderer)")
	}
	return admin.Explain(err)
}

// within says whether a path is the folder, lies in it, or leads to it.
func within(dir, path string) bool {
	dir, path = filepath.Clean(dir)+"/", filepath.Clean(path)+"/"
	return strings.HasPrefix(path, dir) || strings.HasPrefix(dir, path)
}

// closing joins what ended the work with what its end brought.
func closing(err, end error) error {
	if err == nil {
		return end
	}
	if end != nil {
		return fmt.Errorf("%w (and on closing: %w)", err, end)
	}
	return err
}
