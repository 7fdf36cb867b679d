package blocksync

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// hostile is what a server answers to one request.
type hostile func(s network.Stream, req *wire.BlocksRequest, c *chain)

// serveWith makes a host answer every request so.
func serveWith(h host.Host, c *chain, answer hostile) {
	h.SetStreamHandler(testProtocol, func(s network.Stream) {
		req := new(wire.BlocksRequest)
		if err := readRequest(s, req); err != nil {
			s.Reset()
			return
		}
		answer(s, req, c)
		s.Close()
	})
}

func say(s network.Stream, code wire.BlocksStatus_Code, nonce, lowest, height uint64) {
	b := must(wire.Marshal(&wire.BlocksStatus{Code: code, Nonce: nonce, Lowest: lowest, Height: height}))
	wire.WriteFrame(s, b)
}

func ok(s network.Stream, req *wire.BlocksRequest, c *chain) {
	say(s, wire.BlocksStatus_CODE_OK, req.Nonce, 0, uint64(len(c.raw)))
}

// send writes blocks first to last-1.
func send(s network.Stream, c *chain, first, last uint64) {
	for n := first; n < min(last, uint64(len(c.raw))); n++ {
		wire.WriteFrame(s, c.raw[n])
	}
}

// TestHostileServers: whatever a server answers, it gets its verdict, nothing
// of it harms, and an honest peer brings the blocks.
func TestHostileServers(t *testing.T) {
	orderers()
	for _, k := range []struct {
		id, reason string
		answer     hostile
	}{
		{"Y1 another range", "ban blocksync.wrong_range", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			send(s, c, req.First+5, req.First+5+req.Count)
		}},
		{"Y2 unasked", "ban blocksync.unasked", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			say(s, wire.BlocksStatus_CODE_OK, req.Nonce+1, 0, 99)
			send(s, c, req.First, req.First+req.Count)
		}},
		{"Y4 doubled", "ban blocksync.out_of_order", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			send(s, c, req.First, req.First+1)
			send(s, c, req.First, req.First+req.Count)
		}},
		{"Y4 out of order", "ban blocksync.out_of_order", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			send(s, c, req.First, req.First+1)
			send(s, c, req.First+2, req.First+3)
		}},
		{"Y5 good, then bad", "ban block.bad_data_hash", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			send(s, c, req.First, req.First+1)
			bad := bytes.Clone(c.raw[req.First+1])
			i := bytes.Index(bad, []byte("a client's"))
			bad[i] ^= 1
			wire.WriteFrame(s, bad)
		}},
		{"Y5 garbage", "ban block.malformed", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			wire.WriteFrame(s, []byte("no block at all"))
		}},
		{"Y6 empty", "reject blocksync.empty", func(s network.Stream, req *wire.BlocksRequest, c *chain) { ok(s, req, c) }},
		{"Y7 surplus", "ban blocksync.over_range", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			send(s, c, req.First, req.First+req.Count+1)
			for range 1000 { // for as long as it is let
				if wire.WriteFrame(s, c.raw[req.First]) != nil {
					return
				}
			}
		}},
		{"Y8 a byte a second", "close blocksync.too_slow", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			for _, b := range wire.AppendFrame(nil, c.raw[req.First]) {
				if _, err := s.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"Y8 silent", "close blocksync.too_slow", func(s network.Stream, _ *wire.BlocksRequest, _ *chain) { time.Sleep(10 * time.Second) }},
		{"Y9 stops in mid-block", "close blocksync.truncated", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			s.Write(wire.AppendFrame(nil, c.raw[req.First])[:20])
		}},
		{"Y9 no status", "close blocksync.truncated", func(network.Stream, *wire.BlocksRequest, *chain) {}},
		{"Y10 not found below its height", "reject blocksync.false_height", func(s network.Stream, req *wire.BlocksRequest, _ *chain) {
			say(s, wire.BlocksStatus_CODE_NOT_FOUND, req.Nonce, 0, 1)
		}},
		{"Y15 gzip", "ban blocksync.compressed", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			wire.WriteFrame(s, append([]byte{0x1f, 0x8b}, make([]byte, 1000)...))
		}},
		{"Y15 zstd", "ban blocksync.compressed", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			wire.WriteFrame(s, append([]byte{0x28, 0xb5, 0x2f, 0xfd}, make([]byte, 1000)...))
		}},
		{"Y18 over budget", "ban blocksync.over_budget", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			send(s, c, req.First, req.First+1)
			s.Write([]byte{0x81, 0x80, 0x80, 0x10}) // 32 MiB and a byte
		}},
		{"bad status: lowest above what it serves", "ban blocksync.bad_status", func(s network.Stream, req *wire.BlocksRequest, _ *chain) {
			say(s, wire.BlocksStatus_CODE_OK, req.Nonce, req.First+1, 99)
		}},
		{"bad status: bad range", "ban blocksync.bad_status", func(s network.Stream, req *wire.BlocksRequest, _ *chain) {
			say(s, wire.BlocksStatus_CODE_BAD_RANGE, req.Nonce, 0, 99)
		}},
		{"W3 status too large", "ban wire.too_large", func(s network.Stream, _ *wire.BlocksRequest, _ *chain) {
			s.Write([]byte{0x81, 0x20})
		}},
		{"W4 block of 2 GiB", "ban wire.too_large", func(s network.Stream, req *wire.BlocksRequest, c *chain) {
			ok(s, req, c)
			s.Write([]byte{0xff, 0xff, 0xff, 0xff, 0x07})
		}},
		{"W10 unknown field in the status", "ban wire.unknown_fields", func(s network.Stream, _ *wire.BlocksRequest, _ *chain) {
			wire.WriteFrame(s, []byte{0x08, 0x01, 0x78, 0x01})
		}},
	} {
		t.Run(k.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := simulate(t, 3)
				defer w.close()
				c := newChain(t).grow(40, 200)
				n := newNode(t, w.hosts[0], c, 1)
				defer n.close()
				good := newNode(t, w.hosts[1], c, len(c.raw))
				defer good.close()
				serveWith(w.hosts[2], c, k.answer)
				n.start()
				n.Height(w.hosts[2].ID(), 41)
				time.Sleep(20 * time.Second) // it is the only one for a while
				n.Height(w.hosts[1].ID(), 41)
				n.reach(41, time.Minute)
				require.Equal(t, c.tip, n.led.Tip())
				time.Sleep(30 * time.Second)
				require.Contains(t, n.refusals(), k.reason)
			})
		})
	}
}

// Y3: an answer with a nonce that another peer was asked with.
func TestAnswerInAnothersName(t *testing.T) {
	a := asking{nonce: 1, owner: func(nonce uint64) bool { return nonce == 2 }}
	status := must(wire.Marshal(&wire.BlocksStatus{Code: wire.BlocksStatus_CODE_OK, Nonce: 2}))
	require.ErrorIs(t, a.readStatus(bytes.NewReader(wire.AppendFrame(nil, status))), WrongPeer)
}

// Y11, Y12: heights are hints.
func TestHeightsAreHints(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 3)
		defer w.close()
		c := newChain(t).grow(10, 200)
		n := newNode(t, w.hosts[0], c, 1)
		defer n.close()
		liar := newNode(t, w.hosts[1], c, 1)
		defer liar.close()
		good := newNode(t, w.hosts[2], c, 11)
		defer good.close()
		n.start()
		n.Height(liar.host.ID(), 1e18)
		n.Height(good.host.ID(), 11)
		n.reach(11, time.Second)
		time.Sleep(time.Second)
		require.Contains(t, n.refusals(), "reject blocksync.false_height")
		n.Height(good.host.ID(), 5)
		require.Contains(t, n.refusals(), "ignore blocksync.height_lowered")
	})
}

// ask writes a raw request and returns all that is answered.
func ask(t *testing.T, from, to host.Host, raw []byte) ([]byte, error) {
	s, err := from.NewStream(t.Context(), to.ID(), testProtocol)
	require.NoError(t, err)
	defer s.Reset()
	s.Write(raw)
	s.CloseWrite()
	return io.ReadAll(s)
}

func request(first, count uint64, wait uint32) []byte {
	return wire.AppendFrame(nil, must(wire.Marshal(&wire.BlocksRequest{First: first, Count: count, Nonce: 7, WaitMs: wait})))
}

func readStatus(t *testing.T, b []byte) (*wire.BlocksStatus, []byte) {
	r := bytes.NewReader(b)
	status := new(wire.BlocksStatus)
	require.NoError(t, wire.Unmarshal(must(wire.ReadFrame(r, wire.MaxRequest)), status))
	require.EqualValues(t, 7, status.Nonce)
	return status, b[len(b)-r.Len():]
}

// withServer runs f against a node of blocks 0 to 9 that has pruned the first
// two.
func withServer(t *testing.T, f func(t *testing.T, asker host.Host, n *node, c *chain)) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 2)
		defer w.close()
		c := newChain(t).grow(9, 200)
		n := newNode(t, w.hosts[0], c, 10, func(conf *Config) { conf.Lowest = func() uint64 { return 2 } })
		defer n.close()
		f(t, w.hosts[1], n, c)
	})
}

func TestHostileClients(t *testing.T) {
	for _, k := range []struct {
		id  string
		raw []byte
	}{
		{"Y13 reversed", request(5, 0, 0)},
		{"Y13 over batch", request(5, maxCount+1, 0)},
		{"Y13 all there is", request(0, 1<<64-1, 0)},
		{"Y13 wraps", request(1<<64-1, 2, 0)},
		{"Y13 waits long", request(5, 1, 2001)},
	} {
		t.Run(k.id, func(t *testing.T) {
			withServer(t, func(t *testing.T, asker host.Host, n *node, _ *chain) {
				b, err := ask(t, asker, n.host, k.raw)
				require.NoError(t, err)
				status, rest := readStatus(t, b)
				require.Equal(t, wire.BlocksStatus_CODE_BAD_RANGE, status.Code)
				require.Empty(t, rest)
				require.Equal(t, []string{"refuse blocksync.bad_range"}, n.refusals())
			})
		})
	}
	for _, k := range []struct {
		id, reason string
		raw        []byte
	}{
		{"W1 empty frame", "reject wire.empty", []byte{0}},
		{"W3 too large", "close wire.too_large", []byte{0x81, 0x20}},
		{"W5 length of ten 0xff", "close wire.bad_varint", bytes.Repeat([]byte{0xff}, 10)},
		{"W10 unknown fields", "reject wire.unknown_fields", []byte{2, 0x78, 1}},
		{"W11 field twice", "reject wire.not_canonical", []byte{4, 0x08, 1, 0x08, 1}},
		{"W18 trailing bytes", "reject wire.trailing_bytes", []byte{3, 0x08, 1, 0xff}},
		{"no request", "close wire.truncated", nil},
	} {
		t.Run(k.id, func(t *testing.T) {
			withServer(t, func(t *testing.T, asker host.Host, n *node, _ *chain) {
				b, err := ask(t, asker, n.host, k.raw)
				require.Error(t, err)
				require.Empty(t, b)
				require.Equal(t, []string{k.reason}, n.refusals())
			})
		})
	}
	t.Run("W6 a request that never ends", func(t *testing.T) {
		withServer(t, func(t *testing.T, asker host.Host, n *node, _ *chain) {
			s, err := asker.NewStream(t.Context(), n.host.ID(), testProtocol)
			require.NoError(t, err)
			began := time.Now()
			s.Write([]byte{10, 8})
			_, err = io.ReadAll(s)
			require.Error(t, err)
			require.Less(t, time.Since(began), 6*time.Second)
			require.Equal(t, []string{"close wire.stalled"}, n.refusals())
		})
	})
}

func TestPrunedBlocksAreSaidToBe(t *testing.T) {
	withServer(t, func(t *testing.T, asker host.Host, n *node, _ *chain) {
		b, err := ask(t, asker, n.host, request(1, 4, 0))
		require.NoError(t, err)
		status, rest := readStatus(t, b)
		require.Equal(t, wire.BlocksStatus_CODE_NOT_FOUND, status.Code)
		require.EqualValues(t, 2, status.Lowest)
		require.EqualValues(t, 10, status.Height)
		require.Empty(t, rest)
	})
}

func TestARangeEndsAtTheTip(t *testing.T) {
	withServer(t, func(t *testing.T, asker host.Host, n *node, c *chain) {
		b, err := ask(t, asker, n.host, request(8, 64, 0))
		require.NoError(t, err)
		status, rest := readStatus(t, b)
		require.Equal(t, wire.BlocksStatus_CODE_OK, status.Code)
		require.Equal(t, wire.AppendFrame(wire.AppendFrame(nil, c.raw[8]), c.raw[9]), rest)
	})
}

// Y14: beyond its limits a server says busy, at once and without reading.
func TestBusy(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 3)
		defer w.close()
		c := newChain(t).grow(9, 200)
		n := newNode(t, w.hosts[0], c, 10, func(conf *Config) { conf.Limits = Limits{Peer: Share{Streams: 4, Requests: 20}} })
		defer n.close()
		var open []network.Stream
		for range 10 { // each holds its place, saying nothing
			s, err := w.hosts[1].NewStream(t.Context(), w.hosts[0].ID(), testProtocol)
			require.NoError(t, err)
			s.Write([]byte{10})
			open = append(open, s)
		}
		synctest.Wait()
		busy := 0
		for _, s := range open {
			s.SetReadDeadline(time.Now().Add(time.Second))
			_, err := s.Read(make([]byte, 1))
			if r := wire.ReasonOf(remote(err)); r == Busy {
				busy++
			}
			s.Reset()
		}
		require.Equal(t, 6, busy)
		b, err := ask(t, w.hosts[2], w.hosts[0], request(1, 4, 0)) // others are served
		require.NoError(t, err)
		status, _ := readStatus(t, b)
		require.Equal(t, wire.BlocksStatus_CODE_OK, status.Code)
		refused := 0
		for range 100 {
			if _, err := ask(t, w.hosts[2], w.hosts[0], request(1, 1, 0)); wire.ReasonOf(remote(err)) == Busy {
				refused++
			}
		}
		require.Positive(t, refused, "no limit of requests a second")
		require.Contains(t, n.refusals(), "refuse blocksync.busy")
	})
}

// A request may wait for a block that is on its way, and is served from the
// window before it is committed.
func TestWaitForABlock(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 2)
		defer w.close()
		c := newChain(t).grow(9, 200)
		n := newNode(t, w.hosts[0], c, 5) // never started: it commits nothing
		defer n.close()
		began := time.Now()
		b, err := ask(t, w.hosts[1], w.hosts[0], request(7, 2, 1000))
		require.NoError(t, err)
		status, _ := readStatus(t, b)
		require.Equal(t, wire.BlocksStatus_CODE_NOT_FOUND, status.Code)
		require.GreaterOrEqual(t, time.Since(began), time.Second)
		time.AfterFunc(500*time.Millisecond, func() { n.Offer(n.check(c.raw[7]), "x", "push") })
		began = time.Now()
		b, err = ask(t, w.hosts[1], w.hosts[0], request(7, 2, 1000))
		require.NoError(t, err)
		status, rest := readStatus(t, b)
		require.Equal(t, wire.BlocksStatus_CODE_OK, status.Code)
		require.Equal(t, wire.AppendFrame(nil, c.raw[7]), rest)
		require.Less(t, time.Since(began), 600*time.Millisecond)
	})
}

// The server's byte rate holds over many requests, for a peer and for the peers
// of an organisation together.
func TestBytesAreRationed(t *testing.T) {
	q := newQuotas(Limits{Peer: Share{Bytes: 1 << 20}, Org: Share{Bytes: 1 << 30}}.withDefaults()).enter("a", "org1")
	require.Zero(t, q.delay(maxBytes), "the bucket is full at first")
	require.InDelta(t, 10, q.delay(10<<20).Seconds(), 0.1)
	require.InDelta(t, 10+64, q.delay(64<<20).Seconds(), 0.2)

	all := newQuotas(Limits{Peer: Share{Bytes: 1 << 30}, Org: Share{Bytes: 1 << 20}}.withDefaults())
	require.Zero(t, all.enter("a", "org1").delay(maxBytes))
	require.InDelta(t, 10, all.enter("b", "org1").delay(10<<20).Seconds(), 0.1, "another peer of the organisation")
	require.Zero(t, all.enter("c", "org2").delay(maxBytes), "another organisation")
}

// An organisation's peers share its places and requests; others have their own.
func TestOrganisationsAreLimited(t *testing.T) {
	q := newQuotas(Limits{Peer: Share{Streams: 3, Requests: 100}, Org: Share{Streams: 4, Requests: 10}}.withDefaults())
	var in []*place
	enter := func(p peerID, org string) bool {
		w := q.enter(p, org)
		if w != nil {
			in = append(in, w)
		}
		return w != nil
	}
	for _, p := range []peerID{"a", "a", "a"} {
		require.True(t, enter(p, "org1"))
	}
	require.False(t, enter("a", "org1"), "the peer's places")
	require.True(t, enter("b", "org1"))
	require.False(t, enter("b", "org1"), "the organisation's places")
	require.True(t, enter("c", "org2"))
	for _, w := range in {
		w.leave()
	}
	for range 6 {
		w := q.enter("b", "org1")
		require.NotNil(t, w)
		w.leave()
	}
	require.Nil(t, q.enter("d", "org1"), "the organisation's requests, of which a refused one is none")
	require.NotNil(t, q.enter("c", "org2"))
}

func TestQuotasAreBounded(t *testing.T) {
	q := newQuotas(Limits{}.withDefaults())
	for i := range 3 * quotaAskers {
		q.enter(testPeer(i), fmt.Sprint(i))
	}
	require.Equal(t, quotaAskers, q.peers.Len())
	require.Equal(t, quotaAskers, q.orgs.Len())
	require.LessOrEqual(t, q.streams, q.limits.Streams)
}

func TestOpenFailsIsBroken(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t).grow(3, 10)
		tries := 0
		n := newNode(t, nil, c, 1, alone, func(conf *Config) {
			conf.Open = func(ctx context.Context, _ peerID) (network.Stream, error) {
				tries++
				return nil, io.ErrUnexpectedEOF
			}
		})
		defer n.close()
		n.start()
		n.Height("a", 4)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Greater(t, tries, 5, "gave up")
		require.Less(t, tries, 160, "no back-off")
	})
}
