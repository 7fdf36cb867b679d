package block

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/wire"
)

// Attest judges a header and its metadata without the body: signatures and
// last configuration, but neither cut nor data hash nor channel name. Its link
// to a known header is what ties it to the channel. B.Data is not looked at.
func Attest(r *Rules, b *common.Block) error {
	if b.GetHeader() == nil {
		return fmt.Errorf("attestation: %w", NoHeader)
	}
	n := b.Header.Number
	if len(b.Header.ProtoReflect().GetUnknown()) > 0 || len(b.Header.DataHash) != sha256.Size {
		return fmt.Errorf("attestation of block %d: %w", n, Malformed)
	}
	if err := checkPrevious(b.Header); err != nil {
		return fmt.Errorf("attestation of block %d: %w", n, err)
	}
	meta, err := readMetadata(b.Metadata, -1)
	if err != nil {
		return fmt.Errorf("attestation of block %d: %w", n, err)
	}
	config := meta.lastConfig == n
	if err := checkLastConfig(r, n, meta.lastConfig, config); err != nil {
		return fmt.Errorf("attestation of block %d: %w", n, err)
	}
	err = attest(r, b.Header, HeaderHash(b.Header), &meta)
	if err != nil && config && n > r.LastConfig+1 {
		// Another configuration may lie between, with other orderers.
		return fmt.Errorf("attestation of configuration block %d: %w: %v", n, UnknownConfig, err)
	}
	if err != nil {
		return fmt.Errorf("attestation of block %d: %w", n, err)
	}
	return nil
}

// SigningBytes returns what an orderer signs: the metadata value, the header
// that names the signer, and the block header's bytes.
func SigningBytes(value, signer []byte, h *common.BlockHeader) []byte {
	msg := make([]byte, 0, len(value)+len(signer)+96)
	msg = append(append(msg, value...), signer...)
	return appendHeader(msg, h)
}

// attest verifies the orderers' signatures. What held once under these rules
// isn't verified again; the key covers every byte that counts.
func attest(r *Rules, h *common.BlockHeader, hash [32]byte, m *metadata) error {
	if len(m.signatures) == 0 {
		return NoSignature
	}
	key := wire.HashParts(hash[:], m.slot)
	if r.knows(key) {
		return nil
	}
	for _, s := range m.signatures {
		if len(s.header) > 0 && len(s.identifier) > 0 {
			return AmbiguousSigner
		}
	}
	var err error
	if r.BFT {
		err = attestBFT(r, h, m)
	} else {
		err = attestPolicy(r, h, m)
	}
	if err == nil {
		r.remember(key)
	}
	return err
}

// attestPolicy asks the BlockValidation policy. A Raft orderer sends its one
// signature, whose signer is looked up rather than judged anew each time.
func attestPolicy(r *Rules, h *common.BlockHeader, m *metadata) error {
	const limit = 16
	if n := len(m.signatures); n > limit {
		return fmt.Errorf("%d signatures, %d allowed: %w", n, limit, TooManySignatures)
	}
	var refused error // the unknown signers
	var good []msp.SignedData
	for _, s := range m.signatures {
		creator, err := creatorOf(s)
		if err != nil {
			return err
		}
		id, err := r.signer(creator)
		if id == nil {
			refused = errors.Join(refused, fmt.Errorf("%w: %v", BadSigner, err))
			continue
		}
		data := msp.SignedData{
			Creator:   id,
			Data:      [][]byte{SigningBytes(m.value, s.header, h)},
			Signature: s.bytes,
		}
		good = append(good, data)
		if len(m.signatures) > 1 {
			continue
		}
		if err != nil {
			return r.explain(id, err)
		}
		return explainSignature(r.verify(id, data.Data[0], s.bytes))
	}
	if len(good) == 0 {
		return refused
	}
	err := r.BlockValidation.Evaluate(r.MSPs, good)
	if err == nil {
		return nil
	}
	for _, data := range good {
		if err := explainSignature(r.verify(data.Creator, data.Data[0], data.Signature)); err != nil {
			return err
		}
	}
	return r.explain(good[0].Creator, err)
}

// attestBFT counts the consenters that signed, each key once, up to a quorum.
func attestBFT(r *Rules, h *common.BlockHeader, m *metadata) error {
	// Honest orderers send a quorum; twice the consenters leaves room for
	// whatever a relay added without paying for it.
	if n, limit := len(m.signatures), max(16, 2*len(r.Consenters)); n > limit {
		return fmt.Errorf("%d signatures, %d allowed: %w", n, limit, TooManySignatures)
	}
	valid := r.consenters()
	signed := make(map[msp.PKIID]bool, len(valid))
	need := r.Quorum()
	for i, s := range m.signatures {
		id, err := consenterOf(r, s, valid)
		if err != nil {
			return fmt.Errorf("signature %d: %w", i, err)
		}
		if id == nil || signed[id.PKIID()] {
			continue
		}
		header := s.header
		if len(header) == 0 {
			header = s.identifier
		}
		if r.verify(id, SigningBytes(m.value, header, h), s.bytes) != nil {
			continue
		}
		signed[id.PKIID()] = true
		if len(signed) == need {
			return nil
		}
	}
	return fmt.Errorf("%d of %d consenters signed: %w", len(signed), need, NoQuorum)
}

// consenterOf returns the consenter that a signature names, by its certificate
// or by id; nil if it is none.
func consenterOf(r *Rules, s signature, valid map[msp.PKIID]*msp.Identity) (*msp.Identity, error) {
	if len(s.header) == 0 && len(s.identifier) > 0 && r.IdentifierHeaders {
		var h common.IdentifierHeader
		if err := proto.Unmarshal(s.identifier, &h); err != nil {
			return nil, fmt.Errorf("identifier header: %w: %v", BadSignature, err)
		}
		if id := r.Consenters[h.Identifier]; id != nil {
			return valid[id.PKIID()], nil
		}
		return nil, nil
	}
	creator, err := creatorOf(s)
	if err != nil {
		return nil, err
	}
	id, err := r.identify(creator)
	if err != nil {
		return nil, nil // an unknown signer is skipped, as Fabric does
	}
	if c := valid[id.PKIID()]; c != nil && c.Certificate().Equal(id.Certificate()) {
		return c, nil
	}
	return nil, nil
}

// creatorOf reads the header that names a signer. One that doesn't parse
// fails the block, as it does with Fabric.
func creatorOf(s signature) ([]byte, error) {
	var h common.SignatureHeader
	if err := proto.Unmarshal(s.header, &h); err != nil {
		return nil, fmt.Errorf("signature header: %w: %v", BadSignature, err)
	}
	return h.Creator, nil
}

// explain says why an identity doesn't satisfy BlockValidation.
func (r *Rules) explain(id *msp.Identity, refusal error) error {
	m := r.MSPs[id.MSPID()]
	if m == nil {
		return fmt.Errorf("%s is unknown: %w", id.MSPID(), BadSigner)
	}
	if err := m.Validate(id); err != nil {
		if errors.Is(err, msp.Revoked) {
			return fmt.Errorf("%s of %s: %w", id.Name(), id.MSPID(), SignerRevoked)
		}
	}
	return fmt.Errorf("%s of %s: %w: %v", id.Name(), id.MSPID(), BadSigner, refusal)
}

// explainSignature keeps the reasons of an encoding that is never valid and
// calls the rest a bad signature.
func explainSignature(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, msp.HighS) || errors.Is(err, msp.BadSignatureEncoding) {
		return fmt.Errorf("block signature: %w", err)
	}
	return fmt.Errorf("%w: %v", BadSignature, err)
}
