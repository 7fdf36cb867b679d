package blocksync

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

const snapshotProtocol = "/test/snapshots"

// stock is a snapshot to be served, and what a newcomer has of it.
type stock struct {
	name   [32]byte
	chunks [][]byte
	over   chan struct{} // closed at the end

	mu      sync.Mutex
	have    map[int]bool
	refused map[peer.ID]string
}

var errNotTheChunk = errors.New("not the chunk")

func newStock(n, size int) *stock {
	s := &stock{name: sha256.Sum256([]byte("a snapshot")), over: make(chan struct{}), have: map[int]bool{}, refused: map[peer.ID]string{}}
	rng := rand.NewChaCha8([32]byte{1})
	for i := range n {
		b := make([]byte, size+i%7)
		rng.Read(b)
		s.chunks = append(s.chunks, b)
	}
	return s
}

func (s *stock) library() Library {
	return Library{
		Offers: func() [][]byte { return [][]byte{must(wire.Marshal(&wire.SnapshotOffer{Manifest: []byte("m")}))} },
		Head: func(name [32]byte) ([][]byte, error) {
			if name != s.name {
				return nil, nil
			}
			return [][]byte{[]byte("index"), []byte("block 0"), []byte("tip")}, nil
		},
		Chunk: func(name [32]byte, i uint64) ([]byte, error) {
			if name != s.name || i >= uint64(len(s.chunks)) {
				return nil, nil
			}
			return s.chunks[i], nil
		},
	}
}

// fetch is a Fetch from the hosts of a net to its first one.
func (s *stock) fetch(w *net) *Fetch {
	sizes := make([]int64, len(s.chunks))
	for i, c := range s.chunks {
		sizes[i] = int64(len(c))
	}
	f := NewFetch(FetchConfig{
		Name: s.name, Sizes: sizes, Wrong: errNotTheChunk,
		Has: func(i int) bool { return s.have[i] },
		Put: func(i int, b []byte) error {
			if !bytes.Equal(b, s.chunks[i]) {
				return errNotTheChunk
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.have[i] = true
			return nil
		},
		Open: func(ctx context.Context, p peer.ID) (network.Stream, error) {
			return w.hosts[0].NewStream(ctx, p, snapshotProtocol)
		},
		Refused: func(p peer.ID, r *wire.Reason) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refused[p] = fmt.Sprintf("%s %s", r.Verdict(), r.Code())
		},
	})
	for _, h := range w.hosts[1:] {
		f.Holds(h.ID())
	}
	return f
}

// TestSnapshotFromLiars takes a snapshot from three peers, one of which answers as
// each case says: all comes, and the liar is named.
func TestSnapshotFromLiars(t *testing.T) {
	type answer func(stream network.Stream, req *wire.SnapshotsRequest, s *stock)
	status := func(stream network.Stream, code wire.SnapshotsStatus_Code, nonce, frames uint64) {
		wire.WriteFrame(stream, must(wire.Marshal(&wire.SnapshotsStatus{Code: code, Nonce: nonce, Frames: frames})))
	}
	ok := func(stream network.Stream, req *wire.SnapshotsRequest) {
		status(stream, wire.SnapshotsStatus_CODE_OK, req.Nonce, req.Count)
	}
	for _, c := range []struct {
		id, want string
		answer   answer
	}{
		{"Y16 wrong hash", "ban blocksync.bad_snapshot", func(stream network.Stream, req *wire.SnapshotsRequest, s *stock) {
			ok(stream, req)
			bad := bytes.Clone(s.chunks[req.First])
			bad[0] ^= 1
			wire.WriteFrame(stream, bad)
		}},
		{"Y16 another chunk", "ban blocksync.bad_snapshot", func(stream network.Stream, req *wire.SnapshotsRequest, s *stock) {
			ok(stream, req)
			wire.WriteFrame(stream, s.chunks[(req.First+7)%uint64(len(s.chunks))])
		}},
		{"Y16 truncated within a chunk", "ban blocksync.bad_snapshot", func(stream network.Stream, req *wire.SnapshotsRequest, s *stock) {
			ok(stream, req)
			wire.WriteFrame(stream, s.chunks[req.First][1:])
		}},
		{"Y16 a chunk too long", "ban blocksync.bad_snapshot", func(stream network.Stream, req *wire.SnapshotsRequest, s *stock) {
			ok(stream, req)
			wire.WriteFrame(stream, append(bytes.Clone(s.chunks[req.First]), 1))
		}},
		{"Y16 10⁶ files", "ban blocksync.bad_snapshot", func(stream network.Stream, req *wire.SnapshotsRequest, _ *stock) {
			status(stream, wire.SnapshotsStatus_CODE_OK, req.Nonce, 1_000_000)
		}},
		{"Y2 unasked", "ban blocksync.unasked", func(stream network.Stream, req *wire.SnapshotsRequest, _ *stock) {
			status(stream, wire.SnapshotsStatus_CODE_OK, req.Nonce+1, req.Count)
		}},
		{"Y7 surplus", "ban blocksync.over_range", func(stream network.Stream, req *wire.SnapshotsRequest, s *stock) {
			ok(stream, req)
			for i := range req.Count + 1 {
				wire.WriteFrame(stream, s.chunks[(req.First+i)%uint64(len(s.chunks))])
			}
		}},
		{"Y9 stops in mid-chunk", "close blocksync.truncated", func(stream network.Stream, req *wire.SnapshotsRequest, s *stock) {
			ok(stream, req)
			stream.Write(wire.AppendFrame(nil, s.chunks[req.First])[:100])
		}},
		{"Y9 no status", "close blocksync.truncated", func(network.Stream, *wire.SnapshotsRequest, *stock) {}},
		{"bad status", "ban blocksync.bad_status", func(stream network.Stream, req *wire.SnapshotsRequest, _ *stock) {
			status(stream, wire.SnapshotsStatus_CODE_BAD_RANGE, req.Nonce, 0)
		}},
		{"silent", "", func(_ network.Stream, _ *wire.SnapshotsRequest, s *stock) { <-s.over }},
	} {
		t.Run(c.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := simulate(t, 4)
				defer w.close()
				s := newStock(60, 20_000)
				defer close(s.over)
				s.have[3], s.have[59] = true, true // it goes on where it was
				chain := newChain(t)
				for i, h := range w.hosts[1:] {
					n := newNode(t, h, chain, 1)
					defer n.db.Close()
					h.SetStreamHandler(snapshotProtocol, func(stream network.Stream) {
						if i > 0 {
							n.ServeSnapshots(stream, stream.Conn().RemotePeer(), s.library())
							return
						}
						req := new(wire.SnapshotsRequest)
						if err := readRequest(stream, req); err != nil {
							stream.Reset()
							return
						}
						c.answer(stream, req, s)
						stream.Close()
					})
				}
				f := s.fetch(w)
				require.NoError(t, f.Run(t.Context()))
				require.Len(t, s.have, len(s.chunks))
				s.mu.Lock()
				defer s.mu.Unlock()
				require.Equal(t, c.want, s.refused[w.hosts[1].ID()])
				delete(s.refused, w.hosts[1].ID())
				require.Empty(t, s.refused, "an honest peer is accused")
				_, _, from := f.Progress()
				require.Positive(t, from[w.hosts[2].ID()])
				require.Positive(t, from[w.hosts[3].ID()])
			})
		})
	}
}

func TestSnapshotOffersAndHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 2)
		defer w.close()
		s := newStock(3, 100)
		n := newNode(t, w.hosts[1], newChain(t), 1)
		defer n.db.Close()
		w.hosts[1].SetStreamHandler(snapshotProtocol, func(stream network.Stream) {
			n.ServeSnapshots(stream, stream.Conn().RemotePeer(), s.library())
		})
		open := func() network.Stream {
			stream, err := w.hosts[0].NewStream(t.Context(), w.hosts[1].ID(), snapshotProtocol)
			require.NoError(t, err)
			return stream
		}
		offers, err := Offers(t.Context(), open())
		require.NoError(t, err)
		require.Len(t, offers, 1)
		require.Equal(t, "m", string(offers[0].Manifest))
		index, blocks, err := Head(t.Context(), open(), s.name)
		require.NoError(t, err)
		require.Equal(t, "index", string(index))
		require.Len(t, blocks, 2)
		_, _, err = Head(t.Context(), open(), [32]byte{1})
		require.ErrorIs(t, err, errLacking)
		require.Nil(t, wire.ReasonOf(err), "that a peer doesn't hold it is no offence")
	})
}

func TestSnapshotRequestsThatMakeNoSense(t *testing.T) {
	s := newStock(3, 100)
	t.Run("Y13", func(t *testing.T) {
		for _, req := range []*wire.SnapshotsRequest{
			{},
			{What: wire.SnapshotsRequest_WHAT_LIST, Count: 1},
			{What: wire.SnapshotsRequest_WHAT_HEAD},
			{What: wire.SnapshotsRequest_WHAT_HEAD, Name: s.name[:31]},
			{What: wire.SnapshotsRequest_WHAT_CHUNKS, Name: s.name[:]},
			{What: wire.SnapshotsRequest_WHAT_CHUNKS, Name: s.name[:], Count: maxChunks + 1},
			{What: wire.SnapshotsRequest_WHAT_CHUNKS, Name: s.name[:], First: 1<<64 - 1, Count: 2},
		} {
			status, _, err := lib(s).answer(req)
			require.NoError(t, err)
			require.Equal(t, wire.SnapshotsStatus_CODE_BAD_RANGE, status.Code, "%v", req)
		}
	})
}

func lib(s *stock) *Library {
	l := s.library()
	return &l
}

// TestSnapshotsShareTheLimits is Y14: who takes snapshots uses the same share as who
// takes blocks.
func TestSnapshotsShareTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 2)
		defer w.close()
		s := newStock(3, 100)
		n := newNode(t, w.hosts[1], newChain(t), 1, func(c *Config) { c.Limits.Peer.Requests = 2 })
		defer n.db.Close()
		w.hosts[1].SetStreamHandler(snapshotProtocol, func(stream network.Stream) {
			n.ServeSnapshots(stream, stream.Conn().RemotePeer(), s.library())
		})
		busy := 0
		for range 4 {
			stream, err := w.hosts[0].NewStream(t.Context(), w.hosts[1].ID(), snapshotProtocol)
			require.NoError(t, err)
			if _, err = Offers(t.Context(), stream); errors.Is(err, Busy) {
				busy++
			}
		}
		require.Positive(t, busy)
	})
}

// FuzzSnapshotRequest: whatever a peer asks, nothing breaks.
func FuzzSnapshotRequest(f *testing.F) {
	s := newStock(3, 10)
	f.Add(must(wire.Marshal(&wire.SnapshotsRequest{What: wire.SnapshotsRequest_WHAT_CHUNKS, Name: s.name[:], First: 2, Count: 2})))
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(wire.SnapshotsRequest)
		if wire.Unmarshal(b, req) != nil {
			return
		}
		status, frame, err := lib(s).answer(req)
		if err != nil || status.Frames > maxChunks {
			t.Fatalf("%v %v", status, err)
		}
		for i := range status.Frames {
			if b, err := frame(i); err == nil && b == nil {
				t.Fatal("a frame of nothing")
			}
		}
	})
}
