package msp

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"math/big"
	"testing"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

func TestSignersVerify(t *testing.T) {
	ca := root(t, "ca.org1")
	m := build(t, definition("Org1MSP", ca))
	for name, p := range map[string]*party{
		"P-256":   member(t, ca, "peer0", "peer"),
		"P-384":   memberWith(t, ca, newKey(t, elliptic.P384()), "peer0", "peer"),
		"Ed25519": memberWith(t, ca, newEd25519(t), "peer0", "peer"),
	} {
		t.Run(name, func(t *testing.T) {
			s := p.signer(t, "Org1MSP")
			for range 8 { // half of all raw ECDSA signatures have a high S
				sig, err := s.Sign([]byte("block"))
				require.NoError(t, err)
				require.NoError(t, s.Identity().Verify([]byte("block"), sig))
				require.NoError(t, m.Verify(s.Identity(), []byte("block"), sig))
				refused(t, s.Identity().Verify([]byte("other"), sig), BadSignature)
				refused(t, m.Verify(s.Identity(), []byte("other"), sig), BadSignature)
			}
		})
	}
	p := member(t, ca, "peer0", "peer")
	_, err := NewSigner(p.id(t, "Org1MSP"), newKey(t, elliptic.P256()))
	refused(t, err, KeyMismatch)
	odd := memberWith(t, ca, newKey(t, elliptic.P521()), "peer0", "peer")
	_, err = NewSigner(odd.id(t, "Org1MSP"), odd.key)
	refused(t, err, BadCurve)
}

func TestHostileSignatures(t *testing.T) {
	ca := root(t, "ca.org1")
	m := build(t, definition("Org1MSP", ca))
	s := member(t, ca, "peer0", "peer").signer(t, "Org1MSP")
	msg := []byte("block")
	sig, err := s.Sign(msg)
	require.NoError(t, err)
	r, sv, err := parse(sig)
	require.NoError(t, err)
	n := elliptic.P256().Params().N
	enc := func(r, s *big.Int) []byte {
		b, err := asn1.Marshal(rs{r, s})
		require.NoError(t, err)
		return b
	}
	long := append([]byte{0x30, 0x81}, sig[1:]...)
	padded := append([]byte{0x30, sig[1] + 1, 2, sig[3] + 1, 0}, sig[4:]...)
	inner := append(bytes.Clone(sig), 5, 0)
	inner[1] += 2

	for _, c := range []struct {
		name         string
		sig          []byte
		live, ledger *wire.Reason
	}{
		{"C18 high S", otherS(t, elliptic.P256(), sig), HighS, HighS},
		{"C19 r = 0", enc(big.NewInt(0), sv), BadSignatureEncoding, BadSignatureEncoding},
		{"C19 s = 0", enc(r, big.NewInt(0)), BadSignatureEncoding, BadSignatureEncoding},
		{"C19 r = N", enc(n, sv), BadSignatureEncoding, BadSignature},
		{"C19 s = N", enc(r, n), BadSignatureEncoding, HighS},
		{"C19 r negative", enc(new(big.Int).Neg(r), sv), BadSignatureEncoding, BadSignatureEncoding},
		{"C19 s negative", enc(r, new(big.Int).Neg(sv)), BadSignatureEncoding, BadSignatureEncoding},
		{"C19 long length", long, BadSignatureEncoding, BadSignatureEncoding},
		{"C19 padded integer", padded, BadSignatureEncoding, BadSignatureEncoding},
		{"C19 trailing bytes", append(bytes.Clone(sig), 0), BadSignatureEncoding, nil},
		{"C19 trailing element", inner, BadSignatureEncoding, nil},
		{"C19 empty", nil, BadSignatureEncoding, BadSignatureEncoding},
		{"C19 garbage", []byte("signature"), BadSignatureEncoding, BadSignatureEncoding},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, s.Identity().Verify(msg, c.sig), c.live)
			err := m.Verify(s.Identity(), msg, c.sig)
			if c.ledger == nil {
				require.NoError(t, err, "Fabric reads over what follows a signature")
				return
			}
			refused(t, err, c.ledger)
		})
	}
}

func TestHashFamilies(t *testing.T) {
	ca := root(t, "ca.org1")
	p := member(t, ca, "peer0", "peer")
	sig, err := p.signer(t, "Org1MSP").Sign([]byte("block"))
	require.NoError(t, err)
	conf := func(family, id string) *mspproto.FabricMSPConfig {
		c := definition("Org1MSP", ca)
		c.CryptoConfig = &mspproto.FabricCryptoConfig{SignatureHashFamily: family, IdentityIdentifierHashFunction: id}
		return c
	}
	require.NoError(t, build(t, conf("SHA2", "SHA384")).Verify(p.id(t, "Org1MSP"), []byte("block"), sig))
	refused(t, build(t, conf("SHA3", "SHA3_256")).Verify(p.id(t, "Org1MSP"), []byte("block"), sig), BadSignature)
	refused(t, build(t, conf("MD5", "SHA3_384")).Verify(p.id(t, "Org1MSP"), []byte("block"), sig), BadDefinition)
	_, err = New(conf("", "MD5"), all)
	refused(t, err, BadDefinition)
}

func TestTheLedgerTakesOddCurves(t *testing.T) {
	ca := root(t, "ca.org1")
	m := build(t, definition("Org1MSP", ca))
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P521()} {
		p := memberWith(t, ca, newKey(t, curve), "peer0", "peer")
		require.NoError(t, m.Validate(p.id(t, "Org1MSP")))
		sig, err := (&signer{p.id(t, "Org1MSP"), p.key}).Sign([]byte("block"))
		require.NoError(t, err)
		require.NoError(t, m.Verify(p.id(t, "Org1MSP"), []byte("block"), sig))
		refused(t, p.id(t, "Org1MSP").Verify([]byte("block"), sig), BadCurve)
	}
}
