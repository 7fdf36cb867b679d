package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
)

// Tx is a prepared transaction: what of it can be judged without the state. It is
// immutable, and points into the entry it was made from.
type Tx struct {
	// form is the verdict on envelope, headers, creator and shape; late the one on
	// what the endorsers signed, which is told only after the ledger was asked for
	// the id.
	form, late Code

	id         string // of an endorser transaction
	configures bool   // it is a configuration
	config     []byte // its data

	chaincode string
	sets      []byte // rwset.TxReadWriteSet, checked
	signers   *msp.Ballot
}

// Code is what is known of the verdict: VALID if the state decides.
func (t *Tx) Code() Code {
	if t.form != peer.TxValidationCode_VALID {
		return t.form
	}
	return t.late
}

// Prepare judges a transaction as far as it can be without the state. It verifies
// signatures, so it takes long; it is safe for concurrent use. Rules are those in
// force before the transaction's block. The order of the checks is Fabric's
// (core/common/validation, core/committer/txvalidator/v20/plugindispatcher).
func Prepare(r *Rules, entry []byte) *Tx {
	t := &Tx{}
	t.form = t.prepare(r, entry)
	return t
}

// An envelope taken apart.
type envelope struct{ payload, signature []byte }

func (t *Tx) prepare(r *Rules, entry []byte) Code {
	var e envelope
	if err := walk(entry, func(f field) bool {
		switch {
		case f.is(1):
			e.payload = f.bytes
		case f.is(2):
			e.signature = f.bytes
		}
		return true
	}); err != nil {
		return peer.TxValidationCode_INVALID_OTHER_REASON
	}
	h, err := readPayload(e.payload)
	if err != nil {
		return peer.TxValidationCode_BAD_PAYLOAD
	}
	channel, creator, ok := h.read()
	t.configures = channel.GetType() == int32(common.HeaderType_CONFIG)
	if !ok {
		return peer.TxValidationCode_BAD_COMMON_HEADER
	}
	if !signed(r, creator.Creator, e) {
		return peer.TxValidationCode_BAD_CREATOR_SIGNATURE
	}
	switch common.HeaderType(channel.Type) {
	case common.HeaderType_ENDORSER_TRANSACTION:
		if channel.TxId != txID(creator) {
			return peer.TxValidationCode_BAD_PROPOSAL_TXID
		}
		t.id = channel.TxId
		a, err := readAction(h)
		if err != nil {
			return peer.TxValidationCode_INVALID_ENDORSER_TRANSACTION
		}
		t.late = t.readResponse(channel, a)
		if t.late == peer.TxValidationCode_VALID {
			t.signers = msp.Count(r.MSPs, a.signatures(r))
		}
	case common.HeaderType_CONFIG:
		if h.data == nil {
			return peer.TxValidationCode_INVALID_CONFIG_TRANSACTION
		}
		t.config = h.data
	default: // CONFIG_UPDATE
		return peer.TxValidationCode_UNSUPPORTED_TX_PAYLOAD
	}
	return peer.TxValidationCode_VALID
}

// A payload taken apart.
type payload struct {
	headed             bool
	channel, signature []byte // the headers as they came; nil if absent
	data               []byte // nil if absent
}

func readPayload(raw []byte) (p payload, err error) {
	var header []byte
	if err = walk(raw, func(f field) bool {
		switch {
		case f.is(1):
			p.headed = true
			header = sub(header, f.bytes)
		case f.is(2):
			p.data = f.bytes
		}
		return true
	}); err != nil {
		return p, err
	}
	return p, walk(header, func(f field) bool {
		switch {
		case f.is(1):
			p.channel = f.bytes
		case f.is(2):
			p.signature = f.bytes
		}
		return true
	})
}

// read decodes the headers and checks what every transaction needs.
func (p *payload) read() (*common.ChannelHeader, *common.SignatureHeader, bool) {
	var channel common.ChannelHeader
	if !p.headed || proto.Unmarshal(p.channel, &channel) != nil {
		return nil, nil, false
	}
	creator, ok := signatureHeader(p.signature)
	if !ok || channel.Epoch != 0 {
		return &channel, nil, false
	}
	switch common.HeaderType(channel.Type) {
	case common.HeaderType_ENDORSER_TRANSACTION, common.HeaderType_CONFIG_UPDATE, common.HeaderType_CONFIG:
		return &channel, creator, true
	}
	return &channel, creator, false
}

func signatureHeader(raw []byte) (*common.SignatureHeader, bool) {
	var h common.SignatureHeader
	if proto.Unmarshal(raw, &h) != nil || len(h.Nonce) == 0 || len(h.Creator) == 0 {
		return nil, false
	}
	return &h, true
}

// signed asks whether the creator is a valid member of a channel's organisation
// and signed the payload.
func signed(r *Rules, creator []byte, e envelope) bool {
	if e.payload == nil || e.signature == nil {
		return false
	}
	id, err := r.identity(creator)
	if err != nil {
		return false
	}
	m := r.MSPs[id.MSPID()]
	return m != nil && m.Validate(id) == nil && m.Verify(id, e.payload, e.signature) == nil
}

// txID is the id that belongs to a creator and a nonce.
func txID(h *common.SignatureHeader) string {
	s := sha256.New()
	s.Write(h.Nonce)
	s.Write(h.Creator)
	return hex.EncodeToString(s.Sum(nil))
}

// An action is what a transaction wants done, and who endorsed it.
type action struct {
	response  []byte // ProposalResponsePayload as signed
	extension []byte // in it: ChaincodeAction; nil if absent
	endorsed  []byte // ChaincodeEndorsedAction, for its endorsements
}

var (
	errActions  = errors.New("not one action")
	errProposal = errors.New("not the proposal that was endorsed")
)

// readAction takes the one action of a transaction apart and checks that its
// endorsers saw this proposal.
func readAction(p payload) (action, error) {
	var found [][]byte
	if err := walk(p.data, func(f field) bool {
		if f.is(1) && len(found) < 2 {
			found = append(found, f.bytes)
		}
		return true
	}); err != nil {
		return action{}, err
	}
	if p.data == nil || len(found) != 1 {
		return action{}, errActions
	}
	var header, inner []byte
	if err := walk(found[0], func(f field) bool {
		switch {
		case f.is(1):
			header = f.bytes
		case f.is(2):
			inner = f.bytes
		}
		return true
	}); err != nil {
		return action{}, err
	}
	if _, ok := signatureHeader(header); !ok {
		return action{}, errActions
	}
	var a action
	var proposal []byte
	if err := walk(inner, func(f field) bool {
		switch {
		case f.is(1):
			proposal = f.bytes
		case f.is(2):
			a.endorsed = sub(a.endorsed, f.bytes)
		}
		return true
	}); err != nil {
		return action{}, err
	}
	// Of a missing endorsed action, over which a Fabric peer stumbles, there is no
	// response that could name the proposal.
	if err := check(a.endorsed, func(f field) error {
		switch {
		case f.is(1):
			a.response = f.bytes
		case f.is(2):
			return check(f.bytes, whatever)
		}
		return nil
	}); err != nil {
		return action{}, err
	}
	var hash []byte
	if err := walk(a.response, func(f field) bool {
		switch {
		case f.is(1):
			hash = f.bytes
		case f.is(2):
			a.extension = f.bytes
		}
		return true
	}); err != nil {
		return action{}, err
	}
	if p.channel == nil || proposal == nil {
		return action{}, errProposal
	}
	s := sha256.New()
	s.Write(p.channel)
	s.Write(header)
	s.Write(proposal)
	if !bytes.Equal(s.Sum(nil), hash) {
		return action{}, errProposal
	}
	return a, nil
}

// signatures lists the endorsements: each is over the response and the endorser.
func (a action) signatures(r *Rules) []msp.SignedData {
	var list []msp.SignedData
	for e := range messages(a.endorsed, 2, endorsementOf) {
		id, err := r.identity(e.endorser)
		if err != nil {
			continue // nobody, whom no policy counts
		}
		list = append(list, msp.SignedData{Creator: id, Data: [][]byte{a.response, e.endorser}, Signature: e.signature})
	}
	return list
}

type endorsement struct{ endorser, signature []byte }

func endorsementOf(m []byte) (e endorsement) {
	each(m, func(f field) {
		switch {
		case f.is(1):
			e.endorser = f.bytes
		case f.is(2):
			e.signature = f.bytes
		}
	})
	return e
}

// readResponse reads what the endorsers say came of the proposal.
func (t *Tx) readResponse(h *common.ChannelHeader, a action) Code {
	var ext peer.ChaincodeHeaderExtension
	if proto.Unmarshal(h.Extension, &ext) != nil {
		return peer.TxValidationCode_BAD_HEADER_EXTENSION
	}
	var done peer.ChaincodeAction
	if a.response == nil || a.extension == nil || proto.Unmarshal(a.extension, &done) != nil {
		return peer.TxValidationCode_BAD_RESPONSE_PAYLOAD
	}
	if checkSets(done.Results) != nil {
		return peer.TxValidationCode_BAD_RWSET
	}
	switch {
	case ext.ChaincodeId == nil || done.ChaincodeId == nil:
		return peer.TxValidationCode_INVALID_OTHER_REASON
	case ext.ChaincodeId.Name == "" || ext.ChaincodeId.Name != done.ChaincodeId.Name || done.ChaincodeId.Version == "":
		return peer.TxValidationCode_INVALID_CHAINCODE
	}
	t.chaincode, t.sets = ext.ChaincodeId.Name, done.Results
	if done.Events != nil {
		var event peer.ChaincodeEvent
		if proto.Unmarshal(done.Events, &event) != nil || event.ChaincodeId != t.chaincode {
			return peer.TxValidationCode_INVALID_OTHER_REASON
		}
	}
	seen := make(map[string]struct{})
	for s := range spaces(t.sets) {
		if _, ok := seen[s.name]; ok {
			return peer.TxValidationCode_ILLEGAL_WRITESET
		}
		seen[s.name] = struct{}{}
	}
	return peer.TxValidationCode_VALID
}
