package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/cmd/grapevine/fault"
	"grapevine/node"
)

const (
	maxBody = 64 << 20 // of a posted block
	maxWait = 30 * time.Second
	grace   = time.Second
)

// Build is what a program says of itself.
type Build struct{ Version, Commit, Go, LibP2P string }

// Server answers for one running node: a peer or an ordering node.
type Server struct {
	Peer    *node.Node    // or nil
	Orderer *node.Orderer // or nil

	Build      Build
	Name       string
	Operations string // listener's address, or ""
	Log        *slog.Logger
}

// Run serves the whole interface on l until ctx ends.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: s.Whole(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
	return ServeHTTP(ctx, srv, l, grace)
}

// Whole is the whole interface.
func (s *Server) Whole() http.Handler {
	mux := http.NewServeMux()
	s.reading(mux)
	mux.HandleFunc("POST /api/v1/channels", s.handle(s.join))
	mux.HandleFunc("POST /api/v1/channels/{ch}/leave", s.handle(s.leave))
	s.changing(mux)
	mux.HandleFunc("POST /api/v1/channels/{ch}/snapshots", s.handle(s.createSnapshot))
	mux.HandleFunc("POST /api/v1/channels/{ch}/fetch", s.handle(s.fetch))
	mux.HandleFunc("POST /api/v1/channels/{ch}/scrub", s.handle(s.scrub))
	mux.HandleFunc("POST /api/v1/channels/{ch}/rebuild", s.handle(s.rebuild))
	mux.HandleFunc("POST /api/v1/channels/{ch}/leader/yield", s.handle(s.onPeer(s.yieldLeader)))
	mux.HandleFunc("POST /api/v1/participation/{ch}/remove", s.handle(s.removeOrdered))
	return mux
}

// ReadOnly is the part of the interface that changes nothing.
func (s *Server) ReadOnly() http.Handler {
	mux := http.NewServeMux()
	s.reading(mux)
	mux.HandleFunc("POST /api/v1/", func(w http.ResponseWriter, _ *http.Request) {
		s.fail(w, fault.New("NET003", "only an administrator may change the node").
			Because("this listener asks for TLS with a client certificate of the node's organisation that has the OU admin").
			Do("name its data folder with --target, on its own machine", "name such a certificate in CORE_PEER_TLS_CLIENTCERT_FILE and CORE_PEER_TLS_CLIENTKEY_FILE"))
	})
	return mux
}

func (s *Server) reading(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/status", s.handle(func(*http.Request) (any, error) { return s.Status(), nil }))
	mux.HandleFunc("GET /api/v1/channels", s.handle(s.channels))
	mux.HandleFunc("GET /api/v1/participation", s.handle(s.participations))
	mux.HandleFunc("GET /api/v1/channels/{ch}", s.handle(s.info))
	mux.HandleFunc("GET /api/v1/peers", s.handle(s.peers))
	mux.HandleFunc("GET /api/v1/peers/{name}", s.handle(s.showPeer))
	mux.HandleFunc("GET /api/v1/peers/{name}/ping", s.handle(s.ping))
	mux.HandleFunc("GET /api/v1/channels/{ch}/members", s.handle(s.members))
	mux.HandleFunc("GET /api/v1/channels/{ch}/anchors", s.handle(s.anchors))
	mux.HandleFunc("GET /api/v1/channels/{ch}/config", s.handle(s.config))
	mux.HandleFunc("GET /api/v1/channels/{ch}/transfer", s.handle(s.transfer))
	mux.HandleFunc("GET /api/v1/channels/{ch}/upkeep", s.handle(s.upkeep))
	mux.HandleFunc("GET /api/v1/channels/{ch}/height", s.handle(s.height))
	mux.HandleFunc("GET /api/v1/channels/{ch}/blocks/{n}", s.handle(s.block))
	mux.HandleFunc("GET /api/v1/channels/{ch}/blocks/{n}/trace", s.handle(s.trace))
	mux.HandleFunc("GET /api/v1/channels/{ch}/blocks", s.tail)
	mux.HandleFunc("GET /api/v1/channels/{ch}/raw", s.raw)
	mux.HandleFunc("GET /api/v1/channels/{ch}/verification", s.handle(s.verify))
	s.leading(mux)
	mux.HandleFunc("GET /api/v1/evidence", s.handle(s.evidence))
	mux.HandleFunc("GET /api/v1/channels/{ch}/snapshots", s.handle(s.snapshots))
	mux.HandleFunc("GET /api/v1/channels/{ch}/snapshots/file", s.snapshotFile)
	s.stating(mux)
}

// handle answers with an object, or with the coded error.
func (s *Server) handle(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			s.fail(w, err)
			return
		}
		out, ok := v.(json.RawMessage)
		if !ok {
			if out, err = Marshal(v); err != nil {
				s.fail(w, err)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		s.write(w, append(out, '\n'))
	}
}

func (s *Server) write(w io.Writer, b []byte) {
	if _, err := w.Write(b); err != nil {
		s.Log.Debug("answering an admin request", "err", err)
	}
}

func (s *Server) json(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	s.write(w, append(raw, '\n'))
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	f := fault.Of(Explain(err))
	status := http.StatusInternalServerError
	switch {
	case f.Code == fault.NotFound:
		status = http.StatusNotFound
	case f.Exit == fault.ExitUsage:
		status = http.StatusBadRequest
	}
	s.json(w, status, json.RawMessage(f.JSON()))
}

// room is one channel, whoever keeps it.
type room struct {
	*Chain
	peer *node.Channel // nil on an ordering node
}

func (s *Server) room(r *http.Request) (*room, error) {
	name := r.PathValue("ch")
	if s.Peer != nil {
		c, err := s.Peer.Channel(name)
		if err != nil {
			return nil, noChannel(name, err)
		}
		return &room{&Chain{c.Ledger(), c.Config(), c}, c}, nil
	}
	led, conf, err := s.Orderer.Channel(name)
	if err != nil {
		return nil, noChannel(name, err)
	}
	return &room{&Chain{Ledger: led, Config: conf}, nil}, nil
}

// Explain gives the errors that package node names their codes.
func Explain(err error) error {
	switch {
	case errors.Is(err, node.ErrJoined):
		return fault.New("CHN005", "").Because(err.Error()).From(err)
	case errors.Is(err, node.ErrRemoving):
		return fault.New("ORD005", "").Because(err.Error()).From(err)
	case errors.Is(err, node.ErrLeaving):
		return fault.New("CHN012", "").From(err)
	case errors.Is(err, node.ErrNoChannel):
		return fault.New(fault.NotFound, err.Error()).From(err)
	}
	return err
}

func noChannel(name string, err error) error {
	return fault.Newf(fault.NotFound, "this node has no channel %s", name).From(err).
		Do("see what it has: grapevine channel ls", "join it: grapevine channel join "+name+" --block FILE")
}

func (s *Server) join(r *http.Request) (any, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("reading the block: %w", err)
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, err
	}
	conf, err := channel.Parse(b)
	if err != nil {
		return nil, err
	}
	if want := r.URL.Query().Get("channel"); want != "" && want != conf.Channel() {
		return nil, fault.Newf("CHN001", "the block is of channel %s, not %s", conf.Channel(), want)
	}
	already := true
	if s.Peer != nil {
		if _, err := s.Peer.Channel(conf.Channel()); err != nil {
			already = false
		}
		by, ok := node.ParseSync(r.URL.Query().Get("sync"))
		if !ok {
			return nil, fault.Newf(fault.Usage, "sync %q is not genesis, snapshot or auto", r.URL.Query().Get("sync"))
		}
		if r.URL.Query().Get("sync") == "" {
			by = "" // as the node is configured
		}
		_, err = s.Peer.JoinBy(r.Context(), b, by)
	} else {
		if _, _, err := s.Orderer.Channel(conf.Channel()); err != nil {
			already = false
		}
		err = s.Orderer.Join(b)
	}
	if err != nil {
		return nil, err
	}
	return &Joined{Channel: conf.Channel(), Already: already}, nil
}

func (s *Server) leave(r *http.Request) (any, error) {
	if s.Peer == nil {
		return nil, fault.New(fault.NotHere, "an ordering node doesn't leave a channel: it is removed").
			Do("delete what the node has of it: grapevine orderer channel remove " + r.PathValue("ch"))
	}
	name := r.PathValue("ch")
	purge := r.URL.Query().Get("purge") == "true"
	if err := s.Peer.Leave(r.Context(), name, purge); err != nil {
		if errors.Is(err, node.ErrNoChannel) {
			err = noChannel(name, err)
		}
		return nil, err
	}
	return &Left{Channel: name, Purged: purge}, nil
}

// height answers at once, or, with ?above=N, once more than N blocks are held,
// but no later than after ?wait=DURATION.
func (s *Server) height(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	if above := r.URL.Query().Get("above"); above != "" {
		n, err := strconv.ParseUint(above, 10, 63)
		if err != nil {
			return nil, fault.Newf(fault.BadNumber, "%q is no height", above)
		}
		wait := maxWait
		if d, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			wait = min(d, maxWait)
		}
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		if err := c.Ledger.Wait(ctx, n+1); err != nil && ctx.Err() == nil {
			return nil, err
		}
	}
	return c.Item(), nil
}

func (s *Server) config(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	raw, err := c.JSON(r.Context())
	return json.RawMessage(raw), err
}

func (s *Server) block(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	return c.Block(r.Context(), r.PathValue("n"), r.URL.Query().Get("full") == "true")
}

// verify checks blocks that lie in the ledger again.
func (s *Server) verify(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	return c.Verify(r.Context(), r.URL.Query().Get("range"))
}
