package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"grapevine/block"
	"grapevine/blocksync"
	"grapevine/ledger"
	"grapevine/wire"
)

// Transfer says how missing blocks are fetched from other peers and given to
// them. The zero value is what most want.
type Transfer struct {
	// Off leaves gaps as they are: a missed block is never repaired. Bodies too
	// large for gossip are pulled all the same.
	Off bool
	// Look is how often heights are compared though nothing happens, 1 s. Quiet is
	// how long a peer may send nothing, 3 s. After so many Tries in a row that
	// failed, 3, a peer is left alone for a minute.
	Look, Quiet time.Duration
	Tries       int
	// Slice is the most blocks asked for at once, Buffer how many blocks from the
	// ledger's height on may be held before those below are there. 0: only bytes
	// bound them.
	Slice, Buffer uint64
	// Limits bound what other peers, and organisations, are given.
	Limits blocksync.Limits
}

// progressEvery is how often a log tells of long work.
const progressEvery = 10 * time.Second

// syncConfig is what blocksync is made with.
func (c *Channel) syncConfig(rules func() *block.Rules, refused func(*wire.Reason)) blocksync.Config {
	n, t, ahead := c.node, c.node.cfg.Transfer, uint64(window)
	if t.Buffer > 0 {
		ahead = min(ahead, t.Buffer)
	}
	return blocksync.Config{
		Ledger:    c.ledger,
		Rules:     rules,
		Lowest:    c.ledger.Lowest,
		Committed: c.committed,
		Retriable: func(err error) bool { return errors.Is(err, ledger.ErrFull) || errors.Is(err, ledger.ErrCorrupt) }, // repair waits for peers
		Conflict:  func(held, other *block.Checked) { c.forks.compare(held.Block(), other.Block()) },
		Stale:     func(b *block.Checked) { c.forks.shown(b.Block()) },
		Self:      n.host.ID(),
		Open: func(ctx context.Context, p peer.ID) (network.Stream, error) {
			return c.view.Stream(ctx, p, wire.KindBlocks)
		},
		Org: func(p peer.ID) string {
			if id, ok := n.Identify(p); ok {
				return id.MSPID()
			}
			return ""
		},
		Refused: func(p peer.ID, r *wire.Reason) {
			refused(r)
			c.log.Debug("refused a peer's answer or request", "peer", p, "reason", r.Code())
		},
		Held:        c.held,
		Appended:    func(_ int, took time.Duration) { n.metrics.commits.WithLabelValues(c.name).Observe(took.Seconds()) },
		BufferBytes: n.cfg.BufferBytes,
		Window:      ahead,
		Reach:       t.Buffer,
		Look:        t.Look, Quiet: t.Quiet, Tries: t.Tries, Slice: t.Slice, NoRepair: t.Off, Limits: t.Limits,
	}
}

// Transfer tells how fetching what is missing goes.
func (c *Channel) Transfer() blocksync.Status { return c.sync.Status() }

// Fetch asks now for what is missing, and returns how many blocks there are, as
// far as is known.
func (c *Channel) Fetch() (height uint64) { return c.sync.Hurry() }

// NameOf names a member for people.
func (c *Channel) NameOf(p peer.ID) string { return c.node.nameOf(p) }

// From names those who are asked for blocks at the moment, each once.
func (c *Channel) From(s blocksync.Status) []string {
	names := []string{}
	for _, r := range s.Requests {
		names = append(names, c.node.nameOf(r.Peer))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// tellProgress logs how catching up goes, until ctx ends.
func (c *Channel) tellProgress(ctx context.Context) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		p := c.sync.Progress()
		switch {
		case p.Active():
			s, left := c.sync.Status(), "unknown"
			if p.Left > 0 {
				left = p.Left.Round(time.Second).String()
			}
			c.log.Info("catching up", "height", s.Height, "of", s.Target, "blocks", p.Blocks, "bytes", p.Bytes,
				"blocks_per_s", int(p.BlocksPerSec), "bytes_per_s", int64(p.BytesPerSec), "left", left, "from", strings.Join(c.From(s), " "))
		case told:
			c.log.Info("caught up", "height", c.ledger.Height())
		}
		told = p.Active()
	}
}

// transfers is what Prometheus is told of fetching and giving, at each scrape.
type transfers struct{ node *Node }

var (
	transferWaiting = transferDesc("gossip_payload_buffer_size", "Size of the payload buffer: blocks that wait for earlier ones.")
	transferLag     = transferDesc("grapevine_block_lag", "Blocks that there are, as far as is known, and this peer doesn't hold.")
	transferBuffer  = transferDesc("grapevine_sync_buffer_bytes", "Bytes of blocks that wait, or are being read or checked.")
	transferPeak    = transferDesc("grapevine_sync_buffer_peak_bytes", "Most bytes that ever waited, or were being read or checked, at once.")
	transferAsked   = transferDesc("grapevine_sync_requests", "Requests for blocks under way.")
	transferPulled  = transferDesc("grapevine_sync_pulled_bytes_total", "Bytes that came in answers to requests for blocks.")
	transferServed  = transferDesc("grapevine_sync_served_bytes_total", "Bytes of blocks that other peers asked for and were given.")
	transferBlocks  = transferDesc("grapevine_sync_blocks_per_second", "Blocks committed a second while catching up; 0 otherwise.")
	transferBytes   = transferDesc("grapevine_sync_bytes_per_second", "Bytes committed a second while catching up; 0 otherwise.")
	transferLeft    = transferDesc("grapevine_sync_left_seconds", "Seconds that catching up will still take; 0 unless it does.")
)

func transferDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"channel"}, nil)
}

func (transfers) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		transferWaiting, transferLag, transferBuffer, transferPeak, transferAsked,
		transferPulled, transferServed, transferBlocks, transferBytes, transferLeft,
	} {
		out <- d
	}
}

func (t transfers) Collect(out chan<- prometheus.Metric) {
	for _, c := range t.node.Channels() {
		s := c.sync.Status()
		tell := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			out <- prometheus.MustNewConstMetric(d, kind, v, c.name)
		}
		tell(transferWaiting, prometheus.GaugeValue, float64(s.Waiting))
		tell(transferLag, prometheus.GaugeValue, float64(s.Target-min(s.Height, s.Target)))
		tell(transferBuffer, prometheus.GaugeValue, float64(s.Buffered))
		tell(transferPeak, prometheus.GaugeValue, float64(s.Peak))
		tell(transferAsked, prometheus.GaugeValue, float64(len(s.Requests)))
		tell(transferPulled, prometheus.CounterValue, float64(c.sync.Pulled()))
		tell(transferServed, prometheus.CounterValue, float64(c.sync.Served()))
		tell(transferBlocks, prometheus.GaugeValue, s.Progress.BlocksPerSec)
		tell(transferBytes, prometheus.GaugeValue, s.Progress.BytesPerSec)
		tell(transferLeft, prometheus.GaugeValue, s.Progress.Left.Seconds())
	}
}
