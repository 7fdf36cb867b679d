package orderer

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
)

// A Key names who holds a TLS key: SHA-256 of the public key (SubjectPublicKeyInfo, DER). The configuration names
// consenters by their TLS certificates alone; by key, a certificate that was renewed for the same one is the same
// consenter's.
type Key [sha256.Size]byte

// KeyOf is the key of a certificate.
func KeyOf(c *x509.Certificate) Key { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// A Consenter is one of the orderers that agree on a channel's blocks.
type Consenter struct {
	ID   uint64 // among all that the channel ever had; its name in Raft
	Host string // of its libp2p listener
	Port uint32
	Keys []Key // of its TLS certificates: the server's, and the client's if that is another
}

// Address is host:port.
func (c Consenter) Address() string {
	return net.JoinHostPort(c.Host, strconv.FormatUint(uint64(c.Port), 10))
}

// Holds says whether the consenter has one of the keys.
func (c Consenter) Holds(keys ...Key) bool {
	return slices.ContainsFunc(keys, func(k Key) bool { return slices.Contains(c.Keys, k) })
}

// consenters are those of one configuration, in its order. They are immutable.
type consenters struct {
	all     []Consenter
	leaving []Consenter // that an earlier configuration named, and that may have a vote in Raft still
	next    uint64      // the id that a further one would get
}

// find returns the consenter that has one of the keys.
func (s *consenters) find(keys ...Key) (Consenter, bool) {
	i := slices.IndexFunc(s.all, func(c Consenter) bool { return c.Holds(keys...) })
	if i < 0 {
		return Consenter{}, false
	}
	return s.all[i], true
}

// get returns the consenter with an id, though it be leaving.
func (s *consenters) get(id uint64) (Consenter, bool) {
	for _, c := range s.voting() {
		if c.ID == id {
			return c, true
		}
	}
	return Consenter{}, false
}

// voting are all that may have a vote in Raft.
func (s *consenters) voting() []Consenter { return append(slices.Clip(s.all), s.leaving...) }

// after is s with what of before isn't in it as leaving.
func (s *consenters) after(before *consenters) *consenters {
	out := *s
	out.leaving = nil
	if before != nil {
		for _, c := range before.voting() {
			if _, ok := s.get(c.ID); !ok {
				out.leaving = append(out.leaving, c)
			}
		}
	}
	return &out
}

// without is s without those leaving that have no vote any more.
func (s *consenters) without(gone func(id uint64) bool) *consenters {
	out := *s
	out.leaving = slices.DeleteFunc(slices.Clone(s.leaving), func(c Consenter) bool { return gone(c.ID) })
	return &out
}

// ids are what the signed metadata of blocks says of the consenters, as Fabric's do.
func (s *consenters) ids() []uint64 {
	out := make([]uint64, len(s.all))
	for i, c := range s.all {
		out[i] = c.ID
	}
	return out
}

// consentersOf reads the consenters of a configuration block. Their ids are those that the block's metadata tells; where
// it tells none, as a genesis block does, they follow from those before.
func consentersOf(b *common.Block, before *consenters) (*consenters, error) {
	listed, err := listedIn(b)
	if err != nil {
		return nil, fmt.Errorf("consenters of block %d: %w", b.GetHeader().GetNumber(), err)
	}
	meta, err := metadataOf(b)
	if err != nil {
		return nil, err
	}
	if len(meta.GetConsenterIds()) != len(listed) {
		return before.turnInto(listed), nil
	}
	for i, id := range meta.ConsenterIds {
		listed[i].ID = id
	}
	return &consenters{all: listed, next: meta.NextConsenterId}, nil
}

// turnInto gives ids to those listed. Who has a key of before, or else stands at the host and port of one that is gone, as
// after its keys were replaced, keeps that one's id; every other is new, for a log must never pass to another node.
func (s *consenters) turnInto(listed []Consenter) *consenters {
	out := &consenters{all: slices.Clone(listed), next: 1}
	var left []Consenter
	if s != nil {
		out.next, left = s.next, slices.Clone(s.all)
	}
	inherit := func(same func(old, now Consenter) bool) {
		for i, now := range out.all {
			k := slices.IndexFunc(left, func(old Consenter) bool { return same(old, now) })
			if now.ID == 0 && k >= 0 {
				out.all[i].ID = left[k].ID
				left = slices.Delete(left, k, k+1)
			}
		}
	}
	inherit(func(old, now Consenter) bool { return old.Holds(now.Keys...) })
	inherit(func(old, now Consenter) bool { return old.Address() == now.Address() })
	for i := range out.all {
		if out.all[i].ID == 0 {
			out.all[i].ID = out.next
			out.next++
		}
	}
	return out
}

// listedIn are the consenters that a configuration block names, without ids.
func listedIn(b *common.Block) ([]Consenter, error) {
	env, err := block.ConfigEnvelope(b)
	if err != nil {
		return nil, err
	}
	var kind ab.ConsensusType
	value := env.GetConfig().GetChannelGroup().GetGroups()["Orderer"].GetValues()["ConsensusType"]
	if err := proto.Unmarshal(value.GetValue(), &kind); err != nil {
		return nil, fmt.Errorf("consensus type: %w", err)
	}
	if kind.Type != "etcdraft" {
		return nil, fmt.Errorf("consensus type %q: %w", kind.Type, WrongConsensus)
	}
	var meta etcdraft.ConfigMetadata
	if err := proto.Unmarshal(kind.Metadata, &meta); err != nil {
		return nil, fmt.Errorf("consensus metadata: %w", err)
	}
	out := make([]Consenter, len(meta.Consenters))
	for i, c := range meta.Consenters {
		out[i] = Consenter{Host: c.GetHost(), Port: c.GetPort()}
		for _, text := range [][]byte{c.GetServerTlsCert(), c.GetClientTlsCert()} {
			if k, ok := keyIn(text); ok && !out[i].Holds(k) {
				out[i].Keys = append(out[i].Keys, k)
			}
		}
	}
	return out, nil
}

// Named says whether a certificate in PEM, of a consenter in a configuration, has one of the keys.
func Named(text []byte, keys []Key) bool {
	k, ok := keyIn(text)
	return ok && slices.Contains(keys, k)
}

// keyIn is the key of a certificate in PEM. A certificate that doesn't parse names nobody.
func keyIn(text []byte) (Key, bool) {
	b, _ := pem.Decode(text)
	if b == nil {
		return Key{}, false
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return Key{}, false
	}
	return KeyOf(c), true
}
