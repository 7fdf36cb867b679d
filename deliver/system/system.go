// Package system answers the part of Fabric's system chaincodes (cscc, qscc) and of its service discovery that operators
// use: `peer channel list|getinfo|join`, `discover peers|config`, explorers. It runs no chaincode and endorses nothing;
// everything else gets a sentence, with status 500.
//
// Who isn't proven to belong to one of a channel's organisations gets the same bytes for it as for one that isn't there.
package system

import (
	"context"
	"fmt"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/discovery"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/wire"
)

// Reasons why a question isn't answered.
var (
	Malformed    = wire.NewReason("system.malformed", wire.Refuse)
	BadSignature = wire.NewReason("system.bad_signature", wire.Refuse)
	Forbidden    = wire.NewReason("system.forbidden", wire.Refuse)
	Unknown      = wire.NewReason("system.unknown_channel", wire.Refuse)
	NotHere      = wire.NewReason("system.not_here", wire.Refuse)
	NotFound     = wire.NewReason("system.not_found", wire.Refuse)
	Failed       = wire.NewReason("system.failed", wire.Refuse)
	TLSBinding   = wire.NewReason("system.tls_binding", wire.Refuse)
)

// Channel is what is told of one channel. Its functions MUST be safe for concurrent use.
type Channel struct {
	MSPs     func() msp.Directory         // the channel's own organisations
	Policy   func(path string) msp.Policy // of the configuration in force
	ACL      func(resource string) string // path of the policy for a resource; "": the default
	Config   func() *common.Config        // in force
	Orderers func() map[string][]string   // endpoints, host:port, by MSP ID
	Peers    func() []Peer                // that live and may be told of to all organisations
	Chain    Chain
	// ConfigBlock is the block of the configuration in force.
	ConfigBlock func() (*common.Block, error)
	// Find returns where a transaction stands.
	Find func(txID string) (number uint64, index int, err error)
}

// Chain is a channel's ledger.
type Chain interface {
	// Info returns the height, and the hashes of the newest block and of the one before.
	Info() (height uint64, tip, previous []byte)
	// Block returns a block as a committing peer keeps it, with validation codes.
	Block(number uint64) (*common.Block, error)
	ByHash(hash [32]byte) (number uint64, err error)
}

// Peer is a member of a channel.
type Peer struct {
	Identity *msp.Identity
	Endpoint string // host:port
	Height   uint64
	Seen     uint64 // incarnation and sequence of its last message
	Sequence uint64
}

// Config says what is served. It is not changed afterwards.
type Config struct {
	Signer    msp.Signer      // signs answers
	MSP       func() *msp.MSP // of the own organisation, as it is now; nil: nothing is told but of channels
	MutualTLS bool            // discovery's requests must carry the hash of the client's TLS certificate
	Channels  func() []string
	Channel   func(name string) (Channel, bool)
	// Join joins the channel of a genesis or configuration block.
	Join    func(ctx context.Context, raw []byte) error
	Refused func(channel string, why *wire.Reason) // called once per refusal
	Now     func() time.Time                       // nil: time.Now
}

// Server is protos.Endorser and discovery.Discovery. It is safe for concurrent use.
type Server struct {
	peer.UnimplementedEndorserServer
	discovery.UnimplementedDiscoveryServer
	c Config
}

// NewServer prepares a server.
func NewServer(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{c: c}
}

// Register registers both services.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	peer.RegisterEndorserServer(r, s)
	discovery.RegisterDiscoveryServer(r, s)
}

// refuse counts a refusal and passes it on.
func (s *Server) refuse(channel string, err error) error {
	why := wire.ReasonOf(err)
	if why == nil {
		why = Failed
	}
	s.c.Refused(channel, why)
	return err
}

// member judges who asks about a channel: an identity of one of its organisations, by its signature and the clock, whom a
// policy lets.
func (s *Server) member(c Channel, creator, payload, signature []byte, policy string) error {
	id, err := msp.Deserialize(creator)
	if err != nil {
		return fmt.Errorf("%w: %w", Unknown, err)
	}
	all := c.MSPs()
	m := all[id.MSPID()]
	if m == nil {
		return fmt.Errorf("%s is no organisation of the channel: %w", id.MSPID(), Unknown)
	}
	if err := m.Verify(id, payload, signature); err != nil {
		return fmt.Errorf("%w: %w", Unknown, err)
	}
	if err := m.ValidateLive(id, nil, s.c.Now()); err != nil {
		return fmt.Errorf("%w: %w", Unknown, err)
	}
	if err := msp.SatisfiedBy(all, c.Policy(policy), id); err != nil {
		return fmt.Errorf("policy %s: %w: %w", policy, Forbidden, err)
	}
	return nil
}

// local judges who asks about the peer itself: a member of its own organisation, in a role.
func (s *Server) local(creator, payload, signature []byte, role mspproto.MSPRole_MSPRoleType) error {
	id, err := msp.Deserialize(creator)
	if err != nil {
		return fmt.Errorf("%w: %w", Forbidden, err)
	}
	m := s.c.MSP()
	if m == nil || id.MSPID() != m.ID() {
		return fmt.Errorf("%s isn't this peer's organisation: %w", id.MSPID(), Forbidden)
	}
	if err := m.Verify(id, payload, signature); err != nil {
		return fmt.Errorf("%w: %w", BadSignature, err)
	}
	if err := m.ValidateLive(id, nil, s.c.Now()); err != nil {
		return fmt.Errorf("%w: %w", Forbidden, err)
	}
	principal, err := proto.Marshal(&mspproto.MSPRole{MspIdentifier: m.ID(), Role: role})
	if err != nil {
		return err
	}
	if err := m.Satisfies(id, &mspproto.MSPPrincipal{PrincipalClassification: mspproto.MSPPrincipal_ROLE, Principal: principal}); err != nil {
		return fmt.Errorf("an organisation's %s is needed: %w: %w", role, Forbidden, err)
	}
	return nil
}
