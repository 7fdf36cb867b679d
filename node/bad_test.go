package node

import (
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/msp/ca"
	"grapevine/wire"
)

// What an operator can get wrong is refused when the node opens, by an error
// that says which thing it is, and leaves no lock, socket or goroutine behind.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer udp.Close()
	_, taken, err := net.SplitHostPort(tcp.Addr().String())
	require.NoError(t, err)
	_, takenUDP, err := net.SplitHostPort(udp.LocalAddr().String())
	require.NoError(t, err)
	rsa, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	require.NoError(t, err)
	other, err := crypto.MarshalPrivateKey(rsa)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	hostKey := func(c *Config, b []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(c.Dir, "host.key"), b, 0o600))
	}
	for _, c := range []struct {
		name string
		edit func(c *Config)
		is   error
		says string
	}{
		{"empty configuration", func(c *Config) { *c = Config{} }, nil, "Signer is nil"},
		{"no listener", func(c *Config) { c.Listen = nil }, nil, "Listen is empty"},
		{"not a multiaddr", func(c *Config) { c.Listen = []string{"127.0.0.1:7051"} }, nil, "no multiaddr"},
		{"endpoint", func(c *Config) { c.ExternalEndpoint = "here" }, nil, "host:port"},
		{"bootstrap", func(c *Config) { c.Bootstrap = []string{"here"} }, nil, "Bootstrap"},
		{"binding too short", func(c *Config) { c.BindingLife = time.Minute }, nil, "BindingLife"},
		{"binding too long", func(c *Config) { c.BindingLife = 48 * time.Hour }, nil, "BindingLife"},
		{"folder is a file", func(c *Config) { c.Dir = file }, syscall.ENOTDIR, file},
		{"folder below a file", func(c *Config) { c.Dir = filepath.Join(file, "data") }, syscall.ENOTDIR, file},
		{"host key is empty", func(c *Config) { hostKey(c, nil) }, nil, "host.key"},
		{"host key is garbage", func(c *Config) { hostKey(c, []byte("not a key")) }, nil, "host.key"},
		{"host key is RSA", func(c *Config) { hostKey(c, other) }, nil, "not an Ed25519 key"},
		{"host key is a folder", func(c *Config) { require.NoError(t, os.Mkdir(filepath.Join(c.Dir, "host.key"), 0o700)) }, syscall.EISDIR, "host.key"},
		{"TCP port in use", func(c *Config) {
			c.Listen = []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/" + taken}
		}, syscall.EADDRINUSE, "/tcp/" + taken},
		{"UDP port in use", func(c *Config) {
			c.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/" + takenUDP + "/quic-v1"}
		}, syscall.EADDRINUSE, "/udp/" + takenUDP},
		{"not our address", func(c *Config) { c.Listen = []string{"/ip4/192.0.2.1/tcp/0"} }, syscall.EADDRNOTAVAIL, "192.0.2.1"},
		{"certificate has ended", func(c *Config) {
			c.Signer = w.signed(0, ca.Request{CN: "peer0.org1", NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
		}, nil, "its certificate ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, reg := w.config(0, "peer0.org1")
			c.edit(&cfg)
			n, err := Open(cfg)
			require.Nil(t, n)
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			left, err := reg.Gather()
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
	t.Run("unreadable", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root reads everything")
		}
		cfg, _ := w.config(0, "peer0.org1")
		require.NoError(t, os.Chmod(cfg.Dir, 0))
		_, err := Open(cfg)
		require.ErrorIs(t, err, os.ErrPermission)
	})
	t.Run("opens once it is mended", func(t *testing.T) {
		cfg, _ := w.config(0, "peer0.org1")
		cfg.Listen = []string{"/ip4/127.0.0.1/tcp/" + taken}
		_, err := Open(cfg)
		require.Error(t, err)
		require.NoError(t, tcp.Close())
		start(t, cfg, w.genesis("mychannel", 0))
	})
}

// What isn't a genesis block is refused with its reason, and changes nothing.
func TestBadGenesis(t *testing.T) {
	w := newWorld(t)
	cfg, _ := w.config(0, "peer0.org1")
	n := start(t, cfg)
	good := w.genesis("mychannel", 0, 1)
	second := &common.Block{
		Header: &common.BlockHeader{Number: 1, PreviousHash: []byte("previous"), DataHash: good.Header.DataHash},
		Data:   good.Data, Metadata: good.Metadata,
	}
	for name, b := range map[string]*common.Block{
		"nil":           nil,
		"empty":         {},
		"no data":       {Header: good.Header, Metadata: good.Metadata},
		"another block": second,
		"data changed": {
			Header: good.Header, Metadata: good.Metadata,
			Data: &common.BlockData{Data: [][]byte{append([]byte{0}, good.Data.Data[0]...)}},
		},
		"garbage": func() *common.Block {
			d := &common.BlockData{Data: [][]byte{[]byte("garbage")}}
			sum := block.DataHash(d)
			return &common.Block{Header: &common.BlockHeader{DataHash: sum[:]}, Data: d, Metadata: good.Metadata}
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.Join(t.Context(), b)
			require.Error(t, err)
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
			require.Empty(t, n.Channels())
			require.Empty(t, n.db.Channels())
		})
	}
	_, err := n.Join(t.Context(), good)
	require.NoError(t, err)
}
