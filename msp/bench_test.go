package msp

import "testing"

// A live judgement is a chain: about two ECDSA verifications.
func BenchmarkValidateLive(b *testing.B) {
	ca := root(b, "ca.org1")
	m := build(b, definition("Org1MSP", ca))
	id := member(b, ca, "peer0", "peer").id(b, "Org1MSP")
	for b.Loop() {
		if err := m.ValidateLive(id, nil, noon); err != nil {
			b.Fatal(err)
		}
	}
}

// A ledger judgement is remembered.
func BenchmarkValidate(b *testing.B) {
	ca := root(b, "ca.org1")
	m := build(b, definition("Org1MSP", ca))
	id := member(b, ca, "peer0", "peer").id(b, "Org1MSP")
	for b.Loop() {
		if err := m.Validate(id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPolicy(b *testing.B) {
	w := newTown(b)
	p := policy(b, "OutOf(2, 'Org1MSP.peer', 'Org2MSP.peer')")
	sigs := w.sign(b, "Org1.peer0", "Org2.peer0")
	for b.Loop() {
		if err := p.Evaluate(w.dir, sigs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeserialize(b *testing.B) {
	creator := member(b, root(b, "ca.org1"), "peer0", "peer").id(b, "Org1MSP").Serialized()
	for b.Loop() {
		if _, err := Deserialize(creator); err != nil {
			b.Fatal(err)
		}
	}
}
