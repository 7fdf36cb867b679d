package system

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
)

// proposal is a call of a chaincode, taken apart. Nothing in it is proven yet.
type proposal struct {
	raw, signature []byte
	creator        []byte
	channel        string
	chaincode      string
	args           [][]byte
	hash           []byte // that a response repeats
}

// parse takes a signed proposal apart, and judges what can be judged of its form.
func parse(signed *peer.SignedProposal) (*proposal, error) {
	var (
		prop    peer.Proposal
		header  common.Header
		channel common.ChannelHeader
		signer  common.SignatureHeader
		payload peer.ChaincodeProposalPayload
		call    peer.ChaincodeInvocationSpec
	)
	for _, x := range []struct {
		what string
		raw  func() []byte
		to   proto.Message
	}{
		{"proposal", signed.GetProposalBytes, &prop},
		{"header", prop.GetHeader, &header},
		{"channel header", header.GetChannelHeader, &channel},
		{"signature header", header.GetSignatureHeader, &signer},
		{"payload", prop.GetPayload, &payload},
		{"input", payload.GetInput, &call},
	} {
		if err := proto.Unmarshal(x.raw(), x.to); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", x.what, Malformed, err)
		}
	}
	p := &proposal{
		raw: signed.GetProposalBytes(), signature: signed.GetSignature(), creator: signer.Creator,
		channel: channel.ChannelId, chaincode: call.GetChaincodeSpec().GetChaincodeId().GetName(), args: call.GetChaincodeSpec().GetInput().GetArgs(),
	}
	if t := common.HeaderType(channel.Type); t != common.HeaderType_ENDORSER_TRANSACTION && t != common.HeaderType_CONFIG {
		return nil, fmt.Errorf("a proposal of type %v: %w", t, Malformed)
	}
	if len(signer.Nonce) == 0 || len(signer.Creator) == 0 {
		return nil, fmt.Errorf("no nonce, or no creator: %w", Malformed)
	}
	id := sha256.Sum256(append(bytes.Clone(signer.Nonce), signer.Creator...))
	if channel.TxId != hex.EncodeToString(id[:]) {
		return nil, fmt.Errorf("the transaction id isn't that of nonce and creator: %w", Malformed)
	}
	if p.chaincode == "" || len(p.args) == 0 {
		return nil, fmt.Errorf("no chaincode or no function is named: %w", Malformed)
	}
	sum := sha256.New()
	for _, b := range [][]byte{header.ChannelHeader, header.SignatureHeader, prop.Payload} {
		sum.Write(b)
	}
	p.hash = sum.Sum(nil)
	return p, nil
}

// arg is the i-th argument behind the function's name; empty if there is none.
func (p *proposal) arg(i int) []byte {
	if i+1 < len(p.args) {
		return p.args[i+1]
	}
	return nil
}

// answer is the response to a call that succeeded, signed as a Fabric peer's.
func (p *proposal) answer(by msp.Signer, result []byte) (*peer.ProposalResponse, error) {
	r := &peer.Response{Status: int32(common.Status_SUCCESS), Payload: result}
	action, err := proto.Marshal(&peer.ChaincodeAction{Response: r, ChaincodeId: &peer.ChaincodeID{Name: p.chaincode}})
	if err != nil {
		return nil, err
	}
	payload, err := proto.Marshal(&peer.ProposalResponsePayload{ProposalHash: p.hash, Extension: action})
	if err != nil {
		return nil, err
	}
	endorser := by.Identity().Serialized()
	signature, err := by.Sign(append(bytes.Clone(payload), endorser...))
	if err != nil {
		return nil, fmt.Errorf("signing the response: %w", err)
	}
	return &peer.ProposalResponse{Version: 1, Response: r, Payload: payload, Endorsement: &peer.Endorsement{Endorser: endorser, Signature: signature}}, nil
}
