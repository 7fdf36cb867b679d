package msp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// A town is two organisations and their members.
type town struct {
	dir    Directory
	people map[string]Signer // "org1.peer0", ...
}

func newTown(t testing.TB) *town {
	t.Helper()
	w := &town{Directory{}, map[string]Signer{}}
	for _, org := range []string{"Org1", "Org2"} {
		ca := root(t, "ca."+org)
		w.dir[org+"MSP"] = build(t, definition(org+"MSP", ca))
		for _, p := range []string{"peer0", "peer1", "admin0", "client0"} {
			ou := strings.TrimRight(p, "01")
			w.people[org+"."+p] = member(t, ca, p, ou).signer(t, org+"MSP")
		}
	}
	return w
}

// sign makes the signatures of a list of people; "!" before a name spoils one.
func (w *town) sign(t testing.TB, names ...string) []SignedData {
	t.Helper()
	var list []SignedData
	for _, n := range names {
		name, bad := strings.CutPrefix(n, "!")
		s := w.people[name]
		require.NotNil(t, s, name)
		sig, err := s.Sign([]byte("header and data"))
		require.NoError(t, err)
		d := SignedData{Creator: s.Identity(), Data: [][]byte{[]byte("header "), []byte("and data")}, Signature: sig}
		if bad {
			d.Data = [][]byte{[]byte("something else")}
		}
		list = append(list, d)
	}
	return list
}

func policy(t testing.TB, text string) Policy {
	t.Helper()
	e, err := ParsePolicy(text)
	require.NoError(t, err)
	p, err := SignaturePolicy(e)
	require.NoError(t, err)
	return p
}

func TestSignaturePolicies(t *testing.T) {
	w := newTown(t)
	for _, c := range []struct {
		policy string
		by     string
		fine   bool
	}{
		{"OR('Org1MSP.peer', 'Org2MSP.peer')", "Org2.peer0", true},
		{"OR('Org1MSP.peer', 'Org2MSP.peer')", "Org2.client0", false},
		{"OR('Org1MSP.peer', 'Org2MSP.peer')", "!Org2.peer0", false},
		{"OR('Org1MSP.peer', 'Org2MSP.peer')", "!Org2.peer0 Org2.peer0", true}, // counted at its first valid one
		{"OR('Org1MSP.peer', 'Org2MSP.peer')", "", false},
		{"AND('Org1MSP.peer', 'Org2MSP.peer')", "Org2.peer0 Org1.peer0", true},
		{"AND('Org1MSP.peer', 'Org2MSP.peer')", "Org2.peer0 Org2.peer1", false},
		{"OutOf(2, 'Org1MSP.peer', 'Org1MSP.peer')", "Org1.peer0 Org1.peer1", true},
		{"OutOf(2, 'Org1MSP.peer', 'Org1MSP.peer')", "Org1.peer0 Org1.peer0", false}, // once each
		{"OutOf(0, 'Org1MSP.peer')", "", true},
		{"OutOf(2, 'Org1MSP.peer')", "Org1.peer0", false},
		// Greedy: the member branch takes the admin, who comes first, and nobody
		// is left to be the admin. In the other order of signatures it works.
		{"AND('Org1MSP.member', 'Org1MSP.admin')", "Org1.admin0 Org1.peer0", false},
		{"AND('Org1MSP.member', 'Org1MSP.admin')", "Org1.peer0 Org1.admin0", true},
		{"AND('Org1MSP.admin', 'Org1MSP.member')", "Org1.admin0 Org1.peer0", true},
		// A satisfied gate goes on taking beyond its n: both peers are used up.
		{"AND(OutOf(1, 'Org1MSP.peer', 'Org1MSP.peer'), 'Org1MSP.peer')", "Org1.peer0 Org1.peer1", false},
		{"AND(OutOf(1, 'Org1MSP.peer'), 'Org1MSP.peer')", "Org1.peer0 Org1.peer1", true},
		// A failing gate gives back what its branches took.
		{"OR(AND('Org1MSP.peer', 'Org2MSP.admin'), 'Org1MSP.peer')", "Org1.peer0", true},
		{"OutOf(1, AND('Org1MSP.peer', 'Org1MSP.peer'), 'Org2MSP.client')", "Org1.peer0 Org2.client0", true},
	} {
		t.Run(c.policy+" by "+c.by, func(t *testing.T) {
			err := policy(t, c.policy).Evaluate(w.dir, w.sign(t, strings.Fields(c.by)...))
			if c.fine {
				require.NoError(t, err)
				return
			}
			refused(t, err, PolicyUnmet)
		})
	}
}

func TestUnmetPoliciesSayWhy(t *testing.T) {
	w := newTown(t)
	err := policy(t, "AND('Org1MSP.peer', 'Org2MSP.peer')").Evaluate(w.dir, append(w.sign(t, "Org1.peer0", "!Org2.peer0"), SignedData{}))
	require.ErrorIs(t, err, PolicyUnmet)
	require.ErrorIs(t, err, BadSignature)
	require.ErrorIs(t, err, BadIdentity)
	stranger := w.sign(t, "Org1.peer0")
	err = policy(t, "OR('Org1MSP.peer')").Evaluate(Directory{}, stranger)
	require.ErrorIs(t, err, UnknownMSP)
	stranger[0].Creator = member(t, root(t, "x"), "p", "peer").id(t, "Org1MSP")
	err = policy(t, "OR('Org1MSP.peer')").Evaluate(w.dir, stranger)
	require.ErrorIs(t, err, BadChain)
}

func TestOneVoteForTwins(t *testing.T) {
	ca := root(t, "ca.org1")
	d := Directory{"Org1MSP": build(t, definition("Org1MSP", ca))}
	p := member(t, ca, "p", "peer")
	var sigs []SignedData
	for _, q := range []*party{p, twin(t, p)} {
		sig, err := p.signer(t, "Org1MSP").Sign([]byte("x"))
		require.NoError(t, err)
		sigs = append(sigs, SignedData{q.id(t, "Org1MSP"), [][]byte{[]byte("x")}, sig})
	}
	refused(t, policy(t, "OutOf(2, 'Org1MSP.peer', 'Org1MSP.peer')").Evaluate(d, sigs), PolicyUnmet)
	require.NoError(t, policy(t, "OR('Org1MSP.peer')").Evaluate(d, sigs))
}

func TestImplicitMeta(t *testing.T) {
	w := newTown(t)
	org1, org2 := policy(t, "OR('Org1MSP.peer')"), policy(t, "OR('Org2MSP.peer')")
	const anyOf, allOf, most = common.ImplicitMetaPolicy_ANY, common.ImplicitMetaPolicy_ALL, common.ImplicitMetaPolicy_MAJORITY
	for i, c := range []struct {
		rule common.ImplicitMetaPolicy_Rule
		subs []Policy
		by   string
		fine bool
	}{
		{anyOf, []Policy{org1, org2}, "Org2.peer0", true},
		{anyOf, []Policy{org1, org2}, "Org2.client0", false},
		{allOf, []Policy{org1, org2}, "Org2.peer0 Org1.peer0", true},
		{allOf, []Policy{org1, org2}, "Org2.peer0", false},
		{most, []Policy{org1, org2}, "Org2.peer0", false},
		{most, []Policy{org1, org2}, "Org2.peer0 Org1.peer1", true},
		{most, []Policy{org1, org2, nil}, "Org2.peer0 Org1.peer1", true},
		{most, []Policy{org1, nil}, "Org1.peer0", false}, // a sub-group without it counts
		{allOf, []Policy{org1, nil}, "Org1.peer0", false},
		{anyOf, []Policy{nil}, "Org1.peer0", false},
		{most, []Policy{org1, org1, org1}, "Org1.peer0", true}, // one signature for several
		{anyOf, nil, "", true},
		{allOf, nil, "", true},
		{most, nil, "", true}, // as in Fabric
		{anyOf, []Policy{foreign{org1}}, "Org1.peer0", true},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			p, err := ImplicitMeta(c.rule, c.subs)
			require.NoError(t, err)
			err = p.Evaluate(w.dir, w.sign(t, strings.Fields(c.by)...))
			require.Equal(t, c.fine, err == nil, "%v", err)
		})
	}
	_, err := ImplicitMeta(9, []Policy{org1})
	refused(t, err, BadPolicy)
	refused(t, Deny.Evaluate(w.dir, w.sign(t, "Org1.peer0")), PolicyMissing)
}

// A foreign policy is not of this package's making.
type foreign struct{ p Policy }

func (f foreign) Evaluate(d Directory, s []SignedData) error { return f.p.Evaluate(d, s) }

func TestSatisfiedBy(t *testing.T) {
	w := newTown(t)
	readers, err := ImplicitMeta(common.ImplicitMetaPolicy_ANY, []Policy{policy(t, "OR('Org1MSP.peer', 'Org1MSP.admin')"), nil})
	require.NoError(t, err)
	require.NoError(t, SatisfiedBy(w.dir, readers, w.people["Org1.peer0"].Identity()))
	refused(t, SatisfiedBy(w.dir, readers, w.people["Org1.client0"].Identity()), PolicyUnmet)
	refused(t, SatisfiedBy(w.dir, readers, w.people["Org2.peer0"].Identity()), PolicyUnmet)
	refused(t, SatisfiedBy(Directory{}, readers, w.people["Org1.peer0"].Identity()), UnknownMSP)
	refused(t, SatisfiedBy(w.dir, Deny, w.people["Org1.peer0"].Identity()), PolicyMissing)
	refused(t, SatisfiedBy(w.dir, foreign{readers}, w.people["Org1.peer0"].Identity()), BadPolicy)
	refused(t, SatisfiedBy(w.dir, readers, member(t, root(t, "x"), "p", "peer").id(t, "Org1MSP")), BadChain)
}

func TestBadSignaturePolicies(t *testing.T) {
	leaf := func(i int32) *common.SignaturePolicy {
		return &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: i}}
	}
	for name, e := range map[string]*common.SignaturePolicyEnvelope{
		"nil":        nil,
		"version":    {Version: 1, Rule: leaf(0), Identities: []*mspproto.MSPPrincipal{{}}},
		"no rule":    {},
		"empty rule": {Rule: &common.SignaturePolicy{}},
		"empty gate": {Rule: &common.SignaturePolicy{Type: &common.SignaturePolicy_NOutOf_{}}},
		"beyond":     {Rule: leaf(1), Identities: []*mspproto.MSPPrincipal{{}}},
		"negative":   {Rule: leaf(-1), Identities: []*mspproto.MSPPrincipal{{}}},
		"inside a gate": {Rule: &common.SignaturePolicy{Type: &common.SignaturePolicy_NOutOf_{
			NOutOf: &common.SignaturePolicy_NOutOf{N: 1, Rules: []*common.SignaturePolicy{nil}},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := SignaturePolicy(e)
			refused(t, err, BadPolicy)
		})
	}
}

func TestPolicyText(t *testing.T) {
	e, err := ParsePolicy(`OutOf( 2, 'Org1MSP.peer', and("Org2-MSP.x.admin",'Org1MSP.peer') ,OR('A.client'))`)
	require.NoError(t, err)
	leaf := func(i int32) *common.SignaturePolicy {
		return &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: i}}
	}
	gate := func(n int32, rules ...*common.SignaturePolicy) *common.SignaturePolicy {
		return &common.SignaturePolicy{Type: &common.SignaturePolicy_NOutOf_{NOutOf: &common.SignaturePolicy_NOutOf{N: n, Rules: rules}}}
	}
	want := &common.SignaturePolicyEnvelope{
		Rule: gate(2, leaf(0), gate(2, leaf(1), leaf(2)), gate(1, leaf(3))),
		Identities: []*mspproto.MSPPrincipal{
			role(t, "Org1MSP", mspproto.MSPRole_PEER), role(t, "Org2-MSP.x", mspproto.MSPRole_ADMIN),
			role(t, "Org1MSP", mspproto.MSPRole_PEER), role(t, "A", mspproto.MSPRole_CLIENT),
		},
	}
	require.True(t, proto.Equal(want, e), "%v", e)

	for _, text := range []string{
		"", "'Org1MSP.peer'", "OR", "OR(", "OR()", "OR('Org1MSP.peer'", "OR('Org1MSP.peer' 'Org2MSP.peer')", "OR('Org1MSP.peer',)",
		"OR('Org1MSP.boss')", "OR('Org1MSP')", "OR('.peer')", "OR('Org 1.peer')", "OR('Org1MSP.peer)", "OR('Org1MSP.peer'))",
		"OutOf('Org1MSP.peer')", "OutOf(3, 'Org1MSP.peer')", "OutOf(-1, 'Org1MSP.peer')", "OutOf(1)", "XOR('Org1MSP.peer')", "OR(Org1MSP.peer)",
		strings.Repeat("OR(", 1000) + "'Org1MSP.peer'" + strings.Repeat(")", 1000), strings.Repeat("x", maxPolicyText+1),
	} {
		_, err := ParsePolicy(text)
		refused(t, err, BadPolicy)
	}
}
