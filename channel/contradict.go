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
	a, err := Claimed(tag, who, number, one)
	if err != nil {
		return err
	}
	b, err := Claimed(tag, who, number, other)
	if err != nil {
		return err
	}
	if block.HeaderHash(a.Header.Header) != block.HeaderHash(b.Header.Header) || a.Size == b.Size && bytes.Equal(a.Roots, b.Roots) {
		return fmt.Errorf("announcements of block %d: %w", number, block.NoConflict)
	}
	return nil
}

// Claimed reads the announcement of large block number, in the bytes that
// travelled, and verifies that who signed it. What the orderers signed of it isn't
// looked at.
func Claimed(tag [32]byte, who *msp.Identity, number uint64, raw []byte) (Announced, error) {
	var a wire.Announcement
	if err := wire.Unmarshal(raw, &a); err != nil {
		return Announced{}, fmt.Errorf("announcement: %w", err)
	}
	id := who.PKIID()
	if !bytes.Equal(a.Tag, tag[:]) {
		return Announced{}, fmt.Errorf("announcement: %w", WrongChannel)
	}
	if !bytes.Equal(a.Announcer, id[:]) {
		return Announced{}, fmt.Errorf("announcement by %x: %w", a.Announcer, UnknownAnnouncer)
	}
	if err := who.Verify(announcementBytes(&a), a.Signature); err != nil {
		return Announced{}, fmt.Errorf("announcement: %w: %s", BadSignature, err.Error())
	}
	b, err := block.Decode(a.Block)
	if err != nil {
		return Announced{}, err
	}
	if b.Header == nil || b.Header.Number != number || b.Data != nil {
		return Announced{}, fmt.Errorf("announcement of another block, or with its body: %w", BadAnnouncement)
	}
	return Announced{Header: b, Size: a.Size, Roots: a.Roots, Raw: raw}, nil
}
