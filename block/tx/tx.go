// Package tx makes ordinary endorser transactions, to the byte as a client SDK
// and the peers that endorse for it make them together. No chaincode runs: the
// caller says what the transaction reads and writes.
package tx

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"grapevine/msp"
)

// nonceSize is what Fabric's clients use; validators only ask that there is a
// nonce.
const nonceSize = 24

// statusOK is the response status of a chaincode that agreed.
const statusOK = 200

// A Proposal is a chaincode call and what it did.
type Proposal struct {
	Channel   string
	Chaincode string
	// Version is the chaincode's, as its definition has it. Empty means "1.0",
	// or "syscc" for _lifecycle.
	Version string
	Args    [][]byte // the function's name, then its arguments; recorded only
	RWSet   *rwset.TxReadWriteSet
	// Event is what the chaincode emitted: nil for none. Its chaincode ID and
	// transaction ID are filled in.
	Event   *peer.ChaincodeEvent
	Creator msp.Signer
	// Endorsers sign in this order, which matters to greedy policies.
	Endorsers []msp.Signer
	Time      time.Time
}

// Endorse returns the transaction that a client would submit after each
// endorser agreed, and its transaction ID. Each call draws a new nonce.
func Endorse(p Proposal) (*common.Envelope, string, error) {
	env, id, err := p.endorse()
	if err != nil {
		return nil, "", fmt.Errorf("endorse %s on %s: %w", p.Chaincode, p.Channel, err)
	}
	return env, id, nil
}

func (p Proposal) endorse() (*common.Envelope, string, error) {
	switch {
	case p.Channel == "" || p.Chaincode == "":
		return nil, "", errors.New("channel or chaincode missing")
	case p.RWSet == nil:
		return nil, "", errors.New("read-write set missing, or made of text that is not UTF-8")
	case p.Creator == nil || len(p.Endorsers) == 0:
		return nil, "", errors.New("creator or endorsers missing")
	case p.Time.IsZero():
		return nil, "", errors.New("time missing")
	}
	cc := &peer.ChaincodeID{Name: p.Chaincode}
	ext, err := marshal(&peer.ChaincodeHeaderExtension{ChaincodeId: cc})
	if err != nil {
		return nil, "", err
	}
	head, id, err := header(common.HeaderType_ENDORSER_TRANSACTION, p.Channel, ext, p.Creator, p.Time)
	if err != nil {
		return nil, "", err
	}
	// The transient map is left out before hashing, so this is all of it.
	input, err := marshal(&peer.ChaincodeInvocationSpec{ChaincodeSpec: &peer.ChaincodeSpec{
		Type: p.kind(), ChaincodeId: cc, Input: &peer.ChaincodeInput{Args: p.Args},
	}})
	if err != nil {
		return nil, "", err
	}
	proposal, err := marshal(&peer.ChaincodeProposalPayload{Input: input})
	if err != nil {
		return nil, "", err
	}
	response, err := p.response(id, hash(head.ChannelHeader, head.SignatureHeader, proposal))
	if err != nil {
		return nil, "", err
	}
	var ends []*peer.Endorsement
	for _, e := range p.Endorsers {
		who := e.Identity().Serialized()
		sig, err := e.Sign(append(append([]byte{}, response...), who...))
		if err != nil {
			return nil, "", fmt.Errorf("as %s: %w", e.Identity().Name(), err)
		}
		ends = append(ends, &peer.Endorsement{Endorser: who, Signature: sig})
	}
	action, err := marshal(&peer.ChaincodeActionPayload{
		ChaincodeProposalPayload: proposal,
		Action:                   &peer.ChaincodeEndorsedAction{ProposalResponsePayload: response, Endorsements: ends},
	})
	if err != nil {
		return nil, "", err
	}
	data, err := marshal(&peer.Transaction{Actions: []*peer.TransactionAction{
		{Header: head.SignatureHeader, Payload: action},
	}})
	if err != nil {
		return nil, "", err
	}
	env, err := sign(head, data, p.Creator)
	return env, id, err
}

// response is what the endorsers sign: the hash of the proposal, and what
// became of it.
func (p Proposal) response(txID string, proposalHash []byte) ([]byte, error) {
	results, err := marshal(p.RWSet)
	if err != nil {
		return nil, err
	}
	var events []byte
	if p.Event != nil {
		e := proto.CloneOf(p.Event)
		e.ChaincodeId, e.TxId = p.Chaincode, txID
		if events, err = marshal(e); err != nil {
			return nil, err
		}
	}
	version := p.Version
	switch {
	case version != "":
	case p.Chaincode == Lifecycle:
		version = "syscc"
	default:
		version = DefaultVersion
	}
	action, err := marshal(&peer.ChaincodeAction{
		Results: results, Events: events,
		Response:    &peer.Response{Status: statusOK},
		ChaincodeId: &peer.ChaincodeID{Name: p.Chaincode, Version: version},
	})
	if err != nil {
		return nil, err
	}
	return marshal(&peer.ProposalResponsePayload{ProposalHash: proposalHash, Extension: action})
}

// kind is the language that Fabric's own command line records.
func (p Proposal) kind() peer.ChaincodeSpec_Type {
	if p.Chaincode == Lifecycle {
		return peer.ChaincodeSpec_UNDEFINED
	}
	return peer.ChaincodeSpec_GOLANG
}

// SignedEnvelope wraps data for an ordering service or a peer: a seek request,
// a configuration update. It has a nonce and a transaction ID, which some of
// the types don't need and none forbids.
func SignedEnvelope(typ common.HeaderType, channel string, data proto.Message, s msp.Signer, now time.Time) (*common.Envelope, error) {
	return BoundEnvelope(typ, channel, data, s, now, nil)
}

// BoundEnvelope is [SignedEnvelope] with the hash of the client's TLS
// certificate: SHA-256 of its DER, which servers that require client
// certificates compare.
func BoundEnvelope(typ common.HeaderType, channel string, data proto.Message, s msp.Signer, now time.Time, tlsCertHash []byte) (*common.Envelope, error) {
	s = msp.Present(s)
	head, _, err := bound(typ, channel, nil, tlsCertHash, s, now)
	if err != nil {
		return nil, fmt.Errorf("envelope %s: %w", typ, err)
	}
	b, err := marshal(data)
	if err != nil {
		return nil, fmt.Errorf("envelope %s: %w", typ, err)
	}
	env, err := sign(head, b, s)
	if err != nil {
		return nil, fmt.Errorf("envelope %s: %w", typ, err)
	}
	return env, nil
}

// header makes both headers and the transaction ID that joins them.
func header(typ common.HeaderType, channel string, ext []byte, s msp.Signer, now time.Time) (*common.Header, string, error) {
	return bound(typ, channel, ext, nil, s, now)
}

func bound(typ common.HeaderType, channel string, ext, tlsCertHash []byte, s msp.Signer, now time.Time) (*common.Header, string, error) {
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, "", fmt.Errorf("nonce: %w", err)
	}
	creator := s.Identity().Serialized()
	id := ID(nonce, creator)
	sh, err := marshal(&common.SignatureHeader{Creator: creator, Nonce: nonce})
	if err != nil {
		return nil, "", err
	}
	ch, err := marshal(&common.ChannelHeader{
		Type: int32(typ), ChannelId: channel, TxId: id, Timestamp: timestamppb.New(now),
		Extension: ext, TlsCertHash: tlsCertHash,
	})
	if err != nil {
		return nil, "", err
	}
	return &common.Header{ChannelHeader: ch, SignatureHeader: sh}, id, nil
}

// ID returns the transaction ID that belongs to a nonce and a creator: hex
// SHA-256 over both.
func ID(nonce, creator []byte) string { return hex.EncodeToString(hash(nonce, creator)) }

func sign(h *common.Header, data []byte, s msp.Signer) (*common.Envelope, error) {
	payload, err := marshal(&common.Payload{Header: h, Data: data})
	if err != nil {
		return nil, err
	}
	sig, err := s.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("as %s: %w", s.Identity().Name(), err)
	}
	return &common.Envelope{Payload: payload, Signature: sig}, nil
}

func hash(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}
