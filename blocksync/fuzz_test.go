package blocksync

import (
	"bytes"
	"errors"
	"iter"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/wire"
)

// shelf is a ledger without a database: its goroutines would look like coverage.
type shelf struct{ *chain }

func (s shelf) Tip() block.Tip                 { return s.tip }
func (s shelf) Append(...block.Verified) error { return nil }
func (s shelf) Range(from, to uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, raw := range s.raw[from:to] {
			if !yield(raw, nil) {
				return
			}
		}
	}
}

// FuzzRequestResponse: whatever a client asks is answered within the limits or
// refused with a reason; whatever a server answers, no block gets through but
// those asked for, in order.
func FuzzRequestResponse(f *testing.F) {
	c := newChain(f).grow(4, 50)
	status := func(code wire.BlocksStatus_Code, nonce uint64) []byte {
		return wire.AppendFrame(nil, must(wire.Marshal(&wire.BlocksStatus{Code: code, Nonce: nonce, Height: 5})))
	}
	good := status(wire.BlocksStatus_CODE_OK, 7)
	for _, raw := range c.raw[1:] {
		good = wire.AppendFrame(good, raw)
	}
	f.Add(request(1, 4, 0), good)
	f.Add(request(0, 64, 2000), good[:len(good)-3])
	f.Add(request(1<<63, 1, 0), status(wire.BlocksStatus_CODE_NOT_FOUND, 7))
	f.Add([]byte{0}, status(wire.BlocksStatus_CODE_OK, 8))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, append(status(wire.BlocksStatus_CODE_OK, 7), 0xff, 0xff, 0xff, 0x7f))
	n := New(Config{Ledger: shelf{c}, Rules: func() *block.Rules { return rulesAfter(0, 0) }})
	f.Fuzz(func(t *testing.T, asked, answered []byte) {
		if b, err := wire.ReadFrame(bytes.NewReader(asked), wire.MaxRequest); err == nil {
			req := new(wire.BlocksRequest)
			if err := wire.Unmarshal(b, req); err == nil {
				if req.WaitMs <= 2000 {
					req.WaitMs = 0 // nothing more will come
				}
				status := n.answer(req)
				require.Equal(t, req.Nonce, status.Nonce)
				require.EqualValues(t, 5, status.Height)
				if status.Code == wire.BlocksStatus_CODE_OK {
					require.Less(t, req.First, uint64(5))
					require.LessOrEqual(t, req.Count, uint64(maxCount))
				}
			} else {
				require.NotNil(t, wire.ReasonOf(err))
			}
		}
		next := uint64(1)
		a := asking{
			first: 1, count: 4, nonce: 7, moved: func(int) {}, free: func(int) {}, room: func(uint64, int, int) error { return nil },
			each: func(k uint64, raw []byte) error {
				require.Equal(t, next, k)
				if m, ok := numberOf(raw); ok {
					require.Equal(t, k, m)
				}
				next++
				return nil
			},
		}
		r := bytes.NewReader(answered)
		err := a.readStatus(r)
		if err == nil {
			err = a.readBlocks(r)
		}
		if err == nil && a.finished {
			require.EqualValues(t, 5, next)
			err = a.readEnd(r)
		}
		if err != nil && !errors.Is(err, errLacking) {
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
		}
	})
}
