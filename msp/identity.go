// Package msp says who somebody is: certificates, organisations, roles,
// revocation, signatures and the policies over them.
//
// It has two judges. The ledger judge ([MSP.Validate], [MSP.Verify],
// [MSP.Satisfies], [Policy]) knows no clock and is exactly as lenient as
// Fabric, because another verdict about a block or a transaction would be
// another state. The live judge ([MSP.ValidateLive], [Identity.Verify],
// [FromDER], [FromPEM]) meets hosts and messages of the present: it uses the
// real clock and an allow-list of keys, algorithms and extensions on top of
// crypto/x509.
package msp

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"unicode/utf8"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

const certificateType = "CERTIFICATE" // of a PEM block

// A PKIID is a member's identity in the network: the SHA-256 of the
// length-prefixed MSP ID and public key (SubjectPublicKeyInfo, DER). A renewed
// certificate keeps it when the key stays.
type PKIID [32]byte

// String returns the id in hexadecimal.
func (p PKIID) String() string { return hex.EncodeToString(p[:]) }

// An Identity is a certificate shown under an MSP's name. Nothing is said about
// its validity: that is a judge's to say. It is immutable and safe for
// concurrent use.
type Identity struct {
	mspID string
	cert  *x509.Certificate
	hash  [32]byte // SHA-256 of the certificate as shown
	pkiID PKIID
}

// FromDER reads an identity from one certificate in DER, the only form in which
// our own messages carry one. Anything else is refused as [NotDER], or for what
// makes it unreadable ([BadKey], [BadCurve], [BadKeyType], [BadExtension]).
func FromDER(mspID string, der []byte) (*Identity, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", mspID, unreadable(der, err))
	}
	return newIdentity(mspID, c)
}

// FromPEM reads an identity from PEM as the live judge takes it: one
// CERTIFICATE block in its one standard encoding, without headers and with
// nothing before or after it. Anything else is refused as [BadPEM].
func FromPEM(mspID string, text []byte) (*Identity, error) {
	b, rest := pem.Decode(text)
	if b == nil || len(rest) > 0 || b.Type != certificateType || len(b.Headers) > 0 ||
		!bytes.Equal(pem.EncodeToMemory(b), text) {
		return nil, fmt.Errorf("certificate of %s is not one plain CERTIFICATE block: %w", mspID, BadPEM)
	}
	return FromDER(mspID, b.Bytes)
}

// Deserialize reads the creator of a header, Fabric's msp.SerializedIdentity, as
// the ledger judge takes it: the first PEM block of whatever type, headers and
// the rest ignored.
func Deserialize(creator []byte) (*Identity, error) {
	s, err := serialized(creator)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(s.IdBytes)
	if b == nil {
		return nil, fmt.Errorf("creator of %s holds no PEM block: %w", s.Mspid, BadPEM)
	}
	return FromDER(s.Mspid, b.Bytes)
}

// DeserializeLive reads a creator as the live judge takes it, with the PEM that
// [FromPEM] takes.
func DeserializeLive(creator []byte) (*Identity, error) {
	s, err := serialized(creator)
	if err != nil {
		return nil, err
	}
	return FromPEM(s.Mspid, s.IdBytes)
}

// MSPID returns the name of the MSP under which the certificate was shown.
func (i *Identity) MSPID() string { return i.mspID }

// Certificate returns the certificate; the caller must not change it.
func (i *Identity) Certificate() *x509.Certificate { return i.cert }

// PKIID returns the identity's name in the network.
func (i *Identity) PKIID() PKIID { return i.pkiID }

// Name returns the common name of the certificate's subject.
func (i *Identity) Name() string { return i.cert.Subject.CommonName }

// Serialized returns the identity as Fabric's msp.SerializedIdentity: the MSP ID
// and the certificate as PEM in its standard encoding.
func (i *Identity) Serialized() []byte {
	text := pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: i.cert.Raw})
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&mspproto.SerializedIdentity{Mspid: i.mspID, IdBytes: text})
	if err != nil { // an MSP ID that is not UTF-8, which newIdentity refuses
		panic("msp: " + err.Error())
	}
	return b
}

func serialized(creator []byte) (*mspproto.SerializedIdentity, error) {
	s := new(mspproto.SerializedIdentity)
	if err := proto.Unmarshal(creator, s); err != nil {
		return nil, fmt.Errorf("creator is no serialised identity: %w: %w", BadIdentity, err)
	}
	return s, nil
}

func newIdentity(mspID string, c *x509.Certificate) (*Identity, error) {
	if !utf8.ValidString(mspID) {
		return nil, fmt.Errorf("MSP ID %q is not UTF-8: %w", mspID, BadIdentity)
	}
	// The key is encoded afresh: the same key in an odd wrapping (a trailing
	// element in its algorithm, say) must not become a second member.
	spki, err := x509.MarshalPKIXPublicKey(c.PublicKey)
	if err != nil {
		spki = c.RawSubjectPublicKeyInfo // a key no judge takes
	}
	return &Identity{
		mspID: mspID,
		cert:  c,
		hash:  sha256.Sum256(c.Raw),
		pkiID: wire.HashParts([]byte(mspID), spki),
	}, nil
}
