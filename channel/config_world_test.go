package channel_test

import (
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/channel/genesis"
	"grapevine/msp"
	"grapevine/msp/ca"
)

var worldEpoch = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

// A world is a channel in memory with all its keys: two organisations, one
// ordering organisation, and the chain so far.
type world struct {
	t       testing.TB
	orgs    map[string]*ca.Org // by MSP ID
	admins  map[string]msp.Signer
	orderer msp.Signer
	chain   [][]byte
	tip     block.Tip
	config  *channel.Config
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, orgs: make(map[string]*ca.Org), admins: make(map[string]msp.Signer)}
	for id, domain := range map[string]string{"OrdererMSP": "example.com", "Org1MSP": "org1.example.com", "Org2MSP": "org2.example.com"} {
		org, err := ca.NewOrg(id, domain, worldEpoch)
		require.NoError(t, err)
		w.orgs[id] = org
		w.admins[id], err = org.Identity("admin", "admin")
		require.NoError(t, err)
	}
	var err error
	w.orderer, err = w.orgs["OrdererMSP"].Identity("orderer", "orderer")
	require.NoError(t, err)
	b, err := genesis.Block(genesis.Profile{
		Channel:  "mychannel",
		Orderers: []genesis.Org{{Name: "OrdererOrg", MSP: w.orgs["OrdererMSP"].MSPConfig(), Endpoints: []string{"127.0.0.1:7050"}}},
		Orgs: []genesis.Org{
			{Name: "Org1", MSP: w.orgs["Org1MSP"].MSPConfig(), Anchors: []string{"127.0.0.1:7051"}},
			{Name: "Org2", MSP: w.orgs["Org2MSP"].MSPConfig()},
		},
		Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7050, ServerTLS: w.orgs["OrdererMSP"].TLSCA.PEM()}},
		Batch:      &ab.BatchSize{MaxMessageCount: 10, AbsoluteMaxBytes: 1 << 20, PreferredMaxBytes: 1 << 19},
		Timeout:    time.Second,
		Time:       worldEpoch,
	})
	require.NoError(t, err)
	w.config, err = channel.Parse(b)
	require.NoError(t, err)
	w.tip = block.Tip{Height: 1, Hash: block.HeaderHash(b.Header)}
	w.chain = [][]byte{pack(t, b)}
	return w
}

// group returns the configuration in force, to be read only.
func (w *world) group() *common.ConfigGroup {
	env, err := block.ConfigEnvelope(w.decode(int(w.config.Number())))
	require.NoError(w.t, err)
	return env.Config.ChannelGroup
}

func (w *world) decode(n int) *common.Block {
	b, err := block.Decode(w.chain[n])
	require.NoError(w.t, err)
	return b
}

// sign makes the envelope of an update with these signers' signatures.
func (w *world) sign(u *common.ConfigUpdate, signers ...msp.Signer) *common.Envelope {
	env := &common.ConfigUpdateEnvelope{ConfigUpdate: pack(w.t, u)}
	for _, s := range signers {
		header := pack(w.t, &common.SignatureHeader{Creator: s.Identity().Serialized(), Nonce: []byte("nonce")})
		sig, err := s.Sign(append(append([]byte{}, header...), env.ConfigUpdate...))
		require.NoError(w.t, err)
		env.Signatures = append(env.Signatures, &common.ConfigSignature{SignatureHeader: header, Signature: sig})
	}
	return envelope(w.t, common.HeaderType_CONFIG_UPDATE, pack(w.t, env))
}

// block signs the block after the tip, as an orderer does.
func (w *world) block(env *common.Envelope, lastConfig uint64) *common.Block {
	data := &common.BlockData{Data: [][]byte{pack(w.t, env)}}
	sum := block.DataHash(data)
	b := &common.Block{Header: &common.BlockHeader{Number: w.tip.Height, PreviousHash: w.tip.Hash[:], DataHash: sum[:]}, Data: data}
	require.NoError(w.t, block.Sign(b, w.orderer, lastConfig, nil))
	return b
}

// configBlock wraps a configuration as an orderer does.
func (w *world) configBlock(env *common.ConfigEnvelope) *common.Block {
	return w.block(envelope(w.t, common.HeaderType_CONFIG, pack(w.t, env)), w.tip.Height)
}

func (w *world) append(b *common.Block) {
	w.chain = append(w.chain, pack(w.t, b))
	w.tip = block.Tip{Height: w.tip.Height + 1, Hash: block.HeaderHash(b.Header)}
	if block.IsConfig(b) {
		next, err := w.config.Next(b)
		require.NoError(w.t, err)
		w.config = next
	}
}

// verify judges the block after the tip.
func (w *world) verify(b *common.Block) error {
	c, err := block.CheckBlock(w.config.Rules(), b)
	if err == nil {
		_, err = block.Verify(w.config.Rules(), w.tip, c)
	}
	return err
}

func envelope(t testing.TB, typ common.HeaderType, data []byte) *common.Envelope {
	h := &common.ChannelHeader{Type: int32(typ), ChannelId: "mychannel"}
	return &common.Envelope{
		Payload:   pack(t, &common.Payload{Header: &common.Header{ChannelHeader: pack(t, h)}, Data: data}),
		Signature: []byte("sig"),
	}
}

func pack(t testing.TB, m proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(t, err)
	return raw
}

// setValue is the update that writes a value of a group, reading no more.
func setValue(version uint64, value, modPolicy string, m []byte, path ...string) *common.ConfigUpdate {
	read, write := &common.ConfigGroup{}, &common.ConfigGroup{}
	r, g := read, write
	for _, name := range path {
		r.Groups = map[string]*common.ConfigGroup{name: {}}
		g.Groups = map[string]*common.ConfigGroup{name: {}}
		r, g = r.Groups[name], g.Groups[name]
	}
	g.Values = map[string]*common.ConfigValue{value: {Version: version, ModPolicy: modPolicy, Value: m}}
	return &common.ConfigUpdate{ChannelId: "mychannel", ReadSet: read, WriteSet: write}
}

func setBatch(t testing.TB, version uint64, count uint32) *common.ConfigUpdate {
	size := &ab.BatchSize{MaxMessageCount: count, AbsoluteMaxBytes: 1 << 20, PreferredMaxBytes: 1 << 19}
	return setValue(version, "BatchSize", "Admins", pack(t, size), "Orderer")
}
