package orderer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
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
// runs.
//
// Raft replays its log after a restart. What was a block by then is known by the index of its entry, which stands in the
// block's signed metadata, and is passed over.
type machine struct {
	c       ChainConfig
	tip     block.Tip
	last    uint64          // index of the entry that made the newest block
	failed  error           // once set, nothing is applied any more
	fail    func(error)     // told of failed, once
	closing <-chan struct{} // ends the wait for a disk
	grown   func(bytes int) // told how much log became blocks
}

var _ raft.BatchingFSM = (*machine)(nil)

// newMachine takes up where the ledger ends. Blocks below base don't come from this log.
func newMachine(c ChainConfig, base uint64) (*machine, error) {
	m := &machine{c: c, tip: c.Ledger.Tip()}
	if m.tip.Height == 0 {
		return nil, fmt.Errorf("the ledger holds no genesis block")
	}
	if m.tip.Height <= base {
		return m, nil
	}
	raw, err := c.Ledger.Block(m.tip.Height - 1)
	if err != nil {
		return nil, fmt.Errorf("read the newest block: %w", err)
	}
	m.last, err = raftIndex(raw)
	return m, err
}

// Apply makes a block of one entry; see ApplyBatch.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch makes a block of each entry and appends them together, but for a configuration, which rules all that
// follows and so is appended first. The result of an entry is nil, or an error that says why it is no block.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
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
	e, err := parseEntry(l.Data)
	if err != nil {
		return block.Verified{}, m.stop(fmt.Errorf("entry %d: %w", l.Index, err))
	}
	if e.sequence != rules.Sequence {
		return block.Verified{}, fmt.Errorf("cut under configuration %d, now it is %d: %w", e.sequence, rules.Sequence, Outdated)
	}
	consenter, err := proto.Marshal(&etcdraft.BlockMetadata{RaftIndex: l.Index})
	if err != nil {
		return block.Verified{}, m.stop(fmt.Errorf("consenter metadata: %w", err))
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
	for {
		err := m.c.Ledger.Append(bs...)
		if err == nil {
			break
		}
		if m.c.Transient == nil || !m.c.Transient(err) {
			return m.stop(fmt.Errorf("append block %d: %w", bs[0].Number(), err))
		}
		m.c.Logger.Error("blocks wait for the disk", "channel", m.c.Name, "block", bs[0].Number(), "reason", err)
		t := time.NewTimer(retryEvery)
		select {
		case <-t.C:
		case <-m.closing:
			t.Stop()
			return m.stop(fmt.Errorf("append block %d: %w: %w", bs[0].Number(), Stopped, err))
		}
	}
	if m.c.Committed == nil {
		return nil
	}
	if err := m.c.Committed(bs); err != nil {
		return m.stop(fmt.Errorf("commit block %d: %w", bs[len(bs)-1].Number(), err))
	}
	return nil
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
	Index  uint64 `json:"raftIndex"` // of the entry that made the newest block
}

// Snapshot marks how far the ledger has come. Append is durable, so the log before may go.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.failed != nil {
		return nil, m.failed
	}
	return mark{Height: m.tip.Height, Index: m.last}, nil
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

// Restore compares a mark with the ledger. A ledger that has less can't be mended from this log.
func (m *machine) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }() // only read
	var k mark
	if err := json.NewDecoder(r).Decode(&k); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if m.tip.Height < k.Height || m.last < k.Index {
		// Stopped, for Raft would try an older snapshot next, and pass over the entries that are gone.
		return m.stop(fmt.Errorf("the ledger has %d blocks (raft index %d), the snapshot was taken at %d (%d): %w",
			m.tip.Height, m.last, k.Height, k.Index, LostBlocks))
	}
	return nil
}
