// Package dev makes and runs a whole network on one machine: organisations with
// their CAs, peers, an ordering service and a channel, each node a process of
// its own, or all of them in one.
package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

// fileName marks a folder that dev up made.
const fileName = "network.json"

// maxOrderers is how many ordering nodes a network may have.
const maxOrderers = 7

// A Shape is what a network was asked to be.
type Shape struct {
	Orgs     int    `json:"orgs"`
	Peers    int    `json:"peers"` // per organisation
	Orderers int    `json:"orderers"`
	Channel  string `json:"channel"`
}

// DefaultShape is what dev up makes when nothing is asked.
func DefaultShape() Shape { return Shape{Orgs: 3, Peers: 3, Orderers: 3, Channel: "mychannel"} }

// Validate refuses shapes that can't be built.
func (s Shape) Validate() error {
	switch {
	case s.Orderers > maxOrderers:
		return fault.Newf("DEV006", "--orderers %d: at most %d agree in one cluster", s.Orderers, maxOrderers).
			Because("each block waits for most of them").Do("use --orderers 3, or 5")
	case s.Orgs < 1 || s.Orgs > 50 || s.Peers < 1 || s.Peers > 50 || s.Orderers < 1:
		return fault.Newf("DEV007", "%d organisations of %d peers and %d orderers can't be built", s.Orgs, s.Peers, s.Orderers).
			Do("use 1 to 50 organisations, 1 to 50 peers each, 1 to 7 orderers")
	}
	return admin.CheckChannel(s.Channel)
}

// A Node is one process of the network. Ports are on 127.0.0.1.
type Node struct {
	Name       string `json:"name"`
	Org        string `json:"org"`
	MSPID      string `json:"mspId"`
	Orderer    bool   `json:"orderer"`
	Anchor     bool   `json:"anchor"`
	MSP        string `json:"msp"`        // folder, below the network's
	TLS        string `json:"tls"`        // folder, below the network's
	Listen     int    `json:"listen"`     // libp2p, TCP and UDP
	GRPC       int    `json:"grpc"`       // orderers only
	Operations int    `json:"operations"` // HTTP
	Admin      int    `json:"admin"`      // orderers only: HTTP, for osnadmin
}

// A Network is what DIR/network.json records.
type Network struct {
	Shape     Shape  `json:"shape"`
	NetworkID string `json:"networkId"`
	InProcess bool   `json:"inProcess"`
	Nodes     []Node `json:"nodes"`

	dir     string
	hosting bool // the nodes live in this process
}

// DefaultDir is where a network lies unless --dir says otherwise. Getenv reads
// the user's environment.
func DefaultDir(getenv func(string) string) (string, error) {
	return userDir(getenv, "XDG_DATA_HOME", ".local/share", "dev")
}

// userDir is a folder of ours below one of the user's.
func userDir(getenv func(string) string, variable, usual, name string) (string, error) {
	if d := getenv(variable); d != "" {
		return filepath.Join(d, "grapevine", name), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, usual, "grapevine", name), nil
	}
	return "", fault.Newf("DEV001", "neither %s nor HOME says where networks lie", variable).Do("name the folder with --dir")
}

// Find reads the network in dir; DEV001 if there is none.
func Find(dir string) (*Network, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, fileName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.Newf("DEV001", "no dev network in %s", dir).Do("grapevine dev up --dir " + Quote(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the network: %w", err)
	}
	n := &Network{dir: dir}
	if err := json.Unmarshal(raw, n); err != nil {
		return nil, fault.Newf("DEV002", "%s is damaged", filepath.Join(dir, fileName)).From(err).
			Do("remove the folder " + dir + " and run grapevine dev up")
	}
	return n, nil
}

func (n *Network) save() error {
	raw, err := json.MarshalIndent(n, "", " ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(n.dir, fileName), append(raw, '\n'), 0o644)
}

// Dir is the network's folder.
func (n *Network) Dir() string { return n.dir }

// verb is a dev verb on this network, as a person would type it.
func (n *Network) verb(words string) string {
	return "grapevine dev " + words + " --dir " + Quote(n.dir)
}

// Node returns the node of a name; DEV004 if there is none.
func (n *Network) Node(name string) (*Node, error) {
	for i := range n.Nodes {
		if n.Nodes[i].Name == name {
			return &n.Nodes[i], nil
		}
	}
	return nil, fault.Newf("DEV004", "no node %q in this network", name).Because("it has " + strings.Join(n.Names(), ", "))
}

// Names are those of all nodes.
func (n *Network) Names() []string {
	var out []string
	for _, v := range n.Nodes {
		out = append(out, v.Name)
	}
	return out
}

// Peers are the nodes that are peers, in the order of their names.
func (n *Network) Peers() []*Node { return n.kind(false) }

// Orderers are the others, in the same order.
func (n *Network) Orderers() []*Node { return n.kind(true) }

func (n *Network) kind(orderer bool) (out []*Node) {
	for i := range n.Nodes {
		if n.Nodes[i].Orderer == orderer {
			out = append(out, &n.Nodes[i])
		}
	}
	return out
}

// Folder is where a node keeps its data, log, pid and admin socket.
func (n *Network) Folder(v *Node) string { return filepath.Join(n.dir, v.Name) }

// GenesisFile is the channel's genesis block.
func (n *Network) GenesisFile() string { return filepath.Join(n.dir, n.Shape.Channel+".block") }

func (n *Network) path(rel string) string { return filepath.Join(n.dir, filepath.FromSlash(rel)) }

// ports finds count free ones on 127.0.0.1, free for TCP and UDP, below 32768:
// an outgoing connection can't take them while a node is down.
func ports(count int) ([]int, error) {
	var out []int
	for p := 20000 + os.Getpid()%8000; len(out) < count; p++ {
		if p >= 32768 {
			return nil, fault.New("DEV009", "no free ports below 32768 on 127.0.0.1").Do("stop what listens there")
		}
		if free(p) {
			out = append(out, p)
		}
	}
	return out, nil
}

func free(port int) bool {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer func() { _ = l.Close() }() // nobody connected
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	return u.Close() == nil
}
