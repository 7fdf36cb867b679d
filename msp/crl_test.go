package msp

import (
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRevocation(t *testing.T) {
	ca := root(t, "ca.org1")
	sub := authority(t, ca, "ica.org1", newKey(t, elliptic.P256()))
	gone, stays := member(t, sub, "peer0", "peer"), member(t, sub, "peer1", "peer")
	conf := definition("Org1MSP", ca)
	conf.IntermediateCerts = [][]byte{sub.pem()}

	t.Run("C30", func(t *testing.T) {
		conf := definition("Org1MSP", ca)
		conf.IntermediateCerts = [][]byte{sub.pem()}
		conf.RevocationList = [][]byte{revocation(t, sub, nil, gone)}
		m := build(t, conf)
		require.Empty(t, m.WarningsAt(noon))
		refused(t, m.ValidateLive(gone.id(t, "Org1MSP"), nil, noon), Revoked)
		refused(t, m.Validate(gone.id(t, "Org1MSP")), Revoked)
		refused(t, m.ValidateLive(twin(t, gone).id(t, "Org1MSP"), nil, noon), Revoked)
		require.NoError(t, m.ValidateLive(stays.id(t, "Org1MSP"), nil, noon))
		require.NoError(t, m.Validate(stays.id(t, "Org1MSP")))
	})
	t.Run("C31", func(t *testing.T) {
		conf.RevocationList = [][]byte{revocation(t, ca, nil, sub)}
		_, err := New(conf, all)
		refused(t, err, Revoked) // the whole definition, as in Fabric
		// A CA renewed after its revocation under the old key: the leaf shows the
		// old certificate, and its chain is refused.
		renewed := authority(t, ca, "ica.org1", sub.key)
		conf.IntermediateCerts = [][]byte{renewed.pem()}
		m := build(t, conf)
		require.NoError(t, m.ValidateLive(stays.id(t, "Org1MSP"), nil, noon))
		refused(t, m.ValidateLive(stays.id(t, "Org1MSP"), [][]byte{sub.cert.Raw}, noon), RevokedIssuer)
	})
	t.Run("dates are the ledger's to ignore", func(t *testing.T) {
		future := definition("Org1MSP", ca)
		leaf := member(t, ca, "peer0", "peer")
		future.RevocationList = [][]byte{revocation(t, ca, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].RevocationTime = noon.AddDate(5, 0, 0)
		}, leaf)}
		m := build(t, future)
		refused(t, m.Validate(leaf.id(t, "Org1MSP")), Revoked)
		refused(t, m.ValidateLive(leaf.id(t, "Org1MSP"), nil, noon), Revoked)
	})
}

func TestRevocationAcrossRenewedRoots(t *testing.T) {
	ca := root(t, "ca.org1")
	renewed := authority(t, nil, "ca.org1", ca.key)
	leaf := member(t, ca, "peer0", "peer")
	conf := definition("Org1MSP", ca, renewed)
	conf.RevocationList = [][]byte{revocation(t, renewed, nil, leaf)}
	m := build(t, conf)
	refused(t, m.Validate(leaf.id(t, "Org1MSP")), Revoked)
	refused(t, m.ValidateLive(leaf.id(t, "Org1MSP"), nil, noon), Revoked)
}

func TestHostileLists(t *testing.T) {
	ca, stranger := root(t, "ca.org1"), root(t, "ca.org1")
	leaf := member(t, ca, "peer0", "peer")
	conf := definition("Org1MSP", ca)
	m := build(t, conf)
	sameSKI := root(t, "ca.org1", func(c *x509.Certificate) { c.SubjectKeyId = ca.cert.SubjectKeyId })
	extra := func(id asn1.ObjectIdentifier, value []byte) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: id, Critical: true, Value: value}}
		}
	}
	serial := func(n *big.Int) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: noon})
		}
	}
	for name, raw := range map[string][]byte{
		"C32 wrong signer":   revocation(t, stranger, nil, leaf),
		"C32 equal SKI":      revocation(t, sameSKI, nil, leaf),
		"C32 delta":          revocation(t, ca, extra(oidDeltaCRL, []byte{2, 1, 1}), leaf),
		"C32 indirect":       revocation(t, ca, extra(oidDistribution, []byte{0x30, 3, 0x84, 1, 0xff}), leaf),
		"C32 serial 0":       revocation(t, ca, serial(big.NewInt(0)), leaf),
		"C32 serial huge":    revocation(t, ca, serial(new(big.Int).Lsh(big.NewInt(1), 200)), leaf),
		"C32 garbage":        []byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
		"C32 nothing":        nil,
		"C32 a certificate":  ca.pem(),
		"C32 negative":       revocation(t, ca, serial(big.NewInt(-5)), leaf),
		"C32 entry critical": revocation(t, ca, entryIssuer, leaf),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.CheckCRL(raw, noon)
			refused(t, err, BadCRL)
			conf := definition("Org1MSP", ca)
			conf.RevocationList = [][]byte{raw}
			m, err := New(conf, all)
			if err != nil {
				refused(t, err, BadCRL) // what can't be read stops the definition, as in Fabric
				return
			}
			require.Len(t, m.Warnings(), 1)
			require.Equal(t, BadCRL.Code(), m.Warnings()[0].Code)
		})
	}
	t.Run("C32 too large", func(t *testing.T) {
		_, err := m.CheckCRL(make([]byte, maxCRL+1), noon)
		refused(t, err, CRLTooLarge)
	})
	t.Run("C32 stale", func(t *testing.T) {
		raw := revocation(t, ca, nil, leaf)
		for _, at := range []time.Time{noon.AddDate(0, 2, 0), noon.AddDate(0, 0, -2)} {
			w, err := m.CheckCRL(raw, at)
			require.NoError(t, err)
			require.Equal(t, "msp.crl_stale", w[0].Code)
			conf := definition("Org1MSP", ca)
			conf.RevocationList = [][]byte{raw}
			m := build(t, conf)
			require.Equal(t, w, m.WarningsAt(at))
			refused(t, m.ValidateLive(leaf.id(t, "Org1MSP"), nil, at), Revoked)
		}
		w, err := m.CheckCRL(raw, noon)
		require.NoError(t, err)
		require.Empty(t, w)
	})
	t.Run("a list of a stranger with the CA's key identifier revokes nobody", func(t *testing.T) {
		conf := definition("Org1MSP", ca)
		conf.RevocationList = [][]byte{revocation(t, sameSKI, nil, leaf)}
		m := build(t, conf)
		require.NoError(t, m.Validate(leaf.id(t, "Org1MSP")))
		require.NoError(t, m.ValidateLive(leaf.id(t, "Org1MSP"), nil, noon))
	})
	t.Run("one list without AKI", func(t *testing.T) {
		conf := definition("Org1MSP", ca)
		conf.RevocationList = [][]byte{noAuthority(t, ca)}
		m := build(t, conf)
		refused(t, m.Validate(leaf.id(t, "Org1MSP")), BadCRL) // as in Fabric, everybody
		require.NoError(t, m.ValidateLive(leaf.id(t, "Org1MSP"), nil, noon), "the live judge reports it and goes on")
		require.Len(t, m.Warnings(), 1)
	})
}

func TestAMillionRevocations(t *testing.T) {
	if testing.Short() {
		t.Skip("a list of 40 MB")
	}
	ca := root(t, "ca.org1")
	raw := revocation(t, ca, func(l *x509.RevocationList) {
		for i := range int64(1e6) {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: big.NewInt(1<<40 + i), RevocationTime: noon})
		}
	})
	start := time.Now()
	m := build(t, definition("Org1MSP", ca))
	_, err := m.CheckCRL(raw, noon)
	refused(t, err, CRLTooLarge)
	conf := definition("Org1MSP", ca)
	conf.RevocationList = [][]byte{raw}
	build(t, conf)
	t.Logf("C32: a definition with 10⁶ revocations in %v", time.Since(start))
}

func entryIssuer(l *x509.RevocationList) {
	l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: oidCertIssuer, Critical: true, Value: []byte{0x30, 0}}}
}

// noAuthority makes a list of version 1, which has no extensions.
func noAuthority(t *testing.T, ca *party) []byte {
	t.Helper()
	block, _ := pem.Decode(revocation(t, ca, nil))
	var l struct {
		TBS struct {
			Version    int
			Algorithm  pkix.AlgorithmIdentifier
			Issuer     asn1.RawValue
			This, Next time.Time
			Extensions []pkix.Extension `asn1:"explicit,tag:0"`
		}
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	_, err := asn1.Unmarshal(block.Bytes, &l)
	require.NoError(t, err)
	raw, err := asn1.Marshal(struct {
		Algorithm  pkix.AlgorithmIdentifier
		Issuer     asn1.RawValue
		This, Next time.Time
	}{l.TBS.Algorithm, l.TBS.Issuer, l.TBS.This, l.TBS.Next})
	require.NoError(t, err)
	sig, err := (&signer{ca.id(t, "x"), ca.key}).Sign(raw)
	require.NoError(t, err)
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: raw}, l.Algorithm, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	require.NoError(t, err)
	return der
}
