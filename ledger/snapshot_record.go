package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"grapevine/wire"
)

// A snapshot is a run of pairs, each as length of the key, key, length of the
// value, value (lengths as unsigned varints), the keys ascending:
//
//	'e' block(8) text(namespace) text(collection) key → block(8) of the write: what is to expire
//	's' text(namespace) text(collection) key          → entry
//	'x' SHA-256(tx id)(32) block(8) index(4)          → nothing
//
// Keys and values are those of key.go and statekey.go behind the channel's number.
// The run is cut into chunks behind the first pair with which a chunk reaches
// chunkBytes, so that the same state always gives the same chunks.
const (
	chunkBytes = 1 << 20
	// restoreBatch is about how many bytes of a snapshot go into the store at once.
	restoreBatch = 8 << 20

	snapshotFormat = 1
	// MaxChunk bounds a chunk: a pair larger than a block isn't in any.
	MaxChunk = wire.MaxBlock + chunkBytes
	// MaxChunks bounds a snapshot's chunks.
	MaxChunks = 1 << 20

	indexEntryLen = 4 + sha256.Size
	// MaxIndex bounds an index.
	MaxIndex = MaxChunks * indexEntryLen
)

// A chunkRef is where a chunk lies, and what it must be.
type chunkRef struct {
	at   int64
	size uint32
	hash [32]byte
}

// parseIndex reads the index that a manifest names.
func parseIndex(m *wire.SnapshotManifest, index []byte) ([]chunkRef, error) {
	root := wire.HashParts([]byte(wire.DomainChunks), index)
	if uint64(len(index)) != m.Chunks*indexEntryLen || !bytes.Equal(root[:], m.Root) {
		return nil, fmt.Errorf("index of %d bytes isn't the one of the manifest: %w", len(index), ErrBadSnapshot)
	}
	refs := make([]chunkRef, 0, m.Chunks)
	at := uint64(0)
	for b := index; len(b) > 0; b = b[indexEntryLen:] {
		r := chunkRef{at: int64(at), size: binary.BigEndian.Uint32(b), hash: [32]byte(b[4:])}
		if r.size == 0 || r.size > MaxChunk {
			return nil, fmt.Errorf("chunk of %d bytes: %w", r.size, ErrBadSnapshot)
		}
		refs = append(refs, r)
		at += uint64(r.size)
	}
	if at != m.Bytes {
		return nil, fmt.Errorf("chunks of %d bytes in all, the manifest says %d: %w", at, m.Bytes, ErrBadSnapshot)
	}
	return refs, nil
}

// ParseManifest reads a manifest and refuses one that can't be a snapshot's.
func ParseManifest(raw []byte) (*wire.SnapshotManifest, error) {
	m := &wire.SnapshotManifest{}
	if err := wire.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("manifest: %w: %w", ErrBadSnapshot, err)
	}
	hashes := len(m.Genesis) == 32 && len(m.BlockHash) == 32 && len(m.StateHash) == 32 && len(m.ConfigHash) == 32 && len(m.Root) == 32
	commit := len(m.CommitHash) == 32 || len(m.CommitHash) == 0 && m.Height == 1
	switch {
	case m.Format != snapshotFormat:
		return nil, fmt.Errorf("manifest of format %d: %w", m.Format, ErrBadSnapshot)
	case m.Height == 0 || m.Height > math.MaxInt64 || m.Config >= m.Height || m.Channel == "" || !hashes || !commit:
		return nil, fmt.Errorf("manifest of height %d: %w", m.Height, ErrBadSnapshot)
	case m.Chunks == 0 || m.Chunks > MaxChunks || m.Bytes > math.MaxInt64 || m.Bytes < m.Chunks || m.Records < m.Chunks:
		return nil, fmt.Errorf("manifest of %d chunks, %d bytes: %w", m.Chunks, m.Bytes, ErrBadSnapshot)
	}
	return m, nil
}

// ManifestName is what a manifest is known by, and attested as.
func ManifestName(manifest []byte) [32]byte {
	return wire.HashParts([]byte(wire.DomainSnapshot), manifest)
}

// pairs reads a chunk's pairs; they point into it.
func pairs(chunk []byte, each func(key, value []byte) error) error {
	for len(chunk) > 0 {
		var kv [2][]byte
		for i := range kv {
			n, used := binary.Uvarint(chunk)
			if used <= 0 || n > uint64(len(chunk)-used) {
				return fmt.Errorf("a chunk ends within a pair: %w", ErrBadSnapshot)
			}
			kv[i] = chunk[used : used+int(n) : used+int(n)]
			chunk = chunk[used+int(n):]
		}
		if err := each(kv[0], kv[1]); err != nil {
			return err
		}
	}
	return nil
}

func appendPair(dst, key, value []byte) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(key))), key...)
	return append(binary.AppendUvarint(dst, uint64(len(value))), value...)
}

// A placer puts a snapshot's pairs under a channel's number, and refuses what can't
// be in the state behind blocks below a height.
type placer struct {
	channel uint32
	height  uint64
	last    []byte
	records uint64
}

// place returns the ledger's key for a pair, and the entry if it is one.
func (p *placer) place(key, value []byte) (at []byte, item *Item, err error) {
	if p.records > 0 && bytes.Compare(key, p.last) <= 0 {
		return nil, nil, fmt.Errorf("keys out of order: %w", ErrBadSnapshot)
	}
	p.last = append(p.last[:0], key...)
	p.records++
	if len(key) == 0 {
		return nil, nil, fmt.Errorf("a pair without a key: %w", ErrBadSnapshot)
	}
	space, ok := byte(spaceState), false
	switch rest := key[1:]; key[0] {
	case kindExpiry:
		if len(rest) > 8 && len(value) == 8 {
			_, kerr := parseEntryKey(rest[8:])
			ok = kerr == nil && binary.BigEndian.Uint64(rest) >= p.height && binary.BigEndian.Uint64(value) < p.height
		}
	case kindEntry:
		k, kerr := parseEntryKey(rest)
		e, eerr := parseEntry(value)
		if kerr == nil && eerr == nil && e.Block < p.height && bytes.Equal(marshalEntry(e), value) {
			item, ok = &Item{k, *e}, true
		}
	case kindTx:
		space = spaceChannel
		ok = len(rest) == txKeyLen-prefixLen && len(value) == 0 && binary.BigEndian.Uint64(rest[32:]) < p.height
	}
	if !ok {
		return nil, nil, fmt.Errorf("a pair that is no state's: %w", ErrBadSnapshot)
	}
	at = binary.BigEndian.AppendUint32(append(make([]byte, 0, len(key)+5), space), p.channel)
	return append(at, key...), item, nil
}
