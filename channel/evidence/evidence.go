// Package evidence proves what somebody signed and can't be true: offline, from
// a file and the channel's genesis block alone.
//
// A file holds one wire.Evidence: the signed statements, and the configuration
// blocks that lead from block 0 to the rules by which they are judged. What makes
// statements a contradiction is each kind's own, a [Judge]; this package has those
// of headers and of announcements, and takes others from who knows them.
package evidence

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/msp"
	"grapevine/wire"
)

// Version is that of the files made here, and the only one read.
const Version = 1

// MaxFile bounds a file: two headers and some configurations take a hundred KiB,
// the chunks of a large block its size.
const MaxFile = wire.MaxBlock

// Reasons why a file proves nothing.
var (
	BadFile      = wire.NewReason("evidence.bad_file", wire.Reject)
	BadVersion   = wire.NewReason("evidence.bad_version", wire.Reject)
	OtherGenesis = wire.NewReason("evidence.other_genesis", wire.Reject)
	BadConfig    = wire.NewReason("evidence.bad_config", wire.Reject)
	NoProof      = wire.NewReason("evidence.no_proof", wire.Reject)
	UnknownKind  = wire.NewReason("evidence.unknown_kind", wire.Refuse)
)

// A Case is evidence as it is judged: the statements, and the configuration in
// force before the block that they are about.
type Case struct {
	*wire.Evidence
	Genesis [32]byte // header hash of block 0
	Config  *channel.Config
}

// A Judge says whether a case's statements contradict each other or the block,
// and who is guilty of it, which may be nobody by name. An error says that they
// prove nothing; it MUST NOT accuse who only signed what is true.
type Judge func(c *Case) (accused []*msp.Identity, err error)

// A Proof is what a file proves.
type Proof struct {
	Case
	Accused []*msp.Identity
}

// New makes evidence of a kind. The configurations are raw blocks, block 0 first.
func New(kind wire.Evidence_Kind, network, name string, number uint64, found time.Time, configs [][]byte, statements ...[]byte) *wire.Evidence {
	e := &wire.Evidence{
		Version: Version, Kind: kind, Network: network, Channel: name, Number: number,
		Found: uint64(found.UnixMilli()), Statements: statements,
	}
	for _, raw := range configs {
		e.Config = wire.AppendFrame(e.Config, raw)
	}
	return e
}

// By names who signed the statements, where they don't say so themselves, and
// returns e.
func By(e *wire.Evidence, mspID string, certificates ...[]byte) *wire.Evidence {
	e.MspId, e.Certificates = mspID, certificates
	return e
}

// Name is a file's: channel, number, kind, and what tells two of these apart.
// The same contradiction, found twice, has one name.
func Name(e *wire.Evidence) string {
	parts := make([][]byte, 0, len(e.Statements))
	for _, s := range e.Statements {
		if b, err := block.Decode(s); e.Kind == wire.Evidence_KIND_FORK && err == nil {
			hash := block.HeaderHash(b.GetHeader())
			s = hash[:]
		}
		parts = append(parts, s)
	}
	slices.SortFunc(parts, bytes.Compare)
	sum := wire.HashParts(parts...)
	return fmt.Sprintf("%s-%d-%s-%s.evidence", e.Channel, e.Number, Kind(e.Kind), hex.EncodeToString(sum[:4]))
}

// kinds are the names of kinds, for people.
var kinds = map[wire.Evidence_Kind]string{
	wire.Evidence_KIND_FORK: "fork", wire.Evidence_KIND_ENCODINGS: "encodings", wire.Evidence_KIND_ENCODING: "encoding",
}

// Kind names a kind for people.
func Kind(k wire.Evidence_Kind) string { return cmp.Or(kinds[k], "unknown") }

// Read reads a file, and proves nothing.
func Read(raw []byte) (*wire.Evidence, error) {
	e := &wire.Evidence{}
	if err := wire.Unmarshal(raw, e); err != nil {
		return nil, fmt.Errorf("evidence: %w: %w", BadFile, err)
	}
	if e.Version != Version {
		return nil, fmt.Errorf("evidence of version %d, this build reads %d: %w", e.Version, Version, BadVersion)
	}
	return e, nil
}

// Verify proves a file. Genesis is the channel's block 0 as the reader trusts it;
// nil takes the one in the file, whose hash the reader then compares. Judges are
// those of other kinds than this package's own; may be nil.
func Verify(raw, genesis []byte, judges map[wire.Evidence_Kind]Judge) (*Proof, error) {
	e, err := Read(raw)
	if err != nil {
		return nil, err
	}
	c := Case{Evidence: e}
	if err := c.configure(genesis); err != nil {
		return nil, fmt.Errorf("evidence of block %d of %s: %w", e.Number, e.Channel, err)
	}
	judge := judges[e.Kind]
	switch e.Kind {
	case wire.Evidence_KIND_FORK:
		judge = fork
	case wire.Evidence_KIND_ENCODINGS:
		judge = encodings
	}
	if judge == nil {
		return nil, fmt.Errorf("evidence of kind %s: %w", Kind(e.Kind), UnknownKind)
	}
	accused, err := judge(&c)
	if err != nil {
		return nil, fmt.Errorf("evidence of block %d of %s: %w: %w", e.Number, e.Channel, NoProof, err)
	}
	return &Proof{c, accused}, nil
}

// configure walks the configurations from block 0 to the one in force. Each is
// signed as the one before it demands, and follows from it by its own update.
func (c *Case) configure(genesis []byte) error {
	in := bytes.NewReader(c.Evidence.Config)
	for first := true; ; first = false {
		raw, err := wire.ReadFrame(in, wire.MaxBlock)
		if errors.Is(err, io.EOF) && !first {
			break
		}
		if err != nil {
			return fmt.Errorf("configurations: %w: %w", BadConfig, err)
		}
		if first {
			err = c.begin(raw, genesis)
		} else {
			err = c.follow(raw)
		}
		if err != nil {
			return err
		}
	}
	if c.Config.Channel() != c.Channel {
		return fmt.Errorf("the configuration is of channel %s: %w", c.Config.Channel(), BadConfig)
	}
	if c.Config.Number() >= c.Number {
		return fmt.Errorf("configuration block %d isn't before block %d: %w", c.Config.Number(), c.Number, BadConfig)
	}
	return nil
}

func (c *Case) begin(raw, trusted []byte) error {
	g, err := block.Genesis(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", BadConfig, err)
	}
	c.Genesis = g.Hash()
	if trusted != nil {
		own, err := block.Genesis(trusted)
		if err != nil {
			return fmt.Errorf("the genesis block given: %w", err)
		}
		if own.Hash() != c.Genesis {
			return fmt.Errorf("it is of a channel with block 0 %x, the one given is %x: %w", c.Genesis, own.Hash(), OtherGenesis)
		}
	}
	if c.Config, err = channel.Parse(g.Block()); err != nil {
		return fmt.Errorf("%w: %w", BadConfig, err)
	}
	return nil
}

func (c *Case) follow(raw []byte) error {
	next, err := block.Check(c.Config.Rules(), raw)
	if err == nil {
		c.Config, err = c.Config.Next(next.Block())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", BadConfig, err)
	}
	return nil
}

// Fork makes the evidence of two headers that the orderers signed, each with its
// metadata.
func Fork(network, name string, found time.Time, configs [][]byte, one, other *common.Block) (*wire.Evidence, error) {
	var headers [2][]byte
	for i, b := range []*common.Block{one, other} {
		raw, err := block.Marshal(&common.Block{Header: b.Header, Metadata: b.Metadata})
		if err != nil {
			return nil, err
		}
		headers[i] = raw
	}
	a, b := block.HeaderHash(one.Header), block.HeaderHash(other.Header)
	if bytes.Compare(a[:], b[:]) > 0 {
		headers[0], headers[1] = headers[1], headers[0]
	}
	return New(wire.Evidence_KIND_FORK, network, name, one.Header.Number, found, configs, headers[0], headers[1]), nil
}

// Headers are the two headers of a fork, with their metadata.
func (c *Case) Headers() (list [2]*common.Block, err error) {
	if len(c.Statements) != 2 {
		return list, fmt.Errorf("%d statements, not 2: %w", len(c.Statements), BadFile)
	}
	for i, raw := range c.Statements {
		if list[i], err = block.Decode(raw); err != nil {
			return list, err
		}
		if list[i].GetHeader().GetNumber() != c.Number {
			return list, fmt.Errorf("header of block %d: %w", list[i].GetHeader().GetNumber(), block.NumberMismatch)
		}
	}
	return list, nil
}

// fork judges two headers.
func fork(c *Case) ([]*msp.Identity, error) {
	both, err := c.Headers()
	if err != nil {
		return nil, err
	}
	return block.Equivocation(c.Config.Rules(), both[0], both[1])
}

// encodings judges two announcements of one block by one member.
func encodings(c *Case) ([]*msp.Identity, error) {
	if len(c.Statements) != 2 || len(c.Certificates) == 0 {
		return nil, fmt.Errorf("%d statements, not 2, under %d certificates: %w", len(c.Statements), len(c.Certificates), BadFile)
	}
	who, err := c.Member()
	if err != nil {
		return nil, err
	}
	tag := wire.ChannelTag(c.Network, c.Genesis[:])
	if err := channel.Contradict(tag, who, c.Number, c.Statements[0], c.Statements[1]); err != nil {
		return nil, err
	}
	return []*msp.Identity{who}, nil
}

// Member is whom the certificates name, if the configuration finds that identity
// valid, whatever the clock says.
func (c *Case) Member() (*msp.Identity, error) {
	if len(c.Certificates) == 0 {
		return nil, fmt.Errorf("no certificate: %w", BadFile)
	}
	who, err := msp.FromDER(c.MspId, c.Certificates[0])
	if err != nil {
		return nil, err
	}
	m := c.Config.MSP(c.MspId)
	if m == nil {
		return nil, fmt.Errorf("%s is no organisation of the channel: %w", c.MspId, channel.NotMember)
	}
	if err := m.Validate(who); err != nil {
		return nil, err
	}
	return who, nil
}
