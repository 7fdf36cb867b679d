package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
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
// metrics, profiles and the read-only part of the admin API.
type operations struct {
	l   net.Listener
	srv *http.Server
}

// newOperations binds the listener; nil if none is configured.
func newOperations(c conf.Operations, s *admin.Server, reg *prometheus.Registry, log *slog.Logger) (*operations, error) {
	if c.Listen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, listenFault(fmt.Errorf("operations.listenAddress %s: %w", c.Listen, err))
	}
	if c.TLS.Enabled {
		cert, err := loadPair(c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return nil, closing(err, l.Close())
		}
		t := &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven}
		if c.TLS.ClientAuth {
			t.ClientAuth = tls.RequireAndVerifyClientCert
		}
		if t.ClientCAs, err = loadPool(c.TLS.ClientRoots); err != nil {
			return nil, closing(err, l.Close())
		}
		l = tls.NewListener(l, t)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.Health)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.Health)
	mux.HandleFunc("GET /version", s.Version)
	private := http.NewServeMux()
	if c.Metrics == "prometheus" {
		private.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	}
	private.Handle("GET /api/v1/", s.ReadOnly())
	if c.TLS.Enabled || loopback(l.Addr()) {
		private.HandleFunc("GET /debug/pprof/", pprof.Index)
		private.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		private.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	mux.Handle("/", known(c.TLS.Enabled, private))
	return &operations{l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}}, nil
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

// listenFault says of an address that can't be listened on which it is.
func listenFault(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fault.New(fault.BadPort, "an address is in use: "+firstLine(err)).From(err)
	case errors.Is(err, syscall.EACCES) && strings.Contains(err.Error(), "bind"):
		return fault.New(fault.BadPort, "an address needs privileges: "+firstLine(err)).From(err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fault.New(fault.BadPort, "an address isn't this machine's: "+firstLine(err)).From(err)
	case errors.Is(err, os.ErrPermission):
		return fault.New(fault.Unreadable, "the data folder can't be used: "+firstLine(err)).From(err)
	}
	return err
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
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
