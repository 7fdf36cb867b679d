package update_test

import (
	"encoding/pem"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/channel/genesis"
	"grapevine/channel/update"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

// A network is three organisations and a channel's configuration.
type network struct {
	t    *testing.T
	orgs []*ca.Org
	conf *channel.Config
}

func newNetwork(t *testing.T) *network {
	now := time.Now()
	n := &network{t: t}
	orderers, err := ca.NewOrg("OrdererMSP", "orderer", now)
	require.NoError(t, err)
	cert, err := orderers.TLS("orderer0", "localhost")
	require.NoError(t, err)
	p := genesis.Profile{
		Channel:  "mychannel",
		Orderers: []genesis.Org{{Name: "OrdererOrg", MSP: orderers.MSPConfig(), Endpoints: []string{"127.0.0.1:7050"}}},
		Consenters: []genesis.Consenter{{
			Host: "127.0.0.1", Port: 7051, ServerTLS: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		}},
		Time: now,
	}
	for _, name := range []string{"org1", "org2", "org3"} {
		o, err := ca.NewOrg(name+"MSP", name, now)
		require.NoError(t, err)
		n.orgs = append(n.orgs, o)
		p.Orgs = append(p.Orgs, genesis.Org{Name: name, MSP: o.MSPConfig()})
	}
	b, err := genesis.Block(p)
	require.NoError(t, err)
	n.conf, err = channel.Parse(b)
	require.NoError(t, err)
	return n
}

func (n *network) admin(org int) msp.Signer {
	s, err := n.orgs[org].Identity("Admin@"+n.orgs[org].Domain, "admin")
	require.NoError(n.t, err)
	return s
}

// propose signs an update for some organisations and asks the configuration in
// force, as an orderer does.
func (n *network) propose(env *common.Envelope, orgs ...int) (*channel.Config, error) {
	var last msp.Signer
	var err error
	for _, i := range orgs {
		last = n.admin(i)
		env, err = update.Sign(env, last)
		require.NoError(n.t, err)
	}
	sealed, err := update.Seal(env, last, time.Now())
	require.NoError(n.t, err)
	next, err := n.conf.Propose(sealed)
	if err != nil {
		return nil, err
	}
	return channel.ParseChannelGroup("mychannel", 1, next.Config)
}

func (n *network) make(edits ...update.Edit) *common.Envelope {
	env, err := update.Make("mychannel", n.conf.Content(), edits...)
	require.NoError(n.t, err)
	return env
}

func org(t *testing.T, c *channel.Config, mspID string) channel.Org {
	for _, o := range c.Orgs() {
		if o.MSPID == mspID {
			return o
		}
	}
	require.Fail(t, "no organisation "+mspID)
	return channel.Org{}
}

func TestAnchors(t *testing.T) {
	n := newNetwork(t)
	env := n.make(update.SetAnchors("org2MSP", "peer0.org2:7051", "[2001:db8::1]:7051"))
	u, err := update.Read(env)
	require.NoError(t, err)
	require.Equal(t, "mychannel", u.Channel)
	var paths []string
	for _, c := range u.Changes {
		paths = append(paths, c.Path)
	}
	require.Equal(t, []string{"/Channel/Application/org2", "/Channel/Application/org2/values/AnchorPeers"}, paths)

	next, err := n.propose(env, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"peer0.org2:7051", "[2001:db8::1]:7051"}, org(t, next, "org2MSP").Anchors)
	require.Equal(t, n.conf.Sequence()+1, next.Sequence())

	_, err = n.propose(env, 0) // org1's administrator may not
	require.Equal(t, block.BadConfig, wire.ReasonOf(err))

	for _, bad := range []string{"peer0.org2", ":7051", "peer0.org2:0", "peer0.org2:65536"} {
		_, err := update.Make("mychannel", n.conf.Content(), update.SetAnchors("org2", bad))
		require.ErrorContains(t, err, bad)
	}
	_, err = update.Make("mychannel", n.conf.Content(), update.SetAnchors("org9", "a:1"))
	require.ErrorContains(t, err, "org1, org2, org3")
}

func TestAddAndRemoveOrg(t *testing.T) {
	n := newNetwork(t)
	o, err := ca.NewOrg("org4MSP", "org4", time.Now())
	require.NoError(t, err)
	add := n.make(update.AddOrg(genesis.Org{Name: "org4", MSP: o.MSPConfig(), Anchors: []string{"peer0.org4:7051"}}))
	_, err = n.propose(add, 0) // a majority of three is two
	require.Equal(t, block.BadConfig, wire.ReasonOf(err))
	next, err := n.propose(add, 0, 2)
	require.NoError(t, err)
	require.Equal(t, []string{"peer0.org4:7051"}, org(t, next, "org4MSP").Anchors)
	peer, err := o.Identity("peer0.org4", "peer")
	require.NoError(t, err)
	require.NoError(t, next.Member(peer.Identity(), nil, time.Now()))
	require.Error(t, n.conf.Member(peer.Identity(), nil, time.Now()))

	_, err = update.Make("mychannel", next.Content(), update.AddOrg(genesis.Org{Name: "org5", MSP: o.MSPConfig()}))
	require.ErrorContains(t, err, "already")

	n.conf = next
	last, err := n.propose(n.make(update.RemoveOrg("org4MSP")), 0, 1, 2)
	require.NoError(t, err)
	require.Len(t, last.Orgs(), 3)
	require.Error(t, last.Member(peer.Identity(), nil, time.Now()))
}

func TestRevoke(t *testing.T) {
	n := newNetwork(t)
	o := n.orgs[0]
	peer, err := o.Identity("peer1.org1", "peer")
	require.NoError(t, err)
	require.NoError(t, n.conf.Member(peer.Identity(), nil, time.Now()))
	old, err := o.CA.CRL(time.Now().Add(-time.Hour))
	require.NoError(t, err)
	require.NoError(t, o.CA.Revoke(peer.Identity().Certificate().SerialNumber, time.Now()))
	crl, err := o.CA.CRL(time.Now())
	require.NoError(t, err)
	next, err := n.propose(n.make(update.Revoke("org1", crl)), 0)
	require.NoError(t, err)
	require.Error(t, next.Member(peer.Identity(), nil, time.Now()))
	other, err := o.Identity("peer2.org1", "peer")
	require.NoError(t, err)
	require.NoError(t, next.Member(other.Identity(), nil, time.Now()))

	// the same list again changes nothing, a newer one of the same issuer takes its place
	_, err = update.Make("mychannel", next.Content(), update.Revoke("org1", crl))
	require.ErrorIs(t, err, update.ErrNoChange)
	_, err = update.Make("mychannel", next.Content(), update.Revoke("org1", []byte("no list")))
	require.ErrorContains(t, err, "revocation list")
	_, err = update.Make("mychannel", next.Content(), update.Revoke("org1", old))
	require.ErrorContains(t, err, "older")
}

func TestSecondRoot(t *testing.T) {
	n := newNetwork(t)
	o := n.orgs[1]
	peer, err := o.Identity("peer1.org2", "peer")
	require.NoError(t, err)
	fresh, err := ca.NewOrg("org2MSP", "org2", time.Now())
	require.NoError(t, err)
	def := o.MSPConfig()
	def.RootCerts = append(def.RootCerts, fresh.MSPConfig().RootCerts...)
	ous := def.FabricNodeOus // of any root, for now there are two
	for _, ou := range []*mspproto.FabricOUIdentifier{ous.ClientOuIdentifier, ous.PeerOuIdentifier, ous.AdminOuIdentifier, ous.OrdererOuIdentifier} {
		ou.Certificate = nil
	}
	next, err := n.propose(n.make(update.SetMSP("org2", def)), 1)
	require.NoError(t, err)
	require.NoError(t, next.Member(peer.Identity(), nil, time.Now()))
	young, err := fresh.Identity("peer2.org2", "peer")
	require.NoError(t, err)
	require.NoError(t, next.Member(young.Identity(), nil, time.Now()))

	_, err = update.Make("mychannel", n.conf.Content(), update.SetMSP("org1", def))
	require.ErrorContains(t, err, "org2MSP")
}

func TestEditedJSON(t *testing.T) {
	n := newNetwork(t)
	text, err := n.conf.JSON()
	require.NoError(t, err)
	same, err := channel.ParseJSON(text)
	require.NoError(t, err)
	_, err = update.Make("mychannel", n.conf.Content(), update.To(same))
	require.ErrorIs(t, err, update.ErrNoChange)

	same.ChannelGroup.Groups["Application"].Policies["Writers"].ModPolicy = "/Channel/Application/Admins"
	next, err := n.propose(n.make(update.To(same)), 0, 1)
	require.NoError(t, err)
	require.Equal(t, "/Channel/Application/Admins", next.Content().ChannelGroup.Groups["Application"].Policies["Writers"].ModPolicy)
}

func TestSignatures(t *testing.T) {
	n := newNetwork(t)
	admin := n.admin(0)
	env, err := update.Sign(n.make(update.SetAnchors("org1", "a:1")), admin)
	require.NoError(t, err)
	_, err = update.Sign(env, admin)
	require.ErrorIs(t, err, update.ErrSigned)
	u, err := update.Read(env)
	require.NoError(t, err)
	require.Len(t, u.Signers, 1)
	require.Equal(t, admin.Identity().PKIID(), u.Signers[0].PKIID())

	raw, err := proto.Marshal(env)
	require.NoError(t, err)
	for i := range raw { // whatever a file holds, reading it is safe
		broken := append([]byte{}, raw...)
		broken[i] ^= 0x55
		var e common.Envelope
		if proto.Unmarshal(broken, &e) == nil {
			_, _ = update.Read(&e)
		}
	}
	_, err = update.Read(&common.Envelope{})
	require.ErrorIs(t, err, update.ErrNoUpdate)
}
