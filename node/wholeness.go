package node

import "github.com/prometheus/client_golang/prometheus"

// wholeness is what Prometheus is told of damage to ledgers, at each scrape.
type wholeness struct{ node *Node }

var (
	wholeDamaged   = transferDesc("grapevine_ledger_damaged", "Blocks, indexes, state and tip record of the ledger that are known to be damaged and aren't made good yet.")
	wholeFound     = transferDesc("grapevine_ledger_damages_total", "What of the ledger was found to be damaged since the start.")
	wholeRestored  = transferDesc("grapevine_ledger_restored_blocks_total", "Damaged blocks of the ledger that were fetched again and put back since the start.")
	wholeTables    = transferDesc("grapevine_ledger_replaced_tables_total", "Damaged tables of the store that were replaced since the start.")
	wholeScrubbed  = transferDesc("grapevine_scrub_bytes", "Bytes of the ledger that the present scrub has read, or the last one.")
	wholeBlocks    = transferDesc("grapevine_scrub_blocks", "Blocks that the present scrub of the ledger has read, or the last one.")
	wholeDiverging = transferDesc("grapevine_state_diverging_members", "Members whose world state isn't this peer's at one height.")
	wholeDiverged  = transferDesc("grapevine_state_diverged", "1 if most organisations tell another world state than this peer's, else 0.")
	wholeLast      = transferDesc("grapevine_scrub_timestamp_seconds", "When the last scrub of the ledger ended, in seconds since 1970; 0: none did since the start.")
)

func (wholeness) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{wholeDamaged, wholeFound, wholeRestored, wholeTables, wholeScrubbed, wholeBlocks, wholeLast, wholeDiverging, wholeDiverged} {
		out <- d
	}
}

func (w wholeness) Collect(out chan<- prometheus.Metric) {
	for _, c := range w.node.Channels() {
		u := c.Upkeep()
		tell := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			out <- prometheus.MustNewConstMetric(d, kind, v, c.name)
		}
		damaged := len(u.Damage.Blocks)
		for _, is := range []bool{u.Damage.Index, u.Damage.State, u.Damage.Tip, u.Damage.Lost > 0} {
			if is {
				damaged++
			}
		}
		last := 0.0
		if !u.Scrubbed.IsZero() {
			last = float64(u.Scrubbed.UnixMilli()) / 1000
		}
		tell(wholeDamaged, prometheus.GaugeValue, float64(damaged))
		tell(wholeFound, prometheus.CounterValue, float64(u.Found))
		tell(wholeRestored, prometheus.CounterValue, float64(u.Repaired.Blocks))
		tell(wholeTables, prometheus.CounterValue, float64(u.Repaired.Tables))
		tell(wholeScrubbed, prometheus.GaugeValue, float64(u.Scrub.Bytes))
		tell(wholeBlocks, prometheus.GaugeValue, float64(u.Scrub.Blocks))
		diverged := 0.0
		d := c.Divergence()
		if d.Self {
			diverged = 1
		}
		tell(wholeDiverging, prometheus.GaugeValue, float64(len(d.Members)))
		tell(wholeDiverged, prometheus.GaugeValue, diverged)
		tell(wholeLast, prometheus.GaugeValue, last)
	}
}
