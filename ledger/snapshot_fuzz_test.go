package ledger

import (
	"encoding/binary"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// FuzzSnapshotManifest: whatever a member sends as a manifest, an index or a chunk,
// it is refused as no snapshot's or is what it says.
func FuzzSnapshotManifest(f *testing.F) {
	d, from := source(f, vfs.NewMem(), "small", 50)
	s, err := snapshotOf(from, SnapshotOptions{})
	require.NoError(f, err)
	chunk, err := s.Chunk(0)
	require.NoError(f, err)
	require.NoError(f, d.Close()) // its goroutines would look like coverage
	f.Add(s.Raw, s.Index(), chunk)
	f.Add([]byte{}, s.Index()[:10], chunk[:7])
	f.Add(s.Raw[:len(s.Raw)-1], append(s.Index(), s.Index()...), append(chunk[:9:9], chunk...))
	f.Fuzz(func(t *testing.T, manifest, index, chunk []byte) {
		m, err := ParseManifest(manifest)
		if err != nil {
			require.ErrorIs(t, err, ErrBadSnapshot)
			m = new(wire.SnapshotManifest)
		} else {
			again, err := wire.Marshal(m)
			require.NoError(t, err)
			require.Equal(t, manifest, again)
		}
		// An index that fits its manifest, which would take a hash to guess.
		root := wire.HashParts([]byte(wire.DomainChunks), index)
		m.Root, m.Chunks, m.Bytes = root[:], uint64(len(index)/indexEntryLen), 0
		for b := index; len(b) >= indexEntryLen; b = b[indexEntryLen:] {
			m.Bytes += uint64(binary.BigEndian.Uint32(b))
		}
		if refs, err := parseIndex(m, index); err != nil {
			require.ErrorIs(t, err, ErrBadSnapshot)
		} else {
			at := int64(0)
			for _, r := range refs {
				require.Equal(t, at, r.at)
				require.LessOrEqual(t, int64(r.size), int64(MaxChunk))
				at += int64(r.size)
			}
			require.EqualValues(t, m.Bytes, at)
		}
		p := placer{channel: 7, height: 50}
		err = pairs(chunk, func(k, v []byte) error {
			at, item, err := p.place(k, v)
			if err == nil {
				require.Equal(t, k, at[5:])
			}
			if item != nil {
				require.Less(t, item.Entry.Block, uint64(50))
				require.Equal(t, v, marshalEntry(&item.Entry))
			}
			return err
		})
		if err != nil {
			require.ErrorIs(t, err, ErrBadSnapshot)
		}
	})
}
