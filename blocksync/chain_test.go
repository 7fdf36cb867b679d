package blocksync

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/msp/ca"
)

const channelName = "mychannel"

// service is the ordering service of all tests: who signs, and the rules at
// block 0.
type service struct {
	signer msp.Signer
	rules  block.Rules
}

// The clock of a synctest bubble starts in 2000; blocks are judged without one.
var orderers = sync.OnceValue(func() *service {
	org := must(ca.NewOrg("OrdererMSP", "example.com", time.Now()))
	m := must(msp.New(org.MSPConfig(), msp.Features{NodeOUs: true}))
	policy := must(msp.SignaturePolicy(must(msp.ParsePolicy("OR('OrdererMSP.orderer')"))))
	return &service{
		signer: must(org.Identity("orderer0.example.com", "orderer")),
		rules:  block.Rules{Channel: channelName, MSPs: msp.Directory{"OrdererMSP": m}, BlockValidation: policy},
	}
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// chain is a run of signed blocks, 0 to len-1.
type chain struct {
	t   testing.TB
	raw [][]byte
	tip block.Tip
	// the configuration in force at the tip
	lastConfig, sequence uint64
}

// newChain makes a chain with a genesis block alone.
func newChain(t testing.TB) *chain {
	c := &chain{t: t}
	b := c.cut(c.config(0))
	b.Metadata = &common.BlockMetadata{Metadata: make([][]byte, 5)}
	c.keep(b)
	return c
}

// grow adds n blocks with one transaction of size bytes each.
func (c *chain) grow(n, size int) *chain {
	rng := rand.NewChaCha8(sha256.Sum256([]byte("grow")))
	for range n {
		data := make([]byte, size)
		rng.Read(data)
		c.sign(c.cut(envelope(common.HeaderType_ENDORSER_TRANSACTION, fmt.Sprintf("tx%d", c.tip.Height), data)), c.lastConfig)
	}
	return c
}

// reconfigure adds a configuration block.
func (c *chain) reconfigure() *chain {
	n := c.tip.Height
	c.sequence++
	c.sign(c.cut(c.config(c.sequence)), n)
	c.lastConfig = n
	return c
}

// fork returns a chain that shares the blocks below height.
func (c *chain) fork(height uint64) *chain {
	f := &chain{t: c.t, raw: append([][]byte(nil), c.raw[:height]...), lastConfig: c.lastConfig, sequence: c.sequence}
	f.tip = block.Tip{Height: height, Hash: c.hash(height - 1)}
	return f
}

func (c *chain) hash(n uint64) [32]byte {
	b := must(block.Decode(c.raw[n]))
	return block.HeaderHash(b.Header)
}

func (c *chain) sign(b *common.Block, lastConfig uint64) {
	require.NoError(c.t, block.Sign(b, orderers().signer, lastConfig, nil))
	c.keep(b)
}

func (c *chain) keep(b *common.Block) {
	c.raw = append(c.raw, must(block.Marshal(b)))
	c.tip = block.Tip{Height: b.Header.Number + 1, Hash: block.HeaderHash(b.Header)}
}

func (c *chain) cut(env *common.Envelope) *common.Block {
	b := &common.Block{Header: &common.BlockHeader{Number: c.tip.Height}, Data: &common.BlockData{Data: [][]byte{marshal(env)}}}
	if c.tip.Height > 0 {
		b.Header.PreviousHash = c.tip.Hash[:]
	}
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	return b
}

func (c *chain) config(sequence uint64) *common.Envelope {
	return envelope(common.HeaderType_CONFIG, "", marshal(&common.ConfigEnvelope{
		Config: &common.Config{Sequence: sequence, ChannelGroup: &common.ConfigGroup{}},
	}))
}

func envelope(typ common.HeaderType, id string, data []byte) *common.Envelope {
	return &common.Envelope{
		Payload: marshal(&common.Payload{
			Header: &common.Header{ChannelHeader: marshal(&common.ChannelHeader{Type: int32(typ), ChannelId: channelName, TxId: id})},
			Data:   data,
		}),
		Signature: []byte("a client's"),
	}
}

func marshal(m proto.Message) []byte {
	return must(proto.MarshalOptions{Deterministic: true}.Marshal(m))
}

// rulesAfter returns the rules after a configuration block, or genesis.
func rulesAfter(number, sequence uint64) *block.Rules {
	r := &orderers().rules
	return &block.Rules{Channel: r.Channel, MSPs: r.MSPs, BlockValidation: r.BlockValidation, LastConfig: number, Sequence: sequence}
}
