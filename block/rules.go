package block

import (
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/msp"
)

// Bounds on what [Rules] remember. Each entry of attested is 32 bytes; a
// window of 128 blocks in a few copies fits. A channel has a handful of
// orderers, so signers that overflow are somebody playing with policies.
const (
	maxAttested = 1024
	maxSigners  = 128
)

// Rules are what a channel's configuration in force demands of a block. They
// are immutable once in use and safe for concurrent use; within, they remember
// which signatures held, so that none is verified twice.
type Rules struct {
	Channel string
	MSPs    msp.Directory
	// BlockValidation is /Channel/Orderer/BlockValidation. With BFT the
	// quorum of Consenters stands in its place.
	BlockValidation msp.Policy
	BFT             bool
	Consenters      map[uint32]*msp.Identity // BFT: id to signing identity
	// IdentifierHeaders says that a signature may name its signer by id
	// (capability V3_0).
	IdentifierHeaders bool
	// LastConfig is the number of the block that these rules come from, and
	// Sequence that of the configuration in it.
	LastConfig uint64
	Sequence   uint64
	// Batch limits; 0 means none. Bytes are counted as cutters count them:
	// payload and signature of each envelope, and of all of a block's.
	MaxMessages      uint32
	AbsoluteMaxBytes uint32
	// Judge says whether the configuration in a block, whose signatures hold,
	// may follow the one in force. Nil: any well-formed one.
	Judge func(*common.Block) error

	mu       sync.Mutex
	attested map[[32]byte]struct{}    // guarded by mu: headers with signatures that held
	signers  map[string]*msp.Identity // guarded by mu: creators that satisfy BlockValidation alone

	once  sync.Once
	valid map[msp.PKIID]*msp.Identity // set by once: the consenters that their MSPs hold valid
}

// Quorum returns how many consenters must sign a block: of n, of which
// f = floor((n-1)/3) may be faulty, ceil((n+f+1)/2). Zero without consenters.
func (r *Rules) Quorum() int { return quorum(len(r.Consenters)) }

func quorum(n int) int {
	if n == 0 {
		return 0
	}
	f := (n - 1) / 3
	return (n + f + 2) / 2
}

// knows reports whether signatures under this key held before.
func (r *Rules) knows(key [32]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.attested[key]
	return ok
}

func (r *Rules) remember(key [32]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attested == nil || len(r.attested) >= maxAttested {
		r.attested = make(map[[32]byte]struct{})
	}
	r.attested[key] = struct{}{}
}

// signer returns the identity of a creator, and an error unless it alone
// satisfies BlockValidation; only such are remembered. The identity is nil if
// no MSP knows it.
func (r *Rules) signer(creator []byte) (*msp.Identity, error) {
	r.mu.Lock()
	known := r.signers[string(creator)]
	r.mu.Unlock()
	if known != nil {
		return known, nil
	}
	id, _, err := r.MSPs.Identify(creator)
	if err != nil {
		return nil, err
	}
	if err := msp.SatisfiedBy(r.MSPs, r.BlockValidation, id); err != nil {
		return id, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.signers == nil || len(r.signers) >= maxSigners {
		r.signers = make(map[string]*msp.Identity)
	}
	r.signers[string(creator)] = id
	return id, nil
}

// consenters returns those consenters that count, by PKI-ID: valid under the
// MSPs, and each key once.
func (r *Rules) consenters() map[msp.PKIID]*msp.Identity {
	r.once.Do(func() {
		r.valid = make(map[msp.PKIID]*msp.Identity, len(r.Consenters))
		for _, id := range r.Consenters {
			if m := r.MSPs[id.MSPID()]; m != nil && m.Validate(id) == nil {
				r.valid[id.PKIID()] = id
			}
		}
	})
	return r.valid
}
