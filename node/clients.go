package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"grapevine/deliver"
	"grapevine/ledger"
	"grapevine/wire"
)

// ClientServices are what a peer serves to Fabric's client SDKs and command line
// over gRPC: protos.Deliver, and of protos.Endorser and discovery.Discovery what
// operators ask. The zero value serves nothing.
type ClientServices struct {
	Address string // host:port to listen on; "" is off
	// Certificate is asked for at each handshake.
	Certificate func() *tls.Certificate
	ClientRoots func() *x509.CertPool // likewise; not nil: clients must present a certificate that chains to it
	MaxStreams  int                   // served at once; 0: 2500
	TimeWindow  time.Duration         // how far a request's clock may be off; 0: 15 minutes
}

// clients is the gRPC listener for client SDKs.
type clients struct {
	listener net.Listener
	server   *deliver.Server
}

func (n *Node) openClients() error {
	c := n.cfg.Clients
	if c.Address == "" {
		return nil
	}
	l, err := net.Listen("tcp", c.Address)
	if err != nil {
		return fmt.Errorf("listening for gRPC clients: %w", err)
	}
	n.clients = &clients{listener: l, server: deliver.NewServer(deliver.ServerConfig{
		Certificate: c.Certificate, ClientRoots: c.ClientRoots,
		More: n.newSystem(c.ClientRoots != nil).Register,
		Handler: &deliver.Handler{
			Channels: n.readable, MutualTLS: c.ClientRoots != nil, MaxStreams: c.MaxStreams, TimeWindow: c.TimeWindow,
			Logger: n.log, Refused: func(ch string, r *wire.Reason) { n.metrics.refused(ch, r) }, Hooks: n.delivered(),
		},
	})}
	return nil
}

// ClientAddress is where the gRPC services for clients listen, with the port
// that was chosen; "" if there are none.
func (n *Node) ClientAddress() string {
	if n.clients == nil {
		return ""
	}
	return n.clients.listener.Addr().String()
}

// readable is what Deliver sees of a channel. Its configuration's ACLs may name
// other policies than the application's Readers.
func (n *Node) readable(name string) (deliver.Channel, bool) {
	c, err := n.Channel(name)
	if err != nil {
		return deliver.Channel{}, false
	}
	access := func(resource string) func() deliver.Access {
		return func() deliver.Access {
			conf := c.conf.Load()
			return deliver.Access{Sequence: conf.Sequence(), Readers: conf.Policy(conf.ACL(resource, "/Channel/Application/Readers")), MSPs: conf.MSPs()}
		}
	}
	return deliver.Channel{Source: judged{c}, Access: access("event/Block"), Filtered: access("event/FilteredBlock")}, true
}

// judged yields a channel's blocks with the validation codes that this peer, or
// its organisation's Fabric peer, found: an orderer's block carries none that
// count. It waits for a Fabric peer's.
type judged struct{ c *Channel }

func (j judged) Height() uint64 {
	if f := j.c.fabric; f != nil {
		return min(f.height(), j.c.ledger.Height())
	}
	return j.c.ledger.Height()
}

func (j judged) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for b, err := range j.c.ledger.Blocks(ctx, from) {
			if err == nil && j.c.fabric != nil {
				err = j.c.fabric.wait(ctx, b.GetHeader().GetNumber())
			}
			if err == nil {
				b, err = j.withCodes(b)
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

// withCodes returns the block as a committing peer keeps it: with a code for each
// transaction and the commit hash, or, where nobody has judged it, NOT_VALIDATED.
func (j judged) withCodes(b *common.Block) (*common.Block, error) {
	m := &common.BlockMetadata{}
	if b.Metadata != nil {
		m = proto.CloneOf(b.Metadata)
	}
	for len(m.Metadata) <= int(common.BlockMetadataIndex_COMMIT_HASH) {
		m.Metadata = append(m.Metadata, nil)
	}
	v, err := j.c.Verdict(b.GetHeader().GetNumber())
	switch {
	case errors.Is(err, ledger.ErrUnjudged):
		v = ledger.Verdict{Codes: slices.Repeat([]byte{byte(peer.TxValidationCode_NOT_VALIDATED)}, len(b.GetData().GetData()))}
	case err != nil:
		return nil, err
	}
	m.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER] = v.Codes
	m.Metadata[common.BlockMetadataIndex_COMMIT_HASH] = nil
	if len(v.CommitHash) > 0 {
		m.Metadata[common.BlockMetadataIndex_COMMIT_HASH] = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), v.CommitHash)
	}
	return &common.Block{Header: b.Header, Data: b.Data, Metadata: m}, nil
}
