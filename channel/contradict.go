package channel

import (
	"bytes"
	"fmt"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/wire"
)

// Contradict proves that two announcements of block number, in the bytes that
// travelled, are who's own and tell of one block in two encodings. Its chunks are
// a function of the block, so one of the two is false. The error says why they
// prove nothing.
func Contradict(tag [32]byte, who *msp.Identity, number uint64, one, other []byte) error {
	a, err := announced(tag, who, number, one)
	if err != nil {
		return err
	}
	b, err := announced(tag, who, number, other)
	if err != nil {
		return err
	}
	if a.hash != b.hash || a.size == b.size && bytes.Equal(a.roots, b.roots) {
		return fmt.Errorf("announcements of block %d: %w", number, block.NoConflict)
	}
	return nil
}

// encoding is what an announcement says of a large block's chunks.
type encoding struct {
	hash  [32]byte
	size  uint64
	roots []byte
}

// announced reads an announcement and verifies that who signed it.
func announced(tag [32]byte, who *msp.Identity, number uint64, raw []byte) (encoding, error) {
	var a wire.Announcement
	if err := wire.Unmarshal(raw, &a); err != nil {
		return encoding{}, fmt.Errorf("announcement: %w", err)
	}
	id := who.PKIID()
	if !bytes.Equal(a.Tag, tag[:]) {
		return encoding{}, fmt.Errorf("announcement: %w", WrongChannel)
	}
	if !bytes.Equal(a.Announcer, id[:]) {
		return encoding{}, fmt.Errorf("announcement by %x: %w", a.Announcer, UnknownAnnouncer)
	}
	if err := who.Verify(announcementBytes(&a), a.Signature); err != nil {
		return encoding{}, fmt.Errorf("announcement: %w: %s", BadSignature, err.Error())
	}
	b, err := block.Decode(a.Block)
	if err != nil {
		return encoding{}, err
	}
	if b.Header == nil || b.Header.Number != number || b.Data != nil {
		return encoding{}, fmt.Errorf("announcement of another block, or with its body: %w", BadAnnouncement)
	}
	return encoding{block.HeaderHash(b.Header), a.Size, a.Roots}, nil
}
