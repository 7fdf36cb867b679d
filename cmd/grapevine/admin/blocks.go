package admin

import (
	"net/http"

	"grapevine/wire"
)

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
		if err := c.Ledger.Wait(r.Context(), n+1); err != nil {
			return // the client left, or the node stops
		}
		raw, err := c.Ledger.Block(n)
		if err == nil {
			var b *Block
			if b, err = c.read(raw, n, false); err == nil {
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
	height := c.Ledger.Height()
	text := r.URL.Query().Get("from")
	if text == "" {
		return c, height, nil // what comes next
	}
	n, err := ParseNumber(text, height)
	return c, n, err
}

// raw streams the marshalled blocks of ?range=FROM..TO, each a frame: its
// length as a varint, then its bytes.
func (s *Server) raw(w http.ResponseWriter, r *http.Request) {
	c, err := s.room(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	begun := false
	err = c.Raw(r.Context(), r.URL.Query().Get("range"), func(raw []byte) error {
		if !begun {
			w.Header().Set("Content-Type", "application/octet-stream")
			begun = true
		}
		return wire.WriteFrame(w, raw)
	})
	switch {
	case err == nil:
	case !begun:
		s.fail(w, err)
	default:
		s.Log.Debug("exporting blocks", "err", err)
		panic(http.ErrAbortHandler) // the client must not take this for the end
	}
}
