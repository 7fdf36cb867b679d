package node

import (
	"github.com/prometheus/client_golang/prometheus"
)

// castFigures tells of the casts of all channels, as they are when they are
// asked for.
type castFigures struct{ node *Node }

var (
	castBytes    = prometheus.NewDesc("grapevine_cast_bytes_total", "Bytes of chunks and what belongs to them, by direction.", []string{"channel", "direction"}, nil)
	castBlocks   = prometheus.NewDesc("grapevine_cast_blocks_total", "Large blocks: received whole by chunks, given up and pulled, or handed out by a way.", []string{"channel", "how"}, nil)
	castRepairs  = prometheus.NewDesc("grapevine_cast_repairs_total", "Questions to members for chunks that lack, and segments of which data was computed.", []string{"channel", "kind"}, nil)
	castDropped  = prometheus.NewDesc("grapevine_cast_dropped_total", "Frames not sent because a queue was full or a stream failed.", []string{"channel"}, nil)
	castSessions = prometheus.NewDesc("grapevine_cast_sessions", "Open sessions.", []string{"channel"}, nil)
	castHeld     = prometheus.NewDesc("grapevine_cast_session_bytes", "Bytes that open sessions may hold.", []string{"channel"}, nil)
)

// Describe names the figures.
func (f castFigures) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{castBytes, castBlocks, castRepairs, castDropped, castSessions, castHeld} {
		out <- d
	}
}

// Collect reads them.
func (f castFigures) Collect(out chan<- prometheus.Metric) {
	for _, c := range f.node.Channels() {
		s := c.cast.Stats()
		count := func(d *prometheus.Desc, v uint64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{c.name}, labels...)...)
		}
		count(castBytes, s.Received, "in")
		count(castBytes, s.Sent, "out")
		count(castBlocks, s.Blocks, "received")
		count(castBlocks, s.Pulls, "pulled")
		for path, n := range s.Handed {
			count(castBlocks, n, string(path))
		}
		count(castRepairs, s.Needs, "asked")
		count(castRepairs, s.Rebuilt, "rebuilt")
		count(castDropped, s.Dropped)
		out <- prometheus.MustNewConstMetric(castSessions, prometheus.GaugeValue, float64(s.Sessions), c.name)
		out <- prometheus.MustNewConstMetric(castHeld, prometheus.GaugeValue, float64(s.Bytes), c.name)
	}
}
