package itest

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/election"
	"grapevine/node"
)

// A newcomer joins by the newest configuration block of both recorded chains: it
// gets block 0 from the orderers that the block names, proven by the hashes of
// the headers between, and then every block. An orderer with another history is
// passed over; where there is no other, nothing is joined.
func TestJoinByConfigurationBlock(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			r := record(t, network)
			ctx := longPatience(t)
			later := uint64(0)
			for n, b := range r.chain {
				if block.IsConfig(b) {
					later = uint64(n)
				}
			}
			require.Greater(t, later, uint64(20))
			overrides := map[string]node.Override{}
			var orderers []*standin
			for i, o := range r.conf.Orderers() {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				s := r.standin(t, fmt.Sprintf("orderer%d", i+1), o.Endpoint, false, func() net.Listener { return l })
				overrides[o.Endpoint] = node.Override{Address: l.Addr().String()}
				orderers = append(orderers, s.start())
				t.Cleanup(s.die)
			}
			lie := func(b *common.Block) *common.Block {
				if b.Header.Number == 7 {
					b.Header.DataHash[0] ^= 1
				}
				return b
			}
			listen, endpoint := loopback(t, 1)
			cfg := node.Default()
			r.peer(t, r.conf.Orgs()[1], 0, &cfg)
			cfg.Dir, cfg.Listen, cfg.ExternalEndpoint, cfg.Log, cfg.Leader = t.TempDir(), listen(0), endpoint(0), testLog(), election.Static
			cfg.Orderers = node.OrdererClient{Overrides: overrides, MaxBackoff: 100 * time.Millisecond, DialTimeout: time.Second}
			n, err := node.Open(cfg)
			require.NoError(t, err)
			run(t, n)

			for _, o := range orderers {
				o.set(func(s *standin) { s.spoil = lie })
			}
			_, err = n.Join(ctx, r.chain[later])
			require.ErrorContains(t, err, "doesn't follow")
			require.Empty(t, n.Channels())
			other := proto.CloneOf(r.chain[later])
			other.Header.PreviousHash[0] ^= 1
			orderers[0].set(func(s *standin) { s.spoil = nil })
			_, err = n.Join(ctx, other)
			require.ErrorContains(t, err, "header hash")
			other.Header.DataHash[0] ^= 1
			_, err = n.Join(ctx, other)
			require.ErrorIs(t, err, block.BadDataHash)
			_, err = n.Join(ctx, r.chain[8])
			require.ErrorIs(t, err, block.BadConfig, "no configuration")
			require.Empty(t, n.Channels())

			c, err := n.Join(ctx, r.chain[later])
			require.NoError(t, err)
			for _, o := range orderers {
				o.set(func(s *standin) { s.spoil = nil })
			}
			require.NoError(t, c.Ledger().Wait(ctx, r.tip.Height))
			require.Equal(t, r.tip, c.Ledger().Tip())
			again, err := n.Join(ctx, r.chain[later])
			require.NoError(t, err)
			require.Same(t, c, again)
			foreign := proto.CloneOf(r.chain[later])
			foreign.Header.PreviousHash[0] ^= 1
			_, err = n.Join(ctx, foreign)
			require.ErrorIs(t, err, node.ErrJoined)
		})
	}
}
