package msp

import (
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
)

func Load(mspID, dir string) (Signer, error)                   { panic("not built") }
func LoadChain(dir string) (intermediates [][]byte, err error) { panic("not built") }
func LoadConfig(mspID, dir string) (*mspproto.FabricMSPConfig, []Warning, error) {
	panic("not built")
}
func ParsePolicy(text string) (*common.SignaturePolicyEnvelope, error) { panic("not built") }
