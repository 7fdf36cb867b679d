package node

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"grapevine/deliver"
)

// deliveries are the figures of what is delivered to clients and Fabric peers,
// under Fabric's names.
type deliveries struct {
	opened, closed            prometheus.Counter
	received, completed, sent *prometheus.CounterVec
}

func newDeliveries() *deliveries {
	of := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &deliveries{
		opened:    prometheus.NewCounter(prometheus.CounterOpts{Name: "deliver_streams_opened", Help: "The number of GRPC streams that have been opened for the deliver service."}),
		closed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "deliver_streams_closed", Help: "The number of GRPC streams that have been closed for the deliver service."}),
		received:  of("deliver_requests_received", "The number of deliver requests that have been received.", "channel", "filtered", "data_type"),
		completed: of("deliver_requests_completed", "The number of deliver requests that have been completed.", "channel", "filtered", "data_type", "success"),
		sent:      of("deliver_blocks_sent", "The number of blocks sent by the deliver service.", "channel", "filtered", "data_type"),
	}
}

func (d *deliveries) all() []prometheus.Collector {
	return []prometheus.Collector{d.opened, d.closed, d.received, d.completed, d.sent}
}

// delivered counts what a handler does. A channel that isn't joined has no name
// here, or anybody could make up labels.
func (n *Node) delivered() deliver.Hooks {
	d := n.metrics.deliveries
	labels := func(channel string, filtered bool) []string {
		if _, err := n.Channel(channel); err != nil {
			channel = ""
		}
		kind := "block"
		if filtered {
			kind = "filtered_block"
		}
		return []string{channel, strconv.FormatBool(filtered), kind}
	}
	return deliver.Hooks{
		Stream: func(open bool) {
			if open {
				d.opened.Inc()
			} else {
				d.closed.Inc()
			}
		},
		Request: func(channel string, filtered bool) {
			d.received.WithLabelValues(labels(channel, filtered)...).Inc()
		},
		Done: func(channel string, filtered, success bool) {
			d.completed.WithLabelValues(append(labels(channel, filtered), strconv.FormatBool(success))...).Inc()
		},
		Sent: func(channel string, filtered bool) { d.sent.WithLabelValues(labels(channel, filtered)...).Inc() },
	}
}
