package node

import "github.com/prometheus/client_golang/prometheus"

// snapshotFigures are what Prometheus is told of snapshots: made here, given to
// others, taken from them. What there is is looked up at each scrape.
type snapshotFigures struct {
	made, restored, chunks, bytes *prometheus.CounterVec // channel
	refused                       *prometheus.CounterVec // channel, reason, member
}

func newSnapshotFigures() *snapshotFigures {
	of := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"channel"}, more...))
	}
	return &snapshotFigures{
		made:     of("grapevine_snapshots_made_total", "Snapshots of the world state that were made here."),
		restored: of("grapevine_snapshots_restored_total", "Snapshots that this peer took from others and began with."),
		chunks:   of("grapevine_snapshot_served_chunks_total", "Chunks of snapshots that other peers asked for and were given."),
		bytes:    of("grapevine_snapshot_served_bytes_total", "Bytes of these chunks."),
		refused:  of("grapevine_snapshot_refused_total", "What members sent of snapshots and was refused, such as wrong chunks, by who sent it.", "reason", "member"),
	}
}

func (f *snapshotFigures) vectors() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{f.made, f.restored, f.chunks, f.bytes, f.refused}
}

// heldSnapshots tells which snapshots there are.
type heldSnapshots struct{ node *Node }

var (
	snapshotsHeld   = transferDesc("grapevine_snapshots", "Snapshots that lie beside the ledger and are given to others.")
	snapshotsNewest = transferDesc("grapevine_snapshot_height", "Height of the newest of them; 0: there is none.")
)

func (heldSnapshots) Describe(out chan<- *prometheus.Desc) {
	out <- snapshotsHeld
	out <- snapshotsNewest
}

func (h heldSnapshots) Collect(out chan<- prometheus.Metric) {
	for _, c := range h.node.Channels() {
		all, newest := c.ledger.Snapshots(), uint64(0)
		if len(all) > 0 {
			newest = all[0].Manifest.Height
		}
		out <- prometheus.MustNewConstMetric(snapshotsHeld, prometheus.GaugeValue, float64(len(all)), c.name)
		out <- prometheus.MustNewConstMetric(snapshotsNewest, prometheus.GaugeValue, float64(newest), c.name)
	}
}
