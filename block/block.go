// Package block says what is true: it decodes a block of a Fabric-compatible
// ordering service, recomputes its hashes, and verifies its link and its
// orderers' signatures under the configuration in force before it. Only
// [Verify] and [Genesis] make a [Verified], the one type the ledger takes.
//
// It is as strict as Fabric about what an orderer signed, neither more nor
// less: looser, and a relay could cut a block's entries anew under the same
// data hash; stricter, and one client's odd envelope would stall the channel.
// About what nobody signed (the outer encoding, metadata 1 to 4) it is strict.
package block

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
)

// A Tip is how far a chain has come: Height blocks are held, and Hash is the
// header hash of block Height-1 (zero at height 0).
type Tip struct {
	Height uint64
	Hash   [32]byte
}

// HeaderBytes returns what orderers sign and what names a block: the DER
// encoding of SEQUENCE { INTEGER number, OCTET STRING previous_hash,
// OCTET STRING data_hash }, the number being unsigned.
// The format is that of Fabric's protoutil/blockutils.go.
func HeaderBytes(h *common.BlockHeader) []byte {
	return appendHeader(make([]byte, 0, 96), h)
}

// HeaderHash returns SHA-256 of [HeaderBytes]: the block's hash and identity,
// and the next block's previous hash.
func HeaderHash(h *common.BlockHeader) [32]byte {
	var buf [96]byte
	return sha256.Sum256(appendHeader(buf[:0], h))
}

// DataHash returns SHA-256 of all entries, joined without lengths.
func DataHash(d *common.BlockData) [32]byte {
	if entries := d.GetData(); len(entries) == 1 {
		return sha256.Sum256(entries[0])
	}
	h := sha256.New()
	for _, entry := range d.GetData() {
		h.Write(entry)
	}
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

func appendHeader(dst []byte, h *common.BlockHeader) []byte {
	n := h.GetNumber()
	// An INTEGER is signed: a set top bit takes one zero byte more.
	width := max(1, bits.Len64(n)/8+1)
	previous, data := h.GetPreviousHash(), h.GetDataHash()
	body := 2 + width + sizeDER(len(previous)) + sizeDER(len(data))
	dst = appendLength(append(dst, 0x30), body)
	dst = append(dst, 0x02, byte(width))
	var be [9]byte
	binary.BigEndian.PutUint64(be[1:], n)
	dst = append(dst, be[9-width:]...)
	dst = append(appendLength(append(dst, 0x04), len(previous)), previous...)
	return append(appendLength(append(dst, 0x04), len(data)), data...)
}

// sizeDER returns the size of an octet string of n bytes with its head.
func sizeDER(n int) int {
	if n < 0x80 {
		return 2 + n
	}
	return 2 + (bits.Len(uint(n))+7)/8 + n
}

func appendLength(dst []byte, n int) []byte {
	if n < 0x80 {
		return append(dst, byte(n))
	}
	width := (bits.Len(uint(n)) + 7) / 8
	dst = append(dst, 0x80|byte(width))
	for i := width - 1; i >= 0; i-- {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}
