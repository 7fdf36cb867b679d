package channel_test

import (
	"encoding/pem"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/msp"
)

// TestUpdates takes a channel through changes of each kind and verifies the
// chain that results.
func TestUpdates(t *testing.T) {
	w := newWorld(t)
	w.append(w.block(envelope(t, common.HeaderType_MESSAGE, []byte("odd")), 0))

	change := func(u *common.ConfigUpdate, signers ...msp.Signer) {
		t.Helper()
		env, err := w.config.Propose(w.sign(u, signers...))
		require.NoError(t, err)
		b := w.configBlock(env)
		require.NoError(t, w.verify(b))
		w.append(b)
	}
	change(setBatch(t, 1, 20), w.admins["OrdererMSP"])
	require.EqualValues(t, 20, w.config.Rules().MaxMessages)
	require.EqualValues(t, 2, w.config.Rules().LastConfig)

	// A new value needs its group's next version, and what the group holds.
	org := w.group().Groups["Application"].Groups["Org2"]
	u := setValue(0, "AnchorPeers", "Admins", pack(t, &peer.AnchorPeers{AnchorPeers: []*peer.AnchorPeer{
		{Host: "127.0.0.1", Port: 7061}, {Port: 7062}, {Host: "127.0.0.1"},
	}}), "Application", "Org2")
	written := u.WriteSet.Groups["Application"].Groups["Org2"]
	written.Version, written.ModPolicy = org.Version+1, org.ModPolicy
	listUnchanged(written, org)
	listUnchanged(u.ReadSet.Groups["Application"].Groups["Org2"], org)
	change(u, w.admins["Org2MSP"])
	require.Equal(t, []string{"127.0.0.1:7061"}, w.config.Orgs()[1].Anchors)

	// An organisation goes (B35): a majority of the two decides.
	app := w.group().Groups["Application"]
	u = &common.ConfigUpdate{
		ChannelId: "mychannel",
		ReadSet: &common.ConfigGroup{Groups: map[string]*common.ConfigGroup{"Application": {
			Version: app.Version, Groups: map[string]*common.ConfigGroup{"Org1": {}},
		}}},
		WriteSet: &common.ConfigGroup{Groups: map[string]*common.ConfigGroup{"Application": {
			Version: app.Version + 1, ModPolicy: app.ModPolicy, Groups: map[string]*common.ConfigGroup{"Org1": {}},
		}}},
	}
	listUnchanged(u.ReadSet.Groups["Application"], app)
	listUnchanged(u.WriteSet.Groups["Application"], app)
	change(u, w.admins["Org1MSP"], w.admins["Org2MSP"])
	require.Len(t, w.config.Orgs(), 1)
	require.Nil(t, w.config.MSP("Org2MSP"))
	w.append(w.block(envelope(t, common.HeaderType_MESSAGE, []byte("odd")), w.config.Number()))

	r := verifyAll(t, w.chain, w.chain[0])
	require.True(t, r.OK(), "%v", r.Failures)
	require.EqualValues(t, 5, r.To)
	require.Equal(t, channel.PolicyBlockValidation, r.Policy)
}

// listUnchanged lists what a group holds, at the versions it has.
func listUnchanged(to, from *common.ConfigGroup) {
	if to.Values == nil {
		to.Values = make(map[string]*common.ConfigValue)
	}
	to.Policies = make(map[string]*common.ConfigPolicy)
	for name, v := range from.Values {
		to.Values[name] = &common.ConfigValue{Version: v.Version}
	}
	for name, p := range from.Policies {
		to.Policies[name] = &common.ConfigPolicy{Version: p.Version}
	}
}

// TestRefusedUpdates: each is refused as a proposal, and stops the channel if
// orderers sign what it would have led to.
func TestRefusedUpdates(t *testing.T) {
	w := newWorld(t)
	admin := w.admins["OrdererMSP"]
	good := func() *common.ConfigUpdate { return setBatch(t, 1, 20) }
	raft := pack(t, &etcdraft.ConfigMetadata{})
	cases := map[string]*common.Envelope{
		"B34 no signature":      w.sign(good()),
		"B34 mod_policy":        w.sign(good(), w.admins["Org1MSP"], w.admins["Org2MSP"]),
		"B34 one admin twice":   w.sign(setChannel(t, w), w.admins["Org1MSP"], w.admins["Org1MSP"]),
		"B34 not an admin":      w.sign(good(), w.orderer),
		"version skipped":       w.sign(setBatch(t, 2, 20), admin),
		"version kept":          w.sign(setBatch(t, 0, 20), admin),
		"no effect":             w.sign(&common.ConfigUpdate{ChannelId: "mychannel", ReadSet: &common.ConfigGroup{}, WriteSet: &common.ConfigGroup{}}, admin),
		"other channel":         w.sign(&common.ConfigUpdate{ChannelId: "other", ReadSet: good().ReadSet, WriteSet: good().WriteSet}, admin),
		"no sets":               w.sign(&common.ConfigUpdate{ChannelId: "mychannel"}, admin),
		"stale read":            w.sign(staleRead(good()), admin),
		"unlisted element":      w.sign(setValue(0, "New", "Admins", nil, "Orderer"), admin),
		"no mod_policy":         w.sign(setValue(1, "BatchSize", "", nil, "Orderer"), admin),
		"bad name":              w.sign(setValue(0, "a/b", "Admins", nil, "Orderer"), admin),
		"B36 no consenters":     w.sign(setValue(1, "ConsensusType", "Admins", pack(t, &ab.ConsensusType{Type: "etcdraft", Metadata: raft}), "Orderer"), admin),
		"B36 BFT without":       w.sign(setValue(1, "ConsensusType", "Admins", pack(t, &ab.ConsensusType{Type: "BFT"}), "Orderer"), admin),
		"garbage value":         w.sign(setValue(1, "BatchSize", "Admins", []byte{0xff}, "Orderer"), admin),
		"empty batch":           w.sign(setBatch(t, 1, 0), admin),
		"not an update":         envelope(t, common.HeaderType_MESSAGE, nil),
		"garbage update":        envelope(t, common.HeaderType_CONFIG_UPDATE, []byte{0xff}),
		"garbage payload":       {Payload: []byte{0xff}},
		"too many signatures":   w.sign(good(), make300(admin)...),
		"nil":                   nil,
		"empty channel id":      w.sign(&common.ConfigUpdate{}, admin),
		"group without content": w.sign(&common.ConfigUpdate{ChannelId: "mychannel", ReadSet: &common.ConfigGroup{}, WriteSet: &common.ConfigGroup{Version: 1, ModPolicy: "Admins"}}, admin),
	}
	for name, env := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := w.config.Propose(env)
			refusedBy(t, block.BadConfig, err)

			content := proto.CloneOf(w.group())
			content.Groups["Orderer"].Values["BatchSize"].Version++
			b := w.configBlock(&common.ConfigEnvelope{Config: &common.Config{Sequence: 1, ChannelGroup: content}, LastUpdate: env})
			refusedBy(t, block.SignedBadConfig, w.verify(b))
		})
	}
	_, err := w.config.Propose(w.sign(good(), admin))
	require.NoError(t, err)
	_, err = w.config.Propose(w.sign(good(), w.orderer, admin, w.orderer))
	require.NoError(t, err, "others' signatures do no harm")
}

func make300(s msp.Signer) []msp.Signer {
	var list []msp.Signer
	for range 300 {
		list = append(list, s)
	}
	return list
}

// setChannel changes a value of the channel group, for which a majority of
// the admins' organisations must sign.
func setChannel(t testing.TB, w *world) *common.ConfigUpdate {
	v := w.group().Values["HashingAlgorithm"]
	require.NotNil(t, v)
	return setValue(v.Version+1, "HashingAlgorithm", "Admins", v.Value)
}

func staleRead(u *common.ConfigUpdate) *common.ConfigUpdate {
	u.ReadSet.Groups["Orderer"].Version = 7
	return u
}

// TestBadConfigs: what a configuration may not be, whoever signed it.
func TestBadConfigs(t *testing.T) {
	w := newWorld(t)
	parse := func(f func(g *common.ConfigGroup)) error {
		g := proto.CloneOf(w.group())
		f(g)
		_, err := channel.ParseChannelGroup("mychannel", 0, &common.Config{ChannelGroup: g})
		return err
	}
	require.NoError(t, parse(func(*common.ConfigGroup) {}))
	meta := func(rule int32) *common.ConfigPolicy {
		return &common.ConfigPolicy{Policy: &common.Policy{Type: 3, Value: pack(t, &common.ImplicitMetaPolicy{SubPolicy: "Writers", Rule: common.ImplicitMetaPolicy_Rule(rule)})}}
	}
	for name, f := range map[string]func(g *common.ConfigGroup){
		"no orderer group":        func(g *common.ConfigGroup) { delete(g.Groups, "Orderer") },
		"no batch size":           func(g *common.ConfigGroup) { delete(g.Groups["Orderer"].Values, "BatchSize") },
		"no MSP":                  func(g *common.ConfigGroup) { delete(g.Groups["Application"].Groups["Org1"].Values, "MSP") },
		"garbage MSP":             func(g *common.ConfigGroup) { g.Groups["Application"].Groups["Org1"].Values["MSP"].Value = []byte{0xff} },
		"policy of unknown type":  func(g *common.ConfigGroup) { g.Policies["Readers"].Policy.Type = 9 },
		"validation of nobody":    func(g *common.ConfigGroup) { g.Groups["Orderer"].Policies["BlockValidation"] = meta(9) },
		"validation without orgs": func(g *common.ConfigGroup) { clear(g.Groups["Orderer"].Groups) },
		"batch timeout":           func(g *common.ConfigGroup) { g.Groups["Orderer"].Values["BatchTimeout"].Value = []byte{10, 1, 'x'} },
		"two definitions of an ID": func(g *common.ConfigGroup) {
			other := newWorld(t).group().Groups["Application"].Groups["Org1"]
			g.Groups["Application"].Groups["Org3"] = other
		},
		"nested too deep": func(g *common.ConfigGroup) {
			for range 20 {
				g.Groups["Deep"] = &common.ConfigGroup{Groups: map[string]*common.ConfigGroup{}}
				g = g.Groups["Deep"]
			}
		},
	} {
		t.Run(name, func(t *testing.T) { refusedBy(t, block.BadConfig, parse(f)) })
	}
	t.Run("B37", func(t *testing.T) {
		err := parse(func(g *common.ConfigGroup) {
			g.Values["Capabilities"].Value = pack(t, &common.Capabilities{Capabilities: map[string]*common.Capability{"V9_1": {}}})
		})
		refusedBy(t, block.UnsupportedCapability, err)
		require.ErrorContains(t, err, "V9_1")
	})
	_, err := channel.ParseChannelGroup("mychannel", 0, nil)
	refusedBy(t, block.BadConfig, err)
	_, err = channel.Parse(nil)
	refusedBy(t, block.BadConfig, err)
}

// TestBFTConsenters: by id, each once, each a certificate.
func TestBFTConsenters(t *testing.T) {
	w := newWorld(t)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.orderer.Identity().Certificate().Raw})
	parse := func(list ...*common.Consenter) (*channel.Config, error) {
		g := proto.CloneOf(w.group())
		o := g.Groups["Orderer"]
		o.Values["ConsensusType"].Value = pack(t, &ab.ConsensusType{Type: channel.ConsensusBFT, State: ab.ConsensusType_STATE_MAINTENANCE})
		o.Values["Orderers"] = &common.ConfigValue{Value: pack(t, &common.Orderers{ConsenterMapping: list})}
		return channel.ParseChannelGroup("mychannel", 0, &common.Config{ChannelGroup: g})
	}
	n := &common.Consenter{Id: 7, Host: "h", Port: 1, MspId: "OrdererMSP", Identity: cert}
	c, err := parse(n)
	require.NoError(t, err)
	require.True(t, c.Maintenance())
	require.EqualValues(t, 7, c.Consenters()[0].ID)
	require.Equal(t, w.orderer.Identity().PKIID(), c.Rules().Consenters[7].PKIID())
	require.Equal(t, 1, c.Rules().Quorum())
	for name, list := range map[string][]*common.Consenter{
		"B36 double ids": {n, n},
		"B36 empty":      nil,
		"no certificate": {{Id: 1, MspId: "OrdererMSP", Identity: []byte("x")}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(list...)
			refusedBy(t, block.BadConfig, err)
		})
	}
}

// TestGlobalOrdererAddresses count only without V3_0 and organisations' own.
func TestGlobalOrdererAddresses(t *testing.T) {
	w := newWorld(t)
	parse := func(capability string, own bool) *channel.Config {
		g := proto.CloneOf(w.group())
		g.Values["OrdererAddresses"] = &common.ConfigValue{Value: pack(t, &common.OrdererAddresses{Addresses: []string{"global:1"}})}
		g.Values["Capabilities"].Value = pack(t, &common.Capabilities{Capabilities: map[string]*common.Capability{capability: {}}})
		if !own {
			delete(g.Groups["Orderer"].Groups["OrdererOrg"].Values, "Endpoints")
		}
		c, err := channel.ParseChannelGroup("mychannel", 0, &common.Config{ChannelGroup: g})
		require.NoError(t, err)
		return c
	}
	require.Equal(t, "127.0.0.1:7050", parse("V2_0", true).Orderers()[0].Endpoint)
	global := parse("V2_0", false).Orderers()
	require.Len(t, global, 1)
	require.Equal(t, "global:1", global[0].Endpoint)
	require.Empty(t, global[0].MSPID)
	require.Len(t, global[0].RootsPEM, 1)
	require.Empty(t, parse("V3_0", false).Orderers())
}
