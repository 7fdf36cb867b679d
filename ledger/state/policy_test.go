package state_test

import (
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"

	"grapevine/block/tx"
	"grapevine/ledger/state"
	"grapevine/msp"
	"grapevine/msp/ca"
)

var somewhen = time.Unix(1e9, 0)

// newOutsider is an identity of an organisation that the channel doesn't know.
func newOutsider() ([]byte, error) {
	org, err := ca.NewOrg("X", "x.example.com", somewhen)
	if err != nil {
		return nil, err
	}
	s, err := org.Identity("client", "client")
	if err != nil {
		return nil, err
	}
	return s.Identity().Serialized(), nil
}

// The chaincode's policy asks for two organisations.
func TestEndorsements(t *testing.T) {
	p := newPlay(t)
	put := p.put("k", "v")
	p.block(
		p.call("cc", put, "A"), p.call("cc", put, "A", "A1"), p.call("cc", put, "A", "A"), p.call("cc", put, "A", "B"), p.call("cc", put, "C", "B"),
		p.bend(p.call("cc", put, "A", "B"), func(x *parts) { x.action.Action.Endorsements[1].Signature[20] ^= 1 }),
		p.bend(p.call("cc", put, "A", "B"), func(x *parts) { // somebody's signature twice, and garbage, do no harm
			e := x.action.Action.Endorsements
			x.action.Action.Endorsements = []*peer.Endorsement{e[0], e[0], {Endorser: garbage}, e[1]}
		}),
	).gives(10, 10, 10, 0, 0, 10, 0)
	// Nothing is written, but the invoked chaincode's endorsement is asked for.
	p.block(p.call("cc", p.put(), "A"), p.call("cc", p.put(), "A", "B")).gives(10, 0)
	// Each namespace that is written, not those that are read.
	reads := &kvrwset.KVRWSet{Reads: []*kvrwset.KVRead{{Key: "x"}}}
	writes := &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{{Key: "x", Value: []byte("v")}}}
	p.block(
		p.call("cc", sets(ns(t, "cc", writes), ns(t, "dd", reads)), "A", "B"),
		p.call("cc", sets(ns(t, "cc", reads), ns(t, "dd", writes)), "A", "B"),
	).gives(0, 25)
}

// Who endorsed and was revoked since counts no more; nor does a creator.
func TestRevoked(t *testing.T) {
	p := newPlay(t)
	org, err := ca.NewOrg("D", "d.example.com", somewhen)
	require.NoError(t, err)
	signer, err := org.Identity("peer0", "peer")
	require.NoError(t, err)
	p.peers["D"] = []msp.Signer{signer}
	t.Cleanup(func() { delete(p.peers, "D"); delete(p.msps, "D") })
	turn := func() {
		m, err := msp.New(org.MSPConfig(), msp.Features{NodeOUs: true})
		require.NoError(t, err)
		r := &state.Rules{Channel: channelName, MSPs: msp.Directory{"D": m}, Policy: p.rules.Policy, Orgs: p.rules.Orgs}
		for k, v := range p.cast.msps {
			if k != "D" {
				r.MSPs[k] = v
			}
		}
		p.rules = r
	}
	turn()
	p.policies["/Channel/Application/Endorsement"] = p.compile(nOutOf(2, "A", "D"))
	by := func(creator msp.Signer) []byte {
		env, _, err := tx.Endorse(tx.Proposal{
			Channel: channelName, Chaincode: "cc", RWSet: p.put("k", "v"), Creator: creator, Time: somewhen,
			Endorsers: []msp.Signer{p.peers["A"][0], signer},
		})
		require.NoError(t, err)
		return marshal(t, env)
	}
	p.block(by(p.clients["A"]), by(signer)).gives(0, 0)
	require.NoError(t, org.Revoke(signer.Identity().Certificate().SerialNumber, somewhen))
	turn()
	p.block(by(p.clients["A"]), by(signer)).gives(10, 4)
}

// A definition counts from the block behind its own.
func TestDefinitions(t *testing.T) {
	p := newPlay(t)
	put := p.put("k", "v")
	redefine := p.define("cc", signedBy(nOutOf(1, "C")), "vscc")
	p.block(
		p.call(tx.Lifecycle, redefine, "A"),
		p.call(tx.Lifecycle, redefine, "A", "B"),
		p.call("cc", put, "C"), p.call("cc", put, "A", "B"),
	).gives(10, 0, 10, 0)
	p.block(p.call("cc", put, "C"), p.call("cc", put, "A", "B")).gives(0, 10)

	for _, c := range []struct {
		name   string
		policy *peer.ApplicationPolicy
		plugin string
		want   state.Code
	}{
		{"by reference", reference("/Channel/Application/GA/Endorsement"), "vscc", 0},
		{"below the root", reference("Application/GA/Endorsement"), "vscc", 0},
		{"to nothing", reference("/Channel/Application/Nothing"), "vscc", 10},
		{"to another root", reference("/Other/Application/GA/Endorsement"), "vscc", 10},
		{"of no type", &peer.ApplicationPolicy{}, "vscc", 25}, // which marshals to nothing
		{"none", nil, "vscc", 25},
		{"no plug-in", reference("/Channel/Application/GA/Endorsement"), "", 25},
		{"that can't be compiled", signedBy(&common.SignaturePolicyEnvelope{}), "vscc", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlay(t)
			p.block(p.call(tx.Lifecycle, p.define("cc", c.policy, c.plugin), "A", "B")).gives(0)
			p.block(p.call("cc", put, "A")).gives(c.want)
		})
	}
	t.Run("of another plug-in", func(t *testing.T) {
		p := newPlay(t)
		p.block(p.call(tx.Lifecycle, p.define("cc", reference("x"), "mine"), "A", "B")).gives(0)
		height := p.height
		_, err := p.execute(p.call("cc", put, "A", "B"))
		require.ErrorIs(t, err, state.Unjudged)
		require.ErrorContains(t, err, `"mine"`)
		require.Equal(t, height, p.height)
		p.block(p.call("dd", put, "A")).gives(25) // others are judged
	})
	t.Run("unreadable", func(t *testing.T) {
		p := newPlay(t)
		p.block(p.call(tx.Lifecycle, sets(ns(t, tx.Lifecycle, &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{
			{Key: "namespaces/fields/cc/ValidationInfo", Value: garbage},
		}})), "A", "B")).gives(0)
		p.block(p.call("cc", put, "A", "B")).gives(25)
	})
	t.Run("before 2.0", func(t *testing.T) {
		p := newPlay(t)
		p.entries[state.Key{Namespace: "lscc", Key: "old"}] = &state.Entry{Value: marshal(t, &peer.ChaincodeData{
			Name: "old", Vscc: "vscc", Policy: nOutOf(1, "C"),
		})}
		p.mark.Sum.Add(state.Key{Namespace: "lscc", Key: "old"}, p.entries[state.Key{Namespace: "lscc", Key: "old"}])
		set := sets(ns(t, "old", &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{{Key: "k", Value: []byte("v")}}}))
		p.block(p.call("old", set, "A", "B"), p.call("old", set, "C")).gives(10, 0)
	})
	t.Run("a policy for _lifecycle", func(t *testing.T) {
		p := newPlay(t)
		p.policies["/Channel/Application/LifecycleEndorsement"] = p.compile(nOutOf(1, "C"))
		p.block(p.call(tx.Lifecycle, redefine, "A", "B"), p.call(tx.Lifecycle, redefine, "C")).gives(10, 0)
	})
}

// A key's own policy stands in the place of the chaincode's for that key, and who
// changes it shuts out later writers of the block.
func TestKeyPolicies(t *testing.T) {
	p := newPlay(t)
	onlyC, anyA := nOutOf(1, "C"), nOutOf(1, "A")
	p.block(p.call("cc", p.put("k", "1", "free", "1"), "A", "B")).gives(0)
	out := p.block(
		p.call("cc", p.guard("k", onlyC), "A"),
		p.call("cc", p.put("k", "2"), "A", "B"), // the one before didn't pass
		p.call("cc", p.guard("k", onlyC), "A", "B"),
		p.call("cc", p.put("k", "3"), "A", "B"),
		p.call("cc", p.put("k", "4"), "C"),
		p.call("cc", p.put("free", "2"), "A", "B"),
	).gives(10, 0, 0, 10, 10, 0)
	require.Equal(t, "2", p.value("k"))
	require.Equal(t, uint64(2), p.version("k").TxNum, "metadata raises the version")
	require.Len(t, out.Writes, 2)
	p.block(
		p.call("cc", p.put("k", "5"), "A", "B"),
		p.call("cc", p.put("k", "6"), "C"),
		p.call("cc", p.put("k", "7", "free", "7"), "C"), // the other key asks for two
		p.call("cc", p.put("k", "8", "free", "8"), "A", "B", "C"),
	).gives(10, 0, 10, 0)
	require.Equal(t, "8", p.value("k"))
	// A value keeps the policy, and the policy says who may change it.
	p.block(p.call("cc", p.guard("k", anyA), "A", "B"), p.call("cc", p.guard("k", anyA), "C")).gives(10, 0)
	p.block(p.call("cc", p.put("k", "9"), "A")).gives(0)
	// Without entries, the policy goes.
	unguard := p.set(&kvrwset.KVRWSet{MetadataWrites: []*kvrwset.KVMetadataWrite{{Key: "k"}}})
	p.block(p.call("cc", unguard, "A")).gives(0)
	p.block(p.call("cc", p.put("k", "10"), "A"), p.call("cc", p.put("k", "11"), "B", "C")).gives(10, 0)
	// A deletion takes it along.
	p.block(p.call("cc", p.guard("k", onlyC), "A", "B")).gives(0)
	p.block(p.call("cc", p.put("k", ""), "C"), p.call("cc", p.put("k", "12"), "C")).gives(0, 0)
	p.block(p.call("cc", p.put("k", "13"), "C"), p.call("cc", p.put("k", "14"), "A", "B")).gives(10, 0)
	// Metadata for a key that isn't there does nothing, and shuts out all the same.
	out = p.block(p.call("cc", p.guard("none", onlyC), "A", "B"), p.call("cc", p.put("none", "1"), "A", "B")).gives(0, 10)
	require.Empty(t, out.Writes)
	// Nor does it for one that the block has deleted.
	out = p.block(p.call("cc", p.put("k", ""), "A", "B"), p.call("cc", p.guard("k", onlyC), "A", "B")).gives(0, 0)
	require.Len(t, out.Writes, 1)
	require.Nil(t, out.Writes[0].Entry)
	// What can't be read as a policy is met by nobody.
	p.block(p.call("cc", p.put("k", "1"), "A", "B")).gives(0)
	p.block(p.call("cc", p.set(&kvrwset.KVRWSet{MetadataWrites: []*kvrwset.KVMetadataWrite{{
		Key: "k", Entries: []*kvrwset.KVMetadataEntry{{Name: "VALIDATION_PARAMETER", Value: garbage}},
	}}}), "A", "B")).gives(0)
	p.block(p.call("cc", p.put("k", "2"), "A", "B", "C")).gives(10)
}
