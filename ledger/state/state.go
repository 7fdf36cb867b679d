// Package state says what the transactions of a block mean: which of them are
// valid, with Fabric's codes, and what the valid ones write. It is pure: the
// caller brings the blocks in order, what was committed before (a View) and the
// configuration in force (Rules), and keeps what comes out.
//
// A block goes through in two steps. Prepare does for one transaction all that
// needs no state, the signatures above all; transactions may be prepared by many
// at once, and before the blocks before them are executed. Execute then goes
// through the block in order: duplicates, endorsement policies, read conflicts,
// and the writes that remain.
//
// Its verdicts are those of Fabric's peers (3.1 line, application capability V2_0
// or later) on LevelDB, to the byte of the commit hash: another verdict would be
// another state. Where a Fabric peer panics or stops for what a transaction says,
// there is no state to agree with, and the transaction is invalid here. Rules
// that aren't built are told as Unjudged, never guessed.
package state

import (
	"iter"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"grapevine/wire"
)

// Unjudged means that the block holds a transaction that can't be judged here: its
// chaincode's definition names another validation plug-in, or the channel lives
// by rules that aren't built. From that block on there is no world state.
var Unjudged = wire.NewReason("state.unjudged", wire.Ignore)

// Code is Fabric's verdict on a transaction.
type Code = peer.TxValidationCode

// Key names a value of the world state. Of private data only hashes are known:
// then Collection is set and Key is the SHA-256 of the key, 32 bytes.
type Key struct{ Namespace, Collection, Key string }

// Entry is a value as committed, and which transaction of which block wrote it
// last. Metadata is encoded by this package; it holds the key's own endorsement
// policy, where it has one. An Entry is never changed.
type Entry struct {
	Block, Tx uint64
	Value     []byte
	Metadata  []byte
}

// Found is a public key that a range holds, and its version.
type Found struct {
	Key       string
	Block, Tx uint64
}

// Write is what becomes of a key: Entry is what it then holds, nil if nothing.
type Write struct {
	Key
	*Entry
}

// Touch says that a valid transaction of the block wrote or deleted a public key:
// an entry of the key's history.
type Touch struct {
	Namespace, Key string
	Tx             uint64
	Deleted        bool
}

// Expiry says that at the commit of block At a hashed key is deleted unless it
// was written since block Written (a collection's block-to-live).
type Expiry struct {
	Key
	At, Written uint64
}

// A View is what was committed before the block: a struct of functions, all set,
// that need not be safe for concurrent use. What they return isn't changed.
type View struct {
	// Get returns a key's entry, or nil.
	Get func(Key) (*Entry, error)
	// Range yields a namespace's public keys from from (included) to to
	// (excluded, "" for the end), in the order of their bytes.
	Range func(namespace, from, to string) iter.Seq2[Found, error]
	// HasTx reports whether a block before this one holds a transaction that
	// claims this id, valid or not.
	HasTx func(id string) (bool, error)
	// Expiring yields what was scheduled to expire at block at.
	Expiring func(at uint64) iter.Seq2[Expiry, error]
}

// Outcome is what a block leads to. Keys come once each, sorted; touches in the
// order of the transactions.
type Outcome struct {
	Codes    []byte // one for each transaction
	Mark     *Mark  // of the state after the block
	Writes   []Write
	Touches  []Touch
	Schedule []Expiry
}

// validationParameter is the name of the metadata that holds a key's policy.
var validationParameter = peer.MetaDataKeys_VALIDATION_PARAMETER.String()

// Metadata is kept as pairs of name and value, each with its length before it,
// sorted by name, each name once.

// metadatum returns the value under a name, nil if there is none.
func metadatum(encoded []byte, name string) []byte {
	for len(encoded) > 0 {
		k, n := protowire.ConsumeBytes(encoded)
		if n < 0 {
			return nil
		}
		v, m := protowire.ConsumeBytes(encoded[n:])
		if m < 0 {
			return nil
		}
		if string(k) == name {
			return v
		}
		encoded = encoded[n+m:]
	}
	return nil
}
