package admin

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/ledger"
	"grapevine/msp"
)

// notValidated is the code of a transaction that nobody here has judged.
// Orderers leave the filter empty, and nobody signs a peer's.
const notValidated = int(peer.TxValidationCode_NOT_VALIDATED)

// DecodeBlock reads a marshalled block into its JSON object. Rules are those in
// force before the block, by which its signatures are judged; nil judges none.
// Full adds the payloads. The error is for bytes that are no block; odd entries
// inside one are shown as far as they can be read.
func DecodeBlock(raw []byte, rules *block.Rules, full bool) (*Block, error) {
	b, err := block.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decode block: %w", err)
	}
	if b.Header == nil {
		return nil, fmt.Errorf("decode block: %w", block.NoHeader)
	}
	hash := block.HeaderHash(b.Header)
	out := &Block{
		Number: b.Header.Number, Hash: hex.EncodeToString(hash[:]),
		PreviousHash: hex.EncodeToString(b.Header.PreviousHash), DataHash: hex.EncodeToString(b.Header.DataHash),
		Size: len(raw), Config: block.IsConfig(b), TxCount: len(b.Data.GetData()), ValiditySource: ValidityNone,
	}
	for i, entry := range b.Data.GetData() {
		tx, channel := decodeTx(entry, full)
		tx.Index = i
		if out.Channel == "" {
			out.Channel = channel
		}
		out.Txs = append(out.Txs, tx)
	}
	out.LastConfig, out.Signatures = decodeSignatures(b, rules)
	return out, nil
}

// judged enters what was found of the block's transactions here.
func (b *Block) judged(v ledger.Verdict, by string) {
	b.ValiditySource, b.CommitHash = by, hex.EncodeToString(v.CommitHash)
	for i := range b.Txs {
		code := peer.TxValidationCode(v.Codes[i])
		b.Txs[i].Validity, b.Txs[i].ValidityCode = code.String(), int(code)
	}
}

// decodeTx reads what can be read of one entry, and its channel's name.
func decodeTx(entry []byte, full bool) (tx Tx, channel string) {
	tx = Tx{Size: len(entry), Validity: peer.TxValidationCode_name[int32(notValidated)], ValidityCode: notValidated}
	env := &common.Envelope{}
	if proto.Unmarshal(entry, env) != nil {
		return tx, ""
	}
	if full {
		tx.Payload = base64.StdEncoding.EncodeToString(env.Payload)
	}
	header, creator, err := block.Header(env)
	if err != nil {
		return tx, ""
	}
	tx.ID, tx.Type = printable(header.TxId), typeName(header.Type)
	if header.Timestamp.IsValid() {
		tx.Time = Time{header.Timestamp.AsTime()}
	}
	tx.MSPID, tx.Subject = who(creator.GetCreator())
	return tx, header.ChannelId
}

// typeName names a header type: "config", "endorser", or Fabric's word.
func typeName(t int32) string {
	switch common.HeaderType(t) {
	case common.HeaderType_CONFIG:
		return "config"
	case common.HeaderType_ENDORSER_TRANSACTION:
		return "endorser"
	}
	return strings.ToLower(common.HeaderType(t).String())
}

// who reads a creator: the MSP ID and the certificate's subject, as far as they
// can be read.
func who(creator []byte) (mspID, subject string) {
	if len(creator) == 0 {
		return "", ""
	}
	id, err := msp.Deserialize(creator)
	if err != nil {
		return "", ""
	}
	return id.MSPID(), id.Certificate().Subject.String()
}

// decodeSignatures reads the signed last configuration and judges each signature
// by itself. Whether all are enough is the policy's to say.
func decodeSignatures(b *common.Block, rules *block.Rules) (lastConfig uint64, out []Signature) {
	slots := b.Metadata.GetMetadata()
	meta, signed := &common.Metadata{}, &common.OrdererBlockMetadata{}
	if len(slots) == 0 || proto.Unmarshal(slots[common.BlockMetadataIndex_SIGNATURES], meta) != nil {
		return 0, nil
	}
	if proto.Unmarshal(meta.Value, signed) == nil {
		lastConfig = signed.LastConfig.GetIndex()
	}
	for _, s := range meta.Signatures {
		out = append(out, decodeSignature(b.Header, meta.Value, s, rules))
	}
	return lastConfig, out
}

func decodeSignature(h *common.BlockHeader, value []byte, s *common.MetadataSignature, rules *block.Rules) Signature {
	var (
		out    Signature
		id     *msp.Identity
		signer = s.SignatureHeader
		header = &common.SignatureHeader{}
		named  = &common.IdentifierHeader{}
	)
	switch {
	case len(signer) > 0:
		if proto.Unmarshal(signer, header) == nil {
			id, _ = msp.Deserialize(header.Creator) // nil: shown as nobody's
		}
	case len(s.IdentifierHeader) > 0:
		signer = s.IdentifierHeader
		if proto.Unmarshal(signer, named) == nil {
			out.ConsenterID = named.Identifier
			if rules != nil {
				id = rules.Consenters[named.Identifier]
			}
		}
	}
	if id == nil {
		return out
	}
	out.MSPID, out.Subject = id.MSPID(), id.Certificate().Subject.String()
	if rules == nil {
		return out
	}
	m := rules.MSPs[id.MSPID()]
	out.Valid = m != nil && m.Validate(id) == nil && m.Verify(id, block.SigningBytes(value, signer, h), s.Signature) == nil
	return out
}

// printable drops what a terminal or a JSON string shouldn't meet: a writer may
// put any bytes where an id belongs.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}
