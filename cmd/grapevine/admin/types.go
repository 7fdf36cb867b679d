// Package admin is how the command line and a running node speak: the JSON
// objects of the contract for scripts, and (beside this file) the HTTP interface
// that carries them.
//
// The objects are the same whether a verb asks a node or reads a data folder.
// Marshal gives each its apiVersion and kind and writes every field: an unknown
// one is "", 0, false or [], never null and never left out.
package admin

// APIVersion is that of all objects. Within it fields are only added.
const APIVersion = "grapevine/v1"

// Who judged transactions: the values of "validity".
const (
	ValidityNone       = "none"
	ValidityOwn        = "own"
	ValidityFabricPeer = "fabricPeer"
)

// Meta begins every object. Marshal fills it from the Go type's name.
type Meta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// A Problem is something an operator should know, with what to do about it.
type Problem struct {
	Code     string `json:"code"`
	Severity string `json:"severity"` // "error", "warning" or "info"
	Message  string `json:"message"`
	Fix      string `json:"fix"`
}

// A NodeRef names a node.
type NodeRef struct {
	Name   string `json:"name"`
	Org    string `json:"org"`
	MSPID  string `json:"mspId"`
	PeerID string `json:"peerId"`
	PKIID  string `json:"pkiId"`
}

// DevStatus is `dev status`.
type DevStatus struct {
	Meta
	DevState
}

// DevState is what DevStatus and DevUp share.
type DevState struct {
	Ready     bool         `json:"ready"`
	Dashboard string       `json:"dashboard"`
	Channels  []DevChannel `json:"channels"`
	Orderers  []DevOrderer `json:"orderers"`
	Peers     []DevPeer    `json:"peers"` // one per peer and channel
}

// DevChannel is a channel of a development network.
type DevChannel struct {
	Name   string `json:"name"`
	Height uint64 `json:"height"` // highest of any live node
}

// DevOrderer is an ordering node. State is the process: "alive", "dead" or "stopped".
type DevOrderer struct {
	Name   string `json:"name"`
	Leader bool   `json:"leader"`
	Height uint64 `json:"height"`
	PID    int    `json:"pid"`
	State  string `json:"state"`
}

// DevPeer is a peer on one channel.
type DevPeer struct {
	NodeRef
	PID       int    `json:"pid"`
	State     string `json:"state"`
	Leader    bool   `json:"leader"`
	Anchor    bool   `json:"anchor"`
	Channel   string `json:"channel"`
	Height    uint64 `json:"height"`
	TipHash   string `json:"tipHash"`
	StateHash string `json:"stateHash"`
	Members   int    `json:"members"`
}

// DevUp is `dev up`.
type DevUp struct {
	Meta
	DevState
	Dir       string    `json:"dir"`
	Context   string    `json:"context"`
	InProcess bool      `json:"inProcess"`
	ElapsedMs int64     `json:"elapsedMs"`
	Steps     []DevStep `json:"steps"`
	Next      []string  `json:"next"`
}

// DevStep is one step of `dev up`.
type DevStep struct {
	Name      string `json:"name"`
	Detail    string `json:"detail"`
	ElapsedMs int64  `json:"elapsedMs"`
}

// DevTx is `dev tx`.
type DevTx struct {
	Meta
	Channel    string   `json:"channel"`
	Sent       int      `json:"sent"`
	Accepted   int      `json:"accepted"`
	Committed  int      `json:"committed"`
	Failed     int      `json:"failed"`
	FirstBlock uint64   `json:"firstBlock"`
	LastBlock  uint64   `json:"lastBlock"`
	ElapsedMs  int64    `json:"elapsedMs"`
	TxPerSec   float64  `json:"txPerSec"`
	LatencyMs  Latency3 `json:"latencyMs"`
}

// Latency3 is a short latency summary, in milliseconds.
type Latency3 struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Status is `status`: one node.
type Status struct {
	Meta
	NodeRef
	Role         string          `json:"role"` // "peer", "orderer" or "relay"
	PID          int             `json:"pid"`
	Version      string          `json:"version"`
	StartedAt    Time            `json:"startedAt"`
	UptimeSec    int64           `json:"uptimeSec"`
	Healthy      bool            `json:"healthy"`
	Problems     []Problem       `json:"problems"`
	Listen       []string        `json:"listen"`
	Operations   string          `json:"operations"`
	Channels     []StatusChannel `json:"channels"`
	Certificates []Certificate   `json:"certificates"`
}

// StatusChannel is a channel of a node.
type StatusChannel struct {
	Name     string      `json:"name"`
	Height   uint64      `json:"height"`
	Lag      uint64      `json:"lag"`
	TipHash  string      `json:"tipHash"`
	Leader   string      `json:"leader"`
	IsLeader bool        `json:"isLeader"`
	Source   BlockSource `json:"source"`
	Alive    int         `json:"alive"`
	Suspect  int         `json:"suspect"`
	Dead     int         `json:"dead"`
	Validity string      `json:"validity"`

	StateHash string   `json:"stateHash"`
	Progress  Progress `json:"progress"` // of catching up
}

// BlockSource says where the last block came from: "orderer", "push", "pull",
// "state" or "none".
type BlockSource struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Certificate is one of a node's own: Use is "sign" or "tls".
type Certificate struct {
	Use          string `json:"use"`
	Subject      string `json:"subject"`
	Issuer       string `json:"issuer"`
	NotAfter     Time   `json:"notAfter"`
	ExpiresInSec int64  `json:"expiresInSec"`
}

// PeerList is `peers ls`.
type PeerList struct {
	Meta
	Items []Peer `json:"items"`
}

// Peer is a node as another one sees it: State is "alive", "suspect" or "dead".
type Peer struct {
	NodeRef
	Endpoint         string   `json:"endpoint"`
	ExternalEndpoint string   `json:"externalEndpoint"`
	Addrs            []string `json:"addrs"`
	State            string   `json:"state"`
	Self             bool     `json:"self"`
	Anchor           bool     `json:"anchor"`
	Connected        bool     `json:"connected"`
	Transport        string   `json:"transport"` // "tcp", "quic" or ""
	RTTMs            float64  `json:"rttMs"`
	Channels         []string `json:"channels"`
	LastSeen         Time     `json:"lastSeen"`
	Incarnation      uint64   `json:"incarnation"`
}

// ChannelList is `channel ls`.
type ChannelList struct {
	Meta
	Items []ChannelItem `json:"items"`
}

// ChannelItem is a channel in short.
type ChannelItem struct {
	Name      string `json:"name"`
	Height    uint64 `json:"height"`
	TipHash   string `json:"tipHash"`
	Halted    bool   `json:"halted"`
	StateHash string `json:"stateHash"`
}

// ChannelInfo is `channel info`.
type ChannelInfo struct {
	Meta
	Name           string           `json:"name"`
	Height         uint64           `json:"height"`
	Lag            uint64           `json:"lag"`
	TipHash        string           `json:"tipHash"`
	PreviousHash   string           `json:"previousHash"`
	GenesisHash    string           `json:"genesisHash"`
	StateHash      string           `json:"stateHash"`
	ConfigSequence uint64           `json:"configSequence"`
	ConfigBlock    uint64           `json:"configBlock"`
	Consensus      string           `json:"consensus"` // "etcdraft" or "BFT"
	Orgs           []ChannelOrg     `json:"orgs"`
	Orderers       []ChannelOrderer `json:"orderers"`
	Validity       string           `json:"validity"`
	Halted         bool             `json:"halted"`
	HaltCode       string           `json:"haltCode"`
}

// ChannelOrg is an organisation of a channel.
type ChannelOrg struct {
	Org     string   `json:"org"`
	MSPID   string   `json:"mspId"`
	Anchors []string `json:"anchors"`
	Alive   int      `json:"alive"`
}

// ChannelOrderer is where a channel's blocks can be had.
type ChannelOrderer struct {
	Endpoint string `json:"endpoint"`
	MSPID    string `json:"mspId"`
}

// ChannelLeaderList is `channel leader`.
type ChannelLeaderList struct {
	Meta
	Channel string          `json:"channel"`
	Items   []ChannelLeader `json:"items"`
}

// ChannelLeader is one organisation's: Mode is "dynamic", "static", "standby" or
// "unknown".
type ChannelLeader struct {
	Org            string    `json:"org"`
	MSPID          string    `json:"mspId"`
	Mode           string    `json:"mode"`
	Leader         string    `json:"leader"`
	Leaders        []string  `json:"leaders"`
	PeerID         string    `json:"peerId"`
	Since          Time      `json:"since"`
	Term           uint64    `json:"term"`
	HeartbeatAgeMs int64     `json:"heartbeatAgeMs"`
	Orderer        string    `json:"orderer"`
	Problems       []Problem `json:"problems"`
}

// ChannelMemberList is `channel members`; Height is the asked node's.
type ChannelMemberList struct {
	Meta
	Channel string          `json:"channel"`
	Height  uint64          `json:"height"`
	Items   []ChannelMember `json:"items"`
}

// ChannelMember is a member of a channel as the asked node sees it.
type ChannelMember struct {
	NodeRef
	Endpoint string `json:"endpoint"`
	State    string `json:"state"`
	Self     bool   `json:"self"`
	Leader   bool   `json:"leader"`
	Anchor   bool   `json:"anchor"`
	Height   uint64 `json:"height"`
	Lag      uint64 `json:"lag"`
	TipHash  string `json:"tipHash"`
	LastSeen Time   `json:"lastSeen"`
}

// Block is `block get` and a line of `block tail`.
type Block struct {
	Meta
	Channel        string      `json:"channel"`
	Number         uint64      `json:"number"`
	Hash           string      `json:"hash"`
	PreviousHash   string      `json:"previousHash"`
	DataHash       string      `json:"dataHash"`
	Size           int         `json:"size"`
	Config         bool        `json:"config"`
	LastConfig     uint64      `json:"lastConfig"`
	TxCount        int         `json:"txCount"`
	Txs            []Tx        `json:"txs"`
	Signatures     []Signature `json:"signatures"`
	CommitHash     string      `json:"commitHash"`
	ValiditySource string      `json:"validitySource"`
}

// Tx is a transaction of a block. Type is "config", "endorser" or another.
type Tx struct {
	Index        int    `json:"index"`
	ID           string `json:"id"`
	Type         string `json:"type"`
	MSPID        string `json:"mspId"`
	Subject      string `json:"subject"`
	Time         Time   `json:"time"`
	Size         int    `json:"size"`
	Validity     string `json:"validity"`
	ValidityCode int    `json:"validityCode"`
	Payload      string `json:"payload"` // base64; "" without --full
}

// Signature is an orderer's on a block.
type Signature struct {
	MSPID       string `json:"mspId"`
	Subject     string `json:"subject"`
	ConsenterID uint32 `json:"consenterId"`
	Valid       bool   `json:"valid"`
}

// BlockVerification is `block verify`.
type BlockVerification struct {
	Meta
	Channel   string         `json:"channel"`
	From      uint64         `json:"from"`
	To        uint64         `json:"to"`
	Checked   uint64         `json:"checked"`
	OK        bool           `json:"ok"`
	Policy    string         `json:"policy"`
	Failures  []BlockFailure `json:"failures"`
	ElapsedMs int64          `json:"elapsedMs"`
}

// BlockTrace is `block trace`: how a block came to the channel's members.
type BlockTrace struct {
	Meta
	Channel  string          `json:"channel"`
	Number   uint64          `json:"number"`
	Hash     string          `json:"hash"`
	Asked    int             `json:"asked"`    // members, this one included
	Known    int             `json:"known"`    // of which so many could tell
	SpreadMs float64         `json:"spreadMs"` // from the first to the last of these
	Items    []BlockSighting `json:"items"`    // by time; who couldn't tell at the end
}

// BlockSighting is how a block came to one member. Times are by the asked node's
// clock.
type BlockSighting struct {
	NodeRef
	Self       bool    `json:"self"`
	Path       string  `json:"path"`       // "orderer", "inline", "direct", "striped", "pull", or "" if it couldn't tell
	From       string  `json:"from"`       // the peer's or orderer's name
	FromPeerID string  `json:"fromPeerId"` // or ""
	At         Time    `json:"at"`
	AfterMs    float64 `json:"afterMs"`   // the first one had it
	DurableMs  float64 `json:"durableMs"` // from At to its ledger; 0: not yet
	Copies     float64 `json:"copies"`    // bytes that came until then, for each of the block's data
	Message    string  `json:"message"`   // why it couldn't tell
}

// BlockExport is `block export`.
type BlockExport struct {
	Meta
	Channel string `json:"channel"`
	File    string `json:"file"`
	Blocks  uint64 `json:"blocks"`
	Size    uint64 `json:"size"`
}

// BlockFailure is a check that a block failed.
type BlockFailure struct {
	Number  uint64 `json:"number"`
	Code    string `json:"code"`
	Check   string `json:"check"`
	Message string `json:"message"`
}

// StateEntry is `state get` and a line of `state dump`.
type StateEntry struct {
	Meta
	Channel   string     `json:"channel"`
	Namespace string     `json:"namespace"`
	Key       string     `json:"key"`
	Value     string     `json:"value"` // base64
	Text      string     `json:"text"`  // the value if it is UTF-8
	Version   KeyVersion `json:"version"`
	Height    uint64     `json:"height"`
	// Collection is "" for public keys. Of private data Key is the hash of the key,
	// in hexadecimal, and Value that of the value.
	Collection string `json:"collection"`
}

// KeyVersion is where a key was last written.
type KeyVersion struct {
	Block uint64 `json:"block"`
	Tx    int    `json:"tx"`
}

// StateHash is `state hash`.
type StateHash struct {
	Meta
	Channel   string `json:"channel"`
	Height    uint64 `json:"height"`
	TipHash   string `json:"tipHash"`
	StateHash string `json:"stateHash"`
	Algorithm string `json:"algorithm"`
}

// A ConfigUpdate is an update of a channel's configuration.
type ConfigUpdate struct {
	Meta
	Channel   string         `json:"channel"`
	Changes   []ConfigChange `json:"changes"` // sorted by path
	Signers   []ConfigSigner `json:"signers"` // of its signatures, unverified
	File      string         `json:"file"`
	Submitted string         `json:"submitted"` // address of the orderer that took it
}

// A ConfigChange is one group, value or policy that an update writes.
type ConfigChange struct {
	Path    string `json:"path"`
	Version uint64 `json:"version"`
}

// A ConfigSigner has signed an update.
type ConfigSigner struct {
	MSPID string `json:"mspId"`
	Name  string `json:"name"`
}

// A ConfigConversion is a configuration rewritten for Grapevine.
type ConfigConversion struct {
	Meta
	YAML    string       `json:"yaml"`
	Dropped []DroppedKey `json:"dropped"` // sorted by key
}

// A DroppedKey stood in the original alone.
type DroppedKey struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

// A Doctor is the outcome of checks.
type Doctor struct {
	Meta
	OK     bool          `json:"ok"` // nothing failed
	Target string        `json:"target"`
	Pass   int           `json:"pass"`
	Warn   int           `json:"warn"`
	Fail   int           `json:"fail"`
	Skip   int           `json:"skip"`
	Checks []DoctorCheck `json:"checks"`
}

// A DoctorCheck is one of them.
type DoctorCheck struct {
	Code      string `json:"code"`
	Title     string `json:"title"`
	Status    string `json:"status"` // "pass", "warn", "fail" or "skip"
	Message   string `json:"message"`
	Why       string `json:"why"`
	Fix       string `json:"fix"`
	ElapsedMs int64  `json:"elapsedMs"`
}
