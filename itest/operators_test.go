package itest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	sdkchannel "github.com/hyperledger/fabric-admin-sdk/pkg/channel"
	sdkdiscovery "github.com/hyperledger/fabric-admin-sdk/pkg/discovery"
	"github.com/hyperledger/fabric-admin-sdk/pkg/identity"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/discovery"
	"github.com/hyperledger/fabric-protos-go-apiv2/gossip"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/msp/ca"
)

// user is an identity of the recorded network, and the same for the SDK.
func (r *recording) user(t testing.TB, org, name string) (msp.Signer, identity.SigningIdentity) {
	t.Helper()
	dir := filepath.Join(r.dir, "crypto", "peerOrganizations", org+".example.com", "users", name+"@"+org+".example.com", "msp")
	id := map[string]string{"orga": "OrgAMSP", "orgb": "OrgBMSP", "orgc": "OrgCMSP"}[org]
	s, err := msp.Load(id, dir)
	require.NoError(t, err)
	key, err := identity.ReadPrivateKey(filepath.Join(dir, "keystore", "priv_sk"))
	require.NoError(t, err)
	sdk, err := identity.NewPrivateKeySigningIdentity(id, s.Identity().Certificate(), key)
	require.NoError(t, err)
	return s, sdk
}

// call is a client's call of a chaincode, signed.
func call(t testing.TB, who msp.Signer, ch, chaincode string, args ...string) *peer.SignedProposal {
	t.Helper()
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		require.NoError(t, err)
		return b
	}
	nonce := []byte("a nonce of twenty-four b")
	id := sha256.Sum256(append(append([]byte{}, nonce...), who.Identity().Serialized()...))
	input := &peer.ChaincodeInput{}
	for _, a := range args {
		input.Args = append(input.Args, []byte(a))
	}
	raw := marshal(&peer.Proposal{
		Header: marshal(&common.Header{
			ChannelHeader:   marshal(&common.ChannelHeader{Type: int32(common.HeaderType_ENDORSER_TRANSACTION), ChannelId: ch, TxId: hex.EncodeToString(id[:]), Timestamp: timestamppb.New(time.Now())}),
			SignatureHeader: marshal(&common.SignatureHeader{Creator: who.Identity().Serialized(), Nonce: nonce}),
		}),
		Payload: marshal(&peer.ChaincodeProposalPayload{Input: marshal(&peer.ChaincodeInvocationSpec{ChaincodeSpec: &peer.ChaincodeSpec{ChaincodeId: &peer.ChaincodeID{Name: chaincode}, Input: input}})}),
	})
	sig, err := who.Sign(raw)
	require.NoError(t, err)
	return &peer.SignedProposal{ProposalBytes: raw, Signature: sig}
}

// What Fabric's command line and admin SDK ask of a peer is answered as the real
// peers of the recorded networks did.
func TestOperators(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			w := newRelayWorld(t, network, nil)
			r, ctx := w.r, longPatience(t)
			require.NoError(t, w.channel.Ledger().Wait(ctx, r.tip.Height))
			require.NoError(t, soon(ctx, "the verdicts", func() bool { return w.channel.Ledger().State().Height == r.tip.Height }))
			conn := w.dialAt(w.node.ClientAddress())
			name := r.conf.Channel()
			user, sdkUser := r.user(t, "orga", "User1")
			admin, sdkAdmin := r.user(t, "orga", "Admin")

			list, err := sdkchannel.ListChannelOnPeer(ctx, conn, sdkUser)
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.Equal(t, name, list[0].ChannelId)
			info, err := sdkchannel.GetBlockChainInfo(ctx, conn, sdkUser, name)
			require.NoError(t, err)
			require.Equal(t, r.tip, block.Tip{Height: info.Height, Hash: [32]byte(info.CurrentBlockHash)})
			require.Equal(t, r.chain[30].Header.PreviousHash, info.PreviousBlockHash)
			conf, err := sdkchannel.GetConfigBlock(ctx, conn, sdkUser, name)
			require.NoError(t, err)
			require.Equal(t, w.channel.Config().Number(), conf.Header.Number)
			require.NoError(t, sdkchannel.JoinChannel(ctx, conn, sdkAdmin, r.chain[0]), "again")
			require.NoError(t, sdkchannel.JoinChannel(ctx, conn, sdkAdmin, r.chain[conf.Header.Number]), "by a later block")
			require.Error(t, sdkchannel.JoinChannel(ctx, conn, sdkUser, r.chain[0]), "a user isn't an admin")

			endorser := peer.NewEndorserClient(conn)
			ask := func(who msp.Signer, chaincode string, args ...string) *peer.ProposalResponse {
				a, err := endorser.ProcessProposal(ctx, call(t, who, "", chaincode, args...))
				require.NoError(t, err)
				return a
			}
			for n, v := range r.verdicts {
				var b common.Block
				for _, a := range []*peer.ProposalResponse{
					ask(user, "qscc", "GetBlockByNumber", name, strconv.Itoa(n)),
					ask(user, "qscc", "GetBlockByHash", name, func() string { h := block.HeaderHash(r.chain[n].Header); return string(h[:]) }()),
				} {
					require.EqualValues(t, 200, a.Response.Status, a.Response.Message)
					require.NoError(t, w.node.Identity().Verify(append(append([]byte{}, a.Payload...), a.Endorsement.Endorser...), a.Endorsement.Signature))
					b.Reset()
					require.NoError(t, proto.Unmarshal(a.Response.Payload, &b))
					require.True(t, proto.Equal(r.chain[n].Data, b.Data))
					require.Equal(t, v.Codes, b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER])
				}
				header, _, err := block.Header(func() *common.Envelope {
					e := &common.Envelope{}
					require.NoError(t, proto.Unmarshal(b.Data.Data[0], e))
					return e
				}())
				if err != nil || header.TxId == "" || v.Codes[0] != 0 {
					continue
				}
				a := ask(user, "qscc", "GetTransactionByID", name, header.TxId)
				require.EqualValues(t, 200, a.Response.Status, a.Response.Message)
				var tx peer.ProcessedTransaction
				require.NoError(t, proto.Unmarshal(a.Response.Payload, &tx))
				require.Zero(t, tx.ValidationCode)
				raw, err := proto.Marshal(tx.TransactionEnvelope)
				require.NoError(t, err)
				require.Equal(t, b.Data.Data[0], raw)
			}
			w.refusals(ctx, ask, user, admin)
			w.discovers(ctx, discovery.NewDiscoveryClient(conn), sdkdiscovery.NewPeer(conn, sdkUser), user)
		})
	}
}

// refusals are calls that get a sentence and status 500; the same bytes where
// the asker may not know whether the channel is there.
func (w *relayWorld) refusals(ctx context.Context, ask func(msp.Signer, string, ...string) *peer.ProposalResponse, user, admin msp.Signer) {
	t, name := w.t, w.r.conf.Channel()
	foreign, err := ca.NewOrg("Org9MSP", "org9.example.com", time.Now())
	require.NoError(t, err)
	stranger, err := foreign.Identity("User1", "client")
	require.NoError(t, err)
	impostors, err := ca.NewOrg("OrgAMSP", "orga.example.com", time.Now())
	require.NoError(t, err)
	impostor, err := impostors.Identity("Admin", "admin")
	require.NoError(t, err)
	orderer := w.orderers[0].signer
	for _, c := range []struct {
		name string
		who  msp.Signer
		cc   string
		args []string
		says string
	}{
		{"a chaincode", user, "basic", []string{"get", "alice"}, "runs no chaincode"},
		{"lifecycle", admin, "_lifecycle", []string{"QueryInstalledChaincodes"}, "runs no chaincode"},
		{"another function", user, "cscc", []string{"JoinBySnapshot"}, "runs no chaincode"},
		{"a number that is none", user, "qscc", []string{"GetBlockByNumber", name, "-1"}, "block number"},
		{"a block beyond the tip", user, "qscc", []string{"GetBlockByNumber", name, "31"}, "not on this ledger"},
		{"a hash too short", user, "qscc", []string{"GetBlockByHash", name, "x"}, "32 bytes"},
		{"an unknown hash", user, "qscc", []string{"GetBlockByHash", name, "01234567890123456789012345678901"}, "not on this ledger"},
		{"an unknown transaction", user, "qscc", []string{"GetTransactionByID", name, "x"}, "not on this ledger"},
		{"no channel", user, "qscc", []string{"GetChainInfo"}, "no such channel"},
		{"channels, of another organisation", orderer, "cscc", []string{"GetChannels"}, "isn't this peer's organisation"},
		{"channels, by an impostor", impostor, "cscc", []string{"GetChannels"}, ""},
		{"join, by an impostor", impostor, "cscc", []string{"JoinChain", "x"}, ""},
		{"join, garbage", admin, "cscc", []string{"JoinChain", "x"}, ""},
		{"an orderer isn't a reader", orderer, "qscc", []string{"GetChainInfo", name}, "policy"},
	} {
		a := ask(c.who, c.cc, c.args...)
		require.EqualValues(t, 500, a.Response.Status, c.name)
		require.NotEmpty(t, a.Response.Message, c.name)
		require.Contains(t, a.Response.Message, c.says, c.name)
		require.Nil(t, a.Endorsement, c.name)
	}
	for _, who := range []msp.Signer{stranger, impostor} { // S8, D5
		for _, f := range [][]string{{"qscc", "GetChainInfo"}, {"cscc", "GetConfigBlock"}, {"qscc", "GetBlockByNumber"}} {
			require.True(t, proto.Equal(ask(who, f[0], f[1], "nosuchchannel", "0"), ask(who, f[0], f[1], name, "0")))
		}
	}
	client := peer.NewEndorserClient(w.dialAt(w.node.ClientAddress()))
	bent := call(t, user, "", "qscc", "GetChainInfo", name)
	bent.Signature[len(bent.Signature)-1] ^= 1
	for _, p := range []*peer.SignedProposal{{}, {ProposalBytes: []byte{0xff}}, bent} {
		a, err := client.ProcessProposal(ctx, p)
		require.NoError(t, err)
		require.EqualValues(t, 500, a.Response.Status)
	}
}

// discovers asks service discovery.
func (w *relayWorld) discovers(ctx context.Context, client discovery.DiscoveryClient, sdk *sdkdiscovery.Peer, user msp.Signer) {
	t, name := w.t, w.r.conf.Channel()
	members, err := sdk.PeerMembershipQuery(ctx, name, nil)
	require.NoError(t, err)
	require.Len(t, members.PeersByOrg, 1)
	p := members.PeersByOrg["OrgAMSP"].Peers[0]
	require.Equal(t, w.node.Identity().Serialized(), p.Identity)
	var alive, state gossip.GossipMessage
	require.NoError(t, proto.Unmarshal(p.MembershipInfo.Payload, &alive))
	require.NoError(t, proto.Unmarshal(p.StateInfo.Payload, &state))
	require.NotEmpty(t, alive.GetAliveMsg().GetMembership().GetEndpoint())
	require.Equal(t, w.r.tip.Height, state.GetStateInfo().GetProperties().GetLedgerHeight())

	ask := func(who msp.Signer, spoil func(*discovery.SignedRequest), q ...*discovery.Query) []*discovery.QueryResult {
		raw, err := proto.Marshal(&discovery.Request{Authentication: &discovery.AuthInfo{ClientIdentity: who.Identity().Serialized()}, Queries: q})
		require.NoError(t, err)
		sig, err := who.Sign(raw)
		require.NoError(t, err)
		r := &discovery.SignedRequest{Payload: raw, Signature: sig}
		if spoil != nil {
			spoil(r)
		}
		a, err := client.Discover(ctx, r)
		require.NoError(t, err)
		return a.Results
	}
	config := func(ch string) *discovery.Query {
		return &discovery.Query{Channel: ch, Query: &discovery.Query_ConfigQuery{ConfigQuery: &discovery.ConfigQuery{}}}
	}
	chaincodes := &discovery.Query{Channel: name, Query: &discovery.Query_CcQuery{CcQuery: &discovery.ChaincodeQuery{}}}
	got := ask(user, nil, config(name), chaincodes)
	conf := got[0].GetConfigResult()
	require.NotNil(t, conf)
	require.Len(t, conf.Msps, 4)
	count := 0
	for _, e := range conf.Orderers {
		count += len(e.Endpoint)
	}
	require.Equal(t, len(w.r.conf.Orderers()), count)
	require.Contains(t, got[1].GetError().GetContent(), "knows no chaincode")
	// Unknown and foreign channels alike, and who may not write.
	unknown := ask(user, nil, config("nosuchchannel"))
	for _, res := range [][]*discovery.QueryResult{
		ask(w.r.signer(t), nil, config(name)), // a peer may read, and not write
		ask(user, func(r *discovery.SignedRequest) { r.Signature[len(r.Signature)-1] ^= 1 }, config(name)),
		ask(user, nil, &discovery.Query{Query: &discovery.Query_LocalPeers{LocalPeers: &discovery.LocalPeerQuery{}}}), // not an admin
	} {
		require.True(t, proto.Equal(unknown[0], res[0]), "%v", res)
	}
	_, err = client.Discover(ctx, &discovery.SignedRequest{Payload: []byte{0xff}})
	require.Error(t, err)
	admin, _ := w.r.user(t, "orga", "Admin")
	require.Len(t, ask(admin, nil, &discovery.Query{Query: &discovery.Query_LocalPeers{LocalPeers: &discovery.LocalPeerQuery{}}})[0].GetMembers().GetPeersByOrg(), 1)
}
