package orderer_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel"
	"grapevine/channel/genesis"
	"grapevine/deliver"
	"grapevine/ledger"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/orderer"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if after, err := strconv.ParseInt(os.Getenv(childDamage), 10, 64); err == nil {
			runBroken(dir, after)
		} else {
			runChild(dir)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// tb is what of testing.TB the world needs, so that a child process can have one too.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	FailNow()
}

// world is two organisations and a channel that one of them orders for the other.
type world struct {
	t               tb
	orderers, peers *ca.Org
	strangers       *ca.Org // of no channel
	signer          msp.Signer
	client          msp.Signer
	keys            map[string][]byte // PEM of certificate and key of signer and client, by common name
	genesis         *common.Block
	config          *channel.Config
	seats           []tls.Certificate // of the consenters, in the configuration's order
}

const channelName = "mychannel"

// newWorld has a channel with one consenter.
func newWorld(t testing.TB, batch *ab.BatchSize, timeout time.Duration) *world {
	t.Helper()
	return newWorldOf(t, 1, batch, timeout)
}

func newWorldOf(t testing.TB, consenters int, batch *ab.BatchSize, timeout time.Duration) *world {
	t.Helper()
	w := &world{t: t, keys: make(map[string][]byte)}
	now := time.Now()
	org := func(id, domain string) *ca.Org {
		o, err := ca.NewOrg(id, domain, now)
		require.NoError(t, err)
		return o
	}
	w.orderers, w.peers, w.strangers = org("OrdererMSP", "example.com"), org("Org1MSP", "org1.example.com"), org("Org9MSP", "org9.example.com")
	w.signer = w.identity(w.orderers, "orderer1", "orderer")
	w.client = w.identity(w.peers, "User1", "client")
	var listed []genesis.Consenter
	for i := range consenters {
		listed = append(listed, w.seat(i))
	}
	b, err := genesis.Block(genesis.Profile{
		Channel:    channelName,
		Orderers:   []genesis.Org{{Name: "Orderer", MSP: w.orderers.MSPConfig(), Endpoints: []string{"127.0.0.1:7050"}}},
		Orgs:       []genesis.Org{{Name: "Org1", MSP: w.peers.MSPConfig()}},
		Consenters: listed,
		Batch:      batch, Timeout: timeout, Time: now,
	})
	require.NoError(t, err)
	w.genesis = b
	w.config, err = channel.Parse(b)
	require.NoError(t, err)
	return w
}

// seat makes the TLS certificate of one more consenter.
func (w *world) seat(i int) genesis.Consenter {
	w.t.Helper()
	cert, text := w.tls(w.orderers)
	w.seats = append(w.seats, cert)
	return genesis.Consenter{Host: "127.0.0.1", Port: uint32(7051 + i), ServerTLS: text}
}

// keys are those by which a consenter is known.
func keys(c tls.Certificate) func() []orderer.Key {
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		panic(err)
	}
	return func() []orderer.Key { return []orderer.Key{orderer.KeyOf(leaf)} }
}

func (w *world) identity(o *ca.Org, cn, ou string) msp.Signer {
	w.t.Helper()
	cert, key, err := o.CA.Pair(ca.Request{CN: cn, OU: []string{ou}}, ca.P256)
	require.NoError(w.t, err)
	w.keys[cn] = append(cert, key...)
	return w.load(o.MSPID, w.keys[cn])
}

// load makes a signer of a certificate and a key, PEM.
func (w *world) load(mspID string, text []byte) msp.Signer {
	w.t.Helper()
	cert, rest := pem.Decode(text)
	id, err := msp.FromDER(mspID, cert.Bytes)
	require.NoError(w.t, err)
	block, _ := pem.Decode(rest)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(w.t, err)
	s, err := msp.NewSigner(id, key.(crypto.Signer))
	require.NoError(w.t, err)
	return s
}

// tls issues a certificate for loopback.
func (w *world) tls(o *ca.Org) (tls.Certificate, []byte) {
	w.t.Helper()
	cert, err := o.TLS("localhost", "localhost", "127.0.0.1")
	require.NoError(w.t, err)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
}

// tx is an envelope of the world's client, with a value of size bytes.
func (w *world) tx(i, size int) *common.Envelope {
	w.t.Helper()
	return w.txBy(w.client, i, size)
}

func (w *world) txBy(who msp.Signer, i, size int) *common.Envelope {
	w.t.Helper()
	data := &mspproto.SerializedIdentity{Mspid: fmt.Sprint(i), IdBytes: make([]byte, size)}
	env, err := tx.SignedEnvelope(common.HeaderType_ENDORSER_TRANSACTION, channelName, data, who, time.Now())
	require.NoError(w.t, err)
	return env
}

// node is one orderer over a folder: ledger, chain, server.
type node struct {
	world  *world
	db     *ledger.DB
	ledger *ledger.Ledger
	chain  *orderer.Chain
	addr   string
	roots  *x509.CertPool

	cancel context.CancelFunc
	ended  sync.WaitGroup
	ran    chan struct{} // closed when the chain's Run has returned
	err    error         // what it returned
}

// change alters what a node is made of.
type change func(*orderer.ChainConfig, *orderer.ServerConfig, *deliver.Handler)

// open opens the node in dir. Only its chain runs.
func (w *world) open(dir string, changes ...change) (*node, orderer.ServerConfig) {
	w.t.Helper()
	n := &node{world: w, ran: make(chan struct{})}
	var err error
	n.db, err = ledger.Open(dir+"/ledger", ledger.Options{})
	require.NoError(w.t, err)
	n.ledger, err = n.db.Channel(channelName)
	if errors.Is(err, ledger.ErrNotFound) {
		raw, merr := proto.Marshal(w.genesis)
		require.NoError(w.t, merr)
		v, verr := block.Genesis(raw)
		require.NoError(w.t, verr)
		n.ledger, err = n.db.Create(channelName, v)
	}
	require.NoError(w.t, err)

	chain := orderer.ChainConfig{
		Name: channelName, Channel: func() orderer.Channel { return w.config }, Ledger: n.ledger,
		Signer: w.signer, Dir: dir + "/raft", Keys: keys(w.seats[0]),
		Transient: func(err error) bool { return errors.Is(err, ledger.ErrFull) },
	}
	handler := &deliver.Handler{Channels: func(name string) (deliver.Channel, bool) {
		if name != channelName {
			return deliver.Channel{}, false
		}
		return deliver.Channel{Source: n.ledger, Access: w.access, Errored: n.chain.Errored}, true
	}}
	server := orderer.ServerConfig{
		Deliver: handler.Serve,
		Chains:  func(name string) (*orderer.Chain, bool) { return n.chain, name == channelName },
	}
	for _, f := range changes {
		f(&chain, &server, handler)
	}
	n.chain, err = orderer.NewChain(chain)
	require.NoError(w.t, err)
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	n.ended.Go(func() {
		defer close(n.ran)
		n.err = n.chain.Run(ctx)
	})
	return n, server
}

// start is open, with the node's server on loopback.
func (w *world) start(dir string, changes ...change) *node {
	w.t.Helper()
	n, conf := w.open(dir, changes...)
	n.serve(conf, w.orderers)
	return n
}

// serve runs a server under a certificate of org.
func (n *node) serve(conf orderer.ServerConfig, org *ca.Org) {
	n.world.t.Helper()
	n.serveAt(conf, org, "127.0.0.1:0")
}

func (n *node) serveAt(conf orderer.ServerConfig, org *ca.Org, address string) {
	t := n.world.t
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	n.addr, n.roots = l.Addr().String(), org.TLSPool()
	if conf.Certificate == nil {
		cert, _ := n.world.tls(org)
		conf.Certificate = func() *tls.Certificate { return &cert }
	}
	ctx, cancel := context.WithCancel(context.Background())
	chain := n.cancel
	n.cancel = func() { cancel(); chain() }
	n.ended.Go(func() {
		if err := orderer.NewServer(conf).Run(ctx, l); err != nil {
			t.Errorf("server: %v", err)
		}
	})
}

// ready waits until the node takes envelopes.
func (n *node) ready() *node {
	n.world.t.Helper()
	select {
	case <-n.chain.Ready():
	case <-time.After(10 * time.Second):
		n.world.t.Errorf("no leader")
		n.world.t.FailNow()
	}
	return n
}

// stop ends the node and returns what its chain ended with.
func (n *node) stop() error {
	n.world.t.Helper()
	n.cancel()
	n.ended.Wait()
	require.NoError(n.world.t, n.db.Close())
	return n.err
}

func (w *world) access() deliver.Access {
	return deliver.Access{
		Sequence: w.config.Sequence(), MSPs: w.config.MSPs(), Readers: w.config.Policy("/Channel/Readers"),
	}
}

// clientOf is a client of the given nodes.
func (w *world) clientOf(alter func(*orderer.ClientConfig), nodes ...*node) *orderer.Client {
	var all []orderer.Endpoint
	for _, n := range nodes {
		all = append(all, orderer.Endpoint{Address: n.addr, Roots: n.roots})
	}
	c := orderer.ClientConfig{
		Channel: channelName, Signer: w.client, Endpoints: func() []orderer.Endpoint { return all },
	}
	if alter != nil {
		alter(&c)
	}
	return orderer.NewClient(c)
}

// entries are all transactions of the ledger in order; every block is verified anew on the way.
func (n *node) entries() [][]byte {
	t := n.world.t
	t.Helper()
	raw, err := n.ledger.Block(0)
	require.NoError(t, err)
	first, err := block.Genesis(raw)
	require.NoError(t, err)
	tip := block.Tip{Height: 1, Hash: first.Hash()}
	var all [][]byte
	for raw, err := range n.ledger.Range(1, n.ledger.Height()) {
		require.NoError(t, err)
		c, err := block.Check(n.world.config.Rules(), append([]byte(nil), raw...))
		require.NoError(t, err)
		v, err := block.Verify(n.world.config.Rules(), tip, c)
		require.NoError(t, err)
		tip = block.Tip{Height: v.Number() + 1, Hash: v.Hash()}
		all = append(all, v.Block().Data.Data...)
	}
	require.Equal(t, n.ledger.Tip(), tip)
	return all
}

func ctxFor(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// signerOf is the common name of who signed a block.
func signerOf(t tb, raw []byte) string {
	t.Helper()
	var b common.Block
	var slot common.Metadata
	var header common.SignatureHeader
	require.NoError(t, proto.Unmarshal(raw, &b))
	require.NoError(t, proto.Unmarshal(b.Metadata.Metadata[0], &slot))
	require.Len(t, slot.Signatures, 1)
	require.NoError(t, proto.Unmarshal(slot.Signatures[0].SignatureHeader, &header))
	id, err := msp.Deserialize(header.Creator)
	require.NoError(t, err)
	return id.Certificate().Subject.CommonName
}
