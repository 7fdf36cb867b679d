package ca_test

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/msp/ca"
)

func TestOrgsIdentitiesAreLive(t *testing.T) {
	o, m := organisation(t)
	for _, alg := range []ca.Algorithm{ca.P256, ca.P384, ca.Ed25519} {
		s, err := o.Enroll(ca.Request{CN: "peer0.org1", OU: []string{"peer"}}, alg)
		require.NoError(t, err)
		require.Equal(t, "peer0.org1", s.Identity().Name())
		require.NoError(t, m.ValidateLive(s.Identity(), nil, now))
		require.NoError(t, m.Validate(s.Identity()))
		sig, err := s.Sign([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, s.Identity().Verify([]byte("x"), sig))
	}
	none, err := o.Identity("nobody", "")
	require.NoError(t, err)
	require.ErrorIs(t, m.ValidateLive(none.Identity(), nil, now), msp.BadRole)
}

func TestOrgRevokes(t *testing.T) {
	o, _ := organisation(t)
	bad, err := o.Identity("bad", "client")
	require.NoError(t, err)
	good, err := o.Identity("good", "client")
	require.NoError(t, err)
	require.NoError(t, o.Revoke(bad.Identity().Certificate().SerialNumber, now))
	m, err := msp.New(o.MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true})
	require.NoError(t, err)
	require.Empty(t, m.Warnings(), "the list is a usable one")
	require.ErrorIs(t, m.ValidateLive(bad.Identity(), nil, now), msp.Revoked)
	require.Error(t, m.Validate(bad.Identity()))
	require.NoError(t, m.ValidateLive(good.Identity(), nil, now))
	require.NoError(t, m.Validate(good.Identity()))
}

func TestOrgUnderAnIntermediate(t *testing.T) {
	o, _ := organisation(t)
	mid, err := o.CA.Intermediate("ica.org1", ca.P256, now)
	require.NoError(t, err)
	o.CA = mid
	s, err := o.Identity("peer0.org1", "peer")
	require.NoError(t, err)
	m, err := msp.New(o.MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true})
	require.NoError(t, err)
	require.NoError(t, m.ValidateLive(s.Identity(), [][]byte{mid.Certificate().Raw}, now))
	require.NoError(t, m.Validate(s.Identity()))
}

func TestOrgTLS(t *testing.T) {
	o, _ := organisation(t)
	cert, err := o.TLS("orderer0", "localhost", "127.0.0.1")
	require.NoError(t, err)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(a, &tls.Config{
			Certificates: []tls.Certificate{cert}, ClientCAs: o.TLSPool(), ClientAuth: tls.RequireAndVerifyClientCert, Time: clock,
		}).Handshake()
	}()
	c := tls.Client(b, &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: o.TLSPool(), ServerName: "localhost", Time: clock})
	require.NoError(t, c.Handshake())
	b.Close()
	require.NoError(t, <-done)
}

// The folder that Generate writes and the definition that an Org gives are
// taken by the same judges.
func TestGeneratedFolderLoads(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, ca.Generate(&ca.Spec{PeerOrgs: []ca.OrgSpec{{
		Domain: "org1", EnableNodeOUs: true, Template: ca.Template{Count: 1}, Users: ca.Users{Count: 1},
	}}}, dir, now))
	org := filepath.Join(dir, "peerOrganizations", "org1")
	conf, warnings, err := msp.LoadConfig("Org1MSP", filepath.Join(org, "msp"))
	require.NoError(t, err)
	require.Empty(t, warnings)
	m, err := msp.New(conf, msp.Features{NodeOUs: true, Ed25519: true})
	require.NoError(t, err)
	for _, node := range []string{"peers/peer0.org1", "users/Admin@org1", "users/User1@org1"} {
		folder := filepath.Join(org, node, "msp")
		s, err := msp.Load("Org1MSP", folder)
		require.NoError(t, err)
		require.NoError(t, m.ValidateLive(s.Identity(), nil, now))
		same, _, err := msp.LoadConfig("Org1MSP", folder)
		require.NoError(t, err)
		require.True(t, proto.Equal(conf, same), "a node's folder defines what the organisation's does")
	}

	c, err := ca.Open(filepath.Join(org, "ca"))
	require.NoError(t, err)
	user := readCert(t, filepath.Join(org, "users/User1@org1/msp/signcerts/User1@org1-cert.pem"))
	require.NoError(t, c.Revoke(user.SerialNumber, now))
	crl, err := c.SaveCRL(filepath.Join(org, "ca"), now)
	require.NoError(t, err)
	require.NoError(t, ca.Distribute(org, c.Name(), crl))
	conf, _, err = msp.LoadConfig("Org1MSP", filepath.Join(org, "peers/peer0.org1/msp"))
	require.NoError(t, err)
	m, err = msp.New(conf, msp.Features{NodeOUs: true, Ed25519: true})
	require.NoError(t, err)
	id, err := msp.FromDER("Org1MSP", user.Raw)
	require.NoError(t, err)
	require.ErrorIs(t, m.ValidateLive(id, nil, now), msp.Revoked)
}

func organisation(t *testing.T) (*ca.Org, *msp.MSP) {
	t.Helper()
	o, err := ca.NewOrg("Org1MSP", "org1", now)
	require.NoError(t, err)
	m, err := msp.New(o.MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true})
	require.NoError(t, err)
	return o, m
}
