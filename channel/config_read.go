package channel

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
)

// Names of groups and values in a channel's configuration.
const (
	groupChannel     = "Channel"
	groupApplication = "Application"
	groupOrderer     = "Orderer"

	valueMSP = "MSP"
)

// mspFabric is the type of MSP that holds X.509 certificates; type 1 is
// Idemix, whose identities we can't judge and so never accept.
const mspFabric = 0

// knownCapabilities are those whose rules this program follows, by group.
// Another name means rules that it doesn't know: the channel must stop.
var knownCapabilities = map[string][]string{
	groupChannel:     {"V1_1", "V1_3", "V1_4_2", "V1_4_3", "V2_0", "V3_0"},
	groupOrderer:     {"V1_1", "V1_4_2", "V2_0"},
	groupApplication: {"V1_1", "V1_2", "V1_3", "V1_4_2", "V2_0", "V2_5"},
}

// read fills a configuration from its channel group.
func (c *Config) read(root *common.ConfigGroup) error {
	orderer := root.GetGroups()[groupOrderer]
	if orderer == nil {
		return fmt.Errorf("no group %s: %w", groupOrderer, block.BadConfig)
	}
	if err := c.readCapabilities(root); err != nil {
		return err
	}
	application := root.Groups[groupApplication]
	if err := c.readMSPs(orderer, application); err != nil {
		return err
	}
	if err := c.readOrgs(application); err != nil {
		return err
	}
	if err := c.readPolicies("/"+groupChannel, root, 0); err != nil {
		return err
	}
	if err := c.readACLs(application); err != nil {
		return err
	}
	if err := c.readOrderers(root, orderer); err != nil {
		return err
	}
	if err := c.readConsensus(orderer); err != nil {
		return err
	}
	return c.makeRules()
}

func (c *Config) readCapabilities(root *common.ConfigGroup) error {
	for group, known := range knownCapabilities {
		g := root
		if group != groupChannel {
			g = root.Groups[group]
		}
		var caps common.Capabilities
		if _, err := readValue(g, "Capabilities", &caps); err != nil {
			return err
		}
		for name := range caps.Capabilities {
			if !slices.Contains(known, name) {
				return fmt.Errorf("group %s requires capability %q, upgrade this program to one that has it: %w",
					group, name, block.UnsupportedCapability)
			}
		}
		has := make(map[string]bool, len(caps.Capabilities))
		for name := range caps.Capabilities {
			has[name] = true
		}
		switch group {
		case groupChannel:
			c.capabilities = has
		case groupApplication:
			c.application = has
		}
	}
	return nil
}

// features returns what the channel's capabilities let an MSP definition use.
func (c *Config) features() msp.Features {
	v3 := c.Capable("V3_0")
	return msp.Features{NodeOUs: v3 || c.Capable("V2_0") || c.Capable("V1_4_3"), Ed25519: v3}
}

// readMSPs reads the definitions of all organisations. One MSP ID in two
// groups must be one definition.
func (c *Config) readMSPs(groups ...*common.ConfigGroup) error {
	seen := make(map[string]*mspproto.FabricMSPConfig)
	for _, g := range groups {
		for name, org := range g.GetGroups() {
			conf, err := readMSP(org)
			if err != nil {
				return fmt.Errorf("organisation %s: %w", name, err)
			}
			if conf == nil {
				c.anonymous = true
				continue
			}
			if other := seen[conf.Name]; other != nil {
				if !proto.Equal(other, conf) {
					return fmt.Errorf("organisation %s: another definition of MSP %s: %w", name, conf.Name, block.BadConfig)
				}
				continue
			}
			m, err := msp.New(conf, c.features())
			if err != nil {
				return fmt.Errorf("organisation %s: %w: %s", name, block.BadConfig, err.Error())
			}
			seen[conf.Name], c.msps[conf.Name] = conf, m
		}
	}
	return nil
}

// readMSP returns an organisation's definition, nil if it isn't one of X.509.
func readMSP(org *common.ConfigGroup) (*mspproto.FabricMSPConfig, error) {
	var outer mspproto.MSPConfig
	found, err := readValue(org, valueMSP, &outer)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("no MSP: %w", block.BadConfig)
	}
	if outer.Type != mspFabric {
		return nil, nil
	}
	var conf mspproto.FabricMSPConfig
	if err := proto.Unmarshal(outer.Config, &conf); err != nil {
		return nil, fmt.Errorf("MSP: %w: %w", block.BadConfig, err)
	}
	if conf.Name == "" {
		return nil, fmt.Errorf("MSP without ID: %w", block.BadConfig)
	}
	return &conf, nil
}

func (c *Config) readOrgs(application *common.ConfigGroup) error {
	for _, name := range slices.Sorted(maps.Keys(application.GetGroups())) {
		g := application.Groups[name]
		conf, err := readMSP(g)
		if err != nil {
			return fmt.Errorf("organisation %s: %w", name, err)
		}
		if conf == nil {
			continue
		}
		var anchors peer.AnchorPeers
		if _, err := readValue(g, "AnchorPeers", &anchors); err != nil {
			return fmt.Errorf("organisation %s: %w", name, err)
		}
		org := Org{Name: name, MSPID: conf.Name, MSP: c.msps[conf.Name]}
		for _, a := range anchors.AnchorPeers {
			if a.GetHost() != "" && a.GetPort() > 0 && a.GetPort() < 1<<16 {
				org.Anchors = append(org.Anchors, hostPort(a.Host, uint32(a.Port)))
			}
		}
		c.orgs = append(c.orgs, org)
	}
	return nil
}

// readOrderers finds where to ask for blocks. Global addresses, gone with
// V3_0, count only if no organisation tells its own, and then any orderer
// organisation may answer there.
func (c *Config) readOrderers(root, orderer *common.ConfigGroup) error {
	var all []*msp.MSP
	for _, name := range slices.Sorted(maps.Keys(orderer.Groups)) {
		g := orderer.Groups[name]
		conf, err := readMSP(g)
		if err != nil {
			return fmt.Errorf("organisation %s: %w", name, err)
		}
		if conf == nil {
			continue
		}
		m := c.msps[conf.Name]
		all = append(all, m)
		var own common.OrdererAddresses
		if _, err := readValue(g, "Endpoints", &own); err != nil {
			return fmt.Errorf("organisation %s: %w", name, err)
		}
		for _, address := range own.Addresses {
			c.orderers = append(c.orderers, Orderer{address, conf.Name, m.TLSRoots(), m.TLSRootsPEM()})
		}
	}
	if len(c.orderers) > 0 || c.Capable("V3_0") {
		return nil
	}
	var global common.OrdererAddresses
	if _, err := readValue(root, "OrdererAddresses", &global); err != nil {
		return err
	}
	var roots [][]byte
	for _, m := range all {
		roots = append(roots, m.TLSRootsPEM()...)
	}
	pool := poolOf(roots)
	for _, address := range global.Addresses {
		c.orderers = append(c.orderers, Orderer{Endpoint: address, TLSRoots: pool, RootsPEM: roots})
	}
	return nil
}

func (c *Config) readConsensus(orderer *common.ConfigGroup) error {
	var consensus ab.ConsensusType
	if found, err := readValue(orderer, "ConsensusType", &consensus); err != nil || !found {
		return missing("ConsensusType", err)
	}
	c.consensus = consensus.Type
	c.maintenance = consensus.State == ab.ConsensusType_STATE_MAINTENANCE

	c.batch = &ab.BatchSize{}
	if found, err := readValue(orderer, "BatchSize", c.batch); err != nil || !found {
		return missing("BatchSize", err)
	}
	if b := c.batch; b.MaxMessageCount == 0 || b.PreferredMaxBytes == 0 || b.AbsoluteMaxBytes < b.PreferredMaxBytes {
		return fmt.Errorf("BatchSize %v: %w", b, block.BadConfig)
	}
	var timeout ab.BatchTimeout
	if found, err := readValue(orderer, "BatchTimeout", &timeout); err != nil || !found {
		return missing("BatchTimeout", err)
	}
	var err error
	if c.batchTimeout, err = time.ParseDuration(timeout.Timeout); err != nil || c.batchTimeout <= 0 {
		return fmt.Errorf("BatchTimeout %q: %w", timeout.Timeout, block.BadConfig)
	}

	switch c.consensus {
	case ConsensusBFT:
		return c.readBFT(orderer)
	case ConsensusRaft:
		return c.readRaft(consensus.Metadata)
	}
	return nil // of an age before both; its blocks are judged by policy
}

func (c *Config) readRaft(metadata []byte) error {
	var m etcdraft.ConfigMetadata
	if err := proto.Unmarshal(metadata, &m); err != nil {
		return fmt.Errorf("etcdraft metadata: %w: %w", block.BadConfig, err)
	}
	if len(m.Consenters) == 0 {
		return fmt.Errorf("no consenters: %w", block.BadConfig)
	}
	seen := make(map[string]bool)
	for i, n := range m.Consenters {
		certs := string(n.GetServerTlsCert()) + string(n.GetClientTlsCert())
		if seen[certs] {
			return fmt.Errorf("consenter %s:%d twice: %w", n.GetHost(), n.GetPort(), block.BadConfig)
		}
		seen[certs] = true
		c.consenters = append(c.consenters, Consenter{
			ID: uint32(i) + 1, Host: n.GetHost(), Port: n.GetPort(),
			ServerTLS: n.GetServerTlsCert(), ClientTLS: n.GetClientTlsCert(),
		})
	}
	return nil
}

func (c *Config) readBFT(orderer *common.ConfigGroup) error {
	var list common.Orderers
	if _, err := readValue(orderer, "Orderers", &list); err != nil {
		return err
	}
	if len(list.ConsenterMapping) == 0 {
		return fmt.Errorf("no consenters: %w", block.BadConfig)
	}
	seen := make(map[uint32]bool)
	for _, n := range list.ConsenterMapping {
		if n == nil || seen[n.Id] {
			return fmt.Errorf("consenter %d twice: %w", n.GetId(), block.BadConfig)
		}
		seen[n.Id] = true
		c.consenters = append(c.consenters, Consenter{
			ID: n.Id, Host: n.Host, Port: n.Port, MSPID: n.MspId,
			ServerTLS: n.ServerTlsCert, ClientTLS: n.ClientTlsCert, Identity: n.Identity,
		})
	}
	return nil
}

// makeRules states what the configuration demands of blocks. A BlockValidation
// that nobody's signature satisfies would let anyone write; Fabric loads it.
func (c *Config) makeRules() error {
	validation := c.Policy(PolicyBlockValidation)
	if validation.Evaluate(c.msps, nil) == nil {
		return fmt.Errorf("%s is satisfied without a signature: %w", PolicyBlockValidation, block.BadConfig)
	}
	c.rules = &block.Rules{
		Channel:           c.name,
		MSPs:              c.msps,
		BlockValidation:   validation,
		BFT:               c.consensus == ConsensusBFT,
		IdentifierHeaders: c.Capable("V3_0"),
		LastConfig:        c.number,
		Sequence:          c.content.Sequence,
		MaxMessages:       c.batch.MaxMessageCount,
		AbsoluteMaxBytes:  c.batch.AbsoluteMaxBytes,
		Judge: func(b *common.Block) error {
			_, err := c.Next(b)
			return err
		},
	}
	if !c.rules.BFT {
		return nil
	}
	c.rules.Consenters = make(map[uint32]*msp.Identity, len(c.consenters))
	for _, n := range c.consenters {
		creator, err := proto.Marshal(&mspproto.SerializedIdentity{Mspid: n.MSPID, IdBytes: n.Identity})
		if err != nil {
			return fmt.Errorf("consenter %d: %w: %w", n.ID, block.BadConfig, err)
		}
		id, err := msp.Deserialize(creator)
		if err != nil {
			return fmt.Errorf("consenter %d: %w: %s", n.ID, block.BadConfig, err.Error())
		}
		c.rules.Consenters[n.ID] = id
	}
	return nil
}

// readValue decodes a group's value into m and reports whether it is there.
func readValue(g *common.ConfigGroup, name string, m proto.Message) (bool, error) {
	v := g.GetValues()[name]
	if v == nil {
		return false, nil
	}
	if err := proto.Unmarshal(v.Value, m); err != nil {
		return false, fmt.Errorf("value %s: %w: %w", name, block.BadConfig, err)
	}
	return true, nil
}

func missing(name string, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("no value %s: %w", name, block.BadConfig)
}
