package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// How keys are laid out. Everything sorts by its first byte; what belongs to one
// channel stands together behind the channel's number, so that one range holds
// it all and one range deletion drops it:
//
//	0x00 'n'                                  → number of the next channel (u32)
//	0x00 'm' name                             → a fact of the node
//	0x00 'd' number(4)                        → nothing: the channel was dropped
//	0x00 'r' number(4)                        → nothing: what lies under it is being restored
//	0x01 channel name                         → channel record
//	0x02 number(4) 't'                        → tip record
//	0x02 number(4) 'b' block(8)               → the block, as the bytes that came
//	0x02 number(4) 'h' header hash(32)        → block(8)
//	0x02 number(4) 'x' SHA-256(tx id)(32) block(8) index(4) → nothing
//
// and for the world state what statekey.go says. Numbers are big-endian. A transaction's place stands in its key, not in its
// value: an id that comes again (it may: it is then invalid) never replaces the
// first, no read precedes the write, and the first place is the first key.
const (
	spaceNode    = 0x00
	spaceRecord  = 0x01
	spaceChannel = 0x02

	kindNext      = 'n'
	kindMeta      = 'm'
	kindDropped   = 'd'
	kindRestoring = 'r'

	kindTip   = 't'
	kindBlock = 'b'
	kindHash  = 'h'
	kindTx    = 'x'

	prefixLen   = 1 + 4 + 1
	blockKeyLen = prefixLen + 8
	hashKeyLen  = prefixLen + 32
	txKeyLen    = prefixLen + 32 + 8 + 4
)

// A key is a channel's key taken apart. Which fields count is told by kind.
type key struct {
	channel uint32
	kind    byte
	number  uint64   // kindBlock, kindVerdict, kindTx
	hash    [32]byte // kindHash: the header's; kindTx: the transaction id's
	index   uint32   // kindTx
}

var errKey = errors.New("not a key of a channel")

// append encodes k behind dst.
func (k key) append(dst []byte) []byte {
	dst = append(dst, spaceChannel)
	dst = binary.BigEndian.AppendUint32(dst, k.channel)
	dst = append(dst, k.kind)
	switch k.kind {
	case kindBlock, kindVerdict:
		dst = binary.BigEndian.AppendUint64(dst, k.number)
	case kindHash:
		dst = append(dst, k.hash[:]...)
	case kindTx:
		dst = append(dst, k.hash[:]...)
		dst = binary.BigEndian.AppendUint64(dst, k.number)
		dst = binary.BigEndian.AppendUint32(dst, k.index)
	}
	return dst
}

// parseKey takes a channel's key apart; it accepts exactly what append writes.
func parseKey(b []byte) (key, error) {
	if len(b) < prefixLen || b[0] != spaceChannel {
		return key{}, errKey
	}
	k := key{channel: binary.BigEndian.Uint32(b[1:]), kind: b[5]}
	rest := b[prefixLen:]
	switch {
	case (k.kind == kindTip || k.kind == kindState) && len(b) == prefixLen:
	case (k.kind == kindBlock || k.kind == kindVerdict) && len(b) == blockKeyLen:
		k.number = binary.BigEndian.Uint64(rest)
	case k.kind == kindHash && len(b) == hashKeyLen:
		copy(k.hash[:], rest)
	case k.kind == kindTx && len(b) == txKeyLen:
		copy(k.hash[:], rest)
		k.number = binary.BigEndian.Uint64(rest[32:])
		k.index = binary.BigEndian.Uint32(rest[40:])
	default:
		return key{}, errKey
	}
	return k, nil
}

func tipKey(channel uint32) []byte {
	return key{channel: channel, kind: kindTip}.append(make([]byte, 0, prefixLen))
}

func blockKey(channel uint32, n uint64) []byte {
	return key{channel: channel, kind: kindBlock, number: n}.append(make([]byte, 0, blockKeyLen))
}

func hashKey(channel uint32, h [32]byte) []byte {
	return key{channel: channel, kind: kindHash, hash: h}.append(make([]byte, 0, hashKeyLen))
}

func txKey(channel uint32, id string, n uint64, i uint32) []byte {
	return key{channel: channel, kind: kindTx, hash: sha256.Sum256([]byte(id)), number: n, index: i}.
		append(make([]byte, 0, txKeyLen))
}

// channelSpan is the range [lower, upper) of a channel's blocks and what belongs
// to them.
func channelSpan(channel uint32) (lower, upper []byte) {
	lower = binary.BigEndian.AppendUint32([]byte{spaceChannel}, channel)
	return lower, after(lower)
}

// after is the end of the range of all keys that begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func nextKey() []byte { return []byte{spaceNode, kindNext} }

func metaKey(name string) []byte { return append([]byte{spaceNode, kindMeta}, name...) }

func droppedKey(channel uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{spaceNode, kindDropped}, channel)
}

func restoringKey(channel uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{spaceNode, kindRestoring}, channel)
}

func recordKey(channel string) []byte { return append([]byte{spaceRecord}, channel...) }
