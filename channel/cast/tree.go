package cast

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
)

// A hash names a chunk or two hashes under it.
type hash = [HashSize]byte

// Leaves and inner nodes are hashed behind different prefixes, so that no inner
// node can be shown as a chunk.
const (
	leafPrefix = 0
	nodePrefix = 1
)

func leafOf(data []byte) (h hash) {
	d := sha256.New()
	d.Write([]byte{leafPrefix})
	d.Write(data)
	d.Sum(h[:0])
	return h
}

func nodeOf(l, r hash) hash {
	var b [1 + 2*HashSize]byte
	b[0] = nodePrefix
	copy(b[1:], l[:])
	copy(b[1+HashSize:], r[:])
	return sha256.Sum256(b[:])
}

// A tree is what is known of the Merkle tree over a segment's chunks. Nodes are
// numbered as in a heap: 1 is the root, 2i and 2i+1 are below i, and the leaves,
// padded with zero hashes to a power of two, begin at width. A node is set only
// once it is proven by what the announcement says.
type tree struct {
	width int
	nodes []hash
	known bitset
}

// newTree returns the tree of n chunks of which tops is known: the root, or all
// leaves.
func newTree(n int, tops []byte) *tree {
	t := emptyTree(n)
	if len(tops) == HashSize {
		t.set(1, hash(tops))
		return t
	}
	for i := range n {
		t.set(t.width+i, hash(tops[i*HashSize:]))
	}
	return t
}

// fullTree returns the tree of these leaves.
func fullTree(leaves []hash) *tree {
	t := emptyTree(len(leaves))
	for i, h := range leaves {
		t.set(t.width+i, h)
	}
	for i := t.width - 1; i > 0; i-- {
		t.set(i, nodeOf(t.nodes[2*i], t.nodes[2*i+1]))
	}
	return t
}

// emptyTree returns a tree of n leaves that knows only what holds no chunk.
func emptyTree(n int) *tree {
	width := 1 << bits.Len(uint(n-1))
	t := &tree{width: width, nodes: make([]hash, 2*width), known: newBitset(2 * width)}
	for i := n; i < width; i++ {
		t.set(width+i, hash{})
	}
	for i := width - 1; i > 0; i-- {
		if t.known.has(2*i) && t.known.has(2*i+1) {
			t.set(i, nodeOf(t.nodes[2*i], t.nodes[2*i+1]))
		}
	}
	return t
}

func (t *tree) set(i int, h hash) {
	t.nodes[i] = h
	t.known.set(i)
}

// tops returns what an announcement says of the tree.
func (t *tree) tops(n int) []byte {
	if n == 1 {
		return t.nodes[1][:]
	}
	var out []byte
	for i := range n {
		out = append(out, t.nodes[t.width+i][:]...)
	}
	return out
}

// path returns the hashes that prove chunk i to who knows the nodes in known,
// lowest first, and on which levels they stand: bit l of levels is set if the
// sibling on level l, 0 being the leaves', is among them. The nodes that the
// other will know with them are added to known. The tree must know the path.
func (t *tree) path(i int, known bitset) (levels uint8, hashes []hash) {
	node := t.width + i
	for l := 0; !known.has(node); l++ {
		known.set(node)
		if s := node ^ 1; !known.has(s) {
			known.set(s)
			levels |= 1 << l
			hashes = append(hashes, t.nodes[s])
		}
		node >>= 1
	}
	return levels, hashes
}

// accept proves that leaf is chunk i, with hashes as path made them, and learns
// them. A sender may send more than is needed here: it can't know what others
// sent.
func (t *tree) accept(i int, levels uint8, hashes []hash, leaf hash) error {
	type learned struct {
		node int
		hash hash
	}
	var buf [2 * 9]learned
	news := buf[:0]
	node, h := t.width+i, leaf
	for l := 0; !t.known.has(node); l++ {
		s := node ^ 1
		var other hash
		switch {
		case levels&(1<<l) != 0 && len(hashes) > 0:
			other, hashes = hashes[0], hashes[1:]
			news = append(news, learned{s, other})
		case t.known.has(s):
			other = t.nodes[s]
		default:
			return fmt.Errorf("chunk %d without the hash on level %d: %w", i, l, NoPath)
		}
		news = append(news, learned{node, h})
		if node&1 == 0 {
			h = nodeOf(h, other)
		} else {
			h = nodeOf(other, h)
		}
		node >>= 1
	}
	if t.nodes[node] != h {
		return fmt.Errorf("chunk %d: %w", i, BadChunk)
	}
	for _, v := range news {
		t.set(v.node, v.hash)
	}
	return nil
}

// depth returns on how many levels a path may have hashes.
func (t *tree) depth() int { return bits.Len(uint(t.width)) - 1 }

// A bitset is a set of small numbers.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitset) set(i int)      { b[i/64] |= 1 << (i % 64) }

func (b bitset) clone() bitset { return append(bitset(nil), b...) }
