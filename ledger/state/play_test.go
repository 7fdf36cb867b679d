package state_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer/lifecycle"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
	"grapevine/ledger/state"
	"grapevine/msp"
	"grapevine/msp/ca"
)

const channelName = "ch"

// cast is three organisations, each with a client and two peers.
type cast struct {
	msps    msp.Directory
	clients map[string]msp.Signer
	peers   map[string][]msp.Signer
}

var players = sync.OnceValues(func() (*cast, error) {
	c := &cast{msps: msp.Directory{}, clients: map[string]msp.Signer{}, peers: map[string][]msp.Signer{}}
	for _, name := range []string{"A", "B", "C"} {
		org, err := ca.NewOrg(name, name+".example.com", time.Now())
		if err != nil {
			return nil, err
		}
		m, err := msp.New(org.MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true})
		if err != nil {
			return nil, err
		}
		c.msps[name] = m
		if c.clients[name], err = org.Identity("client", "client"); err != nil {
			return nil, err
		}
		for i := range 2 {
			p, err := org.Identity(fmt.Sprintf("peer%d", i), "peer")
			if err != nil {
				return nil, err
			}
			c.peers[name] = append(c.peers[name], p)
		}
	}
	return c, nil
})

// A play is a channel on which blocks are played.
type play struct {
	*world
	t testing.TB
	*cast
	policies map[string]msp.Policy
}

// newPlay opens a channel whose endorsement asks for peers of two organisations
// and whose chaincode cc is defined in block 1.
func newPlay(t testing.TB) *play {
	c, err := players()
	require.NoError(t, err)
	p := &play{world: newWorld(), t: t, cast: c, policies: map[string]msp.Policy{}}
	p.policies["/Channel/Application/Endorsement"] = p.compile(nOutOf(2, "A", "B", "C"))
	p.policies["/Channel/Application/GA/Endorsement"] = p.compile(nOutOf(1, "A"))
	p.rules = &state.Rules{
		Channel: channelName, MSPs: c.msps,
		Policy: func(path string) msp.Policy {
			if q := p.policies[path]; q != nil {
				return q
			}
			return msp.Deny
		},
		Orgs: []state.Org{{Name: "GA", MSPID: "A"}, {Name: "GB", MSPID: "B"}, {Name: "GC", MSPID: "C"}},
	}
	p.height = 1
	p.block(p.call(tx.Lifecycle, tx.Define("cc"), "A", "B")).gives(0)
	return p
}

func (p *play) compile(e *common.SignaturePolicyEnvelope) msp.Policy {
	q, err := msp.SignaturePolicy(e)
	require.NoError(p.t, err)
	return q
}

// nOutOf asks for peers of n of the organisations.
func nOutOf(n int32, orgs ...string) *common.SignaturePolicyEnvelope {
	gate := &common.SignaturePolicy_NOutOf{N: n}
	e := &common.SignaturePolicyEnvelope{Rule: &common.SignaturePolicy{Type: &common.SignaturePolicy_NOutOf_{NOutOf: gate}}}
	for i, o := range orgs {
		role, err := proto.Marshal(&mspproto.MSPRole{MspIdentifier: o, Role: mspproto.MSPRole_PEER})
		if err != nil {
			panic(err)
		}
		e.Identities = append(e.Identities, &mspproto.MSPPrincipal{PrincipalClassification: mspproto.MSPPrincipal_ROLE, Principal: role})
		gate.Rules = append(gate.Rules, &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	return e
}

func marshal(t testing.TB, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(t, err)
	return b
}

// set is what a transaction does in namespace cc.
func (p *play) set(kv *kvrwset.KVRWSet, colls ...*rwset.CollectionHashedReadWriteSet) *rwset.TxReadWriteSet {
	return sets(ns(p.t, "cc", kv, colls...))
}

func ns(t testing.TB, name string, kv *kvrwset.KVRWSet, colls ...*rwset.CollectionHashedReadWriteSet) *rwset.NsReadWriteSet {
	return &rwset.NsReadWriteSet{Namespace: name, Rwset: marshal(t, kv), CollectionHashedRwset: colls}
}

func sets(list ...*rwset.NsReadWriteSet) *rwset.TxReadWriteSet {
	return &rwset.TxReadWriteSet{NsRwset: list}
}

func coll(t testing.TB, name string, h *kvrwset.HashedRWSet) *rwset.CollectionHashedReadWriteSet {
	return &rwset.CollectionHashedReadWriteSet{CollectionName: name, HashedRwset: marshal(t, h)}
}

// call is a transaction of A's client, endorsed by a peer of each organisation
// named: "B1" is B's second.
func (p *play) call(chaincode string, set *rwset.TxReadWriteSet, endorsers ...string) []byte {
	q := tx.Proposal{Channel: channelName, Chaincode: chaincode, RWSet: set, Creator: p.clients["A"], Time: time.Unix(1e9, 0)}
	for _, e := range endorsers {
		i := 0
		if len(e) > 1 {
			i = int(e[1] - '0')
		}
		q.Endorsers = append(q.Endorsers, p.peers[e[:1]][i])
	}
	env, _, err := tx.Endorse(q)
	require.NoError(p.t, err)
	return marshal(p.t, env)
}

// put writes keys of cc, key and value in turn; an empty value deletes.
func (p *play) put(kv ...string) *rwset.TxReadWriteSet {
	set := &kvrwset.KVRWSet{}
	for i := 0; i < len(kv); i += 2 {
		set.Writes = append(set.Writes, &kvrwset.KVWrite{Key: kv[i], Value: []byte(kv[i+1])})
	}
	return p.set(set)
}

// guard gives a key of cc its own policy.
func (p *play) guard(key string, policy *common.SignaturePolicyEnvelope) *rwset.TxReadWriteSet {
	return p.set(&kvrwset.KVRWSet{MetadataWrites: []*kvrwset.KVMetadataWrite{{
		Key: key, Entries: []*kvrwset.KVMetadataEntry{{Name: "VALIDATION_PARAMETER", Value: marshal(p.t, policy)}},
	}}})
}

// define is a change of cc's definition.
func (p *play) define(name string, policy *peer.ApplicationPolicy, plugin string, colls ...*peer.StaticCollectionConfig) *rwset.TxReadWriteSet {
	blob := func(m proto.Message) []byte {
		return marshal(p.t, &lifecycle.StateData{Type: &lifecycle.StateData_Bytes{Bytes: marshal(p.t, m)}})
	}
	pkg := &peer.CollectionConfigPackage{}
	for _, c := range colls {
		pkg.Config = append(pkg.Config, &peer.CollectionConfig{Payload: &peer.CollectionConfig_StaticCollectionConfig{StaticCollectionConfig: c}})
	}
	info := &lifecycle.ChaincodeValidationInfo{ValidationPlugin: plugin}
	if policy != nil {
		info.ValidationParameter = marshal(p.t, policy)
	}
	at := "namespaces/fields/" + name + "/"
	return sets(ns(p.t, tx.Lifecycle, &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{
		{Key: at + "Collections", Value: blob(pkg)},
		{Key: at + "EndorsementInfo", Value: blob(&lifecycle.ChaincodeEndorsementInfo{Version: "2", EndorsementPlugin: "escc"})},
		{Key: at + "Sequence", Value: marshal(p.t, &lifecycle.StateData{Type: &lifecycle.StateData_Int64{Int64: 2}})},
		{Key: at + "ValidationInfo", Value: blob(info)},
		{Key: "namespaces/metadata/" + name, Value: marshal(p.t, &lifecycle.StateMetadata{Datatype: "ChaincodeDefinition"})},
	}}))
}

func signedBy(e *common.SignaturePolicyEnvelope) *peer.ApplicationPolicy {
	return &peer.ApplicationPolicy{Type: &peer.ApplicationPolicy_SignaturePolicy{SignaturePolicy: e}}
}

func reference(path string) *peer.ApplicationPolicy {
	return &peer.ApplicationPolicy{Type: &peer.ApplicationPolicy_ChannelConfigPolicyReference{ChannelConfigPolicyReference: path}}
}

// execute plays a block and returns what it leads to, or why it can't be judged.
func (p *play) execute(entries ...[]byte) (*state.Outcome, error) {
	txs := make([]*state.Tx, len(entries))
	for i, e := range entries {
		txs[i] = state.Prepare(p.rules, e)
	}
	out, err := state.Execute(p.rules, p.view(), p.mark, p.height, txs)
	if err == nil {
		p.apply(out)
		for _, e := range entries {
			if id := idOf(e); id != "" {
				p.txs[id] = true
			}
		}
		requireSum(p.t, p.world)
	}
	return out, err
}

// block plays a block that can be judged.
func (p *play) block(entries ...[]byte) played {
	p.t.Helper()
	out, err := p.execute(entries...)
	require.NoError(p.t, err)
	return played{p, out}
}

type played struct {
	*play
	*state.Outcome
}

// gives demands the block's codes.
func (p played) gives(codes ...state.Code) *state.Outcome {
	p.t.Helper()
	got := make([]state.Code, len(p.Codes))
	for i, c := range p.Codes {
		got[i] = state.Code(c)
	}
	require.Equal(p.t, codes, got)
	return p.Outcome
}

// value is what a key of cc holds.
func (p *play) value(key string) string {
	if e := p.entries[state.Key{Namespace: "cc", Key: key}]; e != nil {
		return string(e.Value)
	}
	return ""
}

func (p *play) version(key string) *kvrwset.Version {
	e := p.entries[state.Key{Namespace: "cc", Key: key}]
	if e == nil {
		return nil
	}
	return &kvrwset.Version{BlockNum: e.Block, TxNum: e.Tx}
}
