package channel

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

// ordered is an ordering service of two orderers in memory, and the rules after
// block 0 of its channel.
type ordered struct {
	t       testing.TB
	signers []msp.Signer
	rules   *block.Rules
	prev    [32]byte
}

func newOrdered(t testing.TB) *ordered {
	t.Helper()
	org, err := ca.NewOrg("OrdererMSP", "example.com", time.Now())
	require.NoError(t, err)
	o := &ordered{t: t, prev: [32]byte{1}}
	for i := range 2 {
		s, err := org.Identity(fmt.Sprintf("orderer%d.example.com", i), "orderer")
		require.NoError(t, err)
		o.signers = append(o.signers, s)
	}
	m, err := msp.New(org.MSPConfig(), msp.Features{NodeOUs: true})
	require.NoError(t, err)
	text, err := msp.ParsePolicy("OR('OrdererMSP.orderer')")
	require.NoError(t, err)
	policy, err := msp.SignaturePolicy(text)
	require.NoError(t, err)
	o.rules = &block.Rules{Channel: "test", MSPs: msp.Directory{"OrdererMSP": m}, BlockValidation: policy}
	return o
}

// block makes block n with data of about size bytes, signed by the given
// orderer under lastConfig.
func (o *ordered) block(n uint64, size, by int, lastConfig uint64) *common.Block {
	o.t.Helper()
	h, err := proto.Marshal(&common.ChannelHeader{Type: int32(common.HeaderType_ENDORSER_TRANSACTION), ChannelId: o.rules.Channel, TxId: fmt.Sprint("tx", n)})
	require.NoError(o.t, err)
	p, err := proto.Marshal(&common.Payload{Header: &common.Header{ChannelHeader: h}, Data: make([]byte, size)})
	require.NoError(o.t, err)
	env, err := proto.Marshal(&common.Envelope{Payload: p, Signature: []byte("signature")})
	require.NoError(o.t, err)
	data := &common.BlockData{Data: [][]byte{env}}
	sum := block.DataHash(data)
	b := &common.Block{Header: &common.BlockHeader{Number: n, PreviousHash: o.prev[:], DataHash: sum[:]}, Data: data}
	require.NoError(o.t, block.Sign(b, o.signers[by], lastConfig, nil))
	return b
}

// checked is block, checked.
func (o *ordered) checked(n uint64, size int) *block.Checked {
	o.t.Helper()
	c, err := block.CheckBlock(o.rules, o.block(n, size, 0, 0))
	require.NoError(o.t, err)
	return c
}

// The members of the judge under test: the announcer, one more, and a stranger.
const (
	announcerPeer = peer.ID("announcer")
	relayPeer     = peer.ID("relay")
	strangerPeer  = peer.ID("stranger")
)

// judged is a judge at height 5 with a window of 8, and what it was told.
type judged struct {
	judge
	*ordered
	self  msp.Signer
	ahead []uint64
	lies  []lie
}

// A lie is what the judge says of an announcer that contradicts itself.
type lie struct {
	who        msp.PKIID
	one, other []byte
}

var testRoots = bytes.Repeat([]byte{7}, 32)

// oneRoot is the form of an announcement's roots here.
func oneRoot(_ uint64, roots []byte) error {
	if len(roots) != len(testRoots) {
		return errors.New("not one root")
	}
	return nil
}

func newJudged(t testing.TB) *judged {
	t.Helper()
	j := &judged{ordered: newOrdered(t), self: signer()}
	j.judge = judge{
		tag:    testTag,
		member: func(p peer.ID) bool { return p != strangerPeer },
		rules:  func() *block.Rules { return j.ordered.rules },
		height: func() uint64 { return 5 },
		window: 8,
		known: func(id msp.PKIID) (peer.ID, *msp.Identity, bool) {
			return announcerPeer, j.self.Identity(), id == j.self.Identity().PKIID()
		},
		ahead: func(_ peer.ID, h uint64) { j.ahead = append(j.ahead, h) },
		roots: oneRoot,
		lied:  func(who msp.PKIID, _ uint64, one, other []byte) { j.lies = append(j.lies, lie{who, one, other}) },
	}
	return j
}

// inline makes an inline announcement of b, whatever b is.
func (j *judged) inline(b *common.Block) *wire.Announcement {
	raw, err := block.Marshal(b)
	require.NoError(j.t, err)
	return &wire.Announcement{Tag: j.tag[:], Block: raw, Size: uint64(proto.Size(b.Data))}
}

// large makes an announcement of b without its data, signed by self.
func (j *judged) large(b *common.Block, size uint64) *wire.Announcement {
	raw, err := block.Marshal(&common.Block{Header: b.Header, Metadata: b.Metadata})
	require.NoError(j.t, err)
	id := j.self.Identity().PKIID()
	a := &wire.Announcement{Tag: j.tag[:], Block: raw, Size: size, Announcer: id[:], Roots: testRoots}
	return j.sign(a)
}

func (j *judged) sign(a *wire.Announcement) *wire.Announcement {
	var err error
	a.Signature, err = j.self.Sign(announcementBytes(a))
	require.NoError(j.t, err)
	return a
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := wire.Marshal(m)
	require.NoError(t, err)
	return b
}
