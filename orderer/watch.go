package orderer

// watch judges whether the orderer that blocks come from stalls: it holds back, or drips, what another orderer already
// has. It is pure: its owner asks another orderer for its newest number at regular times and reports what it heard.
//
// An orderer is stalled if, from one observation to the next, it neither delivered the newest block that the earlier one
// showed nor came any closer to the tip, though its reader was ready. So an idle channel is no stall (nothing newer is
// shown), nor is one in steady flow (what an observation showed has come before the next), nor a long catch-up (the gap
// shrinks); two observations are needed to accuse. This is the censorship monitor of Fabric's blocksprovider, without a
// standing header stream per orderer.
type watch struct {
	armed bool
	seen  uint64 // newest block that the earlier observation showed
	gap   uint64 // how many blocks were missing then
}

// observe takes an observation and reports whether the orderer stalls. Next is the number of the block that it should
// deliver next, newest the number of the newest block that another orderer has. Busy says that the reader, not the
// orderer, held the stream up.
func (w *watch) observe(next, newest uint64, busy bool) (stalled bool) {
	if newest < next {
		*w = watch{}
		return false
	}
	gap := newest - next // one less than are missing, so that it can't overflow
	if !w.armed || busy || next > w.seen || gap < w.gap {
		*w = watch{armed: true, seen: newest, gap: gap}
		return false
	}
	return true
}
