package itest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"

	"grapevine/block/tx"
	"grapevine/channel/update"
	"grapevine/itest/figures"
	"grapevine/msp"
	"grapevine/msp/ca"
)

// A running channel of three organisations changes while 200 transactions a
// second are ordered: an organisation with two peers comes, another goes, a third
// gets another CA, and a peer that leads is revoked. Who comes is in, who goes is
// cut: it gets no byte more, and what it sends is refused. Nothing that was
// acknowledged is lost, and all who stay hold the same.
func TestChannelChangesUnderLoad(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w := newTown(t, ctx)
	was := w.of(0, 1, 2)
	came := []*resident{w.settle(3, 0), w.settle(3, 1)}
	w.meet(was)
	end := w.load(200)
	require.NoError(t, until(ctx, func() bool { return w.height() > 20 }))

	// One comes. Its peers know block 0, and have tried all the while.
	number := w.change(update.AddOrg(w.group(3)), 0, 1)
	w.measure(number,
		effect{"added: connected to all", 5 * time.Second, came, was[0], func(p *resident) bool { return len(p.channel.Connected()) == len(w.peers)-1 }},
		effect{"added: has what the orderers have", 5 * time.Second, came, was[0], func(p *resident) bool {
			return p.channel.Ledger().Height() > number && p.channel.Ledger().Height() >= w.height()-1
		}},
	)

	// One goes.
	gone, stay := w.of(2), w.of(0, 1, 3)
	number = w.change(update.RemoveOrg("org3"), 0, 1, 3)
	w.measure(number,
		effect{"removed: connections, streams and mesh entries are closed", 2 * time.Second, stay, nil, func(p *resident) bool {
			return !slices.ContainsFunc(gone, func(g *resident) bool { return p.holds(g.PeerID()) || p.reaches(g.PeerID()) })
		}},
		effect{"removed: its stream from an orderer is ended", 2 * time.Second, stay[:1], nil, func(*resident) bool { return w.following() == 3 }},
	)
	removed := map[*resident]silence{}
	for _, g := range gone {
		removed[g] = w.quiet(g, stay)
		require.LessOrEqual(t, removed[g].height, number+1, "%s has a block behind the one that removes it", g.name)
	}
	w.refused(2)

	// One changes its CA: the new one beside the old, the peers' certificates under
	// it, the old one gone.
	org := w.orgs[0]
	next, err := ca.New("org1", "ca2.org1", ca.P256, time.Now())
	require.NoError(t, err)
	conf := org.MSPConfig()
	ous := conf.FabricNodeOus
	ous.ClientOuIdentifier.Certificate, ous.PeerOuIdentifier.Certificate, ous.AdminOuIdentifier.Certificate, ous.OrdererOuIdentifier.Certificate = nil, nil, nil, nil
	conf.RootCerts = append(conf.RootCerts, next.PEM())
	number = w.change(update.SetMSP(org.MSPID, conf), 0)
	both, err := msp.New(conf, msp.Features{NodeOUs: true})
	require.NoError(t, err)
	for _, p := range stay {
		_, err := w.committed(p, number)
		require.NoError(t, err)
	}
	w.endorse(0, next)
	for _, p := range w.of(0) {
		require.NoError(t, p.Renew(w.certify(org, next, p), nil, both))
	}
	shown := func(p *resident) bool {
		return !slices.ContainsFunc(w.of(0), func(q *resident) bool {
			id, ok := p.Identify(q.PeerID())
			return p != q && (!ok || id.Certificate().Issuer.CommonName != next.Name())
		})
	}
	w.measure(number, effect{"CA rotated: all are shown certificates of the new one", 5 * time.Second, stay, nil, shown})
	conf.RootCerts = [][]byte{next.PEM()}
	number = w.change(update.SetMSP(org.MSPID, conf), 0)
	w.measure(number, effect{"CA rotated: the old one is gone, all are connected", 5 * time.Second, stay, nil, func(p *resident) bool {
		return shown(p) && len(p.channel.Connected()) == len(stay)-1
	}})

	// A peer that leads is revoked.
	i := slices.IndexFunc(w.of(1), func(p *resident) bool { return p.channel.Election().Leading })
	require.GreaterOrEqual(t, i, 0)
	leader, other := w.of(1)[i], w.of(1)[1-i]
	require.NoError(t, w.orgs[1].CA.Revoke(leader.Identity().Certificate().SerialNumber, time.Now()))
	crl, err := w.orgs[1].CA.CRL(time.Now())
	require.NoError(t, err)
	stay = slices.DeleteFunc(slices.Clone(stay), func(p *resident) bool { return p == leader })
	number = w.change(update.Revoke("Org2MSP", crl), 1)
	w.measure(number,
		effect{"leader revoked: streams and mesh entries are closed", 2 * time.Second, stay, nil, func(p *resident) bool {
			return !p.holds(leader.PeerID()) && (p == other || !p.reaches(leader.PeerID()))
		}},
		effect{"leader revoked: another of its organisation pulls", 5 * time.Second, stay[:1], nil, func(*resident) bool {
			return other.channel.Election().Leading && other.channel.Status().Orderer != ""
		}},
	)
	removed[leader] = w.quiet(leader, stay)
	require.LessOrEqual(t, removed[leader].height, number+1)

	before := w.height()
	require.NoError(t, until(ctx, func() bool { return w.height() > before+5 }))
	end()
	w.same(stay)
	for g, then := range removed {
		now := w.quiet(g, then.from)
		require.Equal(t, then.height, now.height, "%s got a block since", g.name)
		require.Equal(t, then.bytes, now.bytes, "%s got something since", g.name)
	}
	lost, invalid := w.missing(stay[0])
	require.Zero(t, lost)
	require.Zero(t, invalid)
	t.Logf("%d transactions acknowledged, %d lost, %d invalid; the slowest answer took %v; %d blocks", len(w.taken), lost, invalid, w.slowest.Round(time.Millisecond), w.height())
	figures.Save(t, "channel-changes", w.figures)
}

// meet waits until peers are connected to one another.
func (w *town) meet(all []*resident) {
	w.t.Helper()
	for _, p := range all {
		require.NoError(w.t, until(w.ctx, func() bool { return len(p.channel.Connected()) == len(all)-1 }), p.name)
	}
}

// following is how many peers follow the orderers.
func (w *town) following() (n int) {
	for _, o := range w.orderers {
		n += o.Following()
	}
	return n
}

// A silence is what one that is cut had got by then.
type silence struct {
	height uint64
	bytes  int64       // of those
	from   []*resident // who stay
}

// quiet is that, once the connections that it had are closed on its side too. A
// fellow of its organisation keeps one, without a stream of the channel, and says
// on it that it speaks libp2p when it is asked for one: its bytes don't count.
func (w *town) quiet(g *resident, stay []*resident) silence {
	w.t.Helper()
	require.NoError(w.t, until(w.ctx, func() bool {
		return !slices.ContainsFunc(stay, func(p *resident) bool { return p.org != g.org && (g.reaches(p.PeerID()) || g.holds(p.PeerID())) })
	}), g.name)
	s := silence{height: g.channel.Ledger().Height(), from: stay}
	for _, p := range stay {
		if p.org != g.org {
			s.bytes += g.traffic.from(p.PeerID())
		}
	}
	return s
}

// refused holds that a user of an organisation that is gone can submit nothing,
// and that its peers get through no handshake.
func (w *town) refused(org int) {
	w.t.Helper()
	who, err := w.orgs[org].Identity("User2@"+w.orgs[org].Domain, "client")
	require.NoError(w.t, err)
	a, err := w.client(org).Submit(w.ctx, w.transactionOf(who, "kv", tx.Proposal{RWSet: tx.Write("kv", "k", []byte("v"))}))
	require.NoError(w.t, err)
	require.Equal(w.t, common.Status_BAD_REQUEST, a.Status, a.Info)
	for _, g := range w.of(org) {
		for _, p := range w.of(0, 1, 3) {
			_, _ = g.Connect(w.ctx, w.endpoint(p.org)) // it may learn of the refusal only later
			require.NoError(w.t, until(w.ctx, func() bool { return !p.reaches(g.PeerID()) }))
			require.False(w.t, p.holds(g.PeerID()))
		}
	}
}

// endorse gives an organisation's endorser a certificate of another CA.
func (w *town) endorse(org int, by *ca.CA) {
	w.t.Helper()
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(w.t, err)
	s := w.certify(w.orgs[org], by, &resident{name: "endorser." + w.orgs[org].Domain, key: key})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endorsers[org] = s
}

// same waits until all hold what the orderers hold, and in one world state.
func (w *town) same(all []*resident) {
	w.t.Helper()
	led, _, err := w.orderers[0].Channel(ChannelName)
	require.NoError(w.t, err)
	for _, o := range w.orderers[1:] {
		other, _, err := o.Channel(ChannelName)
		require.NoError(w.t, err)
		require.NoError(w.t, until(w.ctx, func() bool { return led.Tip() == other.Tip() }), "the orderers differ")
	}
	for _, p := range all {
		l := p.channel.Ledger()
		require.NoError(w.t, until(w.ctx, func() bool { return l.Tip() == led.Tip() && l.State().Height == led.Height() }), "%s at %d of %d", p.name, l.Height(), led.Height())
		require.Equal(w.t, all[0].channel.Ledger().State(), l.State(), p.name)
	}
}

// missing counts the acknowledged transactions that a ledger doesn't have, and
// those that took no effect.
func (w *town) missing(p *resident) (lost, invalid int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.taken {
		n, i, err := p.channel.Ledger().ByTxID(id)
		if err != nil {
			lost++
			continue
		}
		v, err := p.channel.Verdict(n)
		require.NoError(w.t, err)
		if code := peer.TxValidationCode(v.Codes[i]); code != peer.TxValidationCode_VALID {
			if invalid++; invalid < 10 {
				w.t.Logf("block %d, transaction %d: %v", n, i, code)
			}
		}
	}
	return lost, invalid
}
