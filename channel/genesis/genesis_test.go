package genesis_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-config/protolator"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel/genesis"
	"grapevine/msp"
	"grapevine/msp/ca"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 678, time.UTC)

// fixtures returns the folder of the recorded Raft network, or skips.
func fixtures(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		shared := filepath.Join("..", "..", "..", "shared")
		if _, err := os.Stat(shared); err != nil {
			t.Skip("no recorded Fabric networks: set GRAPEVINE_FIXTURES")
		}
		dir = filepath.Join(shared, "fixtures")
	}
	dir = filepath.Join(dir, "fabric", "raft")
	_, err := os.Stat(dir)
	require.NoError(t, err, "the recorded networks are incomplete")
	return dir
}

// recordedProfile is the recorded configtx.yaml, with the MSP folders and TLS
// certificates that it names.
func recordedProfile(t *testing.T) genesis.Profile {
	dir := fixtures(t)
	definition := func(mspID, folder string) *mspproto.FabricMSPConfig {
		c, _, err := msp.LoadConfig(mspID, filepath.Join(dir, "crypto", folder, "msp"))
		require.NoError(t, err)
		return c
	}
	p := genesis.Profile{
		Channel: "mychannel",
		Orderers: []genesis.Org{{
			Name: "OrdererOrg", MSP: definition("OrdererMSP", "ordererOrganizations/example.com"),
			Endpoints: []string{"127.0.0.1:17051", "127.0.0.1:17052", "127.0.0.1:17053"},
		}},
		Batch:   &ab.BatchSize{MaxMessageCount: 10, AbsoluteMaxBytes: 10 << 20, PreferredMaxBytes: 512 << 10},
		Timeout: time.Second, Time: now,
	}
	for _, x := range []string{"A", "B", "C"} {
		p.Orgs = append(p.Orgs, genesis.Org{
			Name: "Org" + x, MSPID: "Org" + x + "MSP",
			MSP: definition("Org"+x+"MSP", "peerOrganizations/org"+strings.ToLower(x)+".example.com"),
		})
	}
	for i, o := range []string{"orderer1", "orderer2", "orderer3"} {
		cert, err := os.ReadFile(filepath.Join(dir, "crypto/ordererOrganizations/example.com/orderers", o+".example.com/tls/server.crt"))
		require.NoError(t, err)
		p.Consenters = append(p.Consenters, genesis.Consenter{Host: "127.0.0.1", Port: uint32(17051 + i), ServerTLS: cert})
	}
	return p
}

// From the same files, ours and configtxgen's block hold the same
// configuration, byte for byte once maps are in order; and all else is equal
// but for chance and the clock.
func TestBlockEqualsConfigtxgens(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(fixtures(t), "genesis.block"))
	require.NoError(t, err)
	theirs := new(common.Block)
	require.NoError(t, proto.Unmarshal(raw, theirs))
	ours, err := genesis.Block(recordedProfile(t))
	require.NoError(t, err)

	require.True(t, proto.Equal(theirs.Metadata, ours.Metadata))
	require.Zero(t, ours.Header.Number)
	require.Empty(t, ours.Header.PreviousHash)
	sum := block.DataHash(ours.Data)
	require.Equal(t, sum[:], ours.Header.DataHash)

	a, b := opened(t, theirs), opened(t, ours)
	require.Equal(t, tx.ID(b.signature.Nonce, nil), b.channel.TxId)
	require.Equal(t, tx.ID(a.signature.Nonce, nil), a.channel.TxId, "the recorded one keeps to the rule")
	require.Equal(t, now.Truncate(time.Second), b.channel.Timestamp.AsTime())
	require.Len(t, b.signature.Nonce, len(a.signature.Nonce))
	for _, o := range []*parts{a, b} {
		o.signature.Nonce, o.channel.TxId, o.channel.Timestamp = nil, "", nil
	}
	require.True(t, proto.Equal(a.channel, b.channel))
	require.True(t, proto.Equal(a.signature, b.signature))
	require.Equal(t, paths("", a.config.Config.ChannelGroup), paths("", b.config.Config.ChannelGroup))
	require.Equal(t, marshal(t, a.config), marshal(t, b.config))
	require.Equal(t, len(theirs.Data.Data[0]), len(ours.Data.Data[0]))
}

// Fabric's own JSON of both blocks is the same, and ours comes back from JSON
// as it went.
func TestBlockThroughProtolator(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(fixtures(t), "blocks-json", "0000.json"))
	require.NoError(t, err)
	ours, err := genesis.Block(recordedProfile(t))
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, protolator.DeepMarshalJSON(&b, ours))

	var theirs, mine map[string]any
	require.NoError(t, json.Unmarshal(text, &theirs))
	require.NoError(t, json.Unmarshal(b.Bytes(), &mine))
	payload := func(m map[string]any) map[string]any {
		return m["data"].(map[string]any)["data"].([]any)[0].(map[string]any)["payload"].(map[string]any)
	}
	require.Equal(t, payload(theirs)["data"], payload(mine)["data"])

	again := new(common.Block)
	require.NoError(t, protolator.DeepUnmarshalJSON(&b, again))
	require.Equal(t, marshal(t, opened(t, ours).config), marshal(t, opened(t, again).config))
	require.True(t, proto.Equal(ours.Header, again.Header))
}

func TestBlockIsAGenesisBlock(t *testing.T) {
	b, err := genesis.Block(profile(t))
	require.NoError(t, err)
	raw, err := proto.Marshal(b)
	require.NoError(t, err)
	v, err := block.Genesis(raw)
	require.NoError(t, err)
	require.True(t, v.IsConfig())
	require.Zero(t, v.Number())

	other, err := genesis.Block(profile(t))
	require.NoError(t, err)
	require.NotEqual(t, block.HeaderHash(b.Header), block.HeaderHash(other.Header), "two channels of one profile are two channels")
}

func TestDefaultsAndAnchors(t *testing.T) {
	p := profile(t)
	p.Orgs[0].Anchors = []string{"peer0.org1:7051", "[::1]:7052"}
	p.Orgs[0].Name = "" // then the MSP ID
	b, err := genesis.Block(p)
	require.NoError(t, err)
	g := opened(t, b).config.Config.ChannelGroup
	org := g.Groups["Application"].Groups["Org1MSP"]
	require.Contains(t, org.Values, "AnchorPeers")
	anchors := new(peer.AnchorPeers)
	require.NoError(t, proto.Unmarshal(org.Values["AnchorPeers"].Value, anchors))
	require.True(t, proto.Equal(&peer.AnchorPeers{AnchorPeers: []*peer.AnchorPeer{
		{Host: "peer0.org1", Port: 7051}, {Host: "::1", Port: 7052},
	}}, anchors))
	require.Equal(t, "Admins", org.Values["AnchorPeers"].ModPolicy)
	require.NotContains(t, g.Groups["Application"].Groups["Org2"].Values, "AnchorPeers")

	size, timeout, kind, meta := new(ab.BatchSize), new(ab.BatchTimeout), new(ab.ConsensusType), new(etcdraft.ConfigMetadata)
	o := g.Groups["Orderer"]
	require.NoError(t, proto.Unmarshal(o.Values["BatchSize"].Value, size))
	require.NoError(t, proto.Unmarshal(o.Values["BatchTimeout"].Value, timeout))
	require.NoError(t, proto.Unmarshal(o.Values["ConsensusType"].Value, kind))
	require.NoError(t, proto.Unmarshal(kind.Metadata, meta))
	require.EqualValues(t, 500, size.MaxMessageCount)
	require.EqualValues(t, 10<<20, size.AbsoluteMaxBytes)
	require.Equal(t, "2s", timeout.Timeout)
	require.Equal(t, "etcdraft", kind.Type)
	require.Equal(t, meta.Consenters[0].ServerTlsCert, meta.Consenters[0].ClientTlsCert)
	require.EqualValues(t, 10, meta.Options.ElectionTick)
}

func TestBlockRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*genesis.Profile)
		want   string
	}{
		"no name":              {func(p *genesis.Profile) { p.Channel = "" }, "channel name"},
		"upper case":           {func(p *genesis.Profile) { p.Channel = "Mine" }, "channel name"},
		"newline":              {func(p *genesis.Profile) { p.Channel = "mine\n" }, "channel name"},
		"long name":            {func(p *genesis.Profile) { p.Channel = strings.Repeat("a", 250) }, "channel name"},
		"no orderers":          {func(p *genesis.Profile) { p.Orderers = nil }, "no orderer organisation"},
		"no consenters":        {func(p *genesis.Profile) { p.Consenters = nil }, "no consenter"},
		"no time":              {func(p *genesis.Profile) { p.Time = time.Time{} }, "no time"},
		"no definition":        {func(p *genesis.Profile) { p.Orgs[1].MSP = nil }, "no MSP definition"},
		"another's":            {func(p *genesis.Profile) { p.Orgs[1].MSPID = "Org9MSP" }, `is of "Org2MSP"`},
		"doubled":              {func(p *genesis.Profile) { p.Orgs[1] = p.Orgs[0] }, "named twice"},
		"two definitions":      {func(p *genesis.Profile) { p.Orgs[1].MSPID, p.Orgs[1].MSP = "Org1MSP", definition(t, "Org1MSP") }, "two definitions"},
		"bad group name":       {func(p *genesis.Profile) { p.Orgs[1].Name = "Org 2" }, "letters"},
		"no endpoint":          {func(p *genesis.Profile) { p.Orderers[0].Endpoints = nil }, "no endpoint"},
		"anchors of orderers":  {func(p *genesis.Profile) { p.Orderers[0].Anchors = []string{"a:1"} }, "anchor peers belong"},
		"endpoints of peers":   {func(p *genesis.Profile) { p.Orgs[0].Endpoints = []string{"a:1"} }, "endpoints belong"},
		"anchor without port":  {func(p *genesis.Profile) { p.Orgs[0].Anchors = []string{"peer0"} }, "peer0"},
		"anchor at port 0":     {func(p *genesis.Profile) { p.Orgs[0].Anchors = []string{"peer0:0"} }, "host:port"},
		"anchor at port 65536": {func(p *genesis.Profile) { p.Orgs[0].Anchors = []string{"peer0:65536"} }, "host:port"},
		"anchor without host":  {func(p *genesis.Profile) { p.Orgs[0].Anchors = []string{":7051"} }, "host:port"},
		"consenter's port":     {func(p *genesis.Profile) { p.Consenters[0].Port = 65536 }, "no address"},
		"consenter's TLS":      {func(p *genesis.Profile) { p.Consenters[0].ServerTLS = nil }, "no TLS certificate"},
		"consenter twice":      {func(p *genesis.Profile) { p.Consenters = append(p.Consenters, p.Consenters[0]) }, "named twice"},
		"empty batch":          {func(p *genesis.Profile) { p.Batch = &ab.BatchSize{} }, "batch size"},
		"preferred too large": {func(p *genesis.Profile) {
			p.Batch = &ab.BatchSize{MaxMessageCount: 1, AbsoluteMaxBytes: 1, PreferredMaxBytes: 2}
		}, "batch size"},
		"negative timeout": {func(p *genesis.Profile) { p.Timeout = -1 }, "batch timeout"},
		"MSP ID not UTF-8": {func(p *genesis.Profile) { p.Orgs[0].MSP.Name, p.Orgs[0].Name = "\xff", "x"; p.Orgs[0].MSPID = "" }, "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			p := profile(t)
			c.change(&p)
			_, err := genesis.Block(p)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// parts are what a genesis block holds.
type parts struct {
	channel   *common.ChannelHeader
	signature *common.SignatureHeader
	config    *common.ConfigEnvelope
}

func opened(t *testing.T, b *common.Block) *parts {
	t.Helper()
	o := &parts{new(common.ChannelHeader), new(common.SignatureHeader), new(common.ConfigEnvelope)}
	env, p := new(common.Envelope), new(common.Payload)
	require.Len(t, b.Data.Data, 1)
	require.NoError(t, proto.Unmarshal(b.Data.Data[0], env))
	require.Empty(t, env.Signature)
	require.NoError(t, proto.Unmarshal(env.Payload, p))
	require.NoError(t, proto.Unmarshal(p.Header.ChannelHeader, o.channel))
	require.NoError(t, proto.Unmarshal(p.Header.SignatureHeader, o.signature))
	require.NoError(t, proto.Unmarshal(p.Data, o.config))
	return o
}

// paths lists a group's elements with their mod policies, versions and kinds.
func paths(at string, g *common.ConfigGroup) map[string]string {
	out := map[string]string{at + "/": g.ModPolicy}
	for k, v := range g.Values {
		out[at+"="+k] = v.ModPolicy
	}
	for k, p := range g.Policies {
		out[at+"?"+k] = p.ModPolicy + common.Policy_PolicyType(p.Policy.Type).String()
	}
	for k, s := range g.Groups {
		for p, v := range paths(at+"/"+k, s) {
			out[p] = v
		}
	}
	return out
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(t, err)
	return b
}

// profile is a small channel of two organisations made on the spot.
func profile(t *testing.T) genesis.Profile {
	t.Helper()
	return genesis.Profile{
		Channel:    "mychannel",
		Orderers:   []genesis.Org{{Name: "Orderer", MSP: definition(t, "OrdererMSP"), Endpoints: []string{"127.0.0.1:7050"}}},
		Orgs:       []genesis.Org{{Name: "Org1", MSP: definition(t, "Org1MSP")}, {Name: "Org2", MSP: definition(t, "Org2MSP")}},
		Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7050, ServerTLS: []byte("certificate")}},
		Time:       now,
	}
}

func definition(t *testing.T, mspID string) *mspproto.FabricMSPConfig {
	t.Helper()
	o, err := ca.NewOrg(mspID, strings.ToLower(mspID), now)
	require.NoError(t, err)
	return o.MSPConfig()
}
