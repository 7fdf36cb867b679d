package cast

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/reedsolomon"
)

// A Coder makes chunks of bodies and bodies of chunks. Its zero value works; it
// is safe for concurrent use, and all channels of a node may share one.
type Coder struct {
	mu    sync.Mutex
	codes map[[2]int]reedsolomon.Encoder // by K and M; guarded by mu
}

// code returns the Reed-Solomon code of K and M. Its matrix is Vandermonde's,
// made systematic, over GF(2^8) with polynomial 29: the golden vectors hold it.
func (c *Coder) code(s Shape) (reedsolomon.Encoder, error) {
	key := [2]int{s.K, s.M}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.codes[key]; e != nil {
		return e, nil
	}
	// The library's cache of inverted matrices has no bound, and each cast
	// loses other chunks.
	e, err := reedsolomon.New(s.K, s.M, reedsolomon.WithInversionCache(false))
	if err != nil {
		return nil, fmt.Errorf("making a code of %d and %d chunks: %w", s.K, s.M, err)
	}
	if c.codes == nil {
		c.codes = make(map[[2]int]reedsolomon.Encoder)
	}
	c.codes[key] = e
	return e, nil
}

// An Encoding is a body as it is cast: all chunks, and what the announcement
// says of them. It is a function of the body's bytes alone, so the chunks of
// all who encode one block are the same. It is immutable.
type Encoding struct {
	Shape Shape
	Roots []byte // of each segment in turn; see Shape
	body  []byte
	segs  []coded
}

// coded is one segment.
type coded struct {
	chunks [][]byte // K of data, M of parity
	tree   *tree
}

// Encode cuts and codes a body, which is kept and must not change. Segments are
// coded side by side.
func (c *Coder) Encode(body []byte) (*Encoding, error) {
	s, err := ShapeOf(uint64(len(body)))
	if err != nil {
		return nil, err
	}
	e := &Encoding{Shape: s, body: body, segs: make([]coded, s.Segments)}
	errs := make([]error, s.Segments)
	var g sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range e.segs {
		g.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			e.segs[i], errs[i] = c.segment(s, body, i)
		})
	}
	g.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, err
		}
		e.Roots = append(e.Roots, e.segs[i].tree.tops(s.tops())...)
	}
	return e, nil
}

// segment codes one. Data chunks are slices of the body, but for those that
// reach beyond its end, which are padded with zeros.
func (c *Coder) segment(s Shape, body []byte, segment int) (coded, error) {
	code, err := c.code(s)
	if err != nil {
		return coded{}, err
	}
	chunks := make([][]byte, s.N())
	for i := range s.K {
		at := (segment*s.K + i) * s.Chunk
		if at+s.Chunk <= len(body) {
			chunks[i] = body[at : at+s.Chunk : at+s.Chunk]
			continue
		}
		chunks[i] = make([]byte, s.Chunk)
		copy(chunks[i], body[min(at, len(body)):])
	}
	parity := make([]byte, s.M*s.Chunk)
	for i := range s.M {
		chunks[s.K+i] = parity[i*s.Chunk : (i+1)*s.Chunk : (i+1)*s.Chunk]
	}
	if err := code.Encode(chunks); err != nil {
		return coded{}, fmt.Errorf("coding segment %d: %w", segment, err)
	}
	leaves := make([]hash, len(chunks))
	for i, b := range chunks {
		leaves[i] = leafOf(b)
	}
	return coded{chunks, fullTree(leaves)}, nil
}

// rebuild fills in the data chunks that lack: those of length 0, into their
// capacity.
func (c *Coder) rebuild(s Shape, chunks [][]byte) error {
	code, err := c.code(s)
	if err == nil {
		err = code.ReconstructData(chunks)
	}
	if err != nil {
		return fmt.Errorf("rebuilding a segment: %w", err)
	}
	return nil
}
