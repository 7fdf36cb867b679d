package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/blocksync"
	"grapevine/cmd/grapevine/fault"
	"grapevine/node"
)

// StateStatus is `state status`: what of a channel's blocks is missing, whom they
// are asked of, and how that goes.
type StateStatus struct {
	Meta
	Channel  string           `json:"channel"`
	Height   uint64           `json:"height"`
	Target   uint64           `json:"target"` // blocks that there are, as far as is known
	Lag      uint64           `json:"lag"`
	Paused   string           `json:"paused"` // why commits wait, or ""
	Progress Progress         `json:"progress"`
	Snapshot Arriving         `json:"snapshot"`
	Buffer   StateBuffer      `json:"buffer"`
	Gaps     []StateGap       `json:"gaps"`
	Requests []StateRequest   `json:"requests"`
	Sources  []TransferSource `json:"sources"`
}

// Progress is that of long work: catching up, or an import. The figures of a
// second are those of the last ten; Active is false when there is nothing to do.
type Progress struct {
	Active       bool     `json:"active"`
	Since        Time     `json:"since"`
	FromHeight   uint64   `json:"fromHeight"`
	Height       uint64   `json:"height"`
	Target       uint64   `json:"target"` // 0: unknown
	Blocks       uint64   `json:"blocks"` // done since
	Bytes        uint64   `json:"bytes"`
	BlocksPerSec float64  `json:"blocksPerSec"`
	BytesPerSec  float64  `json:"bytesPerSec"`
	LeftSec      float64  `json:"leftSec"` // 0: unknown
	Sources      []string `json:"sources"` // who is asked at the moment
}

// StateBuffer is what waits for earlier blocks, or is being read or checked.
type StateBuffer struct {
	Blocks    int   `json:"blocks"`
	Bytes     int64 `json:"bytes"`
	PeakBytes int64 `json:"peakBytes"`
	MaxBytes  int64 `json:"maxBytes"`
}

// StateGap is a run of missing blocks, To included.
type StateGap struct {
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Blocks uint64 `json:"blocks"`
}

// StateRequest is a question under way for blocks From to To, included.
type StateRequest struct {
	Peer    string `json:"peer"`
	PeerID  string `json:"peerId"`
	From    uint64 `json:"from"`
	To      uint64 `json:"to"`
	Came    int    `json:"came"` // blocks
	Bytes   int64  `json:"bytes"`
	AgeMs   int64  `json:"ageMs"`
	Waiting bool   `json:"waiting"` // for a configuration block
}

// TransferSource is a peer as a source of blocks: State is "ready", "away" (left
// alone until Until, for Why) or "banned".
type TransferSource struct {
	Peer        string  `json:"peer"`
	PeerID      string  `json:"peerId"`
	Height      uint64  `json:"height"` // that it claims
	Lowest      uint64  `json:"lowest"` // it holds none below
	State       string  `json:"state"`
	Until       Time    `json:"until"`
	Why         string  `json:"why"`
	BytesPerSec float64 `json:"bytesPerSec"`
	Requests    int     `json:"requests"`
	Blocks      uint64  `json:"blocks"` // that it brought
	Bytes       uint64  `json:"bytes"`
}

// StateSync is `state sync`.
type StateSync struct {
	Meta
	Channel string `json:"channel"`
	Height  uint64 `json:"height"`
	Target  uint64 `json:"target"`
	Done    bool   `json:"done"` // nothing is missing that was known to be there
}

// ProgressOf makes the object of a channel's progress.
func ProgressOf(p blocksync.Progress, from []string) Progress {
	if !p.Active() {
		return Progress{}
	}
	return Progress{
		Active: true, Since: Time{p.Since}, FromHeight: p.From, Height: p.Height, Target: p.Target, Blocks: p.Blocks, Bytes: p.Bytes,
		BlocksPerSec: p.BlocksPerSec, BytesPerSec: p.BytesPerSec, LeftSec: p.Left.Seconds(), Sources: from,
	}
}

// transfer answers how fetching goes.
func (s *Server) transfer(r *http.Request) (any, error) {
	c, err := s.fetcher(r)
	if err != nil {
		return nil, err
	}
	return stateStatus(c, time.Now()), nil
}

// fetch makes the node ask now for what is missing.
func (s *Server) fetch(r *http.Request) (any, error) {
	c, err := s.fetcher(r)
	if err != nil {
		return nil, err
	}
	target := c.Fetch()
	height := c.Ledger().Height()
	return &StateSync{Channel: c.Name(), Height: height, Target: max(target, height), Done: height >= target}, nil
}

func (s *Server) fetcher(r *http.Request) (*node.Channel, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	if c.peer == nil {
		return nil, fault.New(fault.NotHere, "an ordering node fetches blocks by Raft, not from peers")
	}
	return c.peer, nil
}

func stateStatus(c *node.Channel, now time.Time) *StateStatus {
	v := c.Transfer()
	out := &StateStatus{
		Channel: c.Name(), Height: v.Height, Target: max(v.Target, v.Height), Lag: v.Target - min(v.Target, v.Height),
		Progress: ProgressOf(v.Progress, c.From(v)),
		Snapshot: arrivingOf(c.Arriving()),
		Buffer:   StateBuffer{v.Waiting, v.Buffered, v.Peak, v.Budget},
	}
	if v.Paused != nil {
		out.Paused = v.Paused.Error()
	}
	name := func(p peer.ID) string { return c.NameOf(p) }
	for _, g := range v.Gaps {
		out.Gaps = append(out.Gaps, StateGap{g.From, g.To - 1, g.To - g.From})
	}
	for _, q := range v.Requests {
		out.Requests = append(out.Requests, StateRequest{
			name(q.Peer), q.Peer.String(), q.From, q.To - 1, q.Came, q.Bytes, now.Sub(q.Since).Milliseconds(), q.Parked,
		})
	}
	for _, p := range v.Sources {
		state := "ready"
		switch {
		case p.Banned:
			state = "banned"
		case !p.Until.IsZero():
			state = "away"
		}
		out.Sources = append(out.Sources, TransferSource{
			name(p.Peer), p.Peer.String(), p.Height, p.Lowest, state, Time{p.Until}, p.Why, p.Rate, p.Requests, p.Blocks, p.Bytes,
		})
	}
	return out
}

// Transfer asks how fetching what is missing goes.
func (r Remote) Transfer(ctx context.Context) (*StateStatus, error) {
	return get[StateStatus](ctx, r.Client, channelPath(r.Name)+"/transfer", nil)
}

// Fetch makes the node ask now for what is missing.
func (r Remote) Fetch(ctx context.Context) (*StateSync, error) {
	return send[StateSync](ctx, r.Client, http.MethodPost, channelPath(r.Name)+"/fetch", nil, nil)
}
