package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/channel"
	"grapevine/cmd/grapevine/fault"
	"grapevine/node"
)

const (
	participationURL = "/participation/v1/channels"
	// blockPart is the part of a form that holds the block to join by.
	blockPart = "config-block"
	// removeTime bounds the removal of a channel that orders just now.
	removeTime = 30 * time.Second
)

// Participation is Fabric's channel participation API, by which osnadmin has an
// ordering node join, list and remove channels: its paths, statuses and JSON.
type Participation struct {
	Node    *node.Orderer
	MaxBody int64 // bytes of a request
	Log     *slog.Logger
}

// Handler serves the API. Whoever reaches it may do all of it.
func (p *Participation) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /participation/v1/{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, participationURL, http.StatusFound)
	})
	for path, verbs := range map[string]map[string]func(http.ResponseWriter, *http.Request){
		participationURL:           {http.MethodGet: p.list, http.MethodPost: p.join},
		participationURL + "/{ch}": {http.MethodGet: p.one, http.MethodDelete: p.remove},
	} {
		var allowed []string
		for verb, f := range verbs {
			allowed = append(allowed, verb)
			mux.HandleFunc(verb+" "+path, p.negotiated(f))
		}
		slices.Sort(allowed)
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			p.notAllowed(w, fmt.Errorf("invalid request method: %s", r.Method), allowed...)
		})
	}
	return mux
}

// negotiated refuses a client that takes no JSON.
func (p *Participation) negotiated(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		accept := r.Header.Get("Accept")
		for _, ok := range []string{"application/json", "application/*", "*/*"} {
			if accept == "" || strings.Contains(accept, ok) {
				f(w, r)
				return
			}
		}
		p.fail(w, http.StatusNotAcceptable, errors.New("response Content-Type is application/json only"))
	}
}

// shortInfo and fullInfo are a channel as the API tells of it.
type shortInfo struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

type fullInfo struct {
	shortInfo
	ConsensusRelation string `json:"consensusRelation"`
	Status            string `json:"status"`
	Height            uint64 `json:"height"`
}

func short(name string) shortInfo { return shortInfo{name, participationURL + "/" + name} }

func full(v node.Participation) fullInfo {
	return fullInfo{short(v.Name), v.Relation, v.Status, v.Height}
}

func (p *Participation) list(w http.ResponseWriter, _ *http.Request) {
	out := struct {
		SystemChannel *shortInfo  `json:"systemChannel"` // there is none any more
		Channels      []shortInfo `json:"channels"`
	}{}
	for _, v := range p.Node.Participations() {
		out.Channels = append(out.Channels, short(v.Name))
	}
	slices.SortFunc(out.Channels, func(a, b shortInfo) int { return strings.Compare(a.Name, b.Name) })
	w.Header().Set("Cache-Control", "no-store")
	p.answer(w, http.StatusOK, out)
}

func (p *Participation) one(w http.ResponseWriter, r *http.Request) {
	name, ok := p.named(w, r)
	if !ok {
		return
	}
	v, err := p.Node.Participation(name)
	if err != nil {
		p.fail(w, http.StatusNotFound, errors.New("channel does not exist"))
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	p.answer(w, http.StatusOK, full(v))
}

func (p *Participation) join(w http.ResponseWriter, r *http.Request) {
	b, err := p.block(w, r)
	if err != nil {
		p.fail(w, http.StatusBadRequest, err)
		return
	}
	conf, err := channel.Parse(b)
	if err != nil {
		p.fail(w, http.StatusBadRequest, fmt.Errorf("invalid join block: %w", err))
		return
	}
	if _, err := p.Node.Participation(conf.Channel()); err == nil {
		p.notAllowed(w, errors.New("cannot join: channel already exists"), http.MethodGet, http.MethodDelete)
		return
	}
	err = p.Node.Join(b)
	switch {
	case errors.Is(err, node.ErrRemoving):
		p.fail(w, http.StatusConflict, errors.New("cannot join: channel pending removal"))
		return
	case err != nil:
		p.fail(w, http.StatusBadRequest, fmt.Errorf("cannot join: %w", err))
		return
	}
	v, err := p.Node.Participation(conf.Channel())
	if err != nil {
		p.fail(w, http.StatusConflict, fmt.Errorf("cannot join: %w", err)) // removed again meanwhile
		return
	}
	w.Header().Set("Location", short(v.Name).URL)
	p.answer(w, http.StatusCreated, full(v))
}

// block reads the one part of the form.
func (p *Participation) block(w http.ResponseWriter, r *http.Request) (*common.Block, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return nil, fmt.Errorf("unsupported Content-Type: %s", r.Header.Values("Content-Type"))
	}
	r.Body = http.MaxBytesReader(w, r.Body, p.MaxBody)
	if err := r.ParseMultipartForm(p.MaxBody); err != nil {
		return nil, fmt.Errorf("cannot read form from request body: %w", err)
	}
	defer func() { // what didn't fit into memory
		if err := r.MultipartForm.RemoveAll(); err != nil {
			p.Log.Warn("removing a request's files", "err", err)
		}
	}()
	files := r.MultipartForm.File[blockPart]
	switch {
	case len(files) == 0:
		return nil, fmt.Errorf("form does not contains part key: %s", blockPart)
	case len(files) != 1 || len(r.MultipartForm.File) != 1 || len(r.MultipartForm.Value) != 0:
		return nil, errors.New("form contains too many parts")
	}
	f, err := files[0].Open()
	if err != nil {
		return nil, fmt.Errorf("cannot open file part %s from request body: %w", blockPart, err)
	}
	defer func() { _ = f.Close() }() // only read
	raw, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read file part %s from request body: %w", blockPart, err)
	}
	var b common.Block
	if err := proto.Unmarshal(raw, &b); err != nil {
		return nil, fmt.Errorf("cannot unmarshal file part %s into a block: %w", blockPart, err)
	}
	return &b, nil
}

func (p *Participation) remove(w http.ResponseWriter, r *http.Request) {
	name, ok := p.named(w, r)
	if !ok {
		return
	}
	// It goes on though the client doesn't wait.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), removeTime)
	defer cancel()
	err := p.Node.Remove(ctx, name)
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, node.ErrNoChannel):
		p.fail(w, http.StatusNotFound, errors.New("cannot remove: channel does not exist"))
	case errors.Is(err, node.ErrRemoving):
		p.fail(w, http.StatusConflict, errors.New("cannot remove: channel pending removal"))
	default:
		p.fail(w, http.StatusBadRequest, fmt.Errorf("cannot remove: %w", err))
	}
}

func (p *Participation) named(w http.ResponseWriter, r *http.Request) (string, bool) {
	name := r.PathValue("ch")
	if err := CheckChannel(name); err != nil {
		p.fail(w, http.StatusBadRequest, fmt.Errorf("invalid channel ID: %w", err))
		return "", false
	}
	return name, true
}

func (p *Participation) fail(w http.ResponseWriter, status int, err error) {
	p.answer(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func (p *Participation) notAllowed(w http.ResponseWriter, err error, allowed ...string) {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	p.fail(w, http.StatusMethodNotAllowed, err)
}

func (p *Participation) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.Log.Debug("answering a participation request", "err", err)
	}
}

// OrderedChannel is what an ordering node is to a channel: `orderer channel
// join`, and an item of `orderer channel list`.
type OrderedChannel struct {
	Meta
	Name              string `json:"name"`
	ConsensusRelation string `json:"consensusRelation"` // "consenter" or "follower"
	Status            string `json:"status"`            // "active", "onboarding" or "failed"
	Height            uint64 `json:"height"`
	Reason            string `json:"reason"` // why it failed
}

// OrderedChannelList is `orderer channel list`.
type OrderedChannelList struct {
	Meta
	Items []OrderedChannel `json:"items"`
}

// RemovedChannel is `orderer channel remove`.
type RemovedChannel struct {
	Meta
	Name string `json:"name"`
}

func ordered(v node.Participation) OrderedChannel {
	out := OrderedChannel{Name: v.Name, ConsensusRelation: v.Relation, Status: v.Status, Height: v.Height}
	if v.Err != nil {
		out.Reason = v.Err.Error()
	}
	return out
}

func (s *Server) orderedOnly() error {
	if s.Orderer == nil {
		return fault.New(fault.NotHere, "this node is a peer, not an orderer").Do("name an ordering node with --target")
	}
	return nil
}

func (s *Server) participations(r *http.Request) (any, error) {
	if err := s.orderedOnly(); err != nil {
		return nil, err
	}
	out := &OrderedChannelList{Items: []OrderedChannel{}}
	only := r.URL.Query().Get("channel")
	for _, v := range s.Orderer.Participations() {
		if only == "" || v.Name == only {
			out.Items = append(out.Items, ordered(v))
		}
	}
	if only != "" && len(out.Items) == 0 {
		return nil, noChannel(only, node.ErrNoChannel)
	}
	slices.SortFunc(out.Items, func(a, b OrderedChannel) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (s *Server) removeOrdered(r *http.Request) (any, error) {
	if err := s.orderedOnly(); err != nil {
		return nil, err
	}
	name := r.PathValue("ch")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), removeTime)
	defer cancel()
	if err := s.Orderer.Remove(ctx, name); err != nil {
		if errors.Is(err, node.ErrNoChannel) {
			err = noChannel(name, err)
		}
		return nil, err
	}
	return &RemovedChannel{Name: name}, nil
}
