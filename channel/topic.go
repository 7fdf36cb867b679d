package channel

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/wire"
)

// announce makes the announcement of a block, marshalled, and what it claims.
// An inline one is a function of the block alone, so that two leaders' messages
// of one block have one id; a large one, which has roots, is signed by self.
func announce(tag [32]byte, c *block.Checked, roots []byte, self msp.Signer) ([]byte, claim, error) {
	b := c.Block()
	size := proto.Size(b.Data)
	a := &wire.Announcement{Tag: tag[:], Size: uint64(size), Roots: roots}
	said := claim{number: c.Number(), hash: c.Hash(), body: size <= wire.InlineLimit}
	if said.body {
		a.Block = c.Bytes()
	} else {
		head, err := block.Marshal(&common.Block{Header: b.Header, Metadata: b.Metadata})
		if err != nil {
			return nil, claim{}, err
		}
		self = msp.Present(self)
		said.announcer, said.roots = self.Identity().PKIID(), sha256.Sum256(roots)
		a.Block, a.Announcer = head, said.announcer[:]
		if a.Signature, err = self.Sign(announcementBytes(a)); err != nil {
			return nil, claim{}, fmt.Errorf("signing the announcement: %w", err)
		}
	}
	data, err := wire.Marshal(a)
	if err != nil {
		return nil, claim{}, fmt.Errorf("marshalling the announcement: %w", err)
	}
	if len(data) > maxMessage {
		return nil, claim{}, fmt.Errorf("announcement of %d bytes, the limit is %d: its metadata is too large", len(data), maxMessage)
	}
	return data, said, nil
}

// maxMessage is how long a message's data may be: GossipSub's limit is for the
// RPC around it, with the topic's name and lengths.
const maxMessage = wire.MaxGossip - 64

// announcementBytes returns what the announcer signs.
func announcementBytes(a *wire.Announcement) []byte {
	sum := wire.HashParts([]byte(wire.DomainAnnouncement), a.Tag, a.Block,
		binary.BigEndian.AppendUint64(nil, a.Size), a.Announcer, a.Roots)
	return sum[:]
}
