package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
	"grapevine/wire"
)

// configBefore is the configuration in force before block n: block 0's for
// block 0 itself. It follows the blocks' own last-configuration index, so it
// reads two blocks, not the chain.
func configBefore(l *ledger.Ledger, n uint64) (*channel.Config, error) {
	at := uint64(0)
	if n > 0 {
		raw, err := l.Block(n - 1)
		if err != nil {
			return nil, fmt.Errorf("reading block %d: %w", n-1, err)
		}
		b, err := DecodeBlock(raw, nil, false)
		if err != nil {
			return nil, err
		}
		at = b.LastConfig
		if b.Config {
			at = b.Number
		}
	}
	raw, err := l.Block(at)
	if err != nil {
		return nil, fmt.Errorf("reading configuration block %d: %w", at, err)
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, err
	}
	return channel.Parse(b)
}

// tail streams blocks from ?from=N on as NDJSON, until the client leaves.
func (s *Server) tail(w http.ResponseWriter, r *http.Request) {
	c, n, err := s.from(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	if err := flush.Flush(); err != nil {
		s.Log.Debug("streaming blocks", "err", err)
	}
	for ; ; n++ {
		if err := c.ledger.Wait(r.Context(), n+1); err != nil {
			return // the client left, or the node stops
		}
		raw, err := c.ledger.Block(n)
		if err == nil {
			var b *Block
			if b, err = c.decode(raw, n, false); err == nil {
				var line []byte
				if line, err = Marshal(b); err == nil {
					_, err = w.Write(append(line, '\n'))
				}
			}
		}
		if err == nil {
			err = flush.Flush()
		}
		if err != nil {
			s.Log.Debug("streaming blocks", "block", n, "err", err)
			return
		}
	}
}

func (s *Server) from(r *http.Request) (*room, uint64, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, 0, err
	}
	text := r.URL.Query().Get("from")
	if text == "" {
		return c, c.ledger.Height(), nil // what comes next
	}
	n, err := c.number(text)
	return c, n, err
}

// raw streams the marshalled blocks of ?range=FROM..TO, or of ?from=N alone,
// each a frame: its length as a varint, then its bytes.
func (s *Server) raw(w http.ResponseWriter, r *http.Request) {
	c, from, to, err := s.span(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	for b, err := range c.ledger.Range(from, to+1) {
		if err == nil {
			err = wire.WriteFrame(w, b)
		}
		if err != nil {
			s.Log.Debug("exporting blocks", "err", err)
			panic(http.ErrAbortHandler) // the client must not take this for the end
		}
	}
}

// span reads ?range=FROM..TO, both inclusive; one number is itself, none the
// whole chain.
func (s *Server) span(r *http.Request) (c *room, from, to uint64, err error) {
	if c, err = s.room(r); err != nil {
		return nil, 0, 0, err
	}
	text := r.URL.Query().Get("range")
	if text == "" {
		return c, 0, c.ledger.Height() - 1, nil
	}
	a, b, two := strings.Cut(text, "..")
	if from, err = c.number(a); err != nil {
		return nil, 0, 0, err
	}
	to = from
	if two {
		if to, err = c.number(b); err != nil {
			return nil, 0, 0, err
		}
	}
	if to < from || to >= c.ledger.Height() {
		return nil, 0, 0, fault.Newf(fault.BadNumber, "blocks %d to %d aren't held: the channel has %d", from, to, c.ledger.Height())
	}
	return c, from, to, nil
}

// verify checks blocks that lie in the ledger again, as if they came now.
func (s *Server) verify(r *http.Request) (any, error) {
	c, from, to, err := s.span(r)
	if err != nil {
		return nil, err
	}
	return VerifyRange(r.Context(), c.ledger, from, to)
}

// VerifyRange recomputes hashes, links and signatures of the blocks from and to
// inclusive, each under the configuration in force before it.
func VerifyRange(ctx context.Context, l *ledger.Ledger, from, to uint64) (*BlockVerification, error) {
	start := time.Now()
	conf, tip, err := before(l, from)
	if err != nil {
		return nil, err
	}
	blocks := func(yield func([]byte, error) bool) {
		for raw, err := range l.Range(from, to+1) {
			if err == nil {
				err = ctx.Err()
			}
			if !yield(raw, err) {
				return
			}
		}
	}
	var r channel.Report
	if from == 0 {
		genesis, e := l.Block(0)
		if e != nil {
			return nil, e
		}
		r, err = channel.VerifyChain(genesis, blocks, nil)
	} else {
		r, err = channel.VerifyFrom(conf, tip, blocks, nil)
	}
	if err != nil {
		return nil, err
	}
	return Verification(r, time.Since(start)), nil
}

// before is the configuration and the tip that block n follows.
func before(l *ledger.Ledger, n uint64) (*channel.Config, block.Tip, error) {
	conf, err := configBefore(l, n)
	if err != nil || n == 0 {
		return conf, block.Tip{}, err
	}
	raw, err := l.Block(n - 1)
	if err != nil {
		return nil, block.Tip{}, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, block.Tip{}, err
	}
	return conf, block.Tip{Height: n, Hash: block.HeaderHash(b.Header)}, nil
}

// Verification is a report as its JSON object.
func Verification(r channel.Report, took time.Duration) *BlockVerification {
	out := &BlockVerification{
		Channel: r.Channel, From: r.From, To: r.To, Checked: r.Checked, OK: r.OK(), Policy: r.Policy, ElapsedMs: took.Milliseconds(),
	}
	for _, f := range r.Failures {
		out.Failures = append(out.Failures, BlockFailure(f))
	}
	return out
}
