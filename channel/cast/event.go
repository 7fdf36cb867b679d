package cast

import (
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// A Head is a large block's announcement, verified: header and metadata are
// attested by the orderers, size and roots signed by the announcer.
type Head struct {
	Number    uint64
	Hash      [32]byte      // of the header
	Block     *common.Block // header and metadata
	Size      uint64        // of the marshalled BlockData, as said
	Roots     []byte        // of the chunks, as said
	Announcer peer.ID
	Raw       []byte // the announcement as it travels
}

// A session is one encoding of one block, whoever announced it: its id is the
// same for all who encode the block.
type sessionID uint64

// hop says what the receiver of a chunk does with it.
type hop uint8

const (
	hopAll   hop = iota // passes it on to all members; of an announcement: chunks that are passed on follow
	hopOrgs             // passes it on to its organisation, and to one member of each other
	hopEnter            // passes it on to its organisation
	hopKeep             // keeps it
	hops
)

// A chunk is one that came, or that is handed on. Its leaf is the hash of its
// data, made where nothing is locked.
type chunk struct {
	session sessionID
	segment int
	index   int
	hop     hop
	levels  uint8 // where on its path the hashes stand
	hashes  []hash
	data    []byte // belongs to the event: what is kept of it is copied
	leaf    hash
}

// A piece names a chunk of a session.
type piece struct{ segment, index int }

// number is one that no other piece of a session has.
func (p piece) number() uint64 { return uint64(p.segment)<<8 | uint64(p.index) }

// An event is what happened.
type event interface{ event() }

type (
	evArrived struct {
		peer peer.ID
		org  string
	} // a member is connected
	evLeft      struct{ peer peer.ID }
	evHub       struct{ peer peer.ID } // to whom everybody seeks to be connected
	evAnnounced struct{ head *Head }   // by another member
	evOwn       struct {
		head *Head
		code *Encoding
	} // this node announces, and has the block
	evHave struct {
		number uint64
		hash   [32]byte
	} // the block is here, whichever way it came
	evChunk struct {
		from  peer.ID
		chunk chunk
	}
	evPart struct {
		from    peer.ID
		session sessionID
		length  int
	} // a part of a body is in its place
	evHeaded struct {
		from peer.ID
		hop  hop
		raw  []byte
	} // an announcement came on a stream
	evDone struct {
		from    peer.ID
		session sessionID
	} // a member has the block
	evNeed struct {
		from    peer.ID
		session sessionID
		segment int
		have    bitset
	}
	evAsk struct {
		from    peer.ID
		session sessionID
	} // a member lacks the announcement
	evNone struct {
		from    peer.ID
		session sessionID
	} // a member has nothing of what it was asked for
	evRebuilt struct {
		session sessionID
		segment int
		err     error
	} // the data chunks of a segment are in place
	evJudged struct {
		session sessionID
		err     error   // nil: it is the block that the header names
		lie     bool    // the announcer's doing, provably
		wrong   peer.ID // who sent a body that he never announced; or empty
	}
	evEncoded struct {
		session sessionID
		code    *Encoding // nil: it can't be made
	} // the chunks of a body that came whole
	evTurned struct {
		head   *Head
		reason *wire.Reason
	} // an announcement that can't be taken up: its block is pulled
	evSqueeze struct{ bytes int64 }  // so many are wanted of those kept for others alone
	evBarred  struct{ peer peer.ID } // signed two encodings of one block
	evLink    struct {
		peer    peer.ID
		latency time.Duration // one way
	}
	evMark struct {
		from    peer.ID
		session sessionID
	} // a member has all that was sent to it
	evTick struct{}
)

func (evArrived) event()   {}
func (evLeft) event()      {}
func (evHub) event()       {}
func (evAnnounced) event() {}
func (evOwn) event()       {}
func (evHave) event()      {}
func (evChunk) event()     {}
func (evPart) event()      {}
func (evEncoded) event()   {}
func (evHeaded) event()    {}
func (evDone) event()      {}
func (evNeed) event()      {}
func (evAsk) event()       {}
func (evNone) event()      {}
func (evRebuilt) event()   {}
func (evJudged) event()    {}
func (evTurned) event()    {}
func (evSqueeze) event()   {}
func (evBarred) event()    {}
func (evLink) event()      {}
func (evMark) event()      {}
func (evTick) event()      {}

// An effect is what the shell has to do.
type effect interface{ effect() }

type (
	fxHead struct {
		to      peer.ID
		session sessionID
		raw     []byte
		hop     hop
	}
	fxChunk struct {
		to      peer.ID
		session sessionID
		piece   piece
		hop     hop
		own     bool // from here: its place in the queue is never denied
		urgent  bool // asked for: it goes first
	}
	fxBody struct {
		to      peer.ID
		session sessionID
		size    int
		probe   bool // although the member has it
	} // all of the body, or its beginning, part by part
	fxPart struct {
		to      peer.ID
		session sessionID
		offset  int
		end     int
		probe   bool
	} // the next of a body's; links make them
	fxMark struct {
		to      peer.ID
		session sessionID
	} // ask, behind what waits for a member, whether it has come
	fxSay struct {
		to      peer.ID
		session sessionID
		what    frameType // done, ask or none
	}
	fxNeed struct {
		to      peer.ID
		session sessionID
		segment int
		have    bitset
	}
	fxTell struct {
		session sessionID
		head    *Head
		path    Path
	} // publish the announcement; the body goes this way
	fxRebuild struct {
		session sessionID
		segment int
		shape   Shape
		chunks  [][]byte
	}
	fxJudge struct {
		session sessionID
		head    *Head
		slab    *slab
		direct  *direct // if the body came whole
		came    int     // bytes of chunks and parts, so far
	}
	fxEncode struct {
		session sessionID
		body    []byte
	}
	fxPull struct {
		head   *Head
		from   []peer.ID // who is likely to have it
		turned bool      // its announcement wasn't taken up
	}
	fxExpect struct {
		number uint64
		until  time.Time // zero: no longer
	}
	fxRefuse struct {
		peer   peer.ID
		reason *wire.Reason
	}
	fxLie struct {
		head   *Head
		pieces [][]proof // by segment
		body   []byte    // instead, if it came whole
	}
	fxOpened struct{ bytes int64 } // a session, which may hold so many
	fxClosed struct{ bytes int64 }
	fxRoom   struct{}               // this node may hand out another block
	fxWake   struct{ at time.Time } // replaces the last
)

// proof is a chunk with its whole path.
type proof struct {
	index  int
	levels uint8
	hashes []hash
	data   []byte
}

func (fxHead) effect()    {}
func (fxChunk) effect()   {}
func (fxBody) effect()    {}
func (fxPart) effect()    {}
func (fxMark) effect()    {}
func (fxEncode) effect()  {}
func (fxSay) effect()     {}
func (fxNeed) effect()    {}
func (fxTell) effect()    {}
func (fxRebuild) effect() {}
func (fxJudge) effect()   {}
func (fxPull) effect()    {}
func (fxExpect) effect()  {}
func (fxRefuse) effect()  {}
func (fxLie) effect()     {}
func (fxOpened) effect()  {}
func (fxClosed) effect()  {}
func (fxRoom) effect()    {}
func (fxWake) effect()    {}
