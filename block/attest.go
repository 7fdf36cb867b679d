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

// maxPolicySignatures bounds the signatures under a policy, before the first is
// verified. Raft orderers send one.
const maxPolicySignatures = 16

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
		return fmt.Errorf("attestation of configuration block %d: %w: %s", n, UnknownConfig, err.Error())
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

// attestPolicy asks the BlockValidation policy. A Raft orderer sends one
// signature, for which the policy's answer is known once its signer is.
func attestPolicy(r *Rules, h *common.BlockHeader, m *metadata) error {
	if n := len(m.signatures); n > maxPolicySignatures {
		return fmt.Errorf("%d signatures, %d allowed: %w", n, maxPolicySignatures, TooManySignatures)
	}
	var signers []msp.SignedData
	var unknown error
	for _, s := range m.signatures {
		creator, err := creatorOf(s)
		if err != nil {
			return err
		}
		id, err := r.signer(creator)
		switch {
		case id == nil:
			unknown = fmt.Errorf("%w: %s", BadSigner, err.Error())
			continue
		case err != nil && len(m.signatures) == 1:
			return r.explain(id, err)
		}
		signers = append(signers, msp.SignedData{
			Creator:   id,
			Data:      [][]byte{SigningBytes(m.value, s.header, h)},
			Signature: s.bytes,
		})
	}
	switch {
	case len(signers) == 0:
		return unknown
	case len(m.signatures) == 1:
		return r.verifySigned(signers[0])
	}
	refusal := r.BlockValidation.Evaluate(r.MSPs, signers)
	if refusal == nil {
		return nil
	}
	for _, s := range signers {
		if err := r.verifySigned(s); err != nil {
			return err
		}
	}
	return r.explain(signers[0].Creator, refusal)
}

// attestBFT counts the consenters that signed, each key once, up to a quorum.
func attestBFT(r *Rules, h *common.BlockHeader, m *metadata) error {
	// Honest orderers send a quorum; twice the consenters leaves room for
	// whatever a relay added without paying for it.
	if n, limit := len(m.signatures), max(maxPolicySignatures, 2*len(r.Consenters)); n > limit {
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
		if r.MSPs[id.MSPID()].Verify(id, SigningBytes(m.value, header, h), s.bytes) != nil {
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
			return nil, fmt.Errorf("identifier header: %w: %w", BadSignature, err)
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
	id, _, err := r.MSPs.Identify(creator)
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
		return nil, fmt.Errorf("signature header: %w: %w", BadSignature, err)
	}
	return h.Creator, nil
}

// explain says why an identity doesn't satisfy BlockValidation.
func (r *Rules) explain(id *msp.Identity, refusal error) error {
	if err := r.MSPs[id.MSPID()].Validate(id); errors.Is(err, msp.Revoked) {
		return fmt.Errorf("%s of %s: %w", id.Name(), id.MSPID(), SignerRevoked)
	}
	return fmt.Errorf("%s of %s: %w: %s", id.Name(), id.MSPID(), BadSigner, refusal.Error())
}

// verifySigned verifies a signature as its identity's MSP would. The reasons of
// an encoding that is never valid are kept; the rest is a bad signature.
func (r *Rules) verifySigned(s msp.SignedData) error {
	err := r.MSPs[s.Creator.MSPID()].Verify(s.Creator, s.Data[0], s.Signature)
	if err == nil {
		return nil
	}
	if errors.Is(err, msp.HighS) || errors.Is(err, msp.BadSignatureEncoding) {
		return fmt.Errorf("block signature: %w", err)
	}
	return fmt.Errorf("%w: %s", BadSignature, err.Error())
}
