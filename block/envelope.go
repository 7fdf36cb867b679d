package block

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Header returns the two headers of an envelope's payload.
func Header(env *common.Envelope) (*common.ChannelHeader, *common.SignatureHeader, error) {
	var payload common.Payload
	if err := proto.Unmarshal(env.GetPayload(), &payload); err != nil {
		return nil, nil, fmt.Errorf("envelope payload: %w", err)
	}
	if payload.Header == nil {
		return nil, nil, fmt.Errorf("envelope without header")
	}
	var channel common.ChannelHeader
	if err := proto.Unmarshal(payload.Header.ChannelHeader, &channel); err != nil {
		return nil, nil, fmt.Errorf("channel header: %w", err)
	}
	var signer common.SignatureHeader
	if err := proto.Unmarshal(payload.Header.SignatureHeader, &signer); err != nil {
		return nil, nil, fmt.Errorf("signature header: %w", err)
	}
	return &channel, &signer, nil
}

// IsConfig reports whether a block holds a configuration: exactly one entry,
// of type CONFIG.
func IsConfig(b *common.Block) bool {
	data := b.GetData().GetData()
	if len(data) != 1 {
		return false
	}
	e, err := readEntry(data[0])
	return err == nil && e.config()
}

// ConfigEnvelope returns the configuration that a block holds; BadConfig if it
// holds none.
func ConfigEnvelope(b *common.Block) (*common.ConfigEnvelope, error) {
	if !IsConfig(b) {
		return nil, fmt.Errorf("block %d holds no configuration: %w", b.GetHeader().GetNumber(), BadConfig)
	}
	e, err := readEntry(b.Data.Data[0])
	if err != nil {
		return nil, err
	}
	return e.configEnvelope()
}

// An entry is what of a transaction concerns its block.
type entry struct {
	// canonical: payload, signature, then unknown fields, each once and in
	// the one encoding that marshalling gives, so that it re-marshals to its
	// own bytes.
	canonical bool
	size      int // bytes of payload and signature, as a cutter counts
	typ       int32
	channel   string
	txID      string
	data      []byte // the payload's data
}

func (e *entry) config() bool { return e.typ == int32(common.HeaderType_CONFIG) }

func (e *entry) configEnvelope() (*common.ConfigEnvelope, error) {
	var c common.ConfigEnvelope
	if err := proto.Unmarshal(e.data, &c); err != nil {
		return nil, fmt.Errorf("config envelope: %w: %w", BadConfig, err)
	}
	if c.Config == nil || c.Config.ChannelGroup == nil {
		return nil, fmt.Errorf("config envelope without configuration: %w", BadConfig)
	}
	return &c, nil
}

// readEntry reads an entry as Go's protobuf would, without copying: of a
// repeated singular field the last counts, and a known number with another
// wire type is an unknown field.
func readEntry(raw []byte) (entry, error) {
	e := entry{canonical: true}
	var payload, sig []byte
	seen := protowire.Number(0) // the last of fields 1 and 2, or 3 for an unknown one
	err := walk(raw, func(num protowire.Number, typ protowire.Type, field, value []byte) {
		place := protowire.Number(3)
		if typ == protowire.BytesType && num <= 2 {
			place = num
			if num == 1 {
				payload = value
			} else {
				sig = value
			}
			minimal := 1 + protowire.SizeBytes(len(value))
			e.canonical = e.canonical && place == seen+1 && len(field) == minimal
		} else {
			e.canonical = e.canonical && seen >= 2
		}
		seen = place
	})
	if err != nil {
		return entry{}, fmt.Errorf("envelope: %w", err)
	}
	e.canonical = e.canonical && len(payload) > 0 && len(sig) > 0
	e.size = len(payload) + len(sig)
	return e, e.readPayload(payload)
}

func (e *entry) readPayload(payload []byte) error {
	var header, nested error
	var channel []byte
	found := false
	err := walk(payload, func(num protowire.Number, typ protowire.Type, _, value []byte) {
		switch {
		case typ != protowire.BytesType:
		case num == 1:
			found = true
			nested = walk(value, func(num protowire.Number, typ protowire.Type, _, value []byte) {
				if num == 1 && typ == protowire.BytesType {
					channel = value
				}
			})
			if header == nil {
				header = nested
			}
		case num == 2:
			e.data = value
		}
	})
	if err != nil || header != nil || !found {
		return fmt.Errorf("payload names no channel: %w", WrongChannel)
	}
	var h common.ChannelHeader
	if err := proto.Unmarshal(channel, &h); err != nil {
		return fmt.Errorf("channel header: %w: %w", WrongChannel, err)
	}
	e.typ, e.channel, e.txID = h.Type, h.ChannelId, h.TxId
	return nil
}

// walk calls visit with each top-level field of a message: the whole field,
// and for bytes their value. Fields are read as Go's protobuf reads them.
func walk(raw []byte, visit func(num protowire.Number, typ protowire.Type, field, value []byte)) error {
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		if n < 0 || num > protowire.MaxValidNumber {
			return NotCanonical
		}
		m := protowire.ConsumeFieldValue(num, typ, raw[n:])
		if m < 0 {
			return NotCanonical
		}
		var value []byte
		if typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(raw[n:])
		}
		visit(num, typ, raw[:n+m], value)
		raw = raw[n+m:]
	}
	return nil
}

// TxIDs returns the transaction id of each entry of a block, as a [Verified] one
// tells them.
func TxIDs(b *common.Block) ([]string, error) {
	ids := make([]string, len(b.GetData().GetData()))
	for i, raw := range b.GetData().GetData() {
		e, err := readEntry(raw)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		ids[i] = e.txID
	}
	return ids, nil
}
