package dev

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"grapevine/channel/genesis"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp"
	"grapevine/msp/ca"
)

const (
	ordererOrg   = "orderer" // domain of the ordering organisation
	ordererMSPID = "OrdererMSP"
)

// Create makes a network in dir, which must be empty or not there: identities,
// genesis block, and a folder with a configuration for each node. step is told
// of each part that is done.
func Create(dir string, s Shape, inProcess bool, step func(name, detail string)) (*Network, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := emptyFolder(dir); err != nil {
		return nil, err
	}
	n := &Network{Shape: s, InProcess: inProcess, dir: dir}
	if err := n.plan(); err != nil {
		return nil, err
	}
	if err := ca.Generate(n.spec(), filepath.Join(dir, "crypto"), time.Now()); err != nil {
		return nil, fmt.Errorf("making identities: %w", err)
	}
	step("CAs and identities", fmt.Sprintf("%d orgs, %d peers, %d orderers", s.Orgs, s.Orgs*s.Peers, s.Orderers))
	if err := n.genesis(); err != nil {
		return nil, fmt.Errorf("making the genesis block: %w", err)
	}
	for i := range n.Nodes {
		if err := n.configure(&n.Nodes[i]); err != nil {
			return nil, fmt.Errorf("configuring %s: %w", n.Nodes[i].Name, err)
		}
	}
	step("genesis", fmt.Sprintf("%s (raft, %d consenters)", s.Channel, s.Orderers))
	// Written last: a folder without it is no network, but half of one.
	return n, n.save()
}

func emptyFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return os.MkdirAll(dir, 0o755)
	case err != nil:
		return fmt.Errorf("reading the network's folder: %w", err)
	case len(entries) > 0:
		return fault.Newf("DEV005", "%s holds files, and no finished dev network", dir).
			Because("dev up only fills a folder that is empty or not there").
			Do("choose another with --dir", "remove the folder if it is left from a dev up that was interrupted")
	}
	return nil
}

// plan names the nodes and gives them ports.
func (n *Network) plan() error {
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	n.NetworkID = "dev-" + hex.EncodeToString(id[:])
	s := n.Shape
	free, err := ports(4*s.Orderers + 2*s.Orgs*s.Peers)
	if err != nil {
		return err
	}
	take := func() int { p := free[0]; free = free[1:]; return p }
	for i := range s.Orderers {
		name := fmt.Sprintf("orderer%d", i)
		base := path.Join("crypto", "ordererOrganizations", ordererOrg, "orderers", name)
		n.Nodes = append(n.Nodes, Node{
			Name: name, Org: ordererOrg, MSPID: ordererMSPID, Orderer: true,
			MSP: path.Join(base, "msp"), TLS: path.Join(base, "tls"), Listen: take(), GRPC: take(), Operations: take(), Admin: take(),
		})
	}
	for o := 1; o <= s.Orgs; o++ {
		org := fmt.Sprintf("org%d", o)
		for i := range s.Peers {
			name := fmt.Sprintf("peer%d.%s", i, org)
			base := path.Join("crypto", "peerOrganizations", org, "peers", name)
			n.Nodes = append(n.Nodes, Node{
				Name: name, Org: org, MSPID: mspID(org), Anchor: i == 0,
				MSP: path.Join(base, "msp"), TLS: path.Join(base, "tls"), Listen: take(), Operations: take(),
			})
		}
	}
	return nil
}

func mspID(org string) string { return "O" + org[1:] + "MSP" }

func (n *Network) spec() *ca.Spec {
	sans := []string{"localhost", "127.0.0.1", "::1"}
	orderers := ca.OrgSpec{Name: "Orderer", Domain: ordererOrg, EnableNodeOUs: true}
	for _, o := range n.Orderers() {
		orderers.Specs = append(orderers.Specs, ca.NodeSpec{Hostname: o.Name, CommonName: o.Name, SANS: sans})
	}
	spec := &ca.Spec{OrdererOrgs: []ca.OrgSpec{orderers}}
	for o := 1; o <= n.Shape.Orgs; o++ {
		org := fmt.Sprintf("org%d", o)
		spec.PeerOrgs = append(spec.PeerOrgs, ca.OrgSpec{
			Name: org, Domain: org, EnableNodeOUs: true,
			Template: ca.Template{Count: n.Shape.Peers, SANS: sans}, Users: ca.Users{Count: 1},
		})
	}
	return spec
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (n *Network) genesis() error {
	p := genesis.Profile{
		Channel: n.Shape.Channel,
		Batch:   &ab.BatchSize{MaxMessageCount: 100, AbsoluteMaxBytes: 10 << 20, PreferredMaxBytes: 1 << 20},
		Timeout: 250 * time.Millisecond,
		Time:    time.Now(),
	}
	conf, _, err := msp.LoadConfig(ordererMSPID, n.path(path.Join("crypto", "ordererOrganizations", ordererOrg, "msp")))
	if err != nil {
		return err
	}
	org := genesis.Org{Name: "OrdererOrg", MSPID: ordererMSPID, MSP: conf}
	for _, o := range n.Orderers() {
		org.Endpoints = append(org.Endpoints, local(o.GRPC))
		cert, err := os.ReadFile(filepath.Join(n.path(o.TLS), "server.crt"))
		if err != nil {
			return err
		}
		p.Consenters = append(p.Consenters, genesis.Consenter{Host: "127.0.0.1", Port: uint32(o.Listen), ServerTLS: cert, ClientTLS: cert})
	}
	p.Orderers = []genesis.Org{org}
	for o := 1; o <= n.Shape.Orgs; o++ {
		name := fmt.Sprintf("org%d", o)
		conf, _, err := msp.LoadConfig(mspID(name), n.path(path.Join("crypto", "peerOrganizations", name, "msp")))
		if err != nil {
			return err
		}
		g := genesis.Org{Name: name, MSPID: mspID(name), MSP: conf}
		for _, v := range n.Peers() {
			if v.Org == name && v.Anchor {
				g.Anchors = append(g.Anchors, local(v.Listen))
			}
		}
		p.Orgs = append(p.Orgs, g)
	}
	b, err := genesis.Block(p)
	if err != nil {
		return err
	}
	raw, err := proto.Marshal(b)
	if err != nil {
		return err
	}
	return renameio.WriteFile(n.GenesisFile(), raw, 0o644)
}

// configure writes a node's folder: its configuration is what a person would
// write, and no timer is changed.
func (n *Network) configure(v *Node) error {
	dir := n.Folder(v)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tls := func(server bool) map[string]any {
		t := n.path(v.TLS)
		if server {
			return map[string]any{"Enabled": true, "Certificate": filepath.Join(t, "server.crt"), "PrivateKey": filepath.Join(t, "server.key"), "RootCAs": []string{filepath.Join(t, "ca.crt")}}
		}
		return map[string]any{
			"enabled": true, "cert": map[string]any{"file": filepath.Join(t, "server.crt")},
			"key": map[string]any{"file": filepath.Join(t, "server.key")}, "rootcert": map[string]any{"file": filepath.Join(t, "ca.crt")},
		}
	}
	if v.Orderer {
		if err := writeYAML(filepath.Join(dir, "grapevine.yaml"), map[string]any{
			"p2p": map[string]any{"networkId": n.NetworkID, "listen": []string{
				fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", v.Listen), fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", v.Listen),
			}},
		}); err != nil {
			return err
		}
		return writeYAML(n.ConfigFiles(v)[0], map[string]any{
			"General": map[string]any{
				"ListenAddress": "127.0.0.1", "ListenPort": v.GRPC, "LocalMSPDir": n.path(v.MSP), "LocalMSPID": v.MSPID, "TLS": tls(true),
				"BootstrapMethod": "file", "BootstrapFile": n.GenesisFile(),
			},
			"FileLedger": map[string]any{"Location": dir},
			"Operations": map[string]any{"ListenAddress": local(v.Operations)},
			"Admin": map[string]any{"ListenAddress": local(v.Admin), "TLS": map[string]any{
				"Enabled": true, "Certificate": filepath.Join(n.path(v.TLS), "server.crt"), "PrivateKey": filepath.Join(n.path(v.TLS), "server.key"),
				"ClientAuthRequired": true, "ClientRootCAs": []string{filepath.Join(n.path(v.TLS), "ca.crt")},
			}},
		})
	}
	var bootstrap []string
	for _, p := range n.Peers() {
		if p.Org == v.Org && p.Anchor && p.Name != v.Name {
			bootstrap = append(bootstrap, local(p.Listen))
		}
	}
	gossip := map[string]any{"externalEndpoint": local(v.Listen)}
	if len(bootstrap) > 0 {
		gossip["bootstrap"] = bootstrap
	}
	return writeYAML(n.ConfigFiles(v)[0], map[string]any{
		"peer": map[string]any{
			"id": v.Name, "networkId": n.NetworkID, "listenAddress": local(v.Listen),
			"localMspId": v.MSPID, "mspConfigPath": n.path(v.MSP), "fileSystemPath": dir,
			"tls": tls(false), "gossip": gossip,
		},
		"operations": map[string]any{"listenAddress": local(v.Operations)},
	})
}

// ConfigFiles are a node's configuration files, in the order of --config.
func (n *Network) ConfigFiles(v *Node) []string {
	if v.Orderer {
		return []string{filepath.Join(n.Folder(v), "orderer.yaml"), filepath.Join(n.Folder(v), "grapevine.yaml")}
	}
	return []string{filepath.Join(n.Folder(v), "core.yaml")}
}

func writeYAML(file string, v any) error {
	raw, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	return renameio.WriteFile(file, raw, 0o644)
}

// Env is what a shell needs to speak and act as a node does: NAME=value.
func (n *Network) Env(v *Node) []string {
	if v.Orderer {
		return []string{
			"ORDERER_GENERAL_LISTENADDRESS=127.0.0.1", fmt.Sprintf("ORDERER_GENERAL_LISTENPORT=%d", v.GRPC),
			"ORDERER_GENERAL_LOCALMSPID=" + v.MSPID, "ORDERER_GENERAL_LOCALMSPDIR=" + n.path(v.MSP),
			"ORDERER_FILELEDGER_LOCATION=" + n.Folder(v),
		}
	}
	return []string{
		"CORE_PEER_ID=" + v.Name, "CORE_PEER_NETWORKID=" + n.NetworkID, "CORE_PEER_LOCALMSPID=" + v.MSPID,
		"CORE_PEER_MSPCONFIGPATH=" + n.path(v.MSP), "CORE_PEER_ADDRESS=" + local(v.Listen), "CORE_PEER_FILESYSTEMPATH=" + n.Folder(v),
		"CORE_PEER_TLS_ENABLED=true", "CORE_PEER_TLS_ROOTCERT_FILE=" + filepath.Join(n.path(v.TLS), "ca.crt"),
		"ORDERER_CA=" + filepath.Join(n.path(n.Orderers()[0].TLS), "ca.crt"), "ORDERER_ADDRESS=" + local(n.Orderers()[0].GRPC),
	}
}

// Quote makes a value one word of a shell.
func Quote(value string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+"
	if value != "" && strings.Trim(value, safe) == "" {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}
