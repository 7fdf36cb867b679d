// Package serve runs a node as a program does: it makes the node of a
// configuration, and beside it the admin socket and the operations listener.
// The start verbs use it, and the development network inside one process.
package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
	"grapevine/election"
	"grapevine/msp"
	"grapevine/node"
)

// An Identity is what an MSP folder gives a node.
type Identity struct {
	Signer msp.Signer
	Chain  [][]byte
	MSP    *msp.MSP
}

// LoadIdentity reads a node's MSP folder. What the folder's definition warns of
// is logged.
func LoadIdentity(mspID, dir string, log *slog.Logger) (*Identity, error) {
	signer, err := msp.Load(mspID, dir)
	if err != nil {
		return nil, fmt.Errorf("loading the signing identity: %w", err)
	}
	chain, err := msp.LoadChain(dir)
	if err != nil {
		return nil, fmt.Errorf("loading the intermediate certificates: %w", err)
	}
	def, warnings, err := msp.LoadConfig(mspID, dir)
	if err != nil {
		return nil, fmt.Errorf("loading the organisation's definition: %w", err)
	}
	m, err := msp.New(def, msp.Features{NodeOUs: true, Ed25519: true})
	if err != nil {
		return nil, fmt.Errorf("reading the organisation's definition in %s: %w", dir, err)
	}
	for _, w := range append(warnings, m.Warnings()...) {
		log.Warn(w.Message, "code", w.Code, "folder", dir)
	}
	if err := m.ValidateLive(signer.Identity(), chain, time.Now()); err != nil {
		return nil, refused(dir, signer.Identity(), err)
	}
	return &Identity{signer, chain, m}, nil
}

// refused says which certificate the node's own organisation doesn't accept: no
// other node would, either.
func refused(dir string, id *msp.Identity, err error) error {
	e := fault.Of(err)
	c := id.Certificate()
	return fault.Newf(e.Code, "the signing certificate in %s is refused: %s", dir, e.Message).From(err).
		Because("it is "+c.Subject.String(), "issued by "+c.Issuer.String(),
			fmt.Sprintf("valid from %s until %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)))
}

// administrator says whether a connection's verified client certificate is that
// of an administrator of the node's own organisation.
func (i *Identity) administrator(c *tls.ConnectionState) bool {
	if c == nil || len(c.VerifiedChains) == 0 {
		return false
	}
	id, err := msp.FromDER(i.MSP.ID(), c.PeerCertificates[0].Raw)
	if err != nil {
		return false
	}
	var between [][]byte
	for _, v := range c.PeerCertificates[1:] {
		between = append(between, v.Raw)
	}
	if i.MSP.ValidateLive(id, between, time.Now()) != nil {
		return false
	}
	role, err := proto.Marshal(&mspproto.MSPRole{MspIdentifier: i.MSP.ID(), Role: mspproto.MSPRole_ADMIN})
	return err == nil && i.MSP.Satisfies(id, &mspproto.MSPPrincipal{PrincipalClassification: mspproto.MSPPrincipal_ROLE, Principal: role}) == nil
}

// modes are how a peer comes to lead.
var modes = map[conf.Mode]election.Mode{conf.Dynamic: election.Dynamic, conf.Static: election.Static, conf.Standby: election.Standby}

// Peer runs a peer until ctx ends.
func Peer(ctx context.Context, c *conf.Peer, b admin.Build, log *Log) error {
	return runPeer(ctx, c, b, log, false)
}

// Relay runs a peer whose work is to serve Fabric peers, until ctx ends.
func Relay(ctx context.Context, c *conf.Peer, b admin.Build, log *Log) error {
	if c.Relay.Listen == "" && len(c.Relay.Fronts) == 0 {
		return fault.New("FAB001", "")
	}
	return runPeer(ctx, c, b, log, true)
}

func runPeer(ctx context.Context, c *conf.Peer, b admin.Build, log *Log, relay bool) error {
	who, err := newMSPFolder(c.MSPID, c.MSPDir, log)
	if err != nil {
		return err
	}
	id, watched := who.now.Load(), &watching{log: log}
	watched.files = append(watched.files, who.files)
	overrides, err := watched.overrides(c.Deliver.Overrides)
	if err != nil {
		return err
	}
	cert, err := watched.clientCertificate(c.TLS)
	if err != nil {
		return err
	}
	reg := registry()
	cfg := node.Default()
	cfg.Dir, cfg.Name, cfg.NetworkID = c.Dir, c.ID, c.NetworkID
	cfg.Signer, cfg.Chain, cfg.MSP = id.Signer, id.Chain, id.MSP
	cfg.Listen, cfg.Endpoint, cfg.ExternalEndpoint, cfg.Bootstrap = c.Listen, c.Address, c.External, c.Bootstrap
	cfg.Version = b.Version
	cfg.Leader, cfg.Quiet, cfg.Judge = modes[c.Mode], !c.Deliver.BlockGossip, c.Validity == "own"
	if c.Validity == "fabricPeer" {
		if c.FabricPeer == "" {
			return fault.New("FAB005", "")
		}
		cfg.FabricPeer = c.FabricPeer
	}
	cfg.Election = election.Timing{
		StartupGrace: c.Gossip.StartupGrace, Sample: c.Gossip.SampleInterval, LeaderAlive: c.Gossip.LeaderAlive,
		Election: c.Gossip.ElectionTime, Yield: c.Deliver.YieldAfter,
	}
	cfg.Orderers = node.OrdererClient{
		Overrides: overrides, Certificate: cert, DialTimeout: c.Deliver.ConnTimeout,
		MinBackoff: c.Deliver.BackoffMin, MaxBackoff: c.Deliver.BackoffMax, Stall: c.Deliver.Censorship, Simple: !c.Deliver.Cluster,
	}
	cfg.Transfer = node.Transfer{
		Off: !c.Gossip.Repair, Look: c.Gossip.CheckInterval, Quiet: c.Gossip.RepairTimeout, Tries: c.Gossip.RepairRetries,
		Slice: uint64(max(0, c.Gossip.RepairBatch)), Buffer: uint64(max(0, c.Gossip.RepairBuffer)),
	}
	cfg.Sync = node.SyncMode(c.Sync)
	cfg.Snapshots = node.Snapshots{
		Every: uint64(c.Snapshots.Every), Keep: c.Snapshots.Keep, Attested: c.Snapshots.Attested,
		Ahead: uint64(c.Snapshots.Ahead), Blocks: uint64(c.Snapshots.Blocks),
	}
	if cfg.Scrubs = (node.Scrubs{Every: c.Scrub.Every, Rate: int64(c.Scrub.Rate)}); c.Scrub.Every == 0 {
		cfg.Scrubs.Every = -1 // never
	}
	if c.Gossip.AliveInterval > 0 {
		cfg.Alive = c.Gossip.AliveInterval
	}
	cfg.Suspicion, cfg.Redial, cfg.Tries = c.Gossip.AliveExpiration, c.Gossip.Reconnect, c.Gossip.MaxConnectionAttempts
	if cfg.Clients, err = watched.clientServices(c); err != nil {
		return err
	}
	if cfg.Relay, err = watched.relayServices(c); err != nil {
		return err
	}
	if relay {
		cfg.Role = "relay"
	}
	cfg.Log, cfg.Metrics, cfg.HostMetrics = log.Logger, reg, reg
	n, err := node.Open(cfg)
	if err != nil {
		return startFault(err, c.Dir)
	}
	who.changed = n.Renew
	srv := &admin.Server{Peer: n, Build: b, Name: c.ID, Log: log.Logger}
	err = runAll(ctx, n.Run, who, srv, c.Dir, c.Operations, reg, log, watched.files)
	return closing(err, n.Close())
}

// clientServices are what fabricCompat.listenAddress asks for, over the TLS of
// peer.tls.
func (w *watching) clientServices(c *conf.Peer) (node.ClientServices, error) {
	out := node.ClientServices{Address: c.Compat, MaxStreams: c.DeliverStreams, TimeWindow: c.TimeWindow}
	if c.Compat == "" {
		return out, nil
	}
	if !c.TLS.Enabled {
		return out, fault.New(fault.Contradiction, "fabricCompat.listenAddress is set and peer.tls.enabled is false").
			Because("Fabric's clients are served over TLS only").
			Do("set peer.tls.enabled, cert.file and key.file (a tls/ folder of grapevine ca generate has them)")
	}
	var err error
	if out.Certificate, err = w.pair(c.TLS.Cert, c.TLS.Key); err != nil {
		return out, err
	}
	if c.TLS.ClientAuth {
		out.ClientRoots, err = w.pool(c.TLS.ClientRoots)
	}
	return out, err
}

// relayServices are what relay.listenAddress and relay.orderers ask for.
func (w *watching) relayServices(c *conf.Peer) (node.RelayServices, error) {
	out := node.RelayServices{MaxStreams: c.DeliverStreams, TimeWindow: c.TimeWindow}
	if c.Relay.Listen != "" {
		out.Fronts = append(out.Fronts, node.Front{Listen: c.Relay.Listen})
	}
	for _, f := range c.Relay.Fronts {
		out.Fronts = append(out.Fronts, node.Front{Listen: f.Listen, Orderer: f.From})
	}
	if len(out.Fronts) == 0 {
		return out, nil
	}
	if c.Relay.Cert == "" || c.Relay.Key == "" {
		return out, fault.New("FAB002", "")
	}
	var err error
	if out.Certificate, err = w.pair(c.Relay.Cert, c.Relay.Key); err != nil {
		return out, err
	}
	if c.TLS.Enabled && c.TLS.ClientAuth {
		out.ClientRoots, err = w.pool(c.TLS.ClientRoots)
	}
	return out, err
}

// runAll runs a node with its listeners; the first that fails ends all.
func runAll(ctx context.Context, run func(context.Context) error, id *mspFolder, srv *admin.Server, dir string, ops conf.Operations, reg *prometheus.Registry, log *Log, watched []*files, more ...func(context.Context) error) error {
	sock, err := admin.Listen(dir)
	if err != nil {
		return err
	}
	web, err := newOperations(ops, id, srv, reg, log)
	if err != nil {
		return closing(err, sock.Close())
	}
	if web != nil {
		srv.Operations = web.address()
		watched = append(watched, web.files...)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return run(ctx) })
	g.Go(func() error { return srv.Run(ctx, sock) })
	if web != nil {
		g.Go(func() error { return web.run(ctx) })
	}
	for _, f := range watched {
		g.Go(func() error { return f.watch(ctx) })
	}
	for _, f := range more {
		g.Go(func() error { return f(ctx) })
	}
	return g.Wait()
}

func registry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// watching collects the files that a node is made of and follows.
type watching struct {
	files []*files
	log   *Log
}

// pair loads a TLS certificate, and returns what tells its newest.
func (w *watching) pair(cert, key string) (func() *tls.Certificate, error) {
	p, err := newPair(cert, key, w.log)
	if err != nil {
		return nil, err
	}
	w.files = append(w.files, p.files)
	return p.now.Load, nil
}

// pool loads trusted certificates, and returns what tells the newest.
func (w *watching) pool(paths []string) (func() *x509.CertPool, error) {
	p, err := newPool(paths, w.log)
	if err != nil {
		return nil, err
	}
	w.files = append(w.files, p.files)
	return p.now.Load, nil
}

// overrides are the orderers' other addresses, with the roots in their files.
func (w *watching) overrides(list []conf.Override) (map[string]node.Override, error) {
	out := map[string]node.Override{}
	for _, o := range list {
		v := node.Override{Address: o.To}
		if o.CACertsFile != "" {
			var err error
			if v.Newest, err = w.pool([]string{o.CACertsFile}); err != nil {
				return nil, err
			}
		}
		out[o.From] = v
	}
	return out, nil
}

// clientCertificate is what the peer offers to an orderer's TLS, if it has one.
func (w *watching) clientCertificate(t conf.TLS) (func() *tls.Certificate, error) {
	if !t.Enabled || t.ClientCert == "" {
		return nil, nil
	}
	return w.pair(t.ClientCert, t.ClientKey)
}

func loadPair(cert, key string) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fault.Newf(fault.Unreadable, "the TLS certificate %s and key %s can't be used", cert, key).From(err)
	}
	return &c, nil
}

func loadPool(files []string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, fault.Newf(fault.Unreadable, "cannot read the CA certificates %s", f).From(err)
		}
		if !pool.AppendCertsFromPEM(raw) {
			return nil, fault.Newf(fault.Unreadable, "%s holds no CA certificate", f).Do("name a PEM file with at least one certificate")
		}
	}
	return pool, nil
}
