package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"grapevine/channel"
	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
	"grapevine/node"
	"grapevine/wire"
)

// Snapshot is `snapshot create`, and an item of SnapshotList.
type Snapshot struct {
	Meta
	Channel    string   `json:"channel"`
	Height     uint64   `json:"height"`
	TipHash    string   `json:"tipHash"` // header hash of block height-1
	CommitHash string   `json:"commitHash"`
	StateHash  string   `json:"stateHash"`
	Algorithm  string   `json:"algorithm"` // of the state hash
	Name       string   `json:"name"`      // what is attested
	Records    uint64   `json:"records"`
	Bytes      uint64   `json:"bytes"`
	Chunks     uint64   `json:"chunks"`
	AttestedBy []string `json:"attestedBy"` // MSP IDs
}

// SnapshotList is `snapshot ls`, the highest first.
type SnapshotList struct {
	Meta
	Channel string     `json:"channel"`
	Lowest  uint64     `json:"lowest"` // block from which on all are kept
	Items   []Snapshot `json:"items"`
}

// SnapshotFile is `snapshot export` and `snapshot import`.
type SnapshotFile struct {
	Meta
	Snapshot Snapshot `json:"snapshot"`
	File     string   `json:"file"`
	Dir      string   `json:"dir"` // of the import; ""
}

// SnapshotVerification is `snapshot verify`.
type SnapshotVerification struct {
	Meta
	Snapshot  Snapshot `json:"snapshot"`
	File      string   `json:"file"`
	OK        bool     `json:"ok"`
	Needed    int      `json:"needed"`  // organisations that must attest it
	Code      string   `json:"code"`    // reason code of what is wrong, or ""
	Problem   string   `json:"problem"` // what is wrong, or ""
	ElapsedMs int64    `json:"elapsedMs"`
}

// Arriving is how a channel comes by a snapshot: Mode is "genesis" when it doesn't,
// or has done.
type Arriving struct {
	Mode    string `json:"mode"`
	Waiting string `json:"waiting"` // why none is chosen, or ""
	Height  uint64 `json:"height"`  // of the snapshot; 0: none yet
	Chunks  int    `json:"chunks"`
	Left    int    `json:"left"`
	Bytes   int64  `json:"bytes"` // that came
}

// SnapshotOf makes the object of a manifest.
func SnapshotOf(m *wire.SnapshotManifest, name [32]byte, orgs []string) Snapshot {
	return Snapshot{
		Channel: m.Channel, Height: m.Height, TipHash: hex.EncodeToString(m.BlockHash), CommitHash: hex.EncodeToString(m.CommitHash),
		StateHash: hex.EncodeToString(m.StateHash), Algorithm: m.Algorithm, Name: hex.EncodeToString(name[:]),
		Records: m.Records, Bytes: m.Bytes, Chunks: m.Chunks, AttestedBy: orgs,
	}
}

func snapshotOf(s *ledger.Snapshot, conf *channel.Config) Snapshot {
	orgs, _ := node.Attesters(conf, s.Name, s.Attestations(), time.Now())
	return SnapshotOf(s.Manifest, s.Name, orgs)
}

// Snapshots lists those that lie beside the ledger.
func (c *Chain) Snapshots(context.Context) (*SnapshotList, error) {
	out := &SnapshotList{Channel: c.Ledger.Name(), Lowest: c.Ledger.Lowest()}
	for _, s := range c.Ledger.Snapshots() {
		out.Items = append(out.Items, snapshotOf(s, c.Config))
	}
	return out, nil
}

// Export writes the snapshot of a height to w; "" is the newest.
func (c *Chain) Export(ctx context.Context, height string, w io.Writer) error {
	s, err := c.snapshot(height)
	if err != nil {
		return err
	}
	return node.WriteSnapshot(ctx, w, s)
}

func (c *Chain) snapshot(height string) (*ledger.Snapshot, error) {
	all := c.Ledger.Snapshots()
	if height == "" && len(all) > 0 {
		return all[0], nil
	}
	n, err := strconv.ParseUint(height, 10, 63)
	if err != nil && height != "" {
		return nil, fault.Newf(fault.BadNumber, "%q is no height", height)
	}
	for _, s := range all {
		if s.Manifest.Height == n {
			return s, nil
		}
	}
	what := "there is none"
	if height != "" {
		what = "there is none of height " + height
	}
	return nil, fault.Newf("STA023", "channel %s has no such snapshot here", c.Ledger.Name()).Because(what)
}

func (s *Server) snapshots(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	return c.Snapshots(r.Context())
}

func (s *Server) createSnapshot(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	if c.peer == nil {
		return nil, fault.New("STA003", "").Because("an ordering node keeps no world state").Do("name a peer with --target")
	}
	made, err := c.peer.Snapshot(r.Context())
	if errors.Is(err, ledger.ErrUnjudged) {
		return nil, fault.New("STA003", "").Because(err.Error()).From(err)
	}
	if err != nil {
		return nil, err
	}
	out := snapshotOf(made, c.Config)
	return &out, nil
}

func (s *Server) snapshotFile(w http.ResponseWriter, r *http.Request) {
	c, err := s.room(r)
	if err == nil && c.peer != nil {
		c.peer.GatherAttestations(r.Context())
	}
	var snap *ledger.Snapshot
	if err == nil {
		snap, err = c.snapshot(r.URL.Query().Get("height"))
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := node.WriteSnapshot(r.Context(), w, snap); err != nil {
		s.Log.Debug("answering an admin request", "err", err)
		panic(http.ErrAbortHandler) // the asker sees that it broke off
	}
}

// Snapshots asks for the list.
func (r Remote) Snapshots(ctx context.Context) (*SnapshotList, error) {
	return get[SnapshotList](ctx, r.Client, channelPath(r.Name)+"/snapshots", nil)
}

// CreateSnapshot has the node make one now.
func (r Remote) CreateSnapshot(ctx context.Context) (*Snapshot, error) {
	return send[Snapshot](ctx, r.Client, http.MethodPost, channelPath(r.Name)+"/snapshots", nil, nil)
}

// Export copies the snapshot of a height to w; "" is the newest.
func (r Remote) Export(ctx context.Context, height string, w io.Writer) error {
	q := url.Values{}
	if height != "" {
		q.Set("height", height)
	}
	resp, err := r.do(ctx, http.MethodGet, channelPath(r.Name)+"/snapshots/file", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return r.lost(ctx, fmt.Errorf("snapshot: %w", err))
	}
	return nil
}

func arrivingOf(a node.Arriving) Arriving {
	return Arriving{Mode: string(a.Mode), Waiting: a.Waiting, Height: a.Height, Chunks: a.Chunks, Left: a.Left, Bytes: a.Bytes}
}
