package dev

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block/tx"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp"
	"grapevine/orderer"
)

// chaincode is the one that the network's transactions call.
const chaincode = "kv"

// user is one user of the network, with the keys of those who endorse for it.
type user struct {
	net       *Network
	creator   msp.Signer
	endorsers [][]msp.Signer // of each organisation
	need      int            // organisations that the channel's policy asks for: a majority
}

// user loads the keys in the network's folder.
func (n *Network) user() (*user, error) {
	base := path.Join("crypto", "peerOrganizations")
	u := &user{net: n, need: n.Shape.Orgs/2 + 1}
	var err error
	if u.creator, err = msp.Load(mspID("org1"), n.path(path.Join(base, "org1", "users", "User1@org1", "msp"))); err != nil {
		return nil, fmt.Errorf("loading the client's key: %w", err)
	}
	for o := 1; o <= n.Shape.Orgs; o++ {
		var of []msp.Signer
		for _, p := range n.Peers() {
			if p.Org != fmt.Sprintf("org%d", o) {
				continue
			}
			s, err := n.Signer(p)
			if err != nil {
				return nil, err
			}
			of = append(of, s)
		}
		u.endorsers = append(u.endorsers, of)
	}
	return u, nil
}

// Signer is a node's own identity.
func (n *Network) Signer(v *Node) (msp.Signer, error) {
	s, err := msp.Load(v.MSPID, n.path(v.MSP))
	if err != nil {
		return nil, fmt.Errorf("loading the key of %s: %w", v.Name, err)
	}
	return s, nil
}

// write makes the i-th transaction of a run, endorsed by peers who take turns.
func (u *user) write(run string, i, size int) (*common.Envelope, string, error) {
	return u.endorse(i, tx.Proposal{
		Chaincode: chaincode, Args: [][]byte{[]byte("put")},
		RWSet: tx.Write(chaincode, fmt.Sprintf("%s/%d", run, i), value(size, i)),
	})
}

func (u *user) endorse(turn int, p tx.Proposal) (*common.Envelope, string, error) {
	p.Channel, p.Creator, p.Time = u.net.Shape.Channel, u.creator, time.Now()
	for k := range u.need {
		of := u.endorsers[(turn+k)%len(u.endorsers)]
		p.Endorsers = append(p.Endorsers, of[turn/len(u.endorsers)%len(of)])
	}
	return tx.Endorse(p)
}

// value is size bytes that differ from one transaction to the next.
func value(size, i int) []byte {
	v := make([]byte, size)
	for k := range v {
		v[k] = "0123456789abcdef"[(k*31+i)%16]
	}
	return v
}

// orderers returns a client of the ordering service, as the network's user.
func (u *user) orderers() (*orderer.Client, error) {
	var es []orderer.Endpoint
	for _, o := range u.net.Orderers() {
		raw, err := os.ReadFile(filepath.Join(u.net.path(o.TLS), "ca.crt"))
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(raw) {
			return nil, fault.Newf("DEV002", "%s holds no certificate", o.TLS)
		}
		es = append(es, orderer.Endpoint{Address: local(o.GRPC), Roots: pool})
	}
	return orderer.NewClient(orderer.ClientConfig{
		Channel: u.net.Shape.Channel, Signer: u.creator, Endpoints: func() []orderer.Endpoint { return es },
	}), nil
}

// define puts the chaincode's definition on the channel, as its first
// transaction.
func (n *Network) define(ctx context.Context) error {
	u, err := n.user()
	if err != nil {
		return err
	}
	env, _, err := u.endorse(0, tx.Proposal{Chaincode: tx.Lifecycle, RWSet: tx.Define(chaincode)})
	if err != nil {
		return err
	}
	c, err := u.orderers()
	if err != nil {
		return err
	}
	a, err := c.Submit(ctx, env)
	if err == nil && a.Status != common.Status_SUCCESS {
		err = fault.Newf("DEV014", "the ordering service refused the chaincode's definition: %s %s", a.Status, a.Info)
	}
	return err
}

func newRun() (string, error) {
	var id [4]byte
	_, err := rand.Read(id[:])
	return hex.EncodeToString(id[:]), err
}
