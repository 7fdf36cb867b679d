package state_test

import (
	"crypto/sha256"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
	"grapevine/ledger/state"
)

// parts is a transaction taken apart, to be bent and put together again.
type parts struct {
	env       common.Envelope
	payload   common.Payload
	channel   common.ChannelHeader
	signature common.SignatureHeader
	ext       peer.ChaincodeHeaderExtension
	data      peer.Transaction
	action    peer.ChaincodeActionPayload
	response  peer.ProposalResponsePayload
	result    peer.ChaincodeAction
	event     peer.ChaincodeEvent
	raw       map[string][]byte // what stands in the place of a part
}

// bend takes a transaction apart, lets edit change it, and puts it together
// again: signed by A's client, and with the proposal's hash as it should be
// unless edit gives one.
func (p *play) bend(entry []byte, edit func(*parts)) []byte {
	x := parts{raw: map[string][]byte{}}
	for _, c := range []struct {
		raw func() []byte
		m   proto.Message
	}{
		{func() []byte { return entry }, &x.env},
		{func() []byte { return x.env.Payload }, &x.payload},
		{func() []byte { return x.payload.Header.ChannelHeader }, &x.channel},
		{func() []byte { return x.payload.Header.SignatureHeader }, &x.signature},
		{func() []byte { return x.channel.Extension }, &x.ext},
		{func() []byte { return x.payload.Data }, &x.data},
		{func() []byte { return x.data.Actions[0].Payload }, &x.action},
		{func() []byte { return x.action.Action.ProposalResponsePayload }, &x.response},
		{func() []byte { return x.response.Extension }, &x.result},
		{func() []byte { return x.result.Events }, &x.event},
	} {
		require.NoError(p.t, proto.Unmarshal(c.raw(), c.m))
	}
	x.response.ProposalHash = nil
	edit(&x)
	part := func(name string, m proto.Message) []byte {
		if raw, ok := x.raw[name]; ok {
			return raw
		}
		return marshal(p.t, m)
	}
	x.channel.Extension = part("ext", &x.ext)
	channel, signature := part("channel", &x.channel), part("signature", &x.signature)
	if x.response.ProposalHash == nil && len(x.data.Actions) > 0 {
		s := sha256.New()
		s.Write(channel)
		s.Write(x.data.Actions[0].Header)
		s.Write(x.action.ChaincodeProposalPayload)
		x.response.ProposalHash = s.Sum(nil)
	}
	if x.event.EventName != "" {
		x.result.Events = part("event", &x.event)
	}
	x.response.Extension = part("result", &x.result)
	if x.action.Action != nil {
		x.action.Action.ProposalResponsePayload = part("response", &x.response)
	}
	if len(x.data.Actions) > 0 {
		x.data.Actions[0].Payload = part("action", &x.action)
	}
	x.payload.Data = part("data", &x.data)
	if x.payload.Header != nil {
		x.payload.Header.ChannelHeader, x.payload.Header.SignatureHeader = channel, signature
	}
	x.env.Payload = part("payload", &x.payload)
	sig, err := p.clients["A"].Sign(x.env.Payload)
	require.NoError(p.t, err)
	x.env.Signature = sig
	if raw, ok := x.raw["sig"]; ok {
		x.env.Signature = raw
	}
	return part("env", &x.env)
}

// garbage begins like no message.
var garbage = []byte{0x0a, 0xff}

// A malformed transaction has the code that Fabric gives it, and of two faults
// the one that it finds first.
func TestMalformed(t *testing.T) {
	p := newPlay(t)
	good := p.call("cc", p.put("k", "v"), "A", "B")
	id := func(x *parts) { x.channel.TxId = tx.ID(x.signature.Nonce, x.signature.Creator) }
	outsider, err := newOutsider()
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		want state.Code
		edit func(*parts)
	}{
		{"untouched", 0, func(*parts) {}},
		{"no envelope", 255, func(x *parts) { x.raw["env"] = garbage }},
		{"no payload", 2, func(x *parts) { x.raw["payload"] = garbage }},
		{"no header", 3, func(x *parts) { x.payload.Header = nil }},
		{"no channel header", 3, func(x *parts) { x.raw["channel"] = garbage }},
		{"no signature header", 3, func(x *parts) { x.raw["signature"] = garbage }},
		{"type message", 3, func(x *parts) { x.channel.Type = 0 }},
		{"type configuration update", 7, func(x *parts) { x.channel.Type = 2 }},
		{"type orderer transaction", 3, func(x *parts) { x.channel.Type = 4 }},
		{"epoch", 3, func(x *parts) { x.channel.Epoch = 1 }},
		{"no nonce", 3, func(x *parts) { x.signature.Nonce = nil }},
		{"no creator", 3, func(x *parts) { x.signature.Creator = nil }},
		{"creator is garbage", 4, func(x *parts) { x.signature.Creator = garbage }},
		{"creator of no organisation", 4, func(x *parts) { x.signature.Creator = outsider; id(x) }},
		{"creator of another key", 4, func(x *parts) { x.signature.Creator = p.clients["B"].Identity().Serialized(); id(x) }},
		{"no signature", 4, func(x *parts) { x.raw["sig"] = nil }},
		{"signature is garbage", 4, func(x *parts) { x.raw["sig"] = garbage }},
		{"transaction id of another", 8, func(x *parts) { x.channel.TxId = "0" }},
		{"transaction id in capitals", 8, func(x *parts) { x.channel.TxId = upper(x.channel.TxId) }},
		{"data is garbage", 5, func(x *parts) { x.raw["data"] = garbage }},
		{"no action", 5, func(x *parts) { x.data.Actions = nil }},
		{"two actions", 5, func(x *parts) { x.data.Actions = append(x.data.Actions, x.data.Actions[0]) }},
		{"action without nonce", 5, func(x *parts) {
			x.data.Actions[0].Header = marshal(t, &common.SignatureHeader{Creator: []byte("c")})
		}},
		{"action is garbage", 5, func(x *parts) { x.raw["action"] = garbage }},
		{"no endorsed action", 5, func(x *parts) { x.action.Action = nil }},
		{"no proposal", 5, func(x *parts) { x.action.ChaincodeProposalPayload = nil }},
		{"proposal of another hash", 5, func(x *parts) { x.response.ProposalHash = make([]byte, 32) }},
		{"response is garbage", 5, func(x *parts) { x.raw["response"] = garbage }},
		{"header extension is garbage", 19, func(x *parts) { x.raw["ext"] = garbage }},
		{"no result", 21, func(x *parts) { x.raw["result"] = nil }},
		{"result is garbage", 21, func(x *parts) { x.raw["result"] = garbage }},
		{"set is garbage", 22, func(x *parts) { x.result.Results = garbage }},
		{"chaincode in neither place", 255, func(x *parts) { x.ext.ChaincodeId = nil }},
		{"chaincode not in the result", 255, func(x *parts) { x.result.ChaincodeId = nil }},
		{"chaincode without name", 25, func(x *parts) { x.ext.ChaincodeId.Name, x.result.ChaincodeId.Name = "", "" }},
		{"two chaincodes", 25, func(x *parts) { x.ext.ChaincodeId.Name = "dd" }},
		{"chaincode without version", 25, func(x *parts) { x.result.ChaincodeId.Version = "" }},
		{"event is garbage", 255, func(x *parts) { x.result.Events = garbage }},
		{"event of another chaincode", 255, func(x *parts) { x.event.EventName, x.event.ChaincodeId = "e", "dd" }},
		{"namespace twice", 23, func(x *parts) {
			x.result.Results = append(x.result.Results, x.result.Results...)
		}},
		{"result changed after the signatures", 10, func(x *parts) { x.result.Response.Message = "!" }},
		{"unknown fields", 10, func(x *parts) { // the endorsers' signatures cover them
			x.result.ProtoReflect().SetUnknown([]byte{0x78, 1})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlay(t)
			e := good
			if c.want != 0 {
				e = p.bend(good, c.edit)
			}
			out := p.block(e).gives(c.want)
			if c.want != 0 {
				require.Empty(t, out.Writes)
			} else {
				require.Len(t, out.Writes, 1)
			}
		})
	}
}

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'f' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// A transaction counts once: in the block, in the ledger, and whoever claims its
// id first.
func TestDuplicates(t *testing.T) {
	p := newPlay(t)
	a, b := p.call("cc", p.put("k", "a"), "A", "B"), p.call("cc", p.put("k", "b"), "A", "B")
	unendorsed := p.call("cc", p.put("k", "c"), "A")
	p.block(a, a, b).gives(0, 9, 0)
	require.Equal(t, "b", p.value("k"))
	p.block(a, b).gives(9, 9)
	p.block(unendorsed, unendorsed).gives(10, 10)
	p.block(unendorsed).gives(9)

	victim := p.call("cc", p.put("k", "d"), "A", "B")
	thief := p.bend(p.call("cc", p.put("k", "e"), "A", "B"), func(x *parts) { x.channel.TxId = idOf(victim) })
	p.block(thief).gives(8)
	p.block(victim).gives(9)
}

// A configuration that isn't valid as a transaction can't be judged here.
func TestConfigurations(t *testing.T) {
	p := newPlay(t)
	env, err := tx.SignedEnvelope(common.HeaderType_CONFIG, channelName, &common.ConfigEnvelope{LastUpdate: &common.Envelope{}}, p.clients["A"], somewhen)
	require.NoError(t, err)
	entry := marshal(t, env)
	out := p.block(entry).gives(0)
	require.Len(t, out.Writes, 1)
	require.Equal(t, state.Key{Key: "CHANNEL_CONFIG_ENV_BYTES"}, out.Writes[0].Key)

	env.Signature = garbage
	_, err = p.execute(marshal(t, env))
	require.ErrorIs(t, err, state.Unjudged)

	p.rules.Unbuilt = "rules of the future"
	_, err = p.execute(p.call("cc", p.put("k", "v"), "A", "B"))
	require.ErrorIs(t, err, state.Unjudged)
	require.ErrorContains(t, err, "rules of the future")
}
