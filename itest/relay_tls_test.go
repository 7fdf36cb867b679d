package itest

import (
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/discovery"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
)

// Mutual TLS on both sides of the relay: it shows the orderers its certificate,
// and asks its clients, and those of discovery, for theirs, to which their
// requests must be bound.
func TestRelayMutualTLS(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			w := relayWorldOf(t, network, true, nil)
			ctx := longPatience(t)
			require.NoError(t, w.channel.Ledger().Wait(ctx, w.r.tip.Height))
			n := uint64(1)
			for b, err := range w.peer(0).Blocks(ctx, n) {
				require.NoError(t, err)
				require.True(t, proto.Equal(w.r.chain[n].Header, b.Header))
				if n++; n == w.r.tip.Height {
					break
				}
			}
			env, err := tx.SignedEnvelope(common.HeaderType_ENDORSER_TRANSACTION, w.r.conf.Channel(), &common.Payload{}, w.r.signer(t), time.Now())
			require.NoError(t, err)
			s, err := ab.NewAtomicBroadcastClient(w.dial(0)).Broadcast(ctx)
			require.NoError(t, err)
			require.NoError(t, s.Send(env))
			a, err := s.Recv()
			require.NoError(t, err)
			require.Equal(t, common.Status_SUCCESS, a.Status)
			require.NoError(t, s.CloseSend())

			user, _ := w.r.user(t, "orga", "User1")
			discover := func(binding []byte) (*discovery.Response, error) {
				raw, err := proto.Marshal(&discovery.Request{
					Authentication: &discovery.AuthInfo{ClientIdentity: user.Identity().Serialized(), ClientTlsCertHash: binding},
					Queries:        []*discovery.Query{{Channel: w.r.conf.Channel(), Query: &discovery.Query_ConfigQuery{ConfigQuery: &discovery.ConfigQuery{}}}},
				})
				require.NoError(t, err)
				sig, err := user.Sign(raw)
				require.NoError(t, err)
				return discovery.NewDiscoveryClient(w.dialAt(w.node.ClientAddress())).Discover(ctx, &discovery.SignedRequest{Payload: raw, Signature: sig})
			}
			got, err := discover(w.binding())
			require.NoError(t, err)
			require.NotNil(t, got.Results[0].GetConfigResult())

			newest := newestHeader(whole, strict)
			w.answers(ctx, 0, common.Status_SUCCESS, newest)
			for name, binding := range map[string][]byte{"not bound": nil, "bound to another": make([]byte, 32)} {
				_, err = discover(binding)
				require.Error(t, err, name)
				env, err := tx.BoundEnvelope(common.HeaderType_DELIVER_SEEK_INFO, w.r.conf.Channel(), newest, w.r.signer(t), time.Now(), binding)
				require.NoError(t, err)
				s, err := ab.NewAtomicBroadcastClient(w.dial(0)).Deliver(ctx)
				require.NoError(t, err)
				require.NoError(t, s.Send(env))
				r, err := s.Recv()
				require.NoError(t, err)
				require.Equal(t, common.Status_BAD_REQUEST, r.GetStatus(), name)
			}
			w.shown = nil
			_, err = discover(nil)
			require.Equal(t, codes.Unavailable, status.Code(err), "no certificate: %v", err)
			none, err := ab.NewAtomicBroadcastClient(w.dial(0)).Deliver(ctx)
			if err == nil {
				_, err = none.Recv()
			}
			require.Equal(t, codes.Unavailable, status.Code(err), "no certificate: %v", err)
		})
	}
}
