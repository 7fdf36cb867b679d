package tx_test

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
	"grapevine/msp"
)

// An opened transaction is one taken apart, layer by layer.
type opened struct {
	payload    *common.Payload
	channel    *common.ChannelHeader
	signature  *common.SignatureHeader
	extension  *peer.ChaincodeHeaderExtension
	tx         *peer.Transaction
	action     *peer.ChaincodeActionPayload
	proposal   *peer.ChaincodeProposalPayload
	invocation *peer.ChaincodeInvocationSpec
	response   *peer.ProposalResponsePayload
	result     *peer.ChaincodeAction
	rwset      *rwset.TxReadWriteSet
	namespaces map[string]*kvrwset.KVRWSet
}

// open takes a transaction apart by the rules under which a Fabric peer finds
// it well formed (core/common/validation/msgvalidation.go and
// core/committer/txvalidator/v20), and checks all signatures in it.
func open(env *common.Envelope) (*opened, error) {
	o := &opened{
		payload: new(common.Payload), channel: new(common.ChannelHeader), signature: new(common.SignatureHeader),
		extension: new(peer.ChaincodeHeaderExtension), tx: new(peer.Transaction), action: new(peer.ChaincodeActionPayload),
		proposal: new(peer.ChaincodeProposalPayload), invocation: new(peer.ChaincodeInvocationSpec),
		response: new(peer.ProposalResponsePayload), result: new(peer.ChaincodeAction),
		rwset: new(rwset.TxReadWriteSet), namespaces: map[string]*kvrwset.KVRWSet{},
	}
	// Each layer decodes, holds nothing unknown, and encodes to the same bytes.
	layer := func(b []byte, m proto.Message) error {
		if err := proto.Unmarshal(b, m); err != nil {
			return fmt.Errorf("%T: %w", m, err)
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil || string(again) != string(b) || len(m.ProtoReflect().GetUnknown()) > 0 {
			return fmt.Errorf("%T: encodes otherwise", m)
		}
		return nil
	}
	if err := layer(env.Payload, o.payload); err != nil {
		return nil, err
	}
	for _, l := range []struct {
		bytes func() []byte
		into  proto.Message
	}{
		{func() []byte { return o.payload.GetHeader().GetChannelHeader() }, o.channel},
		{func() []byte { return o.payload.GetHeader().GetSignatureHeader() }, o.signature},
		{func() []byte { return o.channel.Extension }, o.extension},
		{func() []byte { return o.payload.Data }, o.tx},
		{func() []byte { return o.tx.GetActions()[0].Payload }, o.action},
		{func() []byte { return o.action.ChaincodeProposalPayload }, o.proposal},
		{func() []byte { return o.proposal.Input }, o.invocation},
		{func() []byte { return o.action.GetAction().GetProposalResponsePayload() }, o.response},
		{func() []byte { return o.response.Extension }, o.result},
		{func() []byte { return o.result.Results }, o.rwset},
	} {
		if err := layer(l.bytes(), l.into); err != nil {
			return nil, err
		}
		if t, ok := l.into.(*peer.Transaction); ok && len(t.Actions) != 1 {
			return nil, fmt.Errorf("%d actions", len(t.Actions))
		}
	}
	for _, ns := range o.rwset.NsRwset {
		kv := new(kvrwset.KVRWSet)
		if err := layer(ns.Rwset, kv); err != nil {
			return nil, err
		}
		if o.namespaces[ns.Namespace] != nil {
			return nil, fmt.Errorf("namespace %s twice", ns.Namespace)
		}
		o.namespaces[ns.Namespace] = kv
	}
	return o, o.check(env)
}

func (o *opened) check(env *common.Envelope) error {
	creator, err := msp.Deserialize(o.signature.Creator)
	if err != nil {
		return err
	}
	if err := creator.Verify(env.Payload, env.Signature); err != nil {
		return fmt.Errorf("creator: %w", err)
	}
	header := o.tx.Actions[0].Header
	sum := sha256.Sum256(append(append(append([]byte{}, o.payload.Header.ChannelHeader...), header...), o.action.ChaincodeProposalPayload...))
	name := o.extension.GetChaincodeId().GetName()
	switch {
	case o.channel.Type != int32(common.HeaderType_ENDORSER_TRANSACTION) || o.channel.Epoch != 0 || o.channel.ChannelId == "":
		return errors.New("channel header")
	case o.channel.TxId != tx.ID(o.signature.Nonce, o.signature.Creator) || len(o.signature.Nonce) == 0:
		return errors.New("transaction ID")
	case o.channel.Timestamp.CheckValid() != nil:
		return errors.New("timestamp")
	case string(header) != string(o.payload.Header.SignatureHeader):
		return errors.New("the action's header")
	case string(o.response.ProposalHash) != string(sum[:]):
		return errors.New("proposal hash")
	case len(o.proposal.TransientMap) != 0:
		return errors.New("transient data")
	case name == "" || o.result.GetChaincodeId().GetName() != name || o.result.ChaincodeId.Version == "" ||
		o.invocation.GetChaincodeSpec().GetChaincodeId().GetName() != name:
		return errors.New("chaincode names")
	case o.result.GetResponse().GetStatus() != 200 || o.rwset.DataModel != rwset.TxReadWriteSet_KV:
		return errors.New("response")
	case len(o.action.Action.Endorsements) == 0:
		return errors.New("no endorsement")
	}
	seen := map[string]bool{}
	for _, e := range o.action.Action.Endorsements {
		id, err := msp.Deserialize(e.Endorser)
		if err != nil {
			return err
		}
		if err := id.Verify(append(append([]byte{}, o.action.Action.ProposalResponsePayload...), e.Endorser...), e.Signature); err != nil {
			return fmt.Errorf("endorser %s: %w", id.Name(), err)
		}
		if seen[string(e.Endorser)] {
			return fmt.Errorf("endorser %s twice", id.Name())
		}
		seen[string(e.Endorser)] = true
	}
	if len(o.result.Events) > 0 {
		ev := new(peer.ChaincodeEvent)
		if err := proto.Unmarshal(o.result.Events, ev); err != nil {
			return err
		}
		if ev.ChaincodeId != name || ev.TxId != o.channel.TxId {
			return errors.New("event of another transaction")
		}
	}
	return nil
}
