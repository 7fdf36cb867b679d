package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/wire"
)

// What a fellow says of an orderer counts by the orderers' signatures; who says
// what cannot be, isn't of the organisation, or never stops, is heard no more.
func TestHostileSightings(t *testing.T) {
	w := newWorld(t)
	g := w.genesis("mychannel", 0, 1)
	c, reg := w.config(0, "peer0.org1")
	n := start(t, c, g)
	ctx := patience(t)
	said := map[int]*Channel{}
	for org := range 2 {
		c, _ := w.config(org, fmt.Sprintf("peer1.org%d", org+1))
		other := start(t, c, g)
		require.NoError(t, other.host.Connect(ctx, at(t, n, "tcp")))
		ch, err := other.Channel("mychannel")
		require.NoError(t, err)
		said[org] = ch
		until(t, ctx, func() bool { return len(ch.view.Members()) > 0 })
	}
	ch, err := n.Channel("mychannel")
	require.NoError(t, err)
	signer, err := w.orderer.Identity("orderer0", "orderer")
	require.NoError(t, err)
	header := func(number uint64, who msp.Signer) []byte {
		previous := block.HeaderHash(g.Header)
		b := &common.Block{Header: &common.BlockHeader{Number: number, PreviousHash: previous[:], DataHash: previous[:]}}
		require.NoError(t, block.Sign(b, who, 0, nil))
		raw, err := proto.Marshal(b)
		require.NoError(t, err)
		return raw
	}
	frame := func(orderer string, b []byte) []byte {
		raw, err := wire.Marshal(&wire.Sighting{Orderer: orderer, Block: b})
		require.NoError(t, err)
		return wire.AppendFrame(nil, raw)
	}
	const known = "127.0.0.1:7050"
	good := frame(known, header(7, signer))
	for _, tc := range []struct {
		name  string
		org   int
		bytes []byte
		code  string // "": it is heard
	}{
		{"true", 0, good, ""},
		{"of another configuration", 0, frame("orderer9.example.com:7050", header(9, signer)), ""},
		{"another organisation", 1, good, "node.sighting_org"},
		{"not signed by an orderer", 0, frame(known, header(8, w.identity(0, "peer7.org1"))), "block.bad_signer"},
		{"no header", 0, frame(known, nil), "node.sighting_malformed"},
		{"garbage for a header", 0, frame(known, []byte{0xff, 1}), "node.sighting_malformed"},
		{"garbage", 0, wire.AppendFrame(nil, []byte{0xff, 0xff, 1}), "wire."},
		{"too large", 0, binary.AppendUvarint(nil, wire.MaxSighting+1), "wire.too_large"},
		{"without end", 0, bytes.Repeat(good, sightingMost+2), "node.sighting_flood"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := counted(t, reg, "grapevine_rejected_total")
			s, err := said[tc.org].view.Stream(ctx, n.PeerID(), wire.KindSighting)
			require.NoError(t, err)
			defer func() { _ = s.Reset() }()
			_, _ = s.Write(tc.bytes) // the flood may be cut off
			if tc.code == "" {
				until(t, ctx, func() bool { return len(ch.sources.list()) == 1 })
				require.EqualValues(t, 7, ch.sources.list()[0].Newest)
				require.Equal(t, before, counted(t, reg, "grapevine_rejected_total"))
				return
			}
			_, err = s.Read(make([]byte, 1))
			require.Error(t, err, "the stream is ended")
			until(t, ctx, func() bool { return counted(t, reg, "grapevine_rejected_total") > before })
			require.Equal(t, before+1, counted(t, reg, "grapevine_rejected_total"), "once")
			if !strings.HasSuffix(tc.code, ".") {
				require.NotZero(t, counted(t, reg, "grapevine_rejected_total", "reason", tc.code), tc.code)
			}
			require.Len(t, ch.sources.list(), 1)
		})
	}
}

func TestLateness(t *testing.T) {
	const most = 6 * time.Second
	begin := time.Unix(0, 0)
	type look struct {
		at             time.Duration
		height, exists uint64
	}
	for _, tc := range []struct {
		name  string
		looks []look
		late  bool // at the last look; never before
	}{
		{"nothing is missing", []look{{0, 10, 10}, {9 * time.Second, 10, 10}}, false},
		{"others claim less", []look{{0, 10, 3}, {9 * time.Second, 10, 3}}, false},
		{"a block is on its way", []look{{0, 10, 11}, {6 * time.Second, 10, 11}}, false},
		{"a block doesn't come", []look{{0, 10, 11}, {6*time.Second + 1, 10, 11}}, true},
		{"steady flow, one behind", []look{{0, 10, 11}, {5 * time.Second, 11, 12}, {10 * time.Second, 12, 13}}, false},
		{"a long catch-up", []look{{0, 10, 1000}, {3 * time.Second, 400, 1000}, {7 * time.Second, 800, 1000}}, true},
		{"caught up again", []look{{0, 10, 1000}, {5 * time.Second, 1000, 1001}, {10 * time.Second, 1001, 1001}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var l lateness
			for i, x := range tc.looks {
				require.Equal(t, tc.late && i == len(tc.looks)-1, l.step(x.height, x.exists, begin.Add(x.at), most), "look %d", i)
			}
		})
	}
}

func TestGate(t *testing.T) {
	var g gate
	shut := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	require.True(t, shut(g.wait()), "shut from the start")
	require.False(t, g.set(false))
	require.True(t, g.set(true))
	c := g.wait()
	require.False(t, shut(c))
	require.False(t, g.set(true))
	require.True(t, g.set(false))
	require.True(t, shut(c))
	require.True(t, shut(g.wait()))
}
