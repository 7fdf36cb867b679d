// Package wire holds every byte of ours that the network agrees on: the schema
// of our messages, frames, protocol names, size limits and signing domains.
// Fabric's own structures (blocks, envelopes) travel inside these as Fabric
// marshals them; their rules live in package block.
package wire

import (
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
)

// Names that stand in clear on a connection. A channel never appears among
// them: channel protocols are named inside a stream that the door accepted.
const (
	// SecurityID names the TLS 1.3 handshake that carries an MSP binding.
	SecurityID = "/grapevine/tls/1"
	// DoorID is the one stream protocol that a host shows for all channels.
	DoorID = "/grapevine/door/1"
)

// Kinds of stream behind the door; see [ProtocolID].
const (
	KindMesh      = "mesh"      // GossipSub of the channel
	KindBlocks    = "blocks"    // ranges of blocks
	KindMembers   = "members"   // who is there, and alive
	KindCast      = "cast"      // chunks of large bodies
	KindRaft      = "raft"      // between the orderers of the channel
	KindElection  = "election"  // who pulls blocks for an organisation
	KindSnapshots = "snapshots" // of the world state
	KindSighting  = "sighting"  // what orderers have, within an organisation
	KindTrace     = "trace"     // how a block came
)

// Topics of a channel's GossipSub. They need no channel in their names, for a
// channel has a GossipSub of its own.
const (
	TopicBlocks = "blocks"
	TopicAlive  = "alive"
)

// Limits in bytes. A frame is refused by its length alone, before anything is
// allocated for it.
const (
	// InlineLimit bounds the marshalled BlockData that travels inside an
	// announcement. Above it GossipSub's copies cost more than a pull.
	InlineLimit = 8 << 10
	// MaxGossip bounds a GossipSub RPC, and MaxControl its control part: one
	// MiB of empty sub-messages costs 48-115 MB to decode. A sender splits by
	// its own limit, so both are equal on all members.
	MaxGossip  = 256 << 10
	MaxControl = 32 << 10
	// MaxRequest bounds the one request that opens a stream.
	MaxRequest = 4 << 10
	// MaxWord bounds what a member says at once on a stream of kind "members".
	MaxWord = 256 << 10
	// MaxBallot bounds what a peer says at once on a stream of kind "election".
	MaxBallot = 2 << 10
	// MaxOffer bounds a SnapshotOffer.
	MaxOffer = 1 << 20
	// MaxSighting bounds what a peer says at once on a stream of kind "sighting".
	MaxSighting = 64 << 10
	// MaxBlock bounds a marshalled block, in the network and in the ledger.
	// A channel's absolute_max_bytes bounds it further.
	MaxBlock = 100<<20 + 1<<20
	// MaxItems bounds the fields, at all depths, of a message of ours.
	MaxItems = 1024
	// MaxDepth bounds how deep messages of ours nest.
	MaxDepth = 8
)

// Domains keep a signature made for one purpose from serving another. Each is
// the first part of what [HashParts] hashes.
const (
	DomainBinding      = "grapevine/binding/1"
	DomainAnnouncement = "grapevine/announcement/2"
	DomainAlive        = "grapevine/alive/1"
	DomainClaim        = "grapevine/claim/1"
	DomainCast         = "grapevine/cast/1"
	DomainConsenter    = "grapevine/consenter/1"
	DomainSnapshot     = "grapevine/snapshot/1"
	DomainChunks       = "grapevine/snapshot-chunks/1"
	DomainAttestation  = "grapevine/snapshot-attestation/1"
	domainChannel      = "grapevine/channel/1"
)

// BindingOID names the X.509 extension that carries an MSP binding. It lies in
// an arc that is reserved for no one else's use here, and each arc fits 31 bits
// because Go's parser reads no larger one.
var BindingOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 62951, 7, 1, 1}

// HashParts returns SHA-256 over the parts, each behind its length in four
// bytes, big-endian, so that no two lists of parts hash alike by moving a cut.
func HashParts(parts ...[]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, p := range parts {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// ChannelTag names a channel on the wire: only who holds its genesis block can
// compute it. genesisHash is the header hash of block 0.
func ChannelTag(networkID string, genesisHash []byte) [sha256.Size]byte {
	return HashParts([]byte(domainChannel), []byte(networkID), genesisHash)
}

// ProtocolID is what the first frame of a stream at the door says: which
// channel, and which of its protocols.
func ProtocolID(tag [sha256.Size]byte, kind string) string {
	return "/gv/" + hex.EncodeToString(tag[:]) + "/" + kind
}
