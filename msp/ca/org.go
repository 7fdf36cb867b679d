package ca

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"sync"
	"time"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"

	"grapevine/msp"
)

// An Org is one organisation held in memory, with a CA for identities and one
// for TLS: what tests, benchmarks and simulations need of cryptogen. It is safe
// for concurrent use.
type Org struct {
	MSPID  string
	Domain string
	CA     *CA
	TLSCA  *CA

	mu  sync.Mutex // guards crl
	crl []byte     // PEM; nil before the first revocation
}

// NewOrg makes an organisation with P-256 CAs, valid from [Backdate] before now
// for [Life].
func NewOrg(mspID, domain string, now time.Time) (*Org, error) {
	o := &Org{MSPID: mspID, Domain: domain}
	var err error
	if o.CA, err = New(domain, "ca."+domain, P256, now); err != nil {
		return nil, fmt.Errorf("organisation %s: %w", mspID, err)
	}
	if o.TLSCA, err = New(domain, "tlsca."+domain, P256, now); err != nil {
		return nil, fmt.Errorf("organisation %s: %w", mspID, err)
	}
	return o, nil
}

// Identity issues a signing identity with a fresh P-256 key, as long valid as
// the CA. ou is its role: client, peer, admin or orderer; empty for none.
func (o *Org) Identity(cn, ou string) (msp.Signer, error) {
	r := Request{CN: cn}
	if ou != "" {
		r.OU = []string{ou}
	}
	return o.Enroll(r, P256)
}

// Enroll is [Org.Identity] for any request, with a fresh key; r.Key is ignored.
func (o *Org) Enroll(r Request, alg Algorithm) (msp.Signer, error) {
	key, err := GenerateKey(alg)
	if err != nil {
		return nil, err
	}
	r.Key = key.Public()
	der, err := o.CA.Issue(r)
	if err != nil {
		return nil, err
	}
	id, err := msp.FromDER(o.MSPID, der)
	if err != nil {
		return nil, fmt.Errorf("enroll %s: %w", r.CN, err)
	}
	return msp.NewSigner(id, key)
}

// TLS issues a TLS certificate for a server or client. sans are host names and
// IP addresses.
func (o *Org) TLS(cn string, sans ...string) (tls.Certificate, error) {
	cert, key, err := o.TLSCA.Pair(Request{CN: cn, SANs: sans, TLS: true}, P256)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// TLSPool holds the organisation's TLS root.
func (o *Org) TLSPool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(o.TLSCA.Certificate())
	return p
}

// Revoke puts a serial number on the list that later calls of
// [Org.MSPConfig] carry.
func (o *Org) Revoke(serial *big.Int, when time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.CA.Revoke(serial, when); err != nil {
		return err
	}
	crl, err := o.CA.CRL(when)
	if err != nil {
		return err
	}
	o.crl = crl
	return nil
}

// MSPConfig returns the organisation's definition as configtxgen takes it from
// a cryptogen tree: all four NodeOU roles under the CA. Each call returns a
// message of its own.
func (o *Org) MSPConfig() *mspproto.FabricMSPConfig {
	ou := func(name string) *mspproto.FabricOUIdentifier {
		return &mspproto.FabricOUIdentifier{Certificate: o.CA.PEM(), OrganizationalUnitIdentifier: name}
	}
	c := &mspproto.FabricMSPConfig{
		Name:         o.MSPID,
		RootCerts:    [][]byte{encodeCert(o.CA.Root().Raw)},
		TlsRootCerts: [][]byte{o.TLSCA.PEM()},
		CryptoConfig: &mspproto.FabricCryptoConfig{
			SignatureHashFamily: "SHA2", IdentityIdentifierHashFunction: "SHA256",
		},
		FabricNodeOus: &mspproto.FabricNodeOUs{
			Enable:             true,
			ClientOuIdentifier: ou("client"), PeerOuIdentifier: ou("peer"),
			AdminOuIdentifier: ou("admin"), OrdererOuIdentifier: ou("orderer"),
		},
	}
	for _, x := range o.CA.Intermediates() {
		c.IntermediateCerts = append(c.IntermediateCerts, encodeCert(x.Raw))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.crl != nil {
		c.RevocationList = [][]byte{o.crl}
	}
	return c
}
