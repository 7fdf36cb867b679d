package itest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel"
	"grapevine/election"
	"grapevine/msp"
	"grapevine/node"
	"grapevine/orderer"
)

// A genesis block that configtxgen made, with the identities that cryptogen made,
// starts three of our orderers and a peer. Its consenters and its endpoints have
// the same addresses, as Fabric's one listener serves both: then libp2p is on QUIC
// and gRPC on TCP, on one number.
func TestFabricsGenesisBlockStartsOurs(t *testing.T) {
	dir := record(t, "raft").dir
	raw, err := os.ReadFile(filepath.Join(dir, "genesis.block"))
	require.NoError(t, err)
	genesis, err := block.Decode(raw)
	require.NoError(t, err)
	conf, err := channel.Parse(genesis)
	require.NoError(t, err)
	crypto := filepath.Join(dir, "crypto")
	for _, o := range conf.Orderers() {
		l, err := net.Listen("tcp", o.Endpoint)
		if err != nil {
			t.Skipf("the port of %s is taken: %v", o.Endpoint, err)
		}
		require.NoError(t, l.Close())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	run := func(name string, f func(context.Context) error, end func() error) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- f(ctx) }()
		t.Cleanup(func() {
			cancel()
			require.NoError(t, errors.Join(<-ended, end()), name)
		})
	}
	var orderers []*node.Orderer
	for i, c := range conf.Consenters() {
		home := filepath.Join(crypto, "ordererOrganizations", "example.com", "orderers", fmt.Sprintf("orderer%d.example.com", i+1))
		signer, err := msp.Load("OrdererMSP", filepath.Join(home, "msp"))
		require.NoError(t, err)
		if now := time.Now(); now.Before(signer.Identity().Certificate().NotBefore) {
			t.Skip("the recorded certificates are not valid yet")
		}
		def, _, err := msp.LoadConfig("OrdererMSP", filepath.Join(home, "msp"))
		require.NoError(t, err)
		members, err := msp.New(def, msp.Features{NodeOUs: true})
		require.NoError(t, err)
		pair, err := tls.LoadX509KeyPair(filepath.Join(home, "tls", "server.crt"), filepath.Join(home, "tls", "server.key"))
		require.NoError(t, err)
		o, err := node.OpenOrderer(node.OrdererConfig{
			Dir: t.TempDir(), Name: signer.Identity().Name(), NetworkID: "fixtures", Signer: signer, MSP: members, Certificate: pair,
			Listen: []string{fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", c.Host, c.Port)}, Address: conf.Orderers()[i].Endpoint,
		})
		require.NoError(t, err)
		require.NoError(t, o.Join(genesis))
		run(signer.Identity().Name(), o.Run, o.Close)
		orderers = append(orderers, o)
	}
	org := conf.Orgs()[0]
	home, err := filepath.Glob(filepath.Join(crypto, "peerOrganizations", "*", "peers", "*", "msp"))
	require.NoError(t, err)
	var peer msp.Signer
	for _, h := range home {
		if s, err := msp.Load(org.MSPID, h); err == nil && org.MSP.Validate(s.Identity()) == nil {
			peer = s
			break
		}
	}
	require.NotNil(t, peer)
	cfg := node.Default()
	cfg.Dir, cfg.NetworkID, cfg.Signer, cfg.Leader = t.TempDir(), "fixtures", peer, election.Static
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	n, err := node.Open(cfg)
	require.NoError(t, err)
	ch, err := n.Join(ctx, genesis)
	require.NoError(t, err)
	run("peer", n.Run, n.Close)

	users, err := filepath.Glob(filepath.Join(crypto, "peerOrganizations", "*", "users", "*", "msp"))
	require.NoError(t, err)
	var user msp.Signer
	for _, h := range users {
		s, err := msp.Load(org.MSPID, h)
		if err == nil && org.MSP.Validate(s.Identity()) == nil && msp.SatisfiedBy(conf.MSPs(), conf.Policy(channel.PolicyWriters), s.Identity()) == nil {
			user = s
			break
		}
	}
	require.NotNil(t, user)
	client := orderer.NewClient(orderer.ClientConfig{Channel: conf.Channel(), Signer: user, Endpoints: func() (all []orderer.Endpoint) {
		for _, o := range conf.Orderers() {
			all = append(all, orderer.Endpoint{Address: o.Endpoint, Roots: o.TLSRoots})
		}
		return all
	}})
	env, _, err := tx.Endorse(tx.Proposal{
		Channel: conf.Channel(), Chaincode: "kv", RWSet: tx.Write("kv", "k", []byte("v")), Creator: user, Endorsers: []msp.Signer{peer}, Time: time.Now(),
	})
	require.NoError(t, err)
	a, err := client.Submit(ctx, env)
	require.NoError(t, err)
	require.Equal(t, common.Status_SUCCESS, a.Status, a.Info)
	require.NoError(t, ch.Ledger().Wait(ctx, 2))
	for _, o := range orderers {
		led, _, err := o.Channel(conf.Channel())
		require.NoError(t, err)
		require.NoError(t, led.Wait(ctx, 2))
		require.Equal(t, ch.Ledger().Tip(), led.Tip())
	}
}
