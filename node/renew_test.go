package node

import (
	"bytes"
	"context"
	"crypto"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
	"grapevine/membership"
	"grapevine/msp"
	"grapevine/msp/ca"
)

// certified makes an identity of an organisation's new certificate for a key.
func certified(t *testing.T, org *ca.Org, cn, ou string, key crypto.Signer) msp.Signer {
	t.Helper()
	der, err := org.CA.Issue(ca.Request{CN: cn, OU: []string{ou}, Key: key.Public()})
	require.NoError(t, err)
	id, err := msp.FromDER(org.MSPID, der)
	require.NoError(t, err)
	s, err := msp.NewSigner(id, key)
	require.NoError(t, err)
	return s
}

// F-M1: a peer's certificate is renewed while it runs. With the same key it stays
// the member that it is, and its connections live on; with another it is another
// member, once. Blocks go on either way, and a certificate of somebody else is
// refused.
func TestIdentityIsRenewedLive(t *testing.T) {
	w := newWorld(t)
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	first := w.genesis("mychannel", 0)
	cfgA, reg := w.config(0, "peer0.org1")
	cfgA.Signer = certified(t, w.orgs[0], "peer0.org1", "peer", key)
	a := start(t, cfgA, first)
	cfgB, _ := w.config(0, "peer1.org1")
	cfgB.Bootstrap = []string{at(t, a, "tcp").Addrs[0].String()}
	b := start(t, cfgB, first)
	a.host.Peerstore().AddAddrs(b.PeerID(), at(t, b, "tcp").Addrs, peerstore.PermanentAddrTTL) // as its endpoint would tell
	orderer, err := w.orderer.Identity("orderer1", "orderer")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)

	channelOf := func(n *Node) *Channel {
		c, err := n.Channel("mychannel")
		require.NoError(t, err)
		return c
	}
	passes := func() {
		t.Helper()
		c := channelOf(b)
		v := following(t, c, orderer, "a")
		c.sync.Offer(v, b.PeerID(), "orderer")
		require.NoError(t, channelOf(a).ledger.Wait(ctx, v.Number()+1))
	}
	sees := func(s msp.Signer) {
		t.Helper()
		until(t, ctx, func() bool {
			id, _, ok := b.guard.identity(a.PeerID())
			m, who, known := channelOf(b).members.Find(s.Identity().PKIID())
			want := s.Identity().Certificate().Raw
			return ok && bytes.Equal(id.Certificate().Raw, want) && known && bytes.Equal(who.Certificate().Raw, want) && m.State == membership.Alive
		})
	}
	until(t, ctx, func() bool { return len(channelOf(b).Connected()) == 1 })
	passes()

	open := b.host.Network().ConnsToPeer(a.PeerID())
	same := certified(t, w.orgs[0], "peer0.org1", "peer", key)
	require.NoError(t, a.Renew(same, nil, nil))
	sees(same)
	passes()
	for _, c := range open {
		require.False(t, c.IsClosed(), "a connection was lost")
	}
	until(t, ctx, func() bool { return counted(t, reg, "grapevine_certificate_expiry_seconds", "use", "sign") > 0 })

	require.ErrorIs(t, a.Renew(w.identity(0, "peer2.org1"), nil, nil), msp.BadIdentity)
	require.ErrorIs(t, a.Renew(w.identity(1, "peer0.org1"), nil, nil), msp.BadIdentity)
	passes()

	was := a.Identity().PKIID()
	other := w.identity(0, "peer0.org1")
	require.NoError(t, a.Renew(other, nil, nil))
	require.NotEqual(t, was, a.Identity().PKIID())
	sees(other)
	_, _, still := channelOf(b).members.Find(was)
	require.False(t, still, "it has said good-bye")
	passes()
}

// An orderer signs by its renewed certificate, and goes on in Raft with another
// key.
func TestOrdererIsRenewedLive(t *testing.T) {
	ctx := patience(t)
	b := newBench(t, 3)
	b.configs[1].Metrics = prometheus.NewRegistry()
	b.start(0, 1, 2)
	b.submit(ctx)
	o := b.nodes[1]
	s, err := b.w.orderer.Identity(o.Identity().Name(), "orderer")
	require.NoError(t, err)
	require.NoError(t, o.Renew(s, nil, nil))
	require.Equal(t, s.Identity().PKIID(), o.Identity().PKIID())
	b.submit(ctx)
	b.stop(0) // the renewed one is needed now
	b.submit(ctx)
	b.start(0)
	b.submit(ctx)
	b.same(ctx)
}

// Who asks a peer as a member of its organisation is judged by the CAs that its
// folder holds now.
func TestRenewedCAsCountForClients(t *testing.T) {
	w := newWorld(t)
	first := w.genesis("mychannel", 0)
	cfg, _ := w.config(0, "peer0.org1")
	n := start(t, cfg, first)
	conf := w.orgs[0].MSPConfig()
	next, err := ca.New("org1", "ca2.org1", ca.P256, time.Now())
	require.NoError(t, err)
	o := conf.FabricNodeOus
	o.ClientOuIdentifier.Certificate, o.PeerOuIdentifier.Certificate, o.AdminOuIdentifier.Certificate, o.OrdererOuIdentifier.Certificate = nil, nil, nil, nil
	conf.RootCerts = append(conf.RootCerts, next.PEM())
	both, err := msp.New(conf, msp.Features{NodeOUs: true})
	require.NoError(t, err)
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	der, err := next.Issue(ca.Request{CN: "Admin@org1", OU: []string{"admin"}, Key: key.Public()})
	require.NoError(t, err)
	id, err := msp.FromDER(w.orgs[0].MSPID, der)
	require.NoError(t, err)
	admin, err := msp.NewSigner(id, key)
	require.NoError(t, err)

	asks := func() int32 {
		marshal := func(m proto.Message) []byte {
			raw, err := proto.Marshal(m)
			require.NoError(t, err)
			return raw
		}
		nonce := []byte("a nonce of twenty-four b")
		raw := marshal(&peer.Proposal{
			Header: marshal(&common.Header{
				ChannelHeader:   marshal(&common.ChannelHeader{Type: int32(common.HeaderType_ENDORSER_TRANSACTION), TxId: tx.ID(nonce, id.Serialized())}),
				SignatureHeader: marshal(&common.SignatureHeader{Creator: id.Serialized(), Nonce: nonce}),
			}),
			Payload: marshal(&peer.ChaincodeProposalPayload{Input: marshal(&peer.ChaincodeInvocationSpec{ChaincodeSpec: &peer.ChaincodeSpec{
				ChaincodeId: &peer.ChaincodeID{Name: "cscc"}, Input: &peer.ChaincodeInput{Args: [][]byte{[]byte("GetChannels")}},
			}})}),
		})
		sig, err := admin.Sign(raw)
		require.NoError(t, err)
		a, err := n.newSystem(false).ProcessProposal(t.Context(), &peer.SignedProposal{ProposalBytes: raw, Signature: sig})
		require.NoError(t, err)
		return a.Response.Status
	}
	require.EqualValues(t, 500, asks())
	require.NoError(t, n.Renew(n.signer, nil, both))
	require.EqualValues(t, 200, asks())
}
