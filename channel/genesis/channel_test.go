package genesis_test

import (
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
	"grapevine/channel"
	"grapevine/channel/genesis"
	"grapevine/msp"
	"grapevine/msp/ca"
)

// A parsed genesis block says what the profile said, and lets the roles do what
// they are for: with three organisations, two must endorse.
func TestChannelGrowsFromTheBlock(t *testing.T) {
	p := profile(t)
	p.Orgs = nil
	members := map[string]msp.Signer{}
	for _, name := range []string{"Org1", "Org2", "Org3"} {
		o, err := ca.NewOrg(name+"MSP", name, now)
		require.NoError(t, err)
		p.Orgs = append(p.Orgs, genesis.Org{Name: name, MSP: o.MSPConfig(), Anchors: []string{"peer0." + name + ":7051"}})
		for _, role := range []string{"admin", "client", "peer"} {
			members[name+role], err = o.Identity(role, role)
			require.NoError(t, err)
		}
	}
	b, err := genesis.Block(p)
	require.NoError(t, err)
	c, err := channel.Parse(b)
	require.NoError(t, err)
	require.Equal(t, "mychannel", c.Channel())
	require.Equal(t, channel.ConsensusRaft, c.Consensus())
	require.Len(t, c.Orgs(), 3)
	require.Equal(t, []string{"peer0.Org1:7051"}, c.Orgs()[0].Anchors)
	require.Equal(t, "127.0.0.1:7050", c.Orderers()[0].Endpoint)
	require.EqualValues(t, 500, c.Batch().MaxMessageCount)
	require.Equal(t, genesis.DefaultTimeout, c.BatchTimeout())

	for _, r := range []struct {
		policy   string
		who      string
		accepted bool
	}{
		{"/Channel/Application/Readers", "Org1peer", true},
		{"/Channel/Application/Readers", "Org1client", true},
		{"/Channel/Writers", "Org1client", true},
		{"/Channel/Writers", "Org2admin", true},
		{"/Channel/Writers", "Org1peer", false},
		{"/Channel/Orderer/BlockValidation", "Org1admin", false},
	} {
		err := msp.SatisfiedBy(c.MSPs(), c.Policy(r.policy), members[r.who].Identity())
		require.Equal(t, r.accepted, err == nil, "%s for %s: %v", r.policy, r.who, err)
	}

	peers := func(names ...string) (out []msp.Signer) {
		for _, n := range names {
			out = append(out, members[n])
		}
		return out
	}
	for _, e := range []struct {
		name, chaincode, policy string
		set                     *rwset.TxReadWriteSet
		endorsers               []msp.Signer
		accepted                bool
	}{
		{"a definition by two of three", tx.Lifecycle, "/Channel/Application/LifecycleEndorsement", tx.Define("kv"), peers("Org1peer", "Org3peer"), true},
		{"a definition by one", tx.Lifecycle, "/Channel/Application/LifecycleEndorsement", tx.Define("kv"), peers("Org1peer"), false},
		{"a definition by admins", tx.Lifecycle, "/Channel/Application/LifecycleEndorsement", tx.Define("kv"), peers("Org1admin", "Org2admin"), false},
		{"a write by two of three", "kv", tx.EndorsementRef, tx.Write("kv", "k", []byte("v")), peers("Org2peer", "Org3peer"), true},
		{"a write by one", "kv", tx.EndorsementRef, tx.Write("kv", "k", []byte("v")), peers("Org2peer"), false},
	} {
		t.Run(e.name, func(t *testing.T) {
			env, _, err := tx.Endorse(tx.Proposal{
				Channel: c.Channel(), Chaincode: e.chaincode, RWSet: e.set, Creator: members["Org1client"], Endorsers: e.endorsers, Time: now,
			})
			require.NoError(t, err)
			require.NoError(t, c.Policy("/Channel/Writers").Evaluate(c.MSPs(), []msp.SignedData{{
				Creator: members["Org1client"].Identity(), Data: [][]byte{env.Payload}, Signature: env.Signature,
			}}))
			err = c.Policy(e.policy).Evaluate(c.MSPs(), endorsements(t, env))
			require.Equal(t, e.accepted, err == nil, "%v", err)
		})
	}
}

// endorsements are what a validator hands to the endorsement policy.
func endorsements(t *testing.T, env *common.Envelope) (out []msp.SignedData) {
	t.Helper()
	p, x, a := new(common.Payload), new(peer.Transaction), new(peer.ChaincodeActionPayload)
	require.NoError(t, proto.Unmarshal(env.Payload, p))
	require.NoError(t, proto.Unmarshal(p.Data, x))
	require.NoError(t, proto.Unmarshal(x.Actions[0].Payload, a))
	for _, e := range a.Action.Endorsements {
		id, err := msp.Deserialize(e.Endorser)
		require.NoError(t, err)
		out = append(out, msp.SignedData{
			Creator: id, Data: [][]byte{a.Action.ProposalResponsePayload, e.Endorser}, Signature: e.Signature,
		})
	}
	return out
}
