package msp

import (
	"bytes"
	"io/fs"
	"testing"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/protobuf/proto"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/wire"
)

// reasoned demands that a refusal has a reason: an error without one would count
// as our own trouble.
func reasoned(t *testing.T, err error) {
	t.Helper()
	if err != nil && wire.ReasonOf(err) == nil {
		t.Fatalf("refused without a reason: %v", err)
	}
}

func FuzzIdentityDER(f *testing.F) {
	ca := root(f, "ca.org1")
	m := build(f, definition("Org1MSP", ca))
	good := member(f, ca, "peer0", "peer")
	f.Add(good.cert.Raw, []byte("sig"))
	f.Add(ca.cert.Raw, []byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Add(memberWith(f, ca, newEd25519(f), "peer0", "peer").cert.Raw, make([]byte, 64))
	f.Add(withKey(f, ca, good, ecKey(f, oidCurveP256, []byte{0})), []byte(nil))
	f.Add(withKey(f, ca, good, explicitKey(f, point(good))), []byte(nil))
	f.Add(good.pem(), []byte(nil))
	f.Fuzz(func(t *testing.T, der, sig []byte) {
		id, err := FromDER("Org1MSP", der)
		reasoned(t, err)
		if _, e := Deserialize(der); e == nil && len(der) == 0 {
			t.Fatal("an identity out of nothing")
		}
		if err != nil {
			return
		}
		if !bytes.Equal(id.Certificate().Raw, der) {
			t.Fatal("accepted bytes are not the certificate's")
		}
		again, err := DeserializeLive(id.Serialized())
		if err != nil || again.PKIID() != id.PKIID() {
			t.Fatalf("another identity after a round trip: %v", err)
		}
		live, ledger := m.ValidateLive(id, nil, noon), m.Validate(id)
		reasoned(t, live)
		reasoned(t, ledger)
		if live == nil && ledger != nil {
			t.Fatalf("the live judge takes what Fabric refuses: %v", ledger)
		}
		strictly, leniently := id.Verify([]byte("x"), sig), m.Verify(id, []byte("x"), sig)
		reasoned(t, strictly)
		reasoned(t, leniently)
		if strictly == nil && leniently != nil {
			t.Fatalf("a signature for the live judge alone: %v", leniently)
		}
	})
}

func FuzzCRL(f *testing.F) {
	ca := root(f, "ca.org1")
	leaf := member(f, ca, "peer0", "peer")
	m := build(f, definition("Org1MSP", ca))
	f.Add(revocation(f, ca, nil, leaf))
	f.Add(revocation(f, root(f, "x"), nil, leaf))
	f.Add([]byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"))
	f.Add([]byte{0x30, 0x80})
	id := leaf.id(f, "Org1MSP")
	f.Fuzz(func(t *testing.T, raw []byte) {
		warnings, err := m.CheckCRL(raw, noon)
		reasoned(t, err)
		conf := definition("Org1MSP", ca)
		conf.RevocationList = [][]byte{raw}
		n, e := New(conf, all)
		reasoned(t, e)
		if e != nil {
			if err == nil {
				t.Fatalf("a list is taken alone (%v) and not in a definition: %v", warnings, e)
			}
			return
		}
		if (err == nil) != (len(n.Warnings()) == 0) && len(raw) <= maxCRL {
			t.Fatalf("checked: %v; in a definition: %v", err, n.Warnings())
		}
		reasoned(t, n.Validate(id))
		reasoned(t, n.ValidateLive(id, nil, noon))
	})
}

func FuzzNodeOU(f *testing.F) {
	ca := root(f, "ca.org1")
	leaf := member(f, ca, "peer0", "peer")
	f.Add([]byte(rolesText))
	f.Add([]byte("NodeOUs:\n  Enable: true\n  PeerOUIdentifier: {Certificate: cacerts/ca.pem, OrganizationalUnitIdentifier: peer}\n"))
	f.Add([]byte("OrganizationalUnitIdentifiers:\n- Certificate: cacerts/ca.pem\n  OrganizationalUnitIdentifier: org1\n"))
	f.Add([]byte("a: &a [*a]\nNodeOUs: *a\n"))
	get := func(name string) ([]byte, error) {
		if name != "cacerts/ca.pem" {
			return nil, fs.ErrNotExist
		}
		return ca.pem(), nil
	}
	id := leaf.id(f, "Org1MSP")
	f.Fuzz(func(t *testing.T, text []byte) {
		y, _, err := parseRoles(text)
		if err != nil {
			return
		}
		conf := &mspproto.FabricMSPConfig{Name: "Org1MSP", RootCerts: [][]byte{ca.pem()}}
		if y.apply(conf, get) != nil {
			return
		}
		m, err := New(conf, all)
		reasoned(t, err)
		if err != nil {
			return
		}
		live, ledger := m.ValidateLive(id, nil, noon), m.Validate(id)
		reasoned(t, live)
		reasoned(t, ledger)
		if live == nil && ledger != nil {
			t.Fatalf("the live judge sees a role where Fabric sees none: %v", ledger)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	w := newTown(f)
	sigs := w.sign(f, "Org1.peer0", "Org2.admin0", "!Org1.client0")
	for _, text := range []string{"OR('Org1MSP.peer')", "OutOf(2, 'Org1MSP.peer', AND('Org2MSP.admin','Org1MSP.member'))", "OR(\"a.b.client\""} {
		var raw []byte
		if e, err := ParsePolicy(text); err == nil {
			raw = marshal(f, e)
		}
		f.Add(text, raw)
	}
	f.Add("", marshal(f, &common.SignaturePolicyEnvelope{
		Rule:       &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{}},
		Identities: []*mspproto.MSPPrincipal{principalOf(f, mspproto.MSPPrincipal_IDENTITY, sigs[0].Creator.Serialized())},
	}))
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		e, err := ParsePolicy(text)
		reasoned(t, err)
		if err == nil {
			if _, err := SignaturePolicy(e); err != nil {
				t.Fatalf("a policy's text makes no policy: %v", err)
			}
		}
		e = new(common.SignaturePolicyEnvelope)
		if proto.Unmarshal(raw, e) != nil {
			return
		}
		p, err := SignaturePolicy(e)
		reasoned(t, err)
		if err != nil {
			return
		}
		first := p.Evaluate(w.dir, sigs)
		reasoned(t, first)
		if again := p.Evaluate(w.dir, sigs); (first == nil) != (again == nil) {
			t.Fatalf("two verdicts: %v, %v", first, again)
		}
	})
}
