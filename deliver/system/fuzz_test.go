package system

import (
	"context"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/discovery"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counting is a server that knows no channel, and how often it has refused.
func counting() (*Server, *int) {
	n := 0
	return NewServer(Config{
		Channels: func() []string { return nil },
		Channel:  func(string) (Channel, bool) { return Channel{}, false },
		Join:     func(context.Context, []byte) error { panic("nobody may") },
		Refused:  func(string, *wire.Reason) { n++ },
	}), &n
}

// Whatever is called, who proves nothing gets a sentence and status 500, and
// counts once.
func FuzzProposal(f *testing.F) {
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		return b
	}
	for _, header := range [][]byte{nil, marshal(&common.Header{ChannelHeader: marshal(&common.ChannelHeader{Type: 3, TxId: "x"}), SignatureHeader: marshal(&common.SignatureHeader{Creator: []byte("c"), Nonce: []byte("n")})})} {
		f.Add(marshal(&peer.Proposal{Header: header, Payload: marshal(&peer.ChaincodeProposalPayload{Input: marshal(&peer.ChaincodeInvocationSpec{ChaincodeSpec: &peer.ChaincodeSpec{
			ChaincodeId: &peer.ChaincodeID{Name: "qscc"}, Input: &peer.ChaincodeInput{Args: [][]byte{[]byte("GetChainInfo"), []byte("ch")}},
		}})})}), []byte("signature"))
	}
	f.Fuzz(func(t *testing.T, raw, signature []byte) {
		s, refused := counting()
		a, err := s.ProcessProposal(t.Context(), &peer.SignedProposal{ProposalBytes: raw, Signature: signature})
		require.NoError(t, err)
		require.EqualValues(t, 500, a.Response.Status)
		require.NotEmpty(t, a.Response.Message)
		require.Equal(t, 1, *refused)
	})
}

// Whatever is asked of discovery, who proves nothing is denied each query, and
// counts once for each.
func FuzzDiscover(f *testing.F) {
	raw, err := proto.Marshal(&discovery.Request{
		Authentication: &discovery.AuthInfo{ClientIdentity: []byte("c")},
		Queries: []*discovery.Query{
			{Channel: "ch", Query: &discovery.Query_ConfigQuery{ConfigQuery: &discovery.ConfigQuery{}}},
			{Query: &discovery.Query_LocalPeers{LocalPeers: &discovery.LocalPeerQuery{}}},
		},
	})
	require.NoError(f, err)
	f.Add(raw, []byte("signature"))
	f.Add([]byte{0xff}, []byte(nil))
	f.Fuzz(func(t *testing.T, raw, signature []byte) {
		s, refused := counting()
		a, err := s.Discover(t.Context(), &discovery.SignedRequest{Payload: raw, Signature: signature})
		if err != nil {
			require.Equal(t, 1, *refused)
			return
		}
		require.Len(t, a.Results, *refused)
		for _, r := range a.Results {
			require.NotEmpty(t, r.GetError().GetContent())
		}
	})
}
