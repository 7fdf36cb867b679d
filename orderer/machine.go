package orderer

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/wire"
)

// unfit are the reasons for which a batch makes no block whoever signs it. Every node finds the same, so the batch is
// dropped on all of them; to stop instead would let one writer stall the channel.
var unfit = []*wire.Reason{
	block.Empty, block.NotCanonical, block.TooManyTransactions, block.TooLarge, block.WrongChannel,
	block.ConfigNotAlone, block.BadConfig, block.SignedBadConfig,
}

// retryEvery is how often a full disk is tried again.
const retryEvery = 500 * time.Millisecond

// machine is Raft's state machine: it turns agreed batches into blocks. A block's number, hash and signed metadata follow
// from the log alone; only the signature is this node's own. All its fields belong to Raft's FSM goroutine, once Raft
// runs, and are guarded by mu from then on, for a node without a leader takes blocks from elsewhere.
//
// Raft replays its log after a restart. What was a block by then is known by the index of its entry, which stands in the
// block's signed metadata, and is passed over. A leader that has cut off its log sends a snapshot, which says no more than
// how high the chain is: the blocks themselves come from the other orderers, before the next entry is looked at.
type machine struct {
	chain   *Chain
	c       ChainConfig
	mu      sync.Mutex
	tip     block.Tip
	last    uint64          // index of the entry that made the newest block
	missing *mark           // the blocks up to it come from the others; nil: none are missing
	failed  error           // once set, nothing is applied any more
	fail    func(error)     // told of failed, once
	closing context.Context // of the period in which this node takes part; ends the waits for a disk, and for blocks
	grown   func(bytes int) // told how much log became blocks
}

var _ raft.BatchingFSM = (*machine)(nil)

// newMachine takes up where the ledger ends.
func newMachine(closing context.Context, c *Chain, fail func(error)) (*machine, error) {
	m := &machine{chain: c, c: c.c, tip: c.c.Ledger.Tip(), closing: closing, fail: fail, grown: func(int) {}}
	if m.tip.Height == 0 {
		return nil, fmt.Errorf("the ledger holds no genesis block")
	}
	b, err := c.block(m.tip.Height - 1)
	if err != nil {
		return nil, err
	}
	meta, err := metadataOf(b)
	if err != nil {
		return nil, err
	}
	m.last = meta.RaftIndex
	return m, nil
}

// Apply makes a block of one entry; see ApplyBatch.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch makes a block of each entry and appends them together, but for a configuration, which rules all that
// follows and so is appended first. The result of an entry is nil, or an error that says why it is no block.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	results := make([]any, len(logs))
	if m.missing != nil && m.failed == nil {
		if err := m.catchUp(*m.missing); err != nil {
			_ = m.stop(err) // told by failed, below
		}
	}
	var made []block.Verified
	var from int // logs before it are settled
	flush := func(to int) {
		if err := m.append(made); err != nil {
			for i := from; i < to; i++ {
				results[i] = err
			}
		}
		made, from = nil, to
	}
	tip, last, bytes := m.tip, m.last, 0
	for i, l := range logs {
		if m.failed != nil {
			results[i] = m.failed
			continue
		}
		if l.Type != raft.LogCommand || l.Index <= last {
			continue
		}
		v, err := m.make(tip, l)
		if err != nil {
			results[i] = err
			m.c.Logger.Error("batch dropped", "channel", m.c.Name, "index", l.Index, "reason", err)
			continue
		}
		made = append(made, v)
		tip, last, bytes = block.Tip{Height: v.Number() + 1, Hash: v.Hash()}, l.Index, bytes+len(l.Data)
		if v.IsConfig() {
			flush(i + 1)
		}
	}
	flush(len(logs))
	if m.failed == nil {
		m.tip, m.last = tip, last
	}
	m.grown(bytes)
	return results
}

// make makes the block that the entry says, on top of tip.
func (m *machine) make(tip block.Tip, l *raft.Log) (block.Verified, error) {
	rules := m.c.Channel().Rules()
	members := m.chain.members.Load()
	e, err := parseEntry(l.Data)
	if err != nil {
		return block.Verified{}, m.stop(fmt.Errorf("entry %d: %w", l.Index, err))
	}
	if e.sequence != rules.Sequence {
		return block.Verified{}, fmt.Errorf("cut under configuration %d, now it is %d: %w", e.sequence, rules.Sequence, Outdated)
	}
	b := &common.Block{
		Header: &common.BlockHeader{Number: tip.Height, PreviousHash: tip.Hash[:]},
		Data:   &common.BlockData{Data: e.data},
	}
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	lastConfig := rules.LastConfig
	if block.IsConfig(b) {
		lastConfig = tip.Height
		if listed, err := listedIn(b); err == nil { // else it makes no block, as is found below
			members = members.turnInto(listed)
		}
	}
	consenter, err := proto.Marshal(&etcdraft.BlockMetadata{ConsenterIds: members.ids(), NextConsenterId: members.next, RaftIndex: l.Index})
	if err != nil {
		return block.Verified{}, m.stop(fmt.Errorf("consenter metadata: %w", err))
	}
	if err := block.Sign(b, m.c.Signer, lastConfig, consenter); err != nil {
		return block.Verified{}, m.stop(err)
	}
	v, err := verify(rules, tip, b)
	if err != nil && slices.ContainsFunc(unfit, func(r *wire.Reason) bool { return errors.Is(err, r) }) {
		return block.Verified{}, fmt.Errorf("%w: %w", Malformed, err)
	}
	if err != nil {
		return block.Verified{}, m.stop(fmt.Errorf("our own block doesn't verify: %w", err))
	}
	return v, nil
}

func verify(rules *block.Rules, tip block.Tip, b *common.Block) (block.Verified, error) {
	c, err := block.CheckBlock(rules, b)
	if err != nil {
		return block.Verified{}, err
	}
	return block.Verify(rules, tip, c)
}

// append keeps the blocks and hands them on. An error that passes is waited out; any other stops the machine.
func (m *machine) append(bs []block.Verified) error {
	if len(bs) == 0 {
		return m.failed
	}
	if err := m.chain.append(m.closing, bs); err != nil {
		return m.stop(err)
	}
	return nil
}

// catchUp takes the missing blocks from the other orderers. The last of them is the one that the leader's snapshot named,
// or somebody has signed two chains.
func (m *machine) catchUp(want mark) error {
	if err := m.pull(m.closing, want.Height); err != nil {
		return err
	}
	b, err := m.chain.block(want.Height - 1)
	if err != nil {
		return err
	}
	if h := block.HeaderHash(b.Header); hex.EncodeToString(h[:]) != want.Hash {
		return fmt.Errorf("block %d has header hash %x, the log says %s: %w", want.Height-1, h, want.Hash, block.Fork)
	}
	m.missing = nil
	return nil
}

// pull takes blocks from the other orderers up to a height. Their entries may still come by the log, and are passed over.
func (m *machine) pull(ctx context.Context, height uint64) error {
	m.c.Logger.Info("catching up with the other orderers", "channel", m.c.Name, "from", m.tip.Height, "to", height)
	err := m.chain.pull(ctx, func(tip block.Tip) bool { return tip.Height >= height })
	now, rerr := newMachine(m.closing, m.chain, m.fail)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	m.tip, m.last = now.tip, now.last
	if err != nil {
		return fmt.Errorf("catch up from block %d to %d: %w", m.tip.Height, height, err)
	}
	return nil
}

// overtake takes what the other orderers have beyond this node's blocks, which without a leader may not come by the log:
// who was away when it was removed from the consenters hears nothing from Raft any more.
func (m *machine) overtake(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, suspectAfter)
	defer cancel()
	newest, err := m.chain.client.Fetch(ctx, Newest)
	if err != nil {
		return err
	}
	m.c.Shown(newest)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil || newest.Header.Number < m.tip.Height {
		return m.failed
	}
	return m.pull(ctx, newest.Header.Number+1)
}

// stop ends the machine: the log can't be followed further, and what it says is lost if Raft goes on.
func (m *machine) stop(err error) error {
	if m.failed == nil {
		m.failed = err
		m.fail(err)
	}
	return err
}

// mark is all that a snapshot holds: the blocks themselves are in the ledger.
type mark struct {
	Height uint64 `json:"height"`
	Hash   string `json:"hash"`      // of the newest block's header, hex
	Index  uint64 `json:"raftIndex"` // of the entry that made the newest block
}

func (m *machine) mark() mark {
	return mark{Height: m.tip.Height, Hash: hex.EncodeToString(m.tip.Hash[:]), Index: m.last}
}

// Snapshot marks how far the ledger has come. Append is durable, so the log before may go.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil {
		return nil, m.failed
	}
	if m.missing != nil {
		return nil, fmt.Errorf("blocks %d to %d are still to come from the other orderers", m.tip.Height, m.missing.Height-1)
	}
	return m.mark(), nil
}

// Persist writes the mark.
func (k mark) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(k); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to release.
func (mark) Release() {}

// Restore compares a mark with the ledger, and notes which blocks are missing. A ledger that has less, of a node that is
// alone, can't be mended.
func (m *machine) Restore(r io.ReadCloser) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { _ = r.Close() }() // only read
	var k mark
	if err := json.NewDecoder(r).Decode(&k); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if m.tip.Height >= k.Height && m.last >= k.Index {
		return nil
	}
	if m.chain.client == nil || len(m.chain.Consenters()) == 1 {
		// Stopped, for Raft would try an older snapshot next, and pass over the entries that are gone.
		return m.stop(fmt.Errorf("the ledger has %d blocks (raft index %d), the snapshot was taken at %d (%d): %w",
			m.tip.Height, m.last, k.Height, k.Index, LostBlocks))
	}
	m.missing = &k
	return nil
}
