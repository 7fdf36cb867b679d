package genesis

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

// Names of groups, values and policies, and who may change them.
const (
	groupOrderer     = "Orderer"
	groupApplication = "Application"

	valueMSP          = "MSP"
	valueCapabilities = "Capabilities"

	readers   = "Readers"
	writers   = "Writers"
	admins    = "Admins"
	endorsers = "Endorsement"
	lifecycle = "LifecycleEndorsement"
	validate  = "BlockValidation"

	modPolicy = admins
)

// anyWidth is the width of Fabric's Merkle tree over a block's entries that
// means: no tree, one hash over all.
const anyWidth = 1<<32 - 1

// A group is a ConfigGroup in the making; the first error stays.
type group struct {
	g   *common.ConfigGroup
	err error
}

func newGroup() *group {
	return &group{g: &common.ConfigGroup{
		Groups:    map[string]*common.ConfigGroup{},
		Values:    map[string]*common.ConfigValue{},
		Policies:  map[string]*common.ConfigPolicy{},
		ModPolicy: modPolicy,
	}}
}

func (g *group) marshal(what string, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil && g.err == nil {
		g.err = fmt.Errorf("%s: %w", what, err)
	}
	return b
}

func (g *group) value(name string, m proto.Message) {
	g.g.Values[name] = &common.ConfigValue{Value: g.marshal(name, m), ModPolicy: modPolicy}
}

func (g *group) capability(name string) {
	g.value(valueCapabilities, &common.Capabilities{Capabilities: map[string]*common.Capability{name: {}}})
}

func (g *group) policy(name string, typ common.Policy_PolicyType, m proto.Message) {
	g.g.Policies[name] = &common.ConfigPolicy{
		Policy:    &common.Policy{Type: int32(typ), Value: g.marshal(name, m)},
		ModPolicy: modPolicy,
	}
}

func (g *group) implicit(name string, rule common.ImplicitMetaPolicy_Rule, sub string) {
	g.policy(name, common.Policy_IMPLICIT_META, &common.ImplicitMetaPolicy{Rule: rule, SubPolicy: sub})
}

// usual sets the three policies that every group above the organisations has.
func (g *group) usual() {
	g.implicit(readers, common.ImplicitMetaPolicy_ANY, readers)
	g.implicit(writers, common.ImplicitMetaPolicy_ANY, writers)
	g.implicit(admins, common.ImplicitMetaPolicy_MAJORITY, admins)
}

// roles sets a policy that any one identity of the roles satisfies.
func (g *group) roles(name, mspID string, roles ...mspproto.MSPRole_MSPRoleType) {
	p := &common.SignaturePolicyEnvelope{}
	var rules []*common.SignaturePolicy
	for i, r := range roles {
		p.Identities = append(p.Identities, &mspproto.MSPPrincipal{
			PrincipalClassification: mspproto.MSPPrincipal_ROLE,
			Principal:               g.marshal(name, &mspproto.MSPRole{MspIdentifier: mspID, Role: r}),
		})
		rules = append(rules, &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	p.Rule = &common.SignaturePolicy{Type: &common.SignaturePolicy_NOutOf_{
		NOutOf: &common.SignaturePolicy_NOutOf{N: 1, Rules: rules},
	}}
	g.policy(name, common.Policy_SIGNATURE, p)
}

func (g *group) sub(name string, s *group) {
	if s.err != nil && g.err == nil {
		g.err = fmt.Errorf("%s: %w", name, s.err)
	}
	g.g.Groups[name] = s.g
}

// group makes /Channel.
func (p Profile) group() (*common.ConfigGroup, error) {
	g := newGroup()
	g.usual()
	g.capability(channelCapability)
	g.value("HashingAlgorithm", &common.HashingAlgorithm{Name: "SHA256"})
	g.value("BlockDataHashingStructure", &common.BlockDataHashingStructure{Width: anyWidth})
	g.sub(groupOrderer, p.orderer())
	g.sub(groupApplication, p.application())
	return g.g, g.err
}

func (p Profile) orderer() *group {
	g := newGroup()
	g.usual()
	g.implicit(validate, common.ImplicitMetaPolicy_ANY, writers)
	g.capability(ordererCapability)
	batch, timeout := p.Batch, p.Timeout
	if batch == nil {
		batch = &ab.BatchSize{
			MaxMessageCount: defaultMaxMessages, AbsoluteMaxBytes: defaultAbsoluteMax, PreferredMaxBytes: defaultPreferredMax,
		}
	}
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	g.value("BatchSize", batch)
	g.value("BatchTimeout", &ab.BatchTimeout{Timeout: timeout.String()})
	g.value("ChannelRestrictions", &ab.ChannelRestrictions{})
	g.value("ConsensusType", &ab.ConsensusType{Type: "etcdraft", Metadata: g.marshal("ConsensusType", p.consensus())})
	for _, o := range p.Orderers {
		s := o.group()
		s.value("Endpoints", &common.OrdererAddresses{Addresses: o.Endpoints})
		s.roles(readers, o.mspID(), mspproto.MSPRole_MEMBER)
		s.roles(writers, o.mspID(), mspproto.MSPRole_MEMBER)
		g.sub(o.name(), s)
	}
	return g
}

func (p Profile) consensus() *etcdraft.ConfigMetadata {
	options := p.Raft
	if options == nil {
		options = &etcdraft.Options{ // Fabric's defaults
			TickInterval: "500ms", ElectionTick: 10, HeartbeatTick: 1, MaxInflightBlocks: 5, SnapshotIntervalSize: 16 << 20,
		}
	}
	m := &etcdraft.ConfigMetadata{Options: options}
	for _, c := range p.Consenters {
		client := c.ClientTLS
		if len(client) == 0 {
			client = c.ServerTLS
		}
		m.Consenters = append(m.Consenters, &etcdraft.Consenter{
			Host: c.Host, Port: c.Port, ServerTlsCert: c.ServerTLS, ClientTlsCert: client,
		})
	}
	return m
}

func (p Profile) application() *group {
	g := newGroup()
	g.usual()
	g.implicit(endorsers, common.ImplicitMetaPolicy_MAJORITY, endorsers)
	g.implicit(lifecycle, common.ImplicitMetaPolicy_MAJORITY, endorsers)
	g.capability(applicationCapability)
	for _, o := range p.Orgs {
		g.sub(o.name(), o.application())
	}
	return g
}

// ApplicationGroup is what an organisation of the application is in a channel's
// configuration, and the name of its group.
func (o Org) ApplicationGroup() (string, *common.ConfigGroup, error) {
	if err := o.check(kindApplication); err != nil {
		return "", nil, err
	}
	g := o.application()
	return o.name(), g.g, g.err
}

func (o Org) application() *group {
	g := o.group()
	g.roles(readers, o.mspID(), mspproto.MSPRole_ADMIN, mspproto.MSPRole_PEER, mspproto.MSPRole_CLIENT)
	g.roles(writers, o.mspID(), mspproto.MSPRole_ADMIN, mspproto.MSPRole_CLIENT)
	g.roles(endorsers, o.mspID(), mspproto.MSPRole_PEER)
	if len(o.Anchors) > 0 {
		g.value("AnchorPeers", o.anchors())
	}
	return g
}

// group makes what both kinds of organisation have.
func (o Org) group() *group {
	g := newGroup()
	g.value(valueMSP, &mspproto.MSPConfig{Config: g.marshal(valueMSP, o.MSP)})
	g.roles(admins, o.mspID(), mspproto.MSPRole_ADMIN)
	return g
}

func (o Org) anchors() *peer.AnchorPeers {
	a := &peer.AnchorPeers{}
	for _, s := range o.Anchors {
		host, port, err := hostPort(s)
		if err == nil { // checked before
			a.AnchorPeers = append(a.AnchorPeers, &peer.AnchorPeer{Host: host, Port: int32(port)})
		}
	}
	return a
}
