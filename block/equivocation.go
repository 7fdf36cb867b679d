package block

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/wire"
)

// NoConflict is said of two headers that may both be true: copies of one block,
// however signed, or blocks that follow different ones.
var NoConflict = wire.NewReason("block.no_conflict", wire.Ignore)

// Conflicting says whether two headers contradict each other if both are
// validly signed: they have one number and one predecessor, and differ. Who
// signs many channels signs many headers of one number, but a previous hash
// belongs to one chain alone; so block 0, which has none, conflicts with
// nothing. What the metadata say plays no part.
func Conflicting(one, other *common.BlockHeader) bool {
	return one.GetNumber() == other.GetNumber() && len(one.GetPreviousHash()) == 32 &&
		bytes.Equal(one.GetPreviousHash(), other.GetPreviousHash()) && HeaderHash(one) != HeaderHash(other)
}

// Equivocation proves that the orderers signed two headers which contradict each
// other, under the rules of the configuration in force before both. It returns
// those who can't have been right, by PKI-ID: whose keys signed both. There may be
// none. A Raft orderer's copy bears its own signature alone, and who signed one of
// the two may be right. A correct BFT orderer may sign two proposals for one place
// in two views, so it must have signed both in one view (and sequence), as the
// signed metadata tell. Data isn't looked at. The error says why it is no proof.
func Equivocation(r *Rules, one, other *common.Block) ([]*msp.Identity, error) {
	if !Conflicting(one.GetHeader(), other.GetHeader()) {
		return nil, fmt.Errorf("blocks %d and %d: %w", one.GetHeader().GetNumber(), other.GetHeader().GetNumber(), NoConflict)
	}
	var signed [2]map[msp.PKIID]*msp.Identity
	for i, b := range []*common.Block{one, other} {
		if err := Attest(r, b); err != nil {
			return nil, err
		}
		var err error
		if signed[i], err = signersOf(r, b); err != nil {
			return nil, fmt.Errorf("signers of block %d: %w", b.Header.Number, err)
		}
	}
	if r.BFT && !sameRound(one, other) {
		return nil, nil
	}
	var both []*msp.Identity
	for id, who := range signed[0] {
		if signed[1][id] != nil {
			both = append(both, who)
		}
	}
	sortByID(both)
	return both, nil
}

// Signers returns who signed an attested header validly, each key once, by
// PKI-ID.
func Signers(r *Rules, b *common.Block) ([]*msp.Identity, error) {
	all, err := signersOf(r, b)
	if err != nil {
		return nil, fmt.Errorf("signers of block %d: %w", b.GetHeader().GetNumber(), err)
	}
	var list []*msp.Identity
	for _, who := range all {
		list = append(list, who)
	}
	sortByID(list)
	return list, nil
}

// signersOf returns the identities whose signatures on a header hold: with BFT
// consenters alone, else whoever an MSP of the channel finds valid. Garbage
// beside them accuses nobody.
func signersOf(r *Rules, b *common.Block) (map[msp.PKIID]*msp.Identity, error) {
	m, err := readMetadata(b.GetMetadata(), -1)
	if err != nil {
		return nil, err
	}
	all := make(map[msp.PKIID]*msp.Identity)
	for _, s := range m.signatures {
		var who *msp.Identity
		header := s.header
		if r.BFT {
			who, err = consenterOf(r, s, r.consenters())
			if len(header) == 0 {
				header = s.identifier
			}
		} else {
			who, err = policySigner(r, s)
		}
		if err != nil || who == nil {
			continue
		}
		if r.MSPs[who.MSPID()].Verify(who, SigningBytes(m.value, header, b.Header), s.bytes) == nil {
			all[who.PKIID()] = who
		}
	}
	return all, nil
}

// sameRound says whether two attested blocks of BFT orderers were signed in one
// view and sequence; false if that can't be read.
func sameRound(one, other *common.Block) bool {
	view, sequence, ok := roundOf(one)
	v, s, read := roundOf(other)
	return ok && read && v == view && s == sequence
}

// roundOf reads the first two fields of SmartBFT's ViewMetadata: view_id and
// latest_sequence.
func roundOf(b *common.Block) (view, sequence uint64, ok bool) {
	m, err := readMetadata(b.GetMetadata(), -1)
	var value common.OrdererBlockMetadata
	if err != nil || proto.Unmarshal(m.value, &value) != nil {
		return 0, 0, false
	}
	for rest := value.ConsenterMetadata; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return 0, 0, false
		}
		rest = rest[n:]
		if typ != protowire.VarintType || num > 2 {
			if n = protowire.ConsumeFieldValue(num, typ, rest); n < 0 {
				return 0, 0, false
			}
			rest = rest[n:]
			continue
		}
		v, n := protowire.ConsumeVarint(rest)
		if n < 0 {
			return 0, 0, false
		}
		rest = rest[n:]
		if num == 1 {
			view = v
		} else {
			sequence = v
		}
	}
	return view, sequence, true
}

// policySigner is the valid identity that a signature under a policy names.
func policySigner(r *Rules, s signature) (*msp.Identity, error) {
	creator, err := creatorOf(s)
	if err != nil {
		return nil, err
	}
	who, in, err := r.MSPs.Identify(creator)
	if err != nil {
		return nil, err
	}
	return who, in.Validate(who)
}

func sortByID(list []*msp.Identity) {
	slices.SortFunc(list, func(a, b *msp.Identity) int {
		x, y := a.PKIID(), b.PKIID()
		return bytes.Compare(x[:], y[:])
	})
}
