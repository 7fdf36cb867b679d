package cast

// evidence makes the proof of a false encoding: the frames as they travel, the
// announcement first, then enough chunks with whole paths to make the body of.
func evidence(fx fxLie) []byte {
	b := appendHead(nil, hopKeep, fx.head.Raw)
	for i, pieces := range fx.pieces {
		for _, p := range pieces {
			ch := chunk{session: fx.head.id(), segment: i, index: p.index, hop: hopKeep, levels: p.levels, hashes: p.hashes, data: p.data}
			b = append(appendChunk(b, ch), p.data...)
		}
	}
	return b
}
