package cast

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"grapevine/block"
	"grapevine/wire"
)

// Refute proves, from what [Config.Lied] took, that an announcement is false: its
// signer announced chunks that give another body than the header's, or others
// than those of the header's body. Said verifies who signed the announcement and
// what it says, as [Config.Told] does; the rules are those before the block. An
// error says that the proof shows no lie.
func (c *Coder) Refute(rules *block.Rules, proof []byte, said func(announcement []byte) (*Head, error)) error {
	p := refutation{coder: c, rest: proof}
	if err := p.begin(said); err != nil {
		return err
	}
	for len(p.rest) > 0 {
		if err := p.frame(); err != nil {
			return err
		}
	}
	if p.length > 0 {
		return p.ofBody(rules)
	}
	return p.ofChunks(rules)
}

// A refutation is a proof as it is read: a body, or chunks, but not both.
type refutation struct {
	coder  *Coder
	rest   []byte
	head   *Head
	shape  Shape
	slab   *slab
	length int // of the body, as far as it was read
	segs   []gathered
}

// gathered are the proven chunks of a segment.
type gathered struct {
	tree   *tree
	chunks [][]byte // data is in the slab; length 0: it isn't here
	count  int
}

// take takes n bytes off the front.
func (p *refutation) take(n int) ([]byte, error) {
	if n > len(p.rest) {
		return nil, fmt.Errorf("%d bytes where there should be %d: %w", len(p.rest), n, wire.Truncated)
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b, nil
}

// next takes a frame's type and what follows it in fixed length.
func (p *refutation) next() (frameType, []byte, error) {
	b, err := p.take(1)
	if err != nil {
		return 0, nil, err
	}
	t := frameType(b[0])
	if t != frameHead && t != frameChunk && t != framePart {
		return 0, nil, fmt.Errorf("frame of type %d: %w", t, BadFrame)
	}
	b, err = p.take(frameLengths[t])
	return t, b, err
}

// begin takes the announcement.
func (p *refutation) begin(said func([]byte) (*Head, error)) error {
	t, b, err := p.next()
	if err != nil {
		return err
	}
	if t != frameHead {
		return fmt.Errorf("no announcement in front: %w", BadFrame)
	}
	_, n, err := readHead(b)
	if err != nil {
		return err
	}
	raw, err := p.take(n)
	if err != nil {
		return err
	}
	if p.head, err = said(raw); err != nil {
		return err
	}
	if err := CheckRoots(p.head.Size, p.head.Roots); err != nil {
		return err
	}
	if p.shape, err = ShapeOf(p.head.Size); err != nil {
		return err
	}
	if len(p.rest) < p.shape.Size {
		return fmt.Errorf("%d bytes for a body of %d: %w", len(p.rest), p.shape.Size, wire.Truncated)
	}
	if p.slab, err = newSlab(p.shape, p.head.Block); err != nil {
		return err
	}
	p.slab.raw = p.slab.lay()
	for i := range p.shape.Segments {
		p.segs = append(p.segs, gathered{newTree(p.shape.N(), p.shape.roots(p.head.Roots, i)), make([][]byte, p.shape.N()), 0})
	}
	return nil
}

// frame takes one of the others.
func (p *refutation) frame() error {
	t, b, err := p.next()
	if err != nil {
		return err
	}
	switch {
	case t == frameHead:
		return fmt.Errorf("a second announcement: %w", BadFrame)
	case sessionID(binary.BigEndian.Uint64(b)) != p.head.id():
		return fmt.Errorf("of another session: %w", BadFrame)
	case t == framePart:
		return p.part(b)
	}
	return p.chunk(b)
}

func (p *refutation) part(b []byte) error {
	_, offset, n, err := readPart(b)
	if err != nil {
		return err
	}
	if offset != p.length || offset+n > p.shape.Size {
		return fmt.Errorf("%d bytes from %d on, where %d are read of %d: %w", n, offset, p.length, p.shape.Size, BadFrame)
	}
	data, err := p.take(n)
	if err != nil {
		return err
	}
	p.length += copy(p.slab.body(p.slab.raw)[offset:], data)
	return nil
}

func (p *refutation) chunk(b []byte) error {
	ch, hashes, n, err := readChunk(b)
	if err != nil {
		return err
	}
	if ch.segment >= len(p.segs) || ch.index >= p.shape.N() || n != p.shape.Chunk {
		return fmt.Errorf("chunk %d of segment %d, %d bytes: %w", ch.index, ch.segment, n, BadFrame)
	}
	for range hashes {
		h, err := p.take(HashSize)
		if err != nil {
			return err
		}
		ch.hashes = append(ch.hashes, hash(h))
	}
	data, err := p.take(n)
	if err != nil {
		return err
	}
	g := &p.segs[ch.segment]
	if int(ch.levels) >= 1<<g.tree.depth() || len(g.chunks[ch.index]) > 0 {
		return fmt.Errorf("chunk %d of segment %d: %w", ch.index, ch.segment, BadFrame)
	}
	if err := g.tree.accept(ch.index, ch.levels, ch.hashes, leafOf(data)); err != nil {
		return err
	}
	if g.count++; g.count > p.shape.K {
		return fmt.Errorf("more chunks of segment %d than it takes: %w", ch.segment, BadFrame)
	}
	if ch.index < p.shape.K {
		slot := p.slab.slot(ch.segment*p.shape.K + ch.index)
		copy(slot, data)
		data = slot
	}
	g.chunks[ch.index] = data
	return nil
}

// ofBody judges a body that came whole. The chunks that were announced are its
// own, and it isn't the header's; or it is the header's, and they aren't its own.
func (p *refutation) ofBody(rules *block.Rules) error {
	if p.length != p.shape.Size {
		return fmt.Errorf("%d bytes of a body of %d: %w", p.length, p.shape.Size, wire.Truncated)
	}
	code, err := p.coder.Encode(p.slab.body(p.slab.raw))
	if err != nil {
		return err
	}
	own := bytes.Equal(code.Roots, p.head.Roots)
	if _, err := block.Check(rules, p.slab.raw); lies(err) && own || !own && p.isBody() {
		return nil
	}
	return fmt.Errorf("the body is the header's and was announced, or neither: %w", block.NoConflict)
}

// isBody says whether what stands in the slab is the header's body.
func (p *refutation) isBody() bool {
	b, err := block.Decode(p.slab.raw)
	if err != nil {
		return false
	}
	sum := block.DataHash(b.Data)
	return bytes.Equal(sum[:], b.Header.GetDataHash())
}

// ofChunks judges what the chunks give.
func (p *refutation) ofChunks(rules *block.Rules) error {
	for i, g := range p.segs {
		if g.count < p.shape.K {
			return fmt.Errorf("%d chunks of segment %d, which takes %d: %w", g.count, i, p.shape.K, wire.Truncated)
		}
		for k := range p.shape.K {
			if len(g.chunks[k]) == 0 {
				g.chunks[k] = p.slab.slot(i*p.shape.K + k)[:0]
			}
		}
		if err := p.coder.rebuild(p.shape, g.chunks); err != nil {
			return err
		}
	}
	if _, err := block.Check(rules, p.slab.whole()); !lies(err) {
		return fmt.Errorf("the chunks give the header's body: %w", block.NoConflict)
	}
	return nil
}
