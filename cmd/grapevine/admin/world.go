package admin

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
	"grapevine/ledger/state"
)

// StateHistory is `state history`: the oldest version first.
type StateHistory struct {
	Meta
	Channel   string        `json:"channel"`
	Namespace string        `json:"namespace"`
	Key       string        `json:"key"`
	Height    uint64        `json:"height"`
	From      uint64        `json:"from"` // block from which on changes are known
	Items     []StateChange `json:"items"`
}

// StateChange is a valid transaction's write of a key.
type StateChange struct {
	Version KeyVersion `json:"version"`
	TxID    string     `json:"txId"`
	Time    Time       `json:"time"`
	Deleted bool       `json:"deleted"`
	Value   string     `json:"value"` // base64
	Text    string     `json:"text"`
}

// validity says who judges a ledger's transactions, and the state hash at its
// height in hexadecimal: "" while there is none.
func validity(s ledger.StateTip) (who, hash string) {
	level := s.Height > 0 && s.Height == s.Blocks.Height
	if level {
		hash = hex.EncodeToString(s.Hash[:])
	}
	if level || s.Unjudged == nil {
		return ValidityOwn, hash
	}
	return ValidityNone, ""
}

// world opens the state, or says that there is none.
func (c *Chain) world(ctx context.Context) (*ledger.World, error) {
	if s := c.Ledger.State(); s.Height < s.Blocks.Height && s.Unjudged != nil {
		return nil, fault.New("STA003", "").Because(s.Unjudged.Error(), fmt.Sprintf("%d of %d blocks are judged", s.Height, s.Blocks.Height)).From(s.Unjudged)
	}
	return c.Ledger.World(ctx)
}

// State reads one public key of the world state.
func (c *Chain) State(ctx context.Context, namespace, key string) (_ *StateEntry, err error) {
	w, err := c.world(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	e, err := w.Get(ledger.Key{Namespace: namespace, Key: key})
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, fault.Newf("STA001", "the key %q is not in the world state", key).
			Because(fmt.Sprintf("namespace %q of channel %s holds no such key at height %d", namespace, c.Ledger.Name(), w.Height()))
	}
	if err != nil {
		return nil, err
	}
	return c.entry(ledger.Item{Key: ledger.Key{Namespace: namespace, Key: key}, Entry: *e}, w.Height()), nil
}

func (c *Chain) entry(x ledger.Item, height uint64) *StateEntry {
	out := &StateEntry{
		Channel: c.Ledger.Name(), Namespace: x.Namespace, Collection: x.Collection, Key: x.Key.Key,
		Value: base64.StdEncoding.EncodeToString(x.Value), Text: text(x.Value),
		Version: KeyVersion{Block: x.Block, Tx: int(x.Tx)}, Height: height,
	}
	if x.Collection != "" {
		out.Key, out.Text = hex.EncodeToString([]byte(x.Key.Key)), ""
	}
	return out
}

func text(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return ""
}

// A DumpQuery says what of the state is wanted.
type DumpQuery struct {
	Namespace string // "" for all, unless Only
	Only      bool
	Hashes    bool // of private data too
}

// Dump calls each with the entries of the state at one height, sorted by
// namespace, collection and key.
func (c *Chain) Dump(ctx context.Context, q DumpQuery, each func(*StateEntry) error) (err error) {
	w, err := c.world(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for x, err := range w.All() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if q.Only && x.Namespace != q.Namespace || x.Collection != "" && !q.Hashes {
			continue
		}
		if err := each(c.entry(x, w.Height())); err != nil {
			return err
		}
	}
	return nil
}

// History lists the versions that a public key had.
func (c *Chain) History(ctx context.Context, namespace, key string) (_ *StateHistory, err error) {
	w, err := c.world(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	out := &StateHistory{Channel: c.Ledger.Name(), Namespace: namespace, Key: key, Height: w.Height(), From: w.HistoryFrom()}
	for p, err := range w.History(namespace, key) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		b, err := c.decoded(p.Block)
		if err != nil {
			return nil, err
		}
		if p.Tx >= uint64(len(b.Data.GetData())) {
			return nil, fmt.Errorf("block %d has no transaction %d: %w", p.Block, p.Tx, ledger.ErrCorrupt)
		}
		entry := b.Data.Data[p.Tx]
		x := StateChange{Version: KeyVersion{Block: p.Block, Tx: int(p.Tx)}, Deleted: p.Deleted}
		var env common.Envelope
		if proto.Unmarshal(entry, &env) == nil {
			if h, _, err := block.Header(&env); err == nil {
				x.TxID, x.Time = h.TxId, Time{h.Timestamp.AsTime()}
			}
		}
		if v := state.Written(entry, namespace, key); !p.Deleted {
			x.Value, x.Text = base64.StdEncoding.EncodeToString(v), text(v)
		}
		out.Items = append(out.Items, x)
	}
	if from := w.HistoryFrom(); len(out.Items) == 0 && from > 0 {
		return nil, fault.Newf("STA020", "what wrote the key %q before block %d isn't known here", key, from).
			Because("histories begin at that block, and nothing has written it since")
	}
	if len(out.Items) == 0 {
		return nil, fault.Newf("STA001", "the key %q never was in the world state", key).
			Because(fmt.Sprintf("no valid transaction wrote it in namespace %q of channel %s below height %d", namespace, c.Ledger.Name(), out.Height))
	}
	return out, nil
}

// StateHash is the state hash at a height: "" for the present one.
func (c *Chain) StateHash(_ context.Context, at string) (*StateHash, error) {
	s := c.Ledger.State()
	height := s.Height
	if at != "" {
		n, err := strconv.ParseUint(at, 10, 63)
		if err != nil {
			return nil, fault.Newf(fault.BadNumber, "%q is no height", at)
		}
		height = n
	}
	if s.Height == 0 || at == "" && s.Height < s.Blocks.Height && s.Unjudged != nil {
		f := fault.New("STA003", "").From(s.Unjudged)
		if s.Unjudged != nil {
			f = f.Because(s.Unjudged.Error())
		}
		return nil, f
	}
	if height == 0 || height > s.Height {
		return nil, fault.Newf("STA002", "the state at height %d is not kept", height).Because(fmt.Sprintf("heights 1 to %d are", s.Height))
	}
	v, err := c.Ledger.Verdict(height - 1)
	if err != nil {
		return nil, err
	}
	b, err := c.decoded(height - 1)
	if err != nil {
		return nil, err
	}
	tip := block.HeaderHash(b.Header)
	return &StateHash{
		Channel: c.Ledger.Name(), Height: height, TipHash: hex.EncodeToString(tip[:]), StateHash: hex.EncodeToString(v.StateHash[:]), Algorithm: state.Algorithm,
	}, nil
}

// State is [Chain.State], and what follows are the others, asked of a node.
func (r Remote) State(ctx context.Context, namespace, key string) (*StateEntry, error) {
	return get[StateEntry](ctx, r.Client, channelPath(r.Name)+"/state/key", url.Values{"namespace": {namespace}, "key": {key}})
}

// Dump calls each with the entries of the state.
func (r Remote) Dump(ctx context.Context, q DumpQuery, each func(*StateEntry) error) error {
	v := url.Values{"hashes": {strconv.FormatBool(q.Hashes)}}
	if q.Only {
		v.Set("namespace", q.Namespace)
	}
	resp, err := r.do(ctx, http.MethodGet, channelPath(r.Name)+"/state", v, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); d.More(); {
		e := new(StateEntry)
		if err := d.Decode(e); err != nil {
			return r.lost(ctx, err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if resp.Trailer.Get(dumpEnd) == "" {
		return r.lost(ctx, errors.New("the answer ends before its end"))
	}
	return nil
}

// History asks for the versions that a key had.
func (r Remote) History(ctx context.Context, namespace, key string) (*StateHistory, error) {
	return get[StateHistory](ctx, r.Client, channelPath(r.Name)+"/state/history", url.Values{"namespace": {namespace}, "key": {key}})
}

// StateHash asks for the state hash at a height.
func (r Remote) StateHash(ctx context.Context, at string) (*StateHash, error) {
	return get[StateHash](ctx, r.Client, channelPath(r.Name)+"/state/hash", url.Values{"at": {at}})
}

// dumpEnd is the trailer behind a whole dump.
const dumpEnd = "Grapevine-Complete"

// stating serves the world state.
func (s *Server) stating(mux *http.ServeMux) {
	const at = "GET /api/v1/channels/{ch}/state"
	ask := func(f func(*room, context.Context, url.Values) (any, error)) http.HandlerFunc {
		return s.handle(func(r *http.Request) (any, error) {
			c, err := s.room(r)
			if err != nil {
				return nil, err
			}
			return f(c, r.Context(), r.URL.Query())
		})
	}
	mux.HandleFunc(at+"/key", ask(func(c *room, ctx context.Context, q url.Values) (any, error) {
		return c.State(ctx, q.Get("namespace"), q.Get("key"))
	}))
	mux.HandleFunc(at+"/history", ask(func(c *room, ctx context.Context, q url.Values) (any, error) {
		return c.History(ctx, q.Get("namespace"), q.Get("key"))
	}))
	mux.HandleFunc(at+"/hash", ask(func(c *room, ctx context.Context, q url.Values) (any, error) {
		return c.StateHash(ctx, q.Get("at"))
	}))
	mux.HandleFunc(at, s.dump)
}

// dump streams the state as NDJSON. A trailer says that it is whole.
func (s *Server) dump(w http.ResponseWriter, r *http.Request) {
	c, err := s.room(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	q := r.URL.Query()
	begun := false
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Trailer", dumpEnd)
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
	}
	started := time.Now()
	err = c.Dump(r.Context(), DumpQuery{Namespace: q.Get("namespace"), Only: q.Has("namespace"), Hashes: q.Get("hashes") == "true"}, func(e *StateEntry) error {
		begin()
		line, err := Marshal(e)
		if err == nil {
			_, err = w.Write(append(line, '\n'))
		}
		return err
	})
	switch {
	case err == nil:
		begin()
		w.Header().Set(dumpEnd, "true")
	case !begun:
		s.fail(w, err)
	default:
		s.Log.Debug("dumping the world state", "after", time.Since(started), "err", err)
	}
}
