package node

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/ledger"
	"grapevine/wire"
)

// A snapshot in a file is a line that says so, and frames: its offer, its index, how
// many blocks follow (4 bytes, big-endian), the blocks, and the chunks.
const snapshotMagic = "grapevine snapshot 1\n"

// fileBlocks bounds the blocks of a file: configurations that a chain may have had.
const fileBlocks = 1 << 14

// WriteSnapshot writes a snapshot to a file, with its attestations.
func WriteSnapshot(ctx context.Context, w io.Writer, s *ledger.Snapshot) error {
	blocks, err := s.Blocks()
	if err != nil {
		return err
	}
	offer, err := wire.Marshal(&wire.SnapshotOffer{Manifest: s.Raw, Attestation: s.Attestations()})
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 1<<16)
	if _, err := out.WriteString(snapshotMagic); err != nil {
		return err
	}
	head := [][]byte{offer, s.Index(), binary.BigEndian.AppendUint32(nil, uint32(len(blocks)))}
	for _, b := range append(head, blocks...) {
		if err := wire.WriteFrame(out, b); err != nil {
			return err
		}
	}
	for i := range s.Chunks() {
		c, err := s.Chunk(i)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if err := wire.WriteFrame(out, c); err != nil {
			return err
		}
	}
	return out.Flush()
}

// A SnapshotHead is what a file says before its chunks.
type SnapshotHead struct {
	Manifest     *wire.SnapshotManifest
	Name         [32]byte
	Attestations [][]byte

	raw    []byte
	index  []byte
	blocks [][]byte
	rest   io.Reader
}

// ReadSnapshot reads the head of a file. Errors wrap [ledger.ErrBadSnapshot] where
// the file isn't one.
func ReadSnapshot(r io.Reader) (*SnapshotHead, error) {
	h, err := readSnapshot(bufio.NewReaderSize(r, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("snapshot file: %w", err)
	}
	return h, nil
}

func readSnapshot(r io.Reader) (*SnapshotHead, error) {
	bad := func(err error) (*SnapshotHead, error) { return nil, fmt.Errorf("%w: %w", ledger.ErrBadSnapshot, err) }
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != snapshotMagic {
		return bad(errors.New("it doesn't begin as one"))
	}
	raw, err := wire.ReadFrame(r, wire.MaxOffer)
	if err != nil {
		return bad(err)
	}
	offer := new(wire.SnapshotOffer)
	if err := wire.Unmarshal(raw, offer); err != nil {
		return bad(err)
	}
	h := &SnapshotHead{raw: offer.Manifest, Attestations: offer.Attestation, Name: ledger.ManifestName(offer.Manifest), rest: r}
	if h.Manifest, err = ledger.ParseManifest(offer.Manifest); err != nil {
		return nil, err
	}
	if h.index, err = wire.ReadFrame(r, ledger.MaxIndex); err != nil {
		return bad(err)
	}
	n, err := wire.ReadFrame(r, 4)
	if err != nil || len(n) != 4 || binary.BigEndian.Uint32(n) > fileBlocks {
		return bad(fmt.Errorf("its number of blocks: %w", errors.Join(err, wire.TooLarge)))
	}
	for range binary.BigEndian.Uint32(n) {
		b, err := wire.ReadFrame(r, wire.MaxBlock)
		if err != nil {
			return bad(err)
		}
		h.blocks = append(h.blocks, b)
	}
	return h, nil
}

// Verify follows the file's blocks from block 0, of which the header hash is given,
// and returns them, the configuration that they lead to, and the organisations that
// attest the snapshot under it.
func (h *SnapshotHead) Verify(genesis [32]byte, now time.Time) (blocks []block.Verified, conf *channel.Config, orgs []string, err error) {
	blocks, conf, err = VerifySnapshotBlocks(genesis, h.Manifest, h.blocks)
	if err != nil {
		return nil, nil, nil, err
	}
	orgs, _ = Attesters(conf, h.Name, h.Attestations, now)
	return blocks, conf, orgs, nil
}

// Import takes the rest of the file into a store, and restores the channel's ledger
// from it, which must hold less, or nothing. Blocks are those of Verify.
func (h *SnapshotHead) Import(ctx context.Context, db *ledger.DB, blocks []block.Verified, progress func(chunk, chunks int)) (*ledger.Ledger, error) {
	in, err := db.Receive(h.Manifest.Channel, h.raw, h.index, h.blocks, h.Attestations)
	if err != nil {
		return nil, err
	}
	l, err := h.take(ctx, db, in, blocks, progress)
	if err != nil && in.Left() > 0 {
		err = errors.Join(err, in.Discard())
	}
	return l, err
}

func (h *SnapshotHead) take(ctx context.Context, db *ledger.DB, in *ledger.Incoming, blocks []block.Verified, progress func(chunk, chunks int)) (*ledger.Ledger, error) {
	for i := range in.Chunks() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := wire.ReadFrame(h.rest, int(in.Size(i)))
		if err != nil {
			return nil, fmt.Errorf("chunk %d: %w: %w", i, ledger.ErrBadSnapshot, err)
		}
		if err := in.Put(i, c); err != nil {
			return nil, err
		}
		progress(i+1, in.Chunks())
	}
	if _, err := io.ReadFull(h.rest, make([]byte, 1)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the last chunk: %w", ledger.ErrBadSnapshot)
	}
	return RestoreSnapshot(ctx, db, in, blocks, nil)
}

// Enough is how many organisations have to attest a snapshot; asked 0: most of those
// of the configuration.
func Enough(conf *channel.Config, asked int) int { return Snapshots{Attested: asked}.enough(conf) }
