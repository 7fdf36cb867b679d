// Package genesis makes a channel's genesis block, equal in shape to what
// Fabric's configtxgen makes of a configtx.yaml: the same groups, values,
// policies, versions and mod policies, so that Fabric's tools read and update
// what grows from it.
package genesis

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"grapevine/block"
	"grapevine/block/tx"
)

// Names of the capabilities that the block asks for. V3_0 brings Ed25519 and
// endpoints by organisation; V2_5 is the newest of applications.
const (
	channelCapability     = "V3_0"
	ordererCapability     = "V2_0"
	applicationCapability = "V2_5"
)

// Batch rules of a profile that names none: Fabric's sample configuration.
const (
	DefaultTimeout      = 2 * time.Second
	defaultMaxMessages  = 500
	defaultAbsoluteMax  = 10 << 20
	defaultPreferredMax = 2 << 20
)

const maxChannelName = 249

// Kinds of organisation, as errors name them.
const (
	kindOrderer     = "orderer"
	kindApplication = "application"
)

var (
	channelName = regexp.MustCompile(`^[a-z][a-z0-9.-]*$`)
	groupName   = regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)
)

// A Profile says what the channel begins with.
type Profile struct {
	Channel    string
	Orderers   []Org       // organisations that run orderers, at least one
	Orgs       []Org       // organisations of the application
	Consenters []Consenter // at least one
	Raft       *etcdraft.Options
	Batch      *ab.BatchSize
	Timeout    time.Duration // BatchTimeout
	Time       time.Time     // of the block, kept to the second
}

// An Org is an organisation's group. Its policies are those of Fabric's test
// network: of the application, admins, peers and clients read, admins and
// clients write, peers endorse; of the ordering service, every member reads and
// writes. Admins administer.
type Org struct {
	Name      string                    // of the group; the MSP ID if empty
	MSPID     string                    // MSP.Name if empty
	MSP       *mspproto.FabricMSPConfig // the definition
	Anchors   []string                  // host:port; of application organisations only
	Endpoints []string                  // host:port; of orderer organisations only, at least one
}

// A Consenter is one orderer: where the others reach it, and its TLS
// certificates, PEM. An empty ClientTLS means the server's.
type Consenter struct {
	Host                 string
	Port                 uint32
	ServerTLS, ClientTLS []byte
}

// Block makes the genesis block. Two calls differ in the envelope's nonce and
// transaction ID, hence in their hashes: a channel is one block's, not one
// profile's.
func Block(p Profile) (*common.Block, error) {
	b, err := p.block()
	if err != nil {
		return nil, fmt.Errorf("genesis block of %q: %w", p.Channel, err)
	}
	return b, nil
}

func (p Profile) block() (*common.Block, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	channel, err := p.group()
	if err != nil {
		return nil, err
	}
	var failed error
	marshal := func(m proto.Message) []byte {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		failed = errors.Join(failed, err)
		return b
	}
	nonce := make([]byte, 24)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	head := &common.Header{
		ChannelHeader: marshal(&common.ChannelHeader{
			Type: int32(common.HeaderType_CONFIG), Version: 1, ChannelId: p.Channel,
			Timestamp: timestamppb.New(p.Time.Truncate(time.Second)), TxId: tx.ID(nonce, nil),
		}),
		SignatureHeader: marshal(&common.SignatureHeader{Nonce: nonce}),
	}
	config := marshal(&common.ConfigEnvelope{Config: &common.Config{ChannelGroup: channel}})
	env := marshal(&common.Envelope{Payload: marshal(&common.Payload{Header: head, Data: config})})
	data := &common.BlockData{Data: [][]byte{env}}
	sum := block.DataHash(data)
	first := marshal(&common.Metadata{
		Value: marshal(&common.OrdererBlockMetadata{LastConfig: &common.LastConfig{}}),
	})
	if failed != nil {
		return nil, failed
	}
	return &common.Block{
		Header:   &common.BlockHeader{DataHash: sum[:]},
		Data:     data,
		Metadata: &common.BlockMetadata{Metadata: [][]byte{first, {}, {}, {}, {}}},
	}, nil
}

// check refuses what Fabric's tools or orderers would refuse later, with less
// to go by.
func (p Profile) check() error {
	switch {
	case len(p.Channel) > maxChannelName || !channelName.MatchString(p.Channel):
		return fmt.Errorf("channel name: must be of a-z, 0-9, dot and dash, begin with a letter and have at most %d characters", maxChannelName)
	case len(p.Orderers) == 0:
		return errors.New("no orderer organisation")
	case len(p.Consenters) == 0:
		return errors.New("no consenter")
	case p.Time.IsZero():
		return errors.New("no time")
	case p.Timeout < 0:
		return fmt.Errorf("batch timeout %s: must be positive", p.Timeout)
	}
	if b := p.Batch; b != nil {
		if b.MaxMessageCount == 0 || b.AbsoluteMaxBytes == 0 || b.PreferredMaxBytes == 0 || b.PreferredMaxBytes > b.AbsoluteMaxBytes {
			return fmt.Errorf("batch size %v: all must be positive, and preferred at most absolute", b)
		}
	}
	definitions := map[string]*mspproto.FabricMSPConfig{}
	for _, k := range []struct {
		kind string
		orgs []Org
	}{{kindOrderer, p.Orderers}, {kindApplication, p.Orgs}} {
		seen := map[string]bool{}
		for _, o := range k.orgs {
			if err := o.check(k.kind); err != nil {
				return fmt.Errorf("%s organisation %q: %w", k.kind, o.name(), err)
			}
			if seen[o.name()] {
				return fmt.Errorf("%s organisation %q: named twice", k.kind, o.name())
			}
			seen[o.name()] = true
			if d := definitions[o.mspID()]; d != nil && !proto.Equal(d, o.MSP) {
				return fmt.Errorf("MSP %s: two definitions", o.mspID())
			}
			definitions[o.mspID()] = o.MSP
		}
	}
	seen := map[string]bool{}
	for _, c := range p.Consenters {
		at := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
		switch {
		case c.Host == "" || c.Port == 0 || c.Port > 65535:
			return fmt.Errorf("consenter %s: no address", at)
		case len(c.ServerTLS) == 0:
			return fmt.Errorf("consenter %s: no TLS certificate", at)
		case seen[at]:
			return fmt.Errorf("consenter %s: named twice", at)
		}
		seen[at] = true
	}
	return nil
}

func (o Org) check(kind string) error {
	switch {
	case o.MSP == nil:
		return errors.New("no MSP definition")
	case o.mspID() == "":
		return errors.New("no MSP ID")
	case o.MSP.Name != o.mspID():
		return fmt.Errorf("MSP ID %s: the definition is of %q", o.mspID(), o.MSP.Name)
	case !groupName.MatchString(o.name()):
		return errors.New("name must be of letters, digits, dot and dash")
	case kind == kindOrderer && len(o.Endpoints) == 0:
		return fmt.Errorf("no endpoint: %s asks for one", channelCapability)
	case kind == kindOrderer && len(o.Anchors) > 0:
		return errors.New("anchor peers belong to application organisations")
	case kind != kindOrderer && len(o.Endpoints) > 0:
		return errors.New("endpoints belong to orderer organisations")
	}
	for _, a := range append(append([]string{}, o.Anchors...), o.Endpoints...) {
		if _, _, err := hostPort(a); err != nil {
			return err
		}
	}
	return nil
}

func (o Org) mspID() string {
	if o.MSPID == "" {
		return o.MSP.GetName()
	}
	return o.MSPID
}

func (o Org) name() string {
	if o.Name == "" {
		return o.mspID()
	}
	return o.Name
}

func hostPort(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: %w", s, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("address %q: must be host:port", s)
	}
	return host, uint16(n), nil
}
