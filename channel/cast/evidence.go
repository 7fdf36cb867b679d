package cast

// evidence makes the proof of a false encoding: the frames as they travel, the
// announcement first, then the body that came, or enough chunks with whole paths
// to make it of.
func evidence(fx fxLie) []byte {
	b := appendHead(nil, hopKeep, fx.head.Raw)
	for at := 0; at < len(fx.body); at += maxPart {
		data := fx.body[at:min(at+maxPart, len(fx.body))]
		b = append(appendPart(b, fx.head.id(), at, len(data)), data...)
	}
	for i, pieces := range fx.pieces {
		for _, p := range pieces {
			ch := chunk{session: fx.head.id(), segment: i, index: p.index, hop: hopKeep, levels: p.levels, hashes: p.hashes, data: p.data}
			b = append(appendChunk(b, ch), p.data...)
		}
	}
	return b
}
