package block

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// forget makes rules verify anew what they remember.
func (r *Rules) forget() { clear(r.attested) }

// BenchmarkCheck sets the check of a block of one transaction beside what it
// can't do without: one hash of the data and one verified signature.
func BenchmarkCheck(b *testing.B) {
	for _, size := range []int{1 << 10, 8 << 10, 1 << 20} {
		w := newWorld(b, 1, false)
		w.rules.AbsoluteMaxBytes = 0
		blk := w.signed(endorser(b, string(make([]byte, size))))
		raw := marshal(b, blk)
		md := signatures(b, blk)
		msg := SigningBytes(md.Value, md.Signatures[0].SignatureHeader, blk.Header)
		id := w.signers[0].Identity()

		b.Run(fmt.Sprintf("bare/%d", size), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				sha256.Sum256(blk.Data.Data[0])
				if err := id.Verify(msg, md.Signatures[0].Signature); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("check/%d", size), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				w.rules.forget()
				if _, err := Check(w.rules, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("again/%d", size), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := Check(w.rules, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerify is the link alone: the block is checked under the same rules.
func BenchmarkVerify(b *testing.B) {
	w := newWorld(b, 1, false)
	c, err := CheckBlock(w.rules, w.signed(endorser(b, "a")))
	require.NoError(b, err)
	for b.Loop() {
		if _, err := Verify(w.rules, w.tip, c); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheckBFT verifies a quorum of 3 of 4.
func BenchmarkCheckBFT(b *testing.B) {
	w := newWorld(b, 4, true)
	raw := marshal(b, w.signed(endorser(b, string(make([]byte, 8<<10)))))
	for b.Loop() {
		w.rules.forget()
		if _, err := Check(w.rules, raw); err != nil {
			b.Fatal(err)
		}
	}
}
