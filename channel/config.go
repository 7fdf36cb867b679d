// Package channel is what is told: a channel's configuration, which says who
// belongs to it and what its blocks must satisfy, and the wall behind which its
// members, and nobody else, tell each other of blocks.
package channel

import (
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
)

// Consensus types that a configuration may name; "etcdraft" stands for the
// format, whatever engine runs behind it.
const (
	ConsensusRaft = "etcdraft"
	ConsensusBFT  = "BFT"
)

// Paths of the policies that a node asks itself.
const (
	PolicyReaders         = "/Channel/Application/Readers"
	PolicyWriters         = "/Channel/Writers"
	PolicyBlockValidation = "/Channel/Orderer/BlockValidation"
)

// Config is one channel's configuration in force: a snapshot, immutable and
// safe for concurrent use. What it returns is to be read only.
type Config struct {
	name    string
	number  uint64
	content *common.Config
	// The update that led here; nil: none did, or it isn't told.
	lastUpdate *common.Envelope

	msps       msp.Directory
	policies   map[string]msp.Policy
	acls       map[string]string // by resource: the path of the policy that guards it
	orgs       []Org
	orderers   []Orderer
	consenters []Consenter

	consensus    string
	maintenance  bool
	batch        *ab.BatchSize
	batchTimeout time.Duration
	capabilities map[string]bool // of the channel group
	application  map[string]bool // capabilities of the application group
	anonymous    bool            // an organisation's MSP isn't one of X.509

	rules   *block.Rules
	members verdicts

	mu       sync.Mutex
	next     *Config  // guarded by mu: the configuration last found to follow
	nextHash [32]byte // guarded by mu: the hash of its block
}

// Org is an organisation of the application group. Its group's name and its
// MSP ID are two things.
type Org struct {
	Name, MSPID string
	MSP         *msp.MSP
	Anchors     []string // host:port
}

// Orderer is where blocks can be asked for, and whose TLS roots to trust there.
type Orderer struct {
	Endpoint string // host:port
	MSPID    string // "" for a global address, which belongs to no organisation
	TLSRoots *x509.CertPool
	RootsPEM [][]byte
}

// Consenter is a member of the ordering service's consensus. With Raft, ID is
// its place in the list from 1, and MSPID and Identity are empty: only its TLS
// certificates are known. Certificates are PEM.
type Consenter struct {
	ID                             uint32
	Host                           string
	Port                           uint32
	MSPID                          string
	ServerTLS, ClientTLS, Identity []byte
}

// Parse reads the configuration in a genesis or configuration block, which the
// caller has verified or trusts. Errors carry block.bad_config or
// block.unsupported_capability.
func Parse(b *common.Block) (*Config, error) {
	number := b.GetHeader().GetNumber()
	env, err := block.ConfigEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("configuration in block %d: %w", number, err)
	}
	name, err := channelOf(b)
	if err != nil {
		return nil, fmt.Errorf("configuration in block %d: %w", number, err)
	}
	cfg, err := ParseChannelGroup(name, number, env.Config)
	if err != nil {
		return nil, err
	}
	cfg.lastUpdate = env.LastUpdate
	return cfg, nil
}

// ParseChannelGroup reads a configuration that takes effect after block number.
// C is kept and must not change.
func ParseChannelGroup(name string, number uint64, c *common.Config) (*Config, error) {
	cfg := &Config{
		name:     name,
		number:   number,
		content:  c,
		msps:     make(msp.Directory),
		policies: make(map[string]msp.Policy),
	}
	if err := cfg.read(c.GetChannelGroup()); err != nil {
		return nil, fmt.Errorf("configuration %d of channel %q: %w", c.GetSequence(), name, err)
	}
	return cfg, nil
}

// Channel returns the channel's name.
func (c *Config) Channel() string { return c.name }

// Sequence returns how many configurations came before this one.
func (c *Config) Sequence() uint64 { return c.content.Sequence }

// Number returns the number of the block that brought it.
func (c *Config) Number() uint64 { return c.number }

// Consensus returns [ConsensusRaft] or [ConsensusBFT].
func (c *Config) Consensus() string { return c.consensus }

// Rules returns what this configuration demands of the blocks after its own.
// It is the same pointer each time.
func (c *Config) Rules() *block.Rules { return c.rules }

// Orgs returns the application organisations, by group name.
func (c *Config) Orgs() []Org { return c.orgs }

// Orderers returns where to ask for blocks: each organisation's endpoints, by
// group name; the global addresses only if no organisation tells any.
func (c *Config) Orderers() []Orderer { return c.orderers }

// Consenters returns the consensus set as configured.
func (c *Config) Consenters() []Consenter { return c.consenters }

// Policy returns the policy at an absolute path, such as [PolicyReaders];
// msp.Deny if there is none.
func (c *Config) Policy(path string) msp.Policy {
	if p := c.policies[path]; p != nil {
		return p
	}
	return msp.Deny
}

// MSPs returns the definitions of all organisations, by MSP ID.
func (c *Config) MSPs() msp.Directory { return c.msps }

// MSP returns the definition with this MSP ID, or nil.
func (c *Config) MSP(id string) *msp.MSP { return c.msps[id] }

// Batch returns the limits by which orderers cut blocks.
func (c *Config) Batch() *ab.BatchSize { return c.batch }

// BatchTimeout returns how long an orderer waits for a block to fill.
func (c *Config) BatchTimeout() time.Duration { return c.batchTimeout }

// Maintenance reports whether the consensus type is being changed: only
// orderers may pull, and no ordinary transaction is ordered.
func (c *Config) Maintenance() bool { return c.maintenance }

// Capable reports whether the channel group has a capability, such as "V3_0".
func (c *Config) Capable(name string) bool { return c.capabilities[name] }

// ApplicationCapable reports whether the application group has a capability, such
// as "V2_0".
func (c *Config) ApplicationCapable(name string) bool { return c.application[name] }

// Anonymous reports whether an organisation's MSP isn't one of X.509 certificates:
// its members can't be judged here, and count nowhere.
func (c *Config) Anonymous() bool { return c.anonymous }

// Member reports whether an identity may read the channel now: valid under
// this configuration by the live judge, and within Readers. Intermediates are
// the DER certificates that the identity showed beside its own. A yes is
// remembered for ten minutes.
func (c *Config) Member(id *msp.Identity, intermediates [][]byte, now time.Time) error {
	m := c.msps[id.MSPID()]
	if m == nil {
		return fmt.Errorf("%s is no organisation of channel %q: %w", id.MSPID(), c.name, NotMember)
	}
	return c.members.accept(id, intermediates, now, func() error {
		if err := m.ValidateLive(id, intermediates, now); err != nil {
			return fmt.Errorf("member %s of %s: %w", id.Name(), id.MSPID(), err)
		}
		if err := msp.SatisfiedBy(c.msps, c.Policy(PolicyReaders), id); err != nil {
			return fmt.Errorf("member %s of %s: %w: %s", id.Name(), id.MSPID(), NotMember, err.Error())
		}
		return nil
	})
}

// channelOf returns the channel that a configuration block's header names.
func channelOf(b *common.Block) (string, error) {
	var env common.Envelope
	if err := proto.Unmarshal(b.GetData().GetData()[0], &env); err != nil {
		return "", fmt.Errorf("%w: %w", block.BadConfig, err)
	}
	h, _, err := block.Header(&env)
	if err != nil {
		return "", fmt.Errorf("%w: %s", block.BadConfig, err.Error())
	}
	if h.ChannelId == "" {
		return "", fmt.Errorf("channel without a name: %w", block.BadConfig)
	}
	return h.ChannelId, nil
}
