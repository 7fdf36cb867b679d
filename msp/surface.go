package msp

import (
	"crypto/x509"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
)



func Load(mspID, dir string) (Signer, error)                    { panic("not built") }
func LoadChain(dir string) (intermediates [][]byte, err error)  { panic("not built") }
func LoadConfig(mspID, dir string) (*mspproto.FabricMSPConfig, []Warning, error) {
	panic("not built")
}

type Features struct{ NodeOUs, Ed25519 bool }
type MSP struct{}

func New(conf *mspproto.FabricMSPConfig, f Features) (*MSP, error) { panic("not built") }
func (m *MSP) ID() string                                          { panic("not built") }
func (m *MSP) Validate(id *Identity) error                         { panic("not built") }
func (m *MSP) ValidateLive(id *Identity, intermediates [][]byte, now time.Time) error {
	panic("not built")
}
func (m *MSP) Verify(id *Identity, msg, sig []byte) error             { panic("not built") }
func (m *MSP) Satisfies(id *Identity, p *mspproto.MSPPrincipal) error { panic("not built") }
func (m *MSP) TLSRoots() *x509.CertPool                               { panic("not built") }
func (m *MSP) TLSRootsPEM() [][]byte                                  { panic("not built") }
func (m *MSP) Warnings() []Warning                                    { panic("not built") }

type Directory map[string]*MSP

func (d Directory) Identify(creator []byte) (*Identity, *MSP, error) { panic("not built") }

type SignedData struct {
	Creator   *Identity
	Data      [][]byte
	Signature []byte
}

type Policy interface {
	Evaluate(d Directory, sigs []SignedData) error
}

var Deny Policy

func SignaturePolicy(p *common.SignaturePolicyEnvelope) (Policy, error) { panic("not built") }
func ImplicitMeta(rule common.ImplicitMetaPolicy_Rule, subs []Policy) (Policy, error) {
	panic("not built")
}
func SatisfiedBy(d Directory, p Policy, id *Identity) error            { panic("not built") }
func ParsePolicy(text string) (*common.SignaturePolicyEnvelope, error) { panic("not built") }
