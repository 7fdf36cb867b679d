package system

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/hyperledger/fabric-protos-go-apiv2/discovery"
	"github.com/hyperledger/fabric-protos-go-apiv2/gossip"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
)

// writers is the policy that Fabric's service discovery asks.
const writers = "/Channel/Application/Writers"

// maxQueries bounds one request of discovery.
const maxQueries = 100

// denied is what a client is told that may not know, or not yet, of what it asks: Fabric's own words.
const denied = "access denied"

// Discover answers a signed request of service discovery: a channel's configuration and its peers. A query that isn't
// answered gets an error of its own.
func (s *Server) Discover(ctx context.Context, signed *discovery.SignedRequest) (*discovery.Response, error) {
	var r discovery.Request
	err := proto.Unmarshal(signed.GetPayload(), &r)
	switch {
	case err != nil:
		err = fmt.Errorf("request: %w: %w", Malformed, err)
	case len(r.GetAuthentication().GetClientIdentity()) == 0, len(r.Queries) > maxQueries:
		err = fmt.Errorf("no identity, or %d queries: %w", len(r.Queries), Malformed)
	case s.c.MutualTLS:
		err = bound(ctx, r.Authentication.ClientTlsCertHash)
	}
	if err != nil {
		return nil, s.refuse("", err)
	}
	out := &discovery.Response{}
	for _, q := range r.Queries {
		res, err := s.query(q, r.Authentication.ClientIdentity, signed)
		if err != nil {
			text := s.refuse("", err).Error()
			if errors.Is(err, Unknown) || errors.Is(err, Forbidden) || errors.Is(err, BadSignature) {
				text = denied
			}
			res = &discovery.QueryResult{Result: &discovery.QueryResult_Error{Error: &discovery.Error{Content: text}}}
		}
		out.Results = append(out.Results, res)
	}
	return out, nil
}

func (s *Server) query(q *discovery.Query, creator []byte, signed *discovery.SignedRequest) (*discovery.QueryResult, error) {
	if q.GetLocalPeers() != nil {
		if err := s.local(creator, signed.Payload, signed.Signature, mspproto.MSPRole_ADMIN); err != nil {
			return nil, err
		}
		var all []Peer
		for _, name := range s.c.Channels() {
			if c, ok := s.c.Channel(name); ok {
				all = append(all, c.Peers()...)
			}
		}
		return members(all, false)
	}
	c, ok := s.c.Channel(q.GetChannel())
	if !ok {
		return nil, Unknown
	}
	if err := s.member(c, creator, signed.Payload, signed.Signature, writers); err != nil {
		return nil, err
	}
	switch {
	case q.GetConfigQuery() != nil:
		return configuration(c)
	case q.GetPeerQuery() != nil:
		if len(q.GetPeerQuery().GetFilter().GetChaincodes()) > 0 {
			return nil, fmt.Errorf("this peer runs no chaincode and knows of nobody's: %w", NotHere)
		}
		return members(c.Peers(), true)
	}
	return nil, fmt.Errorf("this peer knows no chaincode's endorsers: ask a Fabric peer: %w", NotHere)
}

// bound reports an error unless claim is the SHA-256 of the client's TLS certificate.
func bound(ctx context.Context, claim []byte) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return TLSBinding
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return fmt.Errorf("no client certificate: %w", TLSBinding)
	}
	if have := sha256.Sum256(info.State.PeerCertificates[0].Raw); !bytes.Equal(have[:], claim) {
		return fmt.Errorf("another client certificate than the one signed for: %w", TLSBinding)
	}
	return nil
}

// configuration is a channel's MSP definitions and its orderers.
func configuration(c Channel) (*discovery.QueryResult, error) {
	out := &discovery.ConfigResult{Msps: map[string]*mspproto.FabricMSPConfig{}, Orderers: map[string]*discovery.Endpoints{}}
	root := c.Config().GetChannelGroup()
	for _, section := range []string{"Application", "Orderer"} {
		for name, g := range root.GetGroups()[section].GetGroups() {
			var conf mspproto.MSPConfig
			var def mspproto.FabricMSPConfig
			if err := proto.Unmarshal(g.GetValues()["MSP"].GetValue(), &conf); err != nil {
				return nil, fmt.Errorf("MSP of %s: %w: %w", name, Failed, err)
			}
			if conf.Type != 0 {
				continue // not X.509
			}
			if err := proto.Unmarshal(conf.Config, &def); err != nil {
				return nil, fmt.Errorf("MSP of %s: %w: %w", name, Failed, err)
			}
			out.Msps[def.Name] = &def
		}
	}
	for id, all := range c.Orderers() {
		e := &discovery.Endpoints{}
		for _, at := range all {
			host, text, err := net.SplitHostPort(at)
			port, perr := strconv.ParseUint(text, 10, 16)
			if err != nil || perr != nil {
				return nil, fmt.Errorf("orderer endpoint %q: %w", at, Failed)
			}
			e.Endpoint = append(e.Endpoint, &discovery.Endpoint{Host: host, Port: uint32(port)})
		}
		out.Orderers[id] = e
	}
	return &discovery.QueryResult{Result: &discovery.QueryResult_ConfigResult{ConfigResult: out}}, nil
}

// members lists peers as Fabric's gossip would tell of them. The messages bear no signatures: those peers have signed ours.
func members(all []Peer, heights bool) (*discovery.QueryResult, error) {
	out := &discovery.PeerMembershipResult{PeersByOrg: map[string]*discovery.Peers{}}
	for _, p := range all {
		id := p.Identity.PKIID()
		when := &gossip.PeerTime{IncNum: p.Seen, SeqNum: p.Sequence}
		alive, err := envelope(&gossip.GossipMessage{Tag: gossip.GossipMessage_EMPTY, Content: &gossip.GossipMessage_AliveMsg{AliveMsg: &gossip.AliveMessage{
			Membership: &gossip.Member{Endpoint: p.Endpoint, PkiId: id[:]}, Timestamp: when,
		}}})
		if err != nil {
			return nil, err
		}
		v := &discovery.Peer{MembershipInfo: alive, Identity: p.Identity.Serialized()}
		if heights {
			if v.StateInfo, err = envelope(&gossip.GossipMessage{Tag: gossip.GossipMessage_CHAN_OR_ORG, Content: &gossip.GossipMessage_StateInfo{StateInfo: &gossip.StateInfo{
				Timestamp: when, PkiId: id[:], Properties: &gossip.Properties{LedgerHeight: p.Height},
			}}}); err != nil {
				return nil, err
			}
		}
		org := out.PeersByOrg[p.Identity.MSPID()]
		if org == nil {
			org = &discovery.Peers{}
			out.PeersByOrg[p.Identity.MSPID()] = org
		}
		if !contains(org.Peers, v.Identity) {
			org.Peers = append(org.Peers, v)
		}
	}
	return &discovery.QueryResult{Result: &discovery.QueryResult_Members{Members: out}}, nil
}

func contains(all []*discovery.Peer, identity []byte) bool {
	for _, p := range all {
		if bytes.Equal(p.Identity, identity) {
			return true
		}
	}
	return false
}

func envelope(m *gossip.GossipMessage) (*gossip.Envelope, error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &gossip.Envelope{Payload: raw}, nil
}
