package cast

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"grapevine/wire"
)

// frameType is a frame's first byte. What follows is of fixed length, but for
// an announcement and a chunk's data.
type frameType uint8

const (
	frameHead  frameType = 1 + iota // hop, length u32, announcement
	frameChunk                      // session, segment u16, index u16, hop, levels, length u32, hashes, data
	frameDone                       // session
	frameNeed                       // session, segment u16, 32 bytes: bit i of byte i/8 is set if chunk i is there
	frameAsk                        // session
	frameNone                       // session
	framePing                       // nonce u64
	framePong                       // nonce u64
	framePart                       // session, offset u32, length u32, data
	frameTypes
)

// frameMost is the longest of frameLengths.
const frameMost = 8 + 2 + haveBytes

// Lengths of what follows the type, without announcement, hashes and data.
var frameLengths = [frameTypes]int{
	frameHead: 5, frameChunk: 8 + 2 + 2 + 1 + 1 + 4, frameDone: 8, frameNeed: 8 + 2 + 32, frameAsk: 8, frameNone: 8, framePing: 8, framePong: 8,
	framePart: 8 + 4 + 4,
}

const (
	// maxHead bounds an announcement: GossipSub carries no longer one.
	maxHead = wire.MaxGossip
	// maxPart bounds what one frame carries of a body that isn't cut into chunks.
	maxPart = 256 << 10
	// partBytes is how much this node sends in one: little, so that its members'
	// parts take short turns, and each sees that his still come.
	partBytes = 64 << 10
	// haveBytes is the length of a set of chunks.
	haveBytes = 32
)

// appendHead makes the frame of an announcement.
func appendHead(b []byte, h hop, raw []byte) []byte {
	b = append(b, byte(frameHead), byte(h))
	b = binary.BigEndian.AppendUint32(b, uint32(len(raw)))
	return append(b, raw...)
}

// appendChunk makes the frame of a chunk, without its data, which follows.
func appendChunk(b []byte, c chunk) []byte {
	b = append(b, byte(frameChunk))
	b = binary.BigEndian.AppendUint64(b, uint64(c.session))
	b = binary.BigEndian.AppendUint16(b, uint16(c.segment))
	b = binary.BigEndian.AppendUint16(b, uint16(c.index))
	b = append(b, byte(c.hop), c.levels)
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.data)))
	for _, h := range c.hashes {
		b = append(b, h[:]...)
	}
	return b
}

// appendPart makes the frame of a part of a body, without its data, which
// follows.
func appendPart(b []byte, s sessionID, offset, length int) []byte {
	b = appendWord(b, framePart, uint64(s))
	b = binary.BigEndian.AppendUint32(b, uint32(offset))
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// readPart reads what appendPart made, without the type.
func readPart(b []byte) (s sessionID, offset, length int, err error) {
	o, n := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	if n == 0 || n > maxPart || o > wire.MaxBlock {
		return 0, 0, 0, fmt.Errorf("%d bytes of a body from %d on: %w", n, o, BadFrame)
	}
	return sessionID(binary.BigEndian.Uint64(b)), int(o), int(n), nil
}

// appendWord makes a frame that is a type and a number.
func appendWord(b []byte, t frameType, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, byte(t)), n)
}

// appendNeed makes the frame that asks for chunks.
func appendNeed(b []byte, s sessionID, segment int, have bitset) []byte {
	b = appendWord(b, frameNeed, uint64(s))
	b = binary.BigEndian.AppendUint16(b, uint16(segment))
	var set [haveBytes]byte
	for i, w := range have {
		binary.LittleEndian.PutUint64(set[8*i:], w)
	}
	return append(b, set[:]...)
}

// readNeed reads what appendNeed made, without the type.
func readNeed(b []byte) (s sessionID, segment int, have bitset) {
	have = newBitset(8 * haveBytes)
	for i := range have {
		have[i] = binary.LittleEndian.Uint64(b[10+8*i:])
	}
	return sessionID(binary.BigEndian.Uint64(b)), int(binary.BigEndian.Uint16(b[8:])), have
}

// readChunk reads a chunk's frame up to its hashes, without the type, and how
// many hashes and bytes follow.
func readChunk(b []byte) (c chunk, hashes, length int, err error) {
	c = chunk{
		session: sessionID(binary.BigEndian.Uint64(b)),
		segment: int(binary.BigEndian.Uint16(b[8:])),
		index:   int(binary.BigEndian.Uint16(b[10:])),
		hop:     hop(b[12]),
		levels:  b[13],
	}
	n := binary.BigEndian.Uint32(b[14:])
	if c.hop >= hops || n == 0 || n > maxChunk || c.index >= 8*haveBytes {
		return chunk{}, 0, 0, fmt.Errorf("chunk %d of %d bytes, hop %d: %w", c.index, n, c.hop, BadFrame)
	}
	return c, bits.OnesCount8(c.levels), int(n), nil
}

// readHead reads an announcement's frame up to it, and how long it is.
func readHead(b []byte) (h hop, length int, err error) {
	n := binary.BigEndian.Uint32(b[1:])
	if h = hop(b[0]); h >= hops || h == hopOrgs || n == 0 || n > maxHead {
		return 0, 0, fmt.Errorf("announcement of %d bytes, hop %d: %w", n, h, BadFrame)
	}
	return h, int(n), nil
}
