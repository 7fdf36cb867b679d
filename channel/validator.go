package channel

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/wire"
)

// Reasons for which a message on a channel's topics is refused, beside those of
// wire and block.
var (
	WrongChannel     = wire.NewReason("channel.wrong_channel", wire.Reject)
	WrongTopic       = wire.NewReason("channel.wrong_topic", wire.Reject)
	BadAnnouncement  = wire.NewReason("channel.bad_announcement", wire.Reject)
	BadSignature     = wire.NewReason("channel.bad_signature", wire.Reject)
	UnknownAnnouncer = wire.NewReason("channel.unknown_announcer", wire.Ignore)
	Left             = wire.NewReason("channel.left", wire.Ignore)
	// TwoEncodings is no offence of who passes it on: it can't know of both.
	TwoEncodings = wire.NewReason("channel.two_encodings", wire.Ignore)
)

// A judge says what is true on a channel's topics. It has no network: what it
// needs to know are functions, each cheap and safe for concurrent use.
type judge struct {
	tag    [32]byte
	member func(peer.ID) bool
	rules  func() *block.Rules // nil while no configuration is known
	height func() uint64
	window uint64
	known  func(msp.PKIID) (peer.ID, *msp.Identity, bool)
	ahead  func(from peer.ID, height uint64)
	roots  func(size uint64, roots []byte) error
	below  func(*common.Block) error
	lied   func(announcer msp.PKIID, number uint64, one, other []byte)
	heard  heard
}

// announcement judges one that came from a peer. What it returns without error
// is true in itself (only the block's link is unproven) and new. The order is
// from cheap to dear: nothing is verified that could be dropped unverified.
func (j *judge) announcement(from peer.ID, data []byte) (Announced, error) {
	if !j.member(from) {
		return Announced{}, NotMember
	}
	a := &wire.Announcement{}
	if err := wire.Unmarshal(data, a); err != nil {
		return Announced{}, misplaced(err, data, &wire.SignedAlive{})
	}
	if !bytes.Equal(a.Tag, j.tag[:]) {
		return Announced{}, WrongChannel
	}
	b, err := block.Decode(a.Block)
	if err != nil {
		return Announced{}, err
	}
	if b.Header == nil {
		return Announced{}, block.NoHeader
	}
	n := b.Header.Number
	height := j.height()
	if n < height && j.below != nil {
		return Announced{}, fmt.Errorf("block %d at height %d: %w", n, height, j.below(&common.Block{Header: b.Header, Metadata: b.Metadata}))
	}
	if err := j.place(from, n, height); err != nil {
		return Announced{}, fmt.Errorf("block %d at height %d: %w", n, height, err)
	}
	c, err := j.shape(a, b)
	if err != nil {
		return Announced{}, fmt.Errorf("announcement of block %d: %w", n, err)
	}
	c.raw = data
	if other := j.heard.rival(c); other != nil {
		return Announced{}, fmt.Errorf("announcement of block %d: %w", n, j.twice(a, c, other))
	}
	if !j.heard.news(c) {
		return Announced{}, fmt.Errorf("block %d: %w", n, block.Stale)
	}
	told, err := j.content(from, a, b)
	if wire.ReasonOf(err) == block.UnknownConfig || wire.VerdictOf(err) == wire.Halt {
		j.tell(from, n) // what halts the channel does so where blocks are committed
	}
	if err != nil {
		return Announced{}, fmt.Errorf("announcement of block %d: %w", n, err)
	}
	if !j.heard.add(c, height) {
		return Announced{}, fmt.Errorf("block %d: %w", n, block.Stale)
	}
	told.Raw = data
	return told, nil
}

// own judges what this node publishes itself. The block was checked when the
// Checked was made; that it is true in itself isn't asked twice.
func (j *judge) own(c claim) error {
	height := j.height()
	if c.number < height {
		return fmt.Errorf("block %d at height %d: %w", c.number, height, block.Stale)
	}
	if !j.heard.add(c, height) {
		return fmt.Errorf("block %d: %w", c.number, block.Stale)
	}
	return nil
}

// place says whether number n is one that we can take now.
func (j *judge) place(from peer.ID, n, height uint64) error {
	if n < height {
		return block.Stale
	}
	if n-height >= j.window {
		j.tell(from, n)
		return block.TooFar
	}
	return nil
}

// tell hands on the hint that from knows of block n.
func (j *judge) tell(from peer.ID, n uint64) {
	if j.ahead != nil && n < ^uint64(0) {
		j.ahead(from, n+1)
	}
}

// twice judges an announcement whose announcer said something else before.
func (j *judge) twice(a *wire.Announcement, c claim, other []byte) error {
	if _, err := j.announcer(a); err != nil {
		return err
	}
	j.heard.settled(c)
	if j.lied != nil {
		j.lied(c.announcer, c.number, other, c.raw)
	}
	return TwoEncodings
}

// shape says what a claims, if it has one of the two shapes that an
// announcement has.
func (j *judge) shape(a *wire.Announcement, b *common.Block) (claim, error) {
	c := claim{number: b.Header.Number, hash: block.HeaderHash(b.Header), body: b.Data != nil}
	if c.body {
		if len(a.Announcer)+len(a.Signature)+len(a.Roots) != 0 {
			return c, fmt.Errorf("inline, with an announcer: %w", BadAnnouncement)
		}
		if size := proto.Size(b.Data); size > wire.InlineLimit || uint64(size) != a.Size {
			return c, fmt.Errorf("inline, data of %d bytes, said to be %d: %w", size, a.Size, BadAnnouncement)
		}
		return c, nil
	}
	if a.Size <= wire.InlineLimit || a.Size > wire.MaxBlock {
		return c, fmt.Errorf("large, data said to be %d bytes: %w", a.Size, BadAnnouncement)
	}
	if len(a.Announcer) != len(c.announcer) || len(a.Signature) == 0 {
		return c, fmt.Errorf("large, without an announcer: %w", BadAnnouncement)
	}
	if err := j.roots(a.Size, a.Roots); err != nil {
		return c, fmt.Errorf("%w: %s", BadAnnouncement, err.Error())
	}
	c.announcer, c.roots = [32]byte(a.Announcer), sha256.Sum256(a.Roots)
	return c, nil
}

// content verifies what an announcement says.
func (j *judge) content(from peer.ID, a *wire.Announcement, b *common.Block) (Announced, error) {
	rules := j.rules()
	if rules == nil {
		return Announced{}, block.UnknownConfig
	}
	if b.Data != nil {
		c, err := block.Check(rules, a.Block)
		if err != nil {
			return Announced{}, err
		}
		return Announced{From: from, Checked: c, Size: a.Size}, nil
	}
	who, err := j.announcer(a)
	if err != nil {
		return Announced{}, err
	}
	if err := block.Attest(rules, b); err != nil {
		return Announced{}, err
	}
	return Announced{From: from, Announcer: who, Header: b, Size: a.Size, Roots: a.Roots}, nil
}

// announcer verifies who signed a, and returns its host.
func (j *judge) announcer(a *wire.Announcement) (peer.ID, error) {
	who, id, ok := j.known(msp.PKIID(a.Announcer))
	if !ok {
		return "", fmt.Errorf("announcer %x: %w", a.Announcer, UnknownAnnouncer)
	}
	if err := id.Verify(announcementBytes(a), a.Signature); err != nil {
		return "", fmt.Errorf("announcer %x: %w: %s", a.Announcer, BadSignature, err.Error())
	}
	return who, nil
}

// alive decodes a heartbeat that came from a peer; whether it is true is
// membership's to say.
func (j *judge) alive(from peer.ID, data []byte) (*wire.SignedAlive, error) {
	if !j.member(from) {
		return nil, NotMember
	}
	a := &wire.SignedAlive{}
	if err := wire.Unmarshal(data, a); err != nil {
		return nil, misplaced(err, data, &wire.Announcement{})
	}
	return a, nil
}

// misplaced says whether data, which isn't what its topic carries, is what the
// other topic carries.
func misplaced(err error, data []byte, other proto.Message) error {
	if wire.Unmarshal(data, other) == nil {
		return WrongTopic
	}
	return err
}
