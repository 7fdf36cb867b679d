package block

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

const channelName = "mychannel"

var epoch = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

// A world is an ordering service in memory, a peer organisation, and the rules
// after block 0 of their channel.
type world struct {
	t        testing.TB
	orderers *ca.Org
	signers  []msp.Signer // orderers
	peer     msp.Signer
	rules    *Rules
	tip      Tip
}

// newWorld makes a world of n orderers; BFT ones have ids 1 to n.
func newWorld(t testing.TB, n int, bft bool) *world {
	t.Helper()
	w := &world{t: t, tip: Tip{Height: 1, Hash: [32]byte{1}}}
	w.orderers = must(ca.NewOrg("OrdererMSP", "example.com", epoch))(t)
	org := must(ca.NewOrg("Org1MSP", "org1.example.com", epoch))(t)
	w.peer = must(org.Identity("peer0", "peer"))(t)
	for i := range n {
		w.signers = append(w.signers, must(w.orderers.Identity(fmt.Sprintf("orderer%d", i+1), "orderer"))(t))
	}
	w.rules = w.newRules(bft, org)
	return w
}

func (w *world) newRules(bft bool, orgs ...*ca.Org) *Rules {
	t := w.t
	r := &Rules{
		Channel: channelName, MSPs: msp.Directory{}, BFT: bft, IdentifierHeaders: bft,
		MaxMessages: 10, AbsoluteMaxBytes: 1 << 20,
	}
	for _, o := range append(orgs, w.orderers) {
		r.MSPs[o.MSPID] = must(msp.New(o.MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true}))(t)
	}
	env := must(msp.ParsePolicy("OR('OrdererMSP.orderer')"))(t)
	r.BlockValidation = must(msp.SignaturePolicy(env))(t)
	if bft {
		r.Consenters = make(map[uint32]*msp.Identity)
		for i, s := range w.signers {
			r.Consenters[uint32(i+1)] = s.Identity()
		}
	}
	return r
}

// next builds the block after the tip, without metadata.
func (w *world) next(entries ...[]byte) *common.Block {
	data := &common.BlockData{Data: entries}
	sum := DataHash(data)
	return &common.Block{
		Header: &common.BlockHeader{Number: w.tip.Height, PreviousHash: w.tip.Hash[:], DataHash: sum[:]},
		Data:   data,
	}
}

// signed builds and signs the block after the tip, as Raft or BFT orderers do.
func (w *world) signed(entries ...[]byte) *common.Block {
	w.t.Helper()
	b := w.next(entries...)
	if w.rules.BFT {
		w.signBFT(b, w.rules.LastConfig, 1, 2, 3)
	} else {
		require.NoError(w.t, Sign(b, w.signers[0], w.rules.LastConfig, []byte("raft")))
	}
	return b
}

func (w *world) signBFT(b *common.Block, lastConfig uint64, ids ...uint32) {
	value := marshal(w.t, &common.OrdererBlockMetadata{LastConfig: &common.LastConfig{Index: lastConfig}, ConsenterMetadata: []byte("view")})
	md := &common.Metadata{Value: value}
	for _, id := range ids {
		md.Signatures = append(md.Signatures, w.signature(b, value, id, w.signers[(id-1)%uint32(len(w.signers))]))
	}
	setSignatures(w.t, b, md, lastConfig)
}

// signature makes a BFT signature under an id, by whomever.
func (w *world) signature(b *common.Block, value []byte, id uint32, s msp.Signer) *common.MetadataSignature {
	header := marshal(w.t, &common.IdentifierHeader{Identifier: id, Nonce: binary.BigEndian.AppendUint32(nil, id)})
	sig, err := s.Sign(SigningBytes(value, header, b.Header))
	require.NoError(w.t, err)
	return &common.MetadataSignature{IdentifierHeader: header, Signature: sig}
}

func setSignatures(t testing.TB, b *common.Block, md *common.Metadata, lastConfig uint64) {
	last := marshal(t, &common.Metadata{Value: marshal(t, &common.LastConfig{Index: lastConfig})})
	b.Metadata = &common.BlockMetadata{Metadata: [][]byte{marshal(t, md), last, nil, nil, nil}}
}

// signatures returns what slot 0 holds.
func signatures(t testing.TB, b *common.Block) *common.Metadata {
	md := &common.Metadata{}
	require.NoError(t, proto.Unmarshal(b.Metadata.Metadata[0], md))
	return md
}

// transaction builds an entry of a type that names the channel.
func transaction(t testing.TB, typ common.HeaderType, channel, data string) []byte {
	return marshal(t, &common.Envelope{Payload: payload(t, typ, channel, []byte(data)), Signature: []byte("sig")})
}

func payload(t testing.TB, typ common.HeaderType, channel string, data []byte) []byte {
	h := &common.ChannelHeader{Type: int32(typ), ChannelId: channel, TxId: fmt.Sprintf("tx-%.8s", data)}
	return marshal(t, &common.Payload{Header: &common.Header{ChannelHeader: marshal(t, h)}, Data: data})
}

func endorser(t testing.TB, data string) []byte {
	return transaction(t, common.HeaderType_ENDORSER_TRANSACTION, channelName, data)
}

// configEntry builds a configuration's entry, without signature as in genesis.
func configEntry(t testing.TB, sequence uint64) []byte {
	env := &common.ConfigEnvelope{Config: &common.Config{Sequence: sequence, ChannelGroup: &common.ConfigGroup{}}}
	return marshal(t, &common.Envelope{Payload: payload(t, common.HeaderType_CONFIG, channelName, marshal(t, env))})
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(t, err)
	return raw
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		require.NoError(t, err)
		return v
	}
}

// refused demands a reason's code and verdict.
func refused(t testing.TB, want *wire.Reason, err error) {
	t.Helper()
	require.Error(t, err)
	got := wire.ReasonOf(err)
	require.NotNil(t, got, "no reason in: %v", err)
	require.Equal(t, want.Code(), got.Code(), "%v", err)
	require.Equal(t, want.Verdict(), got.Verdict(), "%v", err)
}

// fixtures returns the folder of a recorded Fabric network.
func fixtures(t testing.TB, network string) string {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		shared := filepath.Join("..", "..", "shared")
		if _, err := os.Stat(shared); err != nil {
			t.Skip("the recorded Fabric chains are not beside this clone; GRAPEVINE_FIXTURES may name them")
		}
		dir = filepath.Join(shared, "fixtures")
	}
	dir = filepath.Join(dir, "fabric", network)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("fixtures: %v", err)
	}
	return dir
}
