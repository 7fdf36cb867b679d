package node

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/prometheus/client_golang/prometheus"

	"grapevine/election"
	"grapevine/membership"
	"grapevine/msp"
	"grapevine/wire"
)

// metrics are the node's figures. Fabric's names keep Fabric's meaning, so
// that alerts go on working.
type metrics struct {
	reg prometheus.Registerer
	all []prometheus.Collector

	rejected   *prometheus.CounterVec   // channel, reason
	handshakes *prometheus.CounterVec   // reason, transport
	height     *prometheus.GaugeVec     // channel
	chain      *prometheus.GaugeVec     // channel
	leader     *prometheus.GaugeVec     // channel
	changes    *prometheus.CounterVec   // channel
	leaderless *prometheus.CounterVec   // channel
	reconnects *prometheus.CounterVec   // channel
	left       *prometheus.CounterVec   // channel, reason
	passed     *prometheus.CounterVec   // channel, status
	known      *prometheus.GaugeVec     // channel
	members    *prometheus.GaugeVec     // channel, state
	happened   *prometheus.CounterVec   // channel, event
	wronged    *prometheus.CounterVec   // channel
	refuted    *prometheus.CounterVec   // channel
	probes     *prometheus.HistogramVec // channel
	judging    *prometheus.CounterVec   // channel
	judged     *prometheus.CounterVec   // channel
	commits    *prometheus.HistogramVec // channel
	expiry     *prometheus.GaugeVec     // use
	deliveries *deliveries
	snapshots  *snapshotFigures
}

func newMetrics(reg prometheus.Registerer, more ...prometheus.Collector) (*metrics, error) {
	m := &metrics{
		reg:        reg,
		rejected:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_rejected_total", Help: "Refused messages, each counted once, by reason."}, []string{"channel", "reason"}),
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_handshakes_refused_total", Help: "Handshakes refused, by reason and transport."}, []string{"reason", "transport"}),
		height:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gossip_state_height", Help: "Current ledger height."}, []string{"channel"}),
		chain:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ledger_blockchain_height", Help: "Height of the chain in blocks."}, []string{"channel"}),
		leader:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gossip_leader_election_leader", Help: "Peer is leader (1) or follower (0)."}, []string{"channel"}),
		changes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_leader_changes_total", Help: "Leaders of the own organisation that came, as this peer saw it: elected, or itself as a static one."}, []string{"channel"}),
		leaderless: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_leaderless_seconds_total", Help: "Time without an elected leader of the own organisation, as this peer saw it."}, []string{"channel"}),
		reconnects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_orderer_reconnects_total", Help: "Connections made to the ordering service."}, []string{"channel"}),
		left:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_orderer_left_total", Help: "Orderers left while blocks were pulled from them, or not reached, by reason."}, []string{"channel", "reason"}),
		passed:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_relay_forwarded_total", Help: "Envelopes handed on to an orderer, by its answer."}, []string{"channel", "status"}),
		known:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gossip_membership_total_peers_known", Help: "Total known peers."}, []string{"channel"}),
		members:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "grapevine_members", Help: "Members heard of, by what this peer believes of them; itself not included."}, []string{"channel", "state"}),
		happened:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_member_events_total", Help: "What happened to members."}, []string{"channel", "event"}),
		wronged:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_false_suspicions_total", Help: "Members that this peer suspected, or took for dead, and that turned out to live."}, []string{"channel"}),
		refuted:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_refutations_total", Help: "Accusations of this peer itself that it refuted with a newer signed message."}, []string{"channel"}),
	}
	m.judging = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_validation_seconds_total", Help: "Time spent judging transactions of blocks, signatures included; part of gossip_state_commit_duration."}, []string{"channel"})
	m.judged = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grapevine_validated_blocks_total", Help: "Blocks whose transactions were judged."}, []string{"channel"})
	m.commits = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "gossip_state_commit_duration", Help: "Time it takes to commit blocks, in seconds; several may be committed at once.", Buckets: prometheus.ExponentialBuckets(.001, 2, 14),
	}, []string{"channel"})
	m.probes = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "grapevine_probe_duration_seconds", Help: "Time until a member answers a ping.", Buckets: prometheus.ExponentialBuckets(.0005, 2, 14),
	}, []string{"channel"})
	m.expiry = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "grapevine_certificate_expiry_seconds", Help: "Seconds until a certificate of this node ends, by its use."}, []string{"use"})
	m.all = []prometheus.Collector{m.expiry, m.judging, m.judged, m.commits, m.rejected, m.handshakes, m.height, m.chain, m.leader, m.changes, m.leaderless, m.reconnects, m.left, m.passed, m.known, m.members, m.happened, m.wronged, m.refuted, m.probes}
	m.deliveries, m.snapshots = newDeliveries(), newSnapshotFigures()
	m.all = append(append(m.all, m.deliveries.all()...), more...)
	for _, v := range m.snapshots.vectors() {
		m.all = append(m.all, v)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range m.all {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m == nil || m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

func (m *metrics) refused(channel string, r *wire.Reason) {
	m.rejected.WithLabelValues(channel, r.Code()).Inc()
}

func (m *metrics) handshakeRefused(r *wire.Reason, transport string) {
	m.handshakes.WithLabelValues(r.Code(), transport).Inc()
}

// at notes a channel's height.
func (m *metrics) at(channel string, height uint64) {
	m.height.WithLabelValues(channel).Set(float64(height))
	m.chain.WithLabelValues(channel).Set(float64(height))
}

func (m *metrics) leading(channel string, yes bool) {
	v := 0.0
	if yes {
		v = 1
	}
	m.leader.WithLabelValues(channel).Set(v)
}

// turned counts the leaders that came.
func (m *metrics) turned(channel string, e election.Change) {
	if e.Leader != (msp.PKIID{}) {
		m.changes.WithLabelValues(channel).Inc()
	}
}

// without adds to the time without a leader.
func (m *metrics) without(channel string, d time.Duration) {
	m.leaderless.WithLabelValues(channel).Add(d.Seconds())
}

func (m *metrics) reconnected(channel string) { m.reconnects.WithLabelValues(channel).Inc() }

// lost counts an orderer that was left.
func (m *metrics) lost(channel string, err error) {
	code := "orderer.unreachable"
	if r := wire.ReasonOf(err); r != nil {
		code = r.Code()
	}
	m.left.WithLabelValues(channel, code).Inc()
}

// forwarded counts an orderer's answer to what a relay handed on.
func (m *metrics) forwarded(channel string, s common.Status) {
	m.passed.WithLabelValues(channel, s.String()).Inc()
}

// member counts what happened to a member.
func (m *metrics) member(channel string, e membership.Event) {
	m.happened.WithLabelValues(channel, e.Kind.String()).Inc()
	switch e.Kind {
	case membership.Recovered:
		m.wronged.WithLabelValues(channel).Inc()
	case membership.Refuted:
		m.refuted.WithLabelValues(channel).Inc()
	}
}

// probed returns what notes how long a channel's members took to answer.
func (m *metrics) probed(channel string) func(rtt time.Duration) {
	probes := m.probes.WithLabelValues(channel)
	return func(rtt time.Duration) { probes.Observe(rtt.Seconds()) }
}

// living sets how many members are in which state.
func (m *metrics) living(channel string, all []membership.Member) {
	count := map[membership.State]float64{}
	for _, v := range all {
		if !v.Self {
			count[v.State]++
		}
	}
	for s := membership.Alive; s <= membership.Left; s++ {
		m.members.WithLabelValues(channel, s.String()).Set(count[s])
	}
	m.known.WithLabelValues(channel).Set(count[membership.Alive] + count[membership.Suspect])
}

func (m *metrics) forget(channel string) {
	l := prometheus.Labels{"channel": channel}
	for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{m.rejected, m.judging, m.judged, m.height, m.chain, m.leader, m.changes, m.leaderless, m.reconnects, m.left, m.passed, m.known, m.members, m.happened, m.wronged, m.refuted, m.probes, m.commits, m.deliveries.received, m.deliveries.completed, m.deliveries.sent} {
		v.DeletePartialMatch(l)
	}
	for _, v := range m.snapshots.vectors() {
		v.DeletePartialMatch(l)
	}
}

// logger lets the ledger speak through the node's log.
type logger struct{ log *slog.Logger }

func (l logger) Infof(format string, args ...any)  { l.log.Info(fmt.Sprintf(format, args...)) }
func (l logger) Warnf(format string, args ...any)  { l.log.Warn(fmt.Sprintf(format, args...)) }
func (l logger) Errorf(format string, args ...any) { l.log.Error(fmt.Sprintf(format, args...)) }
