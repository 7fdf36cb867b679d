package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/msp/ca"
)

// ordering is the organisation that signs the chains of all tests.
type ordering struct {
	signer msp.Signer
	msps   msp.Directory
	policy msp.Policy // one of its members
}

var orderers = sync.OnceValues(func() (o ordering, err error) {
	const id = "OrdererMSP"
	org, err := ca.NewOrg(id, "example.com", time.Now())
	if err != nil {
		return o, err
	}
	if o.signer, err = org.Identity("orderer", "orderer"); err != nil {
		return o, err
	}
	m, err := msp.New(org.MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true})
	if err != nil {
		return o, err
	}
	o.msps = msp.Directory{id: m}
	role, err := proto.Marshal(&mspproto.MSPRole{MspIdentifier: id, Role: mspproto.MSPRole_MEMBER})
	if err != nil {
		return o, err
	}
	o.policy, err = msp.SignaturePolicy(&common.SignaturePolicyEnvelope{
		Identities: []*mspproto.MSPPrincipal{{PrincipalClassification: mspproto.MSPPrincipal_ROLE, Principal: role}},
		Rule:       &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: 0}},
	})
	return o, err
})

// chain is a channel's ordering service.
type chain struct {
	tb    testing.TB
	name  string
	rules *block.Rules
	tip   block.Tip
	rng   *rand.ChaCha8
}

// newChain returns a chain and its block 0. The same name gives the same data,
// but other signatures.
func newChain(tb testing.TB, name string) (*chain, block.Verified) {
	o, err := orderers()
	require.NoError(tb, err)
	c := &chain{tb: tb, name: name, rng: rand.NewChaCha8(sha256.Sum256([]byte(name)))}
	c.rules = &block.Rules{Channel: name, MSPs: o.msps, BlockValidation: o.policy}
	b := c.cut(c.config(0))
	b.Metadata = &common.BlockMetadata{Metadata: make([][]byte, 5)}
	raw, err := block.Marshal(b)
	require.NoError(tb, err)
	genesis, err := block.Genesis(raw)
	require.NoError(tb, err)
	c.tip = block.Tip{Height: 1, Hash: genesis.Hash()}
	return c, genesis
}

// next returns the next block, with transactions of these ids and size bytes of
// payload in each.
func (c *chain) next(size int, ids ...string) block.Verified {
	var envs []*common.Envelope
	for _, id := range ids {
		data := make([]byte, size)
		c.rng.Read(data)
		envs = append(envs, c.envelope(common.HeaderType_ENDORSER_TRANSACTION, id, data))
	}
	return c.sign(c.cut(envs...), c.rules.LastConfig)
}

// some returns n blocks with one transaction of size bytes each.
func (c *chain) some(n, size int) []block.Verified {
	bs := make([]block.Verified, n)
	for i := range bs {
		bs[i] = c.next(size, fmt.Sprintf("%s-%d", c.name, c.tip.Height))
	}
	return bs
}

// reconfigure returns the next block, with a configuration in it.
func (c *chain) reconfigure() block.Verified {
	v := c.sign(c.cut(c.config(c.rules.Sequence+1)), c.tip.Height)
	c.rules = &block.Rules{
		Channel: c.name, MSPs: c.rules.MSPs, BlockValidation: c.rules.BlockValidation,
		LastConfig: v.Number(), Sequence: c.rules.Sequence + 1,
	}
	return v
}

// fork returns a chain that goes on from the same tip in another way.
func (c *chain) fork() *chain {
	f := *c
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], c.tip.Height)
	f.rng = rand.NewChaCha8(seed)
	return &f
}

func (c *chain) sign(b *common.Block, lastConfig uint64) block.Verified {
	o, err := orderers()
	require.NoError(c.tb, err)
	require.NoError(c.tb, block.Sign(b, o.signer, lastConfig, nil))
	checked, err := block.CheckBlock(c.rules, b)
	require.NoError(c.tb, err)
	v, err := block.Verify(c.rules, c.tip, checked)
	require.NoError(c.tb, err)
	c.tip = block.Tip{Height: v.Number() + 1, Hash: v.Hash()}
	return v
}

func (c *chain) cut(envs ...*common.Envelope) *common.Block {
	b := &common.Block{Header: &common.BlockHeader{Number: c.tip.Height}, Data: &common.BlockData{}}
	if c.tip.Height > 0 {
		b.Header.PreviousHash = c.tip.Hash[:]
	}
	for _, e := range envs {
		b.Data.Data = append(b.Data.Data, c.marshal(e))
	}
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	return b
}

func (c *chain) config(sequence uint64) *common.Envelope {
	return c.envelope(common.HeaderType_CONFIG, "", c.marshal(&common.ConfigEnvelope{
		Config: &common.Config{Sequence: sequence, ChannelGroup: &common.ConfigGroup{}},
	}))
}

func (c *chain) envelope(typ common.HeaderType, id string, data []byte) *common.Envelope {
	return &common.Envelope{
		Payload: c.marshal(&common.Payload{
			Header: &common.Header{
				ChannelHeader:   c.marshal(&common.ChannelHeader{Type: int32(typ), ChannelId: c.name, TxId: id}),
				SignatureHeader: c.marshal(&common.SignatureHeader{Creator: c.marshal(&mspproto.SerializedIdentity{Mspid: "Org1MSP"})}),
			},
			Data: data,
		}),
		Signature: []byte("a client's"),
	}
}

func (c *chain) marshal(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(c.tb, err)
	return b
}
