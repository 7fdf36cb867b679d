// Command genesis-block writes a channel's genesis block from a tree that
// "grapevine ca generate" or cryptogen made, for those who have no configtxgen.
// Its policies are those of Fabric's test network. -orderer may be repeated; of
// several orderers each needs its libp2p listener, host:port, behind that of gRPC.
//
//	go run ./examples/genesis-block -crypto crypto-config -o mychannel.block \
//	  -orderer OrdererMSP,example.com,orderer.example.com,localhost:7050 \
//	  -org Org1MSP,org1.example.com,localhost:7051
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"grapevine/channel/genesis"
	"grapevine/msp"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f := flag.NewFlagSet("genesis-block", flag.ContinueOnError)
	crypto := f.String("crypto", "crypto-config", "the tree of organisations")
	channel := f.String("channel", "mychannel", "the channel's name")
	file := f.String("o", "mychannel.block", "the file to write")
	var orderers, orgs []string
	f.Func("orderer", "MSPID,DOMAIN,NODE,HOST:PORT of an ordering node's gRPC[,HOST:PORT of its libp2p]; may be repeated", func(s string) error {
		orderers = append(orderers, s)
		return nil
	})
	f.Func("org", "MSPID,DOMAIN[,HOST:PORT of its anchor peer]; may be repeated", func(s string) error {
		orgs = append(orgs, s)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	p := genesis.Profile{Channel: *channel, Time: time.Now()}
	for _, o := range orgs {
		if err := addOrg(&p, *crypto, strings.Split(o, ",")); err != nil {
			return fmt.Errorf("-org %q: %w", o, err)
		}
	}
	for _, o := range orderers {
		if err := addOrderer(&p, *crypto, strings.Split(o, ",")); err != nil {
			return fmt.Errorf("-orderer %q: %w", o, err)
		}
	}
	b, err := genesis.Block(p)
	if err != nil {
		return err
	}
	raw, err := proto.Marshal(b)
	if err != nil {
		return err
	}
	return os.WriteFile(*file, raw, 0o644)
}

// addOrg adds an organisation of the application.
func addOrg(p *genesis.Profile, crypto string, w []string) error {
	if len(w) < 2 {
		return errors.New("write MSPID,DOMAIN[,HOST:PORT]")
	}
	conf, _, err := msp.LoadConfig(w[0], filepath.Join(crypto, "peerOrganizations", w[1], "msp"))
	if err != nil {
		return err
	}
	p.Orgs = append(p.Orgs, genesis.Org{MSP: conf, Anchors: w[2:]})
	return nil
}

// addOrderer adds an ordering node, and its organisation with the first of its
// nodes.
func addOrderer(p *genesis.Profile, crypto string, w []string) error {
	if len(w) != 4 && len(w) != 5 {
		return errors.New("write MSPID,DOMAIN,NODE,HOST:PORT[,HOST:PORT]")
	}
	dir := filepath.Join(crypto, "ordererOrganizations", w[1])
	cert, err := os.ReadFile(filepath.Join(dir, "orderers", w[2], "tls", "server.crt"))
	if err != nil {
		return err
	}
	host, text, err := net.SplitHostPort(w[len(w)-1])
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return err
	}
	p.Consenters = append(p.Consenters, genesis.Consenter{Host: host, Port: uint32(port), ServerTLS: cert})
	for i := range p.Orderers {
		if p.Orderers[i].MSP.Name == w[0] {
			p.Orderers[i].Endpoints = append(p.Orderers[i].Endpoints, w[3])
			return nil
		}
	}
	conf, _, err := msp.LoadConfig(w[0], filepath.Join(dir, "msp"))
	if err != nil {
		return err
	}
	p.Orderers = append(p.Orderers, genesis.Org{MSP: conf, Endpoints: w[3:4]})
	return nil
}
