// Command 01-one-node is the least that does Grapevine's job: one organisation,
// one ordering node and one peer, in one process. The peer joins a channel, three
// transactions are ordered, and each block is printed when the peer has it:
// verified and on disk.
//
//	go run ./examples/01-one-node
package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"golang.org/x/sync/errgroup"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel/genesis"
	"grapevine/election"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/node"
	"grapevine/orderer"
)

const (
	channelName = "mychannel"
	networkID   = "example"
	writes      = 3
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run does it all in a folder that it removes.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "one-node-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ord, err := ca.NewOrg("OrdererMSP", "orderer", time.Now())
	if err != nil {
		return err
	}
	org, err := ca.NewOrg("Org1MSP", "org1", time.Now())
	if err != nil {
		return err
	}
	o, first, err := openOrderer(filepath.Join(dir, "orderer0"), ord, org)
	if err != nil {
		return err
	}
	p, ch, err := openPeer(ctx, filepath.Join(dir, "peer0"), org, first)
	if err != nil {
		return errors.Join(err, o.Close())
	}

	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.Run(ctx) }) // every loop of the ordering node
	g.Go(func() error { return p.Run(ctx) }) // every loop of the peer
	g.Go(func() error {
		defer stop()
		both, ctx := errgroup.WithContext(ctx)
		both.Go(func() error { return order(ctx, o.Address(), ord, org) })
		both.Go(func() error { return show(ctx, ch, out) })
		return both.Wait()
	})
	return errors.Join(g.Wait(), p.Close(), o.Close())
}

// openOrderer opens an ordering node with a channel, and returns the channel's
// genesis block. Nothing runs yet.
func openOrderer(dir string, ord, org *ca.Org) (*node.Orderer, *common.Block, error) {
	signer, err := ord.Identity("orderer0.orderer", "orderer")
	if err != nil {
		return nil, nil, err
	}
	cert, err := ord.TLS("orderer0.orderer", "127.0.0.1")
	if err != nil {
		return nil, nil, err
	}
	members, err := msp.New(ord.MSPConfig(), msp.Features{NodeOUs: true})
	if err != nil {
		return nil, nil, err
	}
	o, err := node.OpenOrderer(node.OrdererConfig{
		Dir: dir, NetworkID: networkID, Signer: signer, MSP: members, Certificate: cert,
		Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Address: "127.0.0.1:0",
	})
	if err != nil {
		return nil, nil, err
	}
	serverTLS := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	first, err := genesis.Block(genesis.Profile{
		Channel:    channelName,
		Orderers:   []genesis.Org{{MSP: ord.MSPConfig(), Endpoints: []string{o.Address()}}},
		Orgs:       []genesis.Org{{MSP: org.MSPConfig()}},
		Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7050, ServerTLS: serverTLS}},
		Timeout:    50 * time.Millisecond,
		Time:       time.Now(),
	})
	if err == nil {
		err = o.Join(first)
	}
	if err != nil {
		return nil, nil, errors.Join(err, o.Close())
	}
	return o, first, nil
}

// openPeer opens a peer and joins it to the channel. Nothing runs yet.
func openPeer(ctx context.Context, dir string, org *ca.Org, first *common.Block) (*node.Node, *node.Channel, error) {
	cfg := node.Default()
	cfg.Dir, cfg.NetworkID = dir, networkID
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	cfg.Leader = election.Static // it pulls from the ordering service itself
	var err error
	if cfg.Signer, err = org.Identity("peer0.org1", "peer"); err != nil { // or msp.Load("Org1MSP", mspDir)
		return nil, nil, err
	}
	n, err := node.Open(cfg)
	if err != nil {
		return nil, nil, err
	}
	ch, err := n.Join(ctx, first)
	if err != nil {
		return nil, nil, errors.Join(err, n.Close())
	}
	return n, ch, nil
}

// show prints the channel's blocks as they come.
func show(ctx context.Context, ch *node.Channel, out io.Writer) error {
	for b, err := range ch.Blocks(ctx, 0) { // in order; waits at the tip
		if err != nil {
			return err
		}
		kind := "transactions"
		if block.IsConfig(b) {
			kind = "configuration"
		}
		fmt.Fprintf(out, "block %d: %s, %d\n", b.Header.Number, kind, len(b.Data.Data))
		if b.Header.Number == writes {
			return nil
		}
	}
	return nil
}

// order submits transactions as a client of the organisation, one after another:
// each makes a block.
func order(ctx context.Context, addr string, ord, org *ca.Org) error {
	user, err := org.Identity("User1@org1", "client")
	if err != nil {
		return err
	}
	endorser, err := org.Identity("peer0.org1", "peer")
	if err != nil {
		return err
	}
	client := orderer.NewClient(orderer.ClientConfig{
		Channel: channelName, Signer: user,
		Endpoints: func() []orderer.Endpoint { return []orderer.Endpoint{{Address: addr, Roots: ord.TLSPool()}} },
	})
	for i := range writes {
		env, _, err := tx.Endorse(tx.Proposal{
			Channel: channelName, Chaincode: "kv", RWSet: tx.Write("kv", fmt.Sprint("key", i), []byte("value")),
			Creator: user, Endorsers: []msp.Signer{endorser}, Time: time.Now(),
		})
		if err != nil {
			return err
		}
		a, err := client.Submit(ctx, env)
		if err != nil {
			return err
		}
		if a.Status != common.Status_SUCCESS {
			return fmt.Errorf("the ordering service answers %s: %s", a.Status, a.Info)
		}
	}
	return nil
}
