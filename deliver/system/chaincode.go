package system

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

// readers is the policy of a question about a channel that its ACLs don't name.
const readers = "/Channel/Application/Readers"

// What is said where the reason itself says too much, or too little.
const (
	noChannel = "no such channel on this peer, or no access to it"
	noCode    = "this peer runs no chaincode and endorses nothing: ask a Fabric peer. It answers cscc (GetChannels, JoinChain, GetConfigBlock, GetChannelConfig) and qscc (GetChainInfo, GetBlockByNumber, GetBlockByHash, GetBlockByTxID, GetTransactionByID)"
)

// ProcessProposal answers a call of a system chaincode. A refusal is a response of status 500 with a sentence; an error is
// never returned.
func (s *Server) ProcessProposal(ctx context.Context, signed *peer.SignedProposal) (*peer.ProposalResponse, error) {
	p, err := parse(signed)
	var result []byte
	var about string
	if err == nil {
		about, result, err = s.call(ctx, p)
	}
	var r *peer.ProposalResponse
	if err == nil {
		r, err = p.answer(s.c.Signer, result)
	}
	if err == nil {
		return r, nil
	}
	text := s.refuse(about, err).Error()
	if errors.Is(err, Unknown) {
		text = noChannel
	}
	return &peer.ProposalResponse{Response: &peer.Response{Status: int32(common.Status_INTERNAL_SERVER_ERROR), Message: text}}, nil
}

// call finds what is called, and says about which channel.
func (s *Server) call(ctx context.Context, p *proposal) (about string, result []byte, err error) {
	f := string(p.args[0])
	switch p.chaincode + "." + f {
	case "cscc.GetChannels":
		result, err = s.channels(p)
		return "", result, err
	case "cscc.JoinChain":
		if err := s.local(p.creator, p.raw, p.signature, mspproto.MSPRole_ADMIN); err != nil {
			return "", nil, err
		}
		return "", nil, s.c.Join(ctx, p.arg(0))
	}
	ask, ok := questions[p.chaincode+"."+f]
	if !ok {
		return "", nil, fmt.Errorf("%s.%s: %s: %w", p.chaincode, f, noCode, NotHere)
	}
	name := string(p.arg(0))
	c, ok := s.c.Channel(name)
	if !ok {
		return "", nil, Unknown
	}
	policy := c.ACL(p.chaincode + "/" + f)
	if policy == "" {
		policy = readers
	}
	if err := s.member(c, p.creator, p.raw, p.signature, policy); err != nil {
		return name, nil, err
	}
	m, err := ask(c, p.arg(1))
	if err == nil {
		result, err = proto.Marshal(m)
	}
	return name, result, err
}

// channels lists the channels that the peer has joined, for members of its organisation.
func (s *Server) channels(p *proposal) ([]byte, error) {
	if err := s.local(p.creator, p.raw, p.signature, mspproto.MSPRole_MEMBER); err != nil {
		return nil, err
	}
	out := &peer.ChannelQueryResponse{}
	for _, name := range s.c.Channels() {
		out.Channels = append(out.Channels, &peer.ChannelInfo{ChannelId: name})
	}
	return proto.Marshal(out)
}

// questions are the functions about one channel, whose name is their first argument.
var questions = map[string]func(c Channel, arg []byte) (proto.Message, error){
	"cscc.GetConfigBlock":   func(c Channel, _ []byte) (proto.Message, error) { return c.ConfigBlock() },
	"cscc.GetChannelConfig": func(c Channel, _ []byte) (proto.Message, error) { return c.Config(), nil },
	"qscc.GetChainInfo": func(c Channel, _ []byte) (proto.Message, error) {
		height, tip, previous := c.Chain.Info()
		return &common.BlockchainInfo{Height: height, CurrentBlockHash: tip, PreviousBlockHash: previous}, nil
	},
	"qscc.GetBlockByNumber": func(c Channel, arg []byte) (proto.Message, error) {
		n, err := strconv.ParseUint(string(arg), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("block number %.20q: %w", arg, Malformed)
		}
		return blockAt(c, n, nil)
	},
	"qscc.GetBlockByHash": func(c Channel, arg []byte) (proto.Message, error) {
		if len(arg) != 32 {
			return nil, fmt.Errorf("a block's hash has 32 bytes, not %d: %w", len(arg), Malformed)
		}
		n, err := c.Chain.ByHash([32]byte(arg))
		return blockAt(c, n, err)
	},
	"qscc.GetBlockByTxID": func(c Channel, arg []byte) (proto.Message, error) {
		n, _, err := c.Find(string(arg))
		return blockAt(c, n, err)
	},
	"qscc.GetTransactionByID": transaction,
}

func blockAt(c Channel, n uint64, err error) (proto.Message, error) {
	var b *common.Block
	if err == nil {
		b, err = c.Chain.Block(n)
	}
	if err != nil {
		return nil, missing(err)
	}
	return b, nil
}

// transaction is one envelope and what became of it.
func transaction(c Channel, arg []byte) (proto.Message, error) {
	n, i, err := c.Find(string(arg))
	if err != nil {
		return nil, missing(err)
	}
	b, err := c.Chain.Block(n)
	if err != nil {
		return nil, missing(err)
	}
	if i >= len(b.GetData().GetData()) {
		return nil, fmt.Errorf("transaction %d of block %d: %w", i, n, Failed)
	}
	env := &common.Envelope{}
	if err := proto.Unmarshal(b.Data.Data[i], env); err != nil {
		return nil, fmt.Errorf("transaction %d of block %d: %w: %w", i, n, Failed, err)
	}
	code := peer.TxValidationCode_NOT_VALIDATED
	if f := b.Metadata.GetMetadata(); len(f) > int(common.BlockMetadataIndex_TRANSACTIONS_FILTER) && i < len(f[common.BlockMetadataIndex_TRANSACTIONS_FILTER]) {
		code = peer.TxValidationCode(f[common.BlockMetadataIndex_TRANSACTIONS_FILTER][i])
	}
	return &peer.ProcessedTransaction{TransactionEnvelope: env, ValidationCode: int32(code)}, nil
}

// missing is a ledger's error as one of here.
func missing(err error) error {
	if r := wire.ReasonOf(err); r != nil && r.Code() == "ledger.not_found" {
		return fmt.Errorf("not on this ledger: %w", NotFound)
	}
	return fmt.Errorf("%w: %w", Failed, err)
}
