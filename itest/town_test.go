package itest

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel/genesis"
	"grapevine/channel/update"
	"grapevine/election"
	"grapevine/itest/figures"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/node"
	"grapevine/orderer"
)

// A town is a channel with three orderers on Raft and three organisations of two
// peers each, all real nodes on loopback and on disk, and a load that doesn't end
// before the play does.
type town struct {
	t        testing.TB
	ctx      context.Context
	ordering *ca.Org
	orgs     []*ca.Org // those that the channel begins with, and one more
	genesis  *common.Block
	orderers []*node.Orderer
	peers    []*resident
	listen   func(i int) []string
	endpoint func(i int) string

	mu        sync.Mutex
	endorsers []msp.Signer  // one of each organisation; owned by mu
	taken     []string      // transactions that were acknowledged; owned by mu
	slowest   time.Duration // owned by mu

	figures figures.Records
}

// A resident is a peer of a town.
type resident struct {
	*node.Node
	channel *node.Channel
	name    string
	org     int
	key     crypto.Signer
	counts  *prometheus.Registry
	traffic *traffic

	mu      sync.Mutex
	configs map[uint64]time.Time // when a configuration block was committed; owned by mu
}

// traffic counts the bytes that came to a host, by who sent them.
type traffic struct {
	metrics.Reporter
	mu sync.Mutex
	in map[peer.ID]int64 // owned by mu
}

func newTraffic() *traffic {
	return &traffic{Reporter: metrics.NewBandwidthCounter(), in: map[peer.ID]int64{}}
}

// LogRecvMessageStream is told of each read of a stream.
func (c *traffic) LogRecvMessageStream(n int64, _ protocol.ID, p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in[p] += n
}

func (c *traffic) from(p peer.ID) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in[p]
}

const perOrg = 2 // peers of an organisation

func newTown(t testing.TB, ctx context.Context) *town {
	t.Helper()
	return newTownOf(t, ctx, 3, nil)
}

// newTownOf has some orderers, which cut blocks by batch; nil: by the default.
func newTownOf(t testing.TB, ctx context.Context, orderers int, batch *ab.BatchSize) *town {
	t.Helper()
	w := &town{t: t, ctx: ctx}
	now := time.Now()
	var err error
	w.ordering, err = ca.NewOrg("OrdererMSP", "orderer", now)
	require.NoError(t, err)
	consenting, seats := loopback(t, orderers)
	_, serving := loopback(t, orderers)
	w.listen, w.endpoint = loopback(t, 4*perOrg)
	p := genesis.Profile{Channel: ChannelName, Batch: batch, Timeout: 50 * time.Millisecond, Time: now}
	oo := genesis.Org{Name: "OrdererOrg", MSP: w.ordering.MSPConfig()}
	var certs []tls.Certificate
	for i := range orderers {
		cert, err := w.ordering.TLS(fmt.Sprintf("orderer%d", i), "localhost", "127.0.0.1")
		require.NoError(t, err)
		certs = append(certs, cert)
		host, text, err := net.SplitHostPort(seats(i))
		require.NoError(t, err)
		port, err := strconv.ParseUint(text, 10, 16)
		require.NoError(t, err)
		oo.Endpoints = append(oo.Endpoints, serving(i))
		p.Consenters = append(p.Consenters, genesis.Consenter{Host: host, Port: uint32(port), ServerTLS: pemOf(cert.Certificate[0])})
	}
	p.Orderers = []genesis.Org{oo}
	for i := range 4 {
		o, err := ca.NewOrg(fmt.Sprintf("Org%dMSP", i+1), fmt.Sprintf("org%d", i+1), now)
		require.NoError(t, err)
		w.orgs = append(w.orgs, o)
		e, err := o.Identity("endorser."+o.Domain, "peer")
		require.NoError(t, err)
		w.endorsers = append(w.endorsers, e)
		if i < 3 {
			p.Orgs = append(p.Orgs, w.group(i))
		}
	}
	w.genesis, err = genesis.Block(p)
	require.NoError(t, err)

	m, err := definition(w.ordering)
	require.NoError(t, err)
	for i := range orderers {
		signer, err := w.ordering.Identity(fmt.Sprintf("orderer%d", i), "orderer")
		require.NoError(t, err)
		o, err := node.OpenOrderer(node.OrdererConfig{
			Dir: t.TempDir(), Name: signer.Identity().Name(), NetworkID: "test", Signer: signer, MSP: m, Log: testLog(),
			Listen: consenting(i), Address: serving(i), Certificate: certs[i],
		})
		require.NoError(t, err)
		require.NoError(t, o.Join(w.genesis))
		w.run(o.Run, o.Close)
		w.orderers = append(w.orderers, o)
	}
	for k := range perOrg {
		for org := range 3 {
			w.settle(org, k)
		}
	}
	a, err := w.client(1).Submit(ctx, w.transaction(tx.Lifecycle, tx.Proposal{RWSet: tx.Define("kv")}))
	require.NoError(t, err)
	require.Equal(t, common.Status_SUCCESS, a.Status)
	return w
}

// run runs a node until the test ends.
func (w *town) run(f func(context.Context) error, end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, errors.Join(<-ended, end()))
	})
}

// group is an organisation as the configuration has it.
func (w *town) group(org int) genesis.Org {
	o := w.orgs[org]
	return genesis.Org{Name: o.Domain, MSP: o.MSPConfig(), Anchors: []string{w.endpoint(org)}}
}

// settle starts peer k of an organisation, which joins by block 0.
func (w *town) settle(org, k int) *resident {
	w.t.Helper()
	o := w.orgs[org]
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(w.t, err)
	p := &resident{name: fmt.Sprintf("peer%d.%s", k, o.Domain), org: org, key: key, counts: prometheus.NewRegistry(), traffic: newTraffic(), configs: map[uint64]time.Time{}}
	m, err := definition(o)
	require.NoError(w.t, err)
	i := org + 4*k
	cfg := node.Default()
	cfg.Dir, cfg.Name, cfg.NetworkID, cfg.Signer, cfg.MSP = w.t.TempDir(), p.name, "test", w.certify(o, o.CA, p), m
	cfg.Listen, cfg.ExternalEndpoint, cfg.Log, cfg.Metrics = w.listen(i), w.endpoint(i), testLog(), p.counts
	cfg.Leader = election.Dynamic
	cfg.Libp2p = []libp2p.Option{libp2p.BandwidthReporter(p.traffic)}
	if k > 0 {
		cfg.Bootstrap = []string{w.endpoint(org)}
	}
	p.Node, err = node.Open(cfg)
	require.NoError(w.t, err)
	p.channel, err = p.Join(w.ctx, w.genesis)
	require.NoError(w.t, err)
	w.run(p.Run, p.Close)
	go p.watch(w.ctx, p.channel)
	w.peers = append(w.peers, p)
	return p
}

// watch notes when configurations are committed.
func (p *resident) watch(ctx context.Context, ch *node.Channel) {
	for b, err := range ch.Blocks(ctx, 1) {
		if err != nil {
			return
		}
		if block.IsConfig(b) {
			p.mu.Lock()
			p.configs[b.Header.Number] = time.Now()
			p.mu.Unlock()
		}
	}
}

// certify gives a resident's key a certificate of one of its organisation's CAs.
func (w *town) certify(o *ca.Org, by *ca.CA, p *resident) msp.Signer {
	w.t.Helper()
	der, err := by.Issue(ca.Request{CN: p.name, OU: []string{"peer"}, Key: p.key.Public()})
	require.NoError(w.t, err)
	id, err := msp.FromDER(o.MSPID, der)
	require.NoError(w.t, err)
	s, err := msp.NewSigner(id, p.key)
	require.NoError(w.t, err)
	return s
}

// client is a user's way to the orderers.
func (w *town) client(org int) *orderer.Client {
	w.t.Helper()
	who, err := w.orgs[org].Identity("User1@"+w.orgs[org].Domain, "client")
	require.NoError(w.t, err)
	return orderer.NewClient(orderer.ClientConfig{Channel: ChannelName, Signer: who, Endpoints: func() (all []orderer.Endpoint) {
		for _, o := range w.orderers {
			all = append(all, orderer.Endpoint{Address: o.Address(), Roots: w.ordering.TLSPool()})
		}
		return all
	}})
}

// transaction is one of the second organisation's user, endorsed by the three
// that the channel began with.
func (w *town) transaction(chaincode string, p tx.Proposal) *common.Envelope {
	w.t.Helper()
	who, err := w.orgs[1].Identity("User1@org2", "client")
	require.NoError(w.t, err)
	return w.transactionOf(who, chaincode, p)
}

func (w *town) transactionOf(who msp.Signer, chaincode string, p tx.Proposal) *common.Envelope {
	w.mu.Lock()
	p.Endorsers = append([]msp.Signer{}, w.endorsers[:3]...)
	w.mu.Unlock()
	p.Channel, p.Chaincode, p.Creator, p.Time = ChannelName, chaincode, who, time.Now()
	env, _, err := tx.Endorse(p)
	require.NoError(w.t, err)
	return env
}

// load submits transactions until the returned function is called, which waits
// for the answers.
func (w *town) load(perSecond float64) (end func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	who, err := w.orgs[1].Identity("User1@org2", "client")
	require.NoError(w.t, err)
	client := w.client(1)
	envs := make(chan *common.Envelope)
	var under struct { // way
		sync.Mutex
		ids []string
		at  []time.Time
	}
	var g sync.WaitGroup
	g.Go(func() {
		defer close(envs)
		limit := rate.NewLimiter(rate.Limit(perSecond), 1)
		for i := 0; limit.Wait(ctx) == nil; i++ {
			env := w.transactionOf(who, "kv", tx.Proposal{RWSet: tx.Write("kv", fmt.Sprint(i), make([]byte, 200))})
			h, _, err := block.Header(env)
			require.NoError(w.t, err)
			under.Lock()
			under.ids, under.at = append(under.ids, h.TxId), append(under.at, time.Now())
			under.Unlock()
			select {
			case envs <- env:
			case <-w.ctx.Done():
				return
			}
		}
	})
	g.Go(func() {
		for a, err := range client.Broadcast(w.ctx, envs) {
			if err != nil {
				return
			}
			under.Lock()
			id, at := under.ids[0], under.at[0]
			under.ids, under.at = under.ids[1:], under.at[1:]
			under.Unlock()
			w.mu.Lock()
			w.slowest = max(w.slowest, time.Since(at))
			if a.Status == common.Status_SUCCESS {
				w.taken = append(w.taken, id)
			} else {
				w.t.Errorf("a transaction is answered %v: %s", a.Status, a.Info)
			}
			w.mu.Unlock()
		}
	})
	return func() {
		cancel()
		g.Wait()
	}
}

// change has the configuration changed, as administrators of organisations ask,
// and returns its block's number.
func (w *town) change(edit update.Edit, orgs ...int) uint64 {
	w.t.Helper()
	_, conf, err := w.orderers[0].Channel(ChannelName)
	require.NoError(w.t, err)
	before := conf.Sequence()
	for _, o := range w.orderers { // one may still be at the configuration before
		require.NoError(w.t, until(w.ctx, func() bool {
			_, at, err := o.Channel(ChannelName)
			return err == nil && at.Sequence() >= before
		}))
	}
	env, err := update.Make(ChannelName, conf.Content(), edit)
	require.NoError(w.t, err)
	var admin msp.Signer
	for _, i := range orgs {
		admin, err = w.orgs[i].Identity("Admin@"+w.orgs[i].Domain, "admin")
		require.NoError(w.t, err)
		env, err = update.Sign(env, admin)
		require.NoError(w.t, err)
	}
	env, err = update.Seal(env, admin, time.Now())
	require.NoError(w.t, err)
	a, err := w.client(1).Submit(w.ctx, env)
	require.NoError(w.t, err)
	require.Equal(w.t, common.Status_SUCCESS, a.Status, a.Info)
	require.NoError(w.t, until(w.ctx, func() bool {
		_, conf, err = w.orderers[0].Channel(ChannelName)
		return err == nil && conf.Sequence() > before
	}))
	return conf.Number()
}

// holds says whether a peer has an open connection to another, counts it among
// the channel's, or passes blocks on to it.
func (p *resident) holds(other peer.ID) bool {
	for _, q := range append(p.channel.Connected(), p.channel.Traffic().Mesh.Mesh...) {
		if q == other {
			return true
		}
	}
	return false
}

func (p *resident) reaches(other peer.ID) bool {
	return p.Host().Network().Connectedness(other) == network.Connected
}

// An effect is what follows the commit of a configuration.
type effect struct {
	what string
	most time.Duration // that the promise allows
	at   []*resident
	from *resident // whose commit counts; nil: each one's own
	ok   func(*resident) bool
}

// measure waits, from the commit of a configuration, until effects are there, and
// notes the longest time of each.
func (w *town) measure(number uint64, effects ...effect) {
	w.t.Helper()
	var g sync.WaitGroup
	took := make([]time.Duration, len(effects))
	var mu sync.Mutex // of took and failed
	var failed error
	for i, e := range effects {
		for _, p := range e.at {
			g.Go(func() {
				began, err := w.committed(cmp.Or(e.from, p), number)
				if err == nil {
					err = until(w.ctx, func() bool { return e.ok(p) })
				}
				d := time.Since(began)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = fmt.Errorf("%s: %s: %w", e.what, p.name, err)
				}
				took[i] = max(took[i], d)
			})
		}
	}
	g.Wait()
	require.NoError(w.t, failed)
	for i, e := range effects {
		w.t.Logf("%-58s %6.0f ms (promised: %v)", e.what, figures.Millis(took[i]), e.most)
		w.figures.Add("changes/"+e.what, map[string]any{"orgs": 3, "peers": perOrg, "orderers": 3, "rate": 200}, "ms", figures.Millis(took[i]))
	}
}

// committed is when a peer had a configuration block.
func (w *town) committed(p *resident, number uint64) (at time.Time, err error) {
	err = until(w.ctx, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		at = p.configs[number]
		return !at.IsZero()
	})
	return at, err
}

// of are the peers of organisations.
func (w *town) of(orgs ...int) (all []*resident) {
	for _, p := range w.peers {
		for _, o := range orgs {
			if p.org == o {
				all = append(all, p)
			}
		}
	}
	return all
}

// height is how many blocks the first orderer has.
func (w *town) height() uint64 {
	led, _, err := w.orderers[0].Channel(ChannelName)
	require.NoError(w.t, err)
	return led.Height()
}
