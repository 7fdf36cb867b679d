package tx_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
	"grapevine/msp"
	"grapevine/msp/ca"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 678, time.UTC)

// Recorded transactions, put together again from their parts with the recorded
// keys, are equal to the recorded ones in everything but chance: nonce,
// signatures, and what is hashed from them.
func TestEndorseRebuildsRecordedTransactions(t *testing.T) {
	for _, c := range []struct {
		name         string
		block, index int
	}{
		{"blind writes", 8, 0},
		{"three writes", 9, 0},
		{"reads and writes", 12, 0},
		{"range query", 13, 1},
		{"two organisations", 15, 1},
		{"deletes", 16, 0},
		{"event", 17, 0},
		{"unicode key", 18, 2},
		{"key-level policy", 19, 0},
		{"private data", 21, 0},
		{"definition", 7, 0},
		{"approval", 4, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			real := recorded(t, c.block, c.index)
			a, err := open(real)
			require.NoError(t, err, "the recorded transaction keeps to the rules")
			p := tx.Proposal{
				Channel: a.channel.ChannelId, Chaincode: a.extension.ChaincodeId.Name, Version: a.result.ChaincodeId.Version,
				Args: a.invocation.ChaincodeSpec.Input.Args, RWSet: a.rwset,
				Creator: signerOf(t, a.signature.Creator), Time: a.channel.Timestamp.AsTime(),
			}
			for _, e := range a.action.Action.Endorsements {
				p.Endorsers = append(p.Endorsers, signerOf(t, e.Endorser))
			}
			if len(a.result.Events) > 0 {
				p.Event = new(peer.ChaincodeEvent)
				require.NoError(t, proto.Unmarshal(a.result.Events, p.Event))
			}
			ours, id, err := tx.Endorse(p)
			require.NoError(t, err)
			b, err := open(ours)
			require.NoError(t, err)
			require.Equal(t, b.channel.TxId, id)
			require.NotEqual(t, a.channel.TxId, id, "another nonce")
			require.Len(t, b.signature.Nonce, len(a.signature.Nonce))
			a.result.Response.Payload = nil // the chaincode's answer, which nothing validates and we don't make
			require.True(t, proto.Equal(blank(a), blank(b)), "%v\n%v", blank(a), blank(b))
		})
	}
}

// blank returns a transaction as one message of its parts, without what depends
// on the nonce.
func blank(o *opened) *common.Payload {
	must := func(m proto.Message) []byte {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err)
		}
		return b
	}
	o = &opened{
		channel: proto.CloneOf(o.channel), signature: proto.CloneOf(o.signature), action: proto.CloneOf(o.action),
		response: proto.CloneOf(o.response), result: proto.CloneOf(o.result), tx: proto.CloneOf(o.tx),
	}
	o.channel.TxId, o.signature.Nonce, o.response.ProposalHash = "", nil, nil
	if len(o.result.Events) > 0 {
		ev := new(peer.ChaincodeEvent)
		if err := proto.Unmarshal(o.result.Events, ev); err != nil {
			panic(err)
		}
		ev.TxId = ""
		o.result.Events = must(ev)
	}
	o.response.Extension = must(o.result)
	o.action.Action.ProposalResponsePayload = must(o.response)
	for _, e := range o.action.Action.Endorsements {
		e.Signature = nil
	}
	o.tx.Actions[0] = &peer.TransactionAction{Header: must(o.signature), Payload: must(o.action)}
	return &common.Payload{
		Header: &common.Header{ChannelHeader: must(o.channel), SignatureHeader: must(o.signature)},
		Data:   must(o.tx),
	}
}

func TestEndorseABlindWrite(t *testing.T) {
	n := newNetwork(t)
	env, id, err := tx.Endorse(n.proposal("kv", tx.Write("kv", "run/1", []byte("v"))))
	require.NoError(t, err)
	o, err := open(env)
	require.NoError(t, err)
	require.Equal(t, id, o.channel.TxId)
	require.Equal(t, tx.DefaultVersion, o.result.ChaincodeId.Version)
	require.Equal(t, now, o.channel.Timestamp.AsTime())
	kv := o.namespaces["kv"]
	require.Empty(t, kv.Reads)
	require.True(t, proto.Equal(&kvrwset.KVWrite{Key: "run/1", Value: []byte("v")}, kv.Writes[0]))

	again, other, err := tx.Endorse(n.proposal("kv", tx.Write("kv", "run/1", []byte("v"))))
	require.NoError(t, err)
	require.NotEqual(t, id, other)
	require.NotEqual(t, env.Payload, again.Payload)
}

func TestWriteOfNothingDeletes(t *testing.T) {
	n := newNetwork(t)
	env, _, err := tx.Endorse(n.proposal("kv", tx.Write("kv", "k", nil)))
	require.NoError(t, err)
	o, err := open(env)
	require.NoError(t, err)
	require.True(t, o.namespaces["kv"].Writes[0].IsDelete)
}

// The definition of kv is the recorded commit's, but for the name, the
// collections that the recorded chaincode has, and the approvals that its
// endorsers compared.
func TestDefineEqualsARecordedCommit(t *testing.T) {
	a, err := open(recorded(t, 7, 0))
	require.NoError(t, err)
	n := newNetwork(t)
	p := n.proposal(tx.Lifecycle, tx.Define("basic"))
	env, _, err := tx.Endorse(p)
	require.NoError(t, err)
	b, err := open(env)
	require.NoError(t, err)
	require.Equal(t, a.result.ChaincodeId.Version, b.result.ChaincodeId.Version)
	require.Len(t, b.namespaces, 2)
	want := a.namespaces[tx.Lifecycle]
	require.Equal(t, "namespaces/fields/basic/Collections", want.Writes[0].Key)
	want.Writes[0].Value = []byte{0x12, 0} // StateData of no bytes
	require.True(t, proto.Equal(want, b.namespaces[tx.Lifecycle]), "%v\n%v", want, b.namespaces[tx.Lifecycle])
	require.True(t, proto.Equal(a.namespaces["lscc"], b.namespaces["lscc"]))
	require.Equal(t, a.rwset.NsRwset[0].Namespace, b.rwset.NsRwset[0].Namespace, "the same order")
}

func TestEndorseRefuses(t *testing.T) {
	n := newNetwork(t)
	good := tx.Write("kv", "k", []byte("v"))
	for name, change := range map[string]func(*tx.Proposal){
		"no channel":         func(p *tx.Proposal) { p.Channel = "" },
		"no chaincode":       func(p *tx.Proposal) { p.Chaincode = "" },
		"no read-write set":  func(p *tx.Proposal) { p.RWSet = nil },
		"no creator":         func(p *tx.Proposal) { p.Creator = nil },
		"no endorser":        func(p *tx.Proposal) { p.Endorsers = nil },
		"no time":            func(p *tx.Proposal) { p.Time = time.Time{} },
		"key not UTF-8":      func(p *tx.Proposal) { p.RWSet = tx.Write("kv", "\xff", nil) },
		"namespace no UTF-8": func(p *tx.Proposal) { p.RWSet = tx.Write("\xff", "k", nil) },
		"name not UTF-8":     func(p *tx.Proposal) { p.RWSet = tx.Define("\xff") },
		"channel not UTF-8":  func(p *tx.Proposal) { p.Channel = "\xff" },
	} {
		p := n.proposal("kv", good)
		change(&p)
		_, _, err := tx.Endorse(p)
		require.Error(t, err, name)
	}
}

func TestSignedEnvelope(t *testing.T) {
	n := newNetwork(t)
	seek := &ab.SeekInfo{Behavior: ab.SeekInfo_BLOCK_UNTIL_READY}
	hash := sha256.Sum256([]byte("certificate"))
	env, err := tx.BoundEnvelope(common.HeaderType_DELIVER_SEEK_INFO, "ch", seek, n.client, now, hash[:])
	require.NoError(t, err)
	require.NoError(t, n.client.Identity().Verify(env.Payload, env.Signature))
	p, ch, sh, got := new(common.Payload), new(common.ChannelHeader), new(common.SignatureHeader), new(ab.SeekInfo)
	require.NoError(t, proto.Unmarshal(env.Payload, p))
	require.NoError(t, proto.Unmarshal(p.Header.ChannelHeader, ch))
	require.NoError(t, proto.Unmarshal(p.Header.SignatureHeader, sh))
	require.NoError(t, proto.Unmarshal(p.Data, got))
	require.True(t, proto.Equal(seek, got))
	require.EqualValues(t, common.HeaderType_DELIVER_SEEK_INFO, ch.Type)
	require.Equal(t, "ch", ch.ChannelId)
	require.Equal(t, now, ch.Timestamp.AsTime())
	require.Equal(t, hash[:], ch.TlsCertHash)
	require.Equal(t, n.client.Identity().Serialized(), sh.Creator)
	require.NotEmpty(t, sh.Nonce)

	_, err = tx.SignedEnvelope(common.HeaderType_CONFIG_UPDATE, "\xff", seek, n.client, now)
	require.Error(t, err)
}

// A network is a client and the peers that endorse for it.
type network struct {
	client msp.Signer
	peers  []msp.Signer
}

func newNetwork(t testing.TB) network {
	t.Helper()
	var n network
	for i, id := range []string{"Org1MSP", "Org2MSP"} {
		o, err := ca.NewOrg(id, "example.com", now)
		require.NoError(t, err)
		if i == 0 {
			n.client, err = o.Identity("User1", "client")
			require.NoError(t, err)
		}
		p, err := o.Identity("peer0", "peer")
		require.NoError(t, err)
		n.peers = append(n.peers, p)
	}
	return n
}

func (n network) proposal(chaincode string, set *rwset.TxReadWriteSet) tx.Proposal {
	return tx.Proposal{
		Channel: "ch", Chaincode: chaincode, Args: [][]byte{[]byte("put")}, RWSet: set,
		Creator: n.client, Endorsers: n.peers, Time: now,
	}
}

func BenchmarkEndorse(b *testing.B) {
	n := newNetwork(b)
	value := make([]byte, 1024)
	for b.Loop() {
		if _, _, err := tx.Endorse(n.proposal("kv", tx.Write("kv", "k", value))); err != nil {
			b.Fatal(err)
		}
	}
}
