package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/channel/evidence"
	"grapevine/ledger"
	"grapevine/wire"
)

// forks finds out whether the orderers of a channel have signed two headers
// that follow one block. Every validly signed header that comes, by whatever way,
// is shown to it: those of blocks ahead of the ledger are compared with each
// other, the others with what the ledger holds. The first that contradicts another
// stops the channel: at once no block is kept any more; then the proof is written,
// and only then run returns. A channel whose proof lies in the data folder doesn't
// start again.
type forks struct {
	network  string
	ledger   *ledger.Ledger
	conf     func() *channel.Config // in force
	evidence *evidences
	log      *slog.Logger
	once     sync.Once
	found    pair          // the first; set by once
	struck   chan struct{} // closed by once

	mu    sync.Mutex
	heads map[uint64]*common.Block // headers with metadata, by number, not below the height of late; guarded by mu
}

// A pair is two validly signed headers, with metadata, that contradict each other.
type pair struct{ one, other *common.Block }

// comparedBelow is how far below its height a ledger's blocks are compared with
// headers that nobody has asked for.
const comparedBelow = window

func newForks(network string, l *ledger.Ledger, conf func() *channel.Config, e *evidences, log *slog.Logger) *forks {
	return &forks{
		network: network, ledger: l, conf: conf, evidence: e, log: log,
		struck: make(chan struct{}), heads: map[uint64]*common.Block{},
	}
}

// stopped returns why a channel doesn't start, if the proof of a fork is kept.
func (f *forks) stopped() error {
	for _, e := range f.evidence.kept {
		if e.Settled || e.Kind != wire.Evidence_KIND_FORK || e.Channel != f.ledger.Name() {
			continue
		}
		raw, err := f.ledger.Block(0)
		if err != nil {
			return fmt.Errorf("reading block 0: %w", err)
		}
		p, err := evidence.Verify(e.Raw, raw, nil)
		if errors.Is(err, evidence.OtherGenesis) {
			continue // of an earlier channel with this name
		}
		if err != nil {
			f.log.Warn("evidence that proves nothing is passed over", "file", e.File, "err", err)
			continue
		}
		both, err := p.Headers()
		if err != nil {
			return err
		}
		return forked(pair{both[0], both[1]}, e.File)
	}
	return nil
}

// forked is why a channel has stopped.
func forked(p pair, file string) error {
	return &ForkError{
		Number: p.one.Header.Number, Hashes: [2][32]byte{block.HeaderHash(p.one.Header), block.HeaderHash(p.other.Header)}, File: file,
	}
}

// ForkError says that the orderers signed two blocks for one place, and where the
// proof is kept. It is block.Fork.
type ForkError struct {
	Number uint64
	Hashes [2][32]byte // of the headers
	File   string      // the evidence; "" while it isn't written
}

// Error says what the orderers did.
func (e *ForkError) Error() string {
	s := fmt.Sprintf("the orderers signed two blocks %d, %x and %x", e.Number, e.Hashes[0], e.Hashes[1])
	if e.File != "" {
		s += "; the proof is " + e.File
	}
	return s + ": " + block.Fork.Error()
}

// Unwrap makes it a block.Fork.
func (e *ForkError) Unwrap() error { return block.Fork }

// saw compares a validly signed header of a block ahead of the ledger with those
// that came before. It doesn't block, and keeps no data.
func (f *forks) saw(b *common.Block) {
	n, height := b.Header.Number, f.ledger.Height()
	f.mu.Lock()
	first := f.heads[n]
	if first == nil && n >= height && n-height < 2*window {
		f.heads[n] = &common.Block{Header: b.Header, Metadata: b.Metadata}
		if len(f.heads) > 2*window {
			for k := range f.heads {
				if k < height {
					delete(f.heads, k)
				}
			}
		}
	}
	f.mu.Unlock()
	if first != nil {
		f.compare(first, b)
	}
}

// compare stops the channel if two validly signed headers contradict each other.
// It doesn't block.
func (f *forks) compare(one, other *common.Block) {
	if !block.Conflicting(one.Header, other.Header) {
		return
	}
	p := pair{one, other}
	if e, err := evidence.Fork(f.network, f.ledger.Name(), time.Time{}, nil, one, other); err == nil && f.evidence.known(e) {
		return // an operator has dealt with it
	}
	f.ledger.Halt(forked(p, ""))
	f.once.Do(func() {
		f.found = p
		close(f.struck)
	})
}

// below judges the header, with metadata, of a block whose number the ledger
// holds, and that nobody has verified. It is stale, whether or not it contradicts
// what is held; any other error says why its signatures don't hold.
func (f *forks) below(b *common.Block) error {
	n := b.Header.Number
	if at, err := f.ledger.ByHash(block.HeaderHash(b.Header)); err == nil && at == n || n+comparedBelow < f.ledger.Height() {
		return block.Stale
	}
	rules, err := f.rulesBefore(n)
	if err != nil {
		return err
	}
	if err := block.Attest(rules, b); err != nil {
		return err
	}
	own, err := f.header(n)
	if err != nil {
		return err
	}
	f.compare(own, b)
	return block.Stale
}

// shown is saw or below, for a header that was verified.
func (f *forks) shown(b *common.Block) {
	if b.Header.Number >= f.ledger.Height() {
		f.saw(b)
		return
	}
	if err := f.below(b); !errors.Is(err, block.Stale) {
		f.log.Warn("comparing a header with the block held", "number", b.Header.Number, "err", err)
	}
}

// keep writes the proof and returns why the channel has stopped.
func (f *forks) keep(p pair) error {
	file := ""
	configs, err := f.configsBefore(p.one.Header.Number)
	if err == nil {
		var e *wire.Evidence
		if e, err = evidence.Fork(f.network, f.ledger.Name(), time.Now(), configs, p.one, p.other); err == nil {
			file, err = f.evidence.keep(e)
		}
	}
	if err != nil {
		return fmt.Errorf("the proof isn't kept: %w: %w", err, forked(p, ""))
	}
	return forked(p, file)
}

// await returns an error once the orderers are found out, or nil when ctx ends.
func (f *forks) await(ctx context.Context) error {
	select {
	case <-f.struck:
		return block.Fork
	case <-ctx.Done():
		return nil
	}
}

// settle returns err, why the channel has ended, unless it was a fork that made
// it end: then it writes the proof.
func (f *forks) settle(err error) error {
	select {
	case <-f.struck:
		return f.keep(f.found)
	default:
		return err
	}
}

// rulesBefore are those in force before block n, which may be any up to the
// height, and those above under the present configuration.
func (f *forks) rulesBefore(n uint64) (*block.Rules, error) {
	conf := f.conf()
	if n > conf.Number() {
		return conf.Rules(), nil
	}
	at, err := f.configBefore(n)
	if err != nil {
		return nil, err
	}
	raw, err := f.ledger.Block(at)
	if err != nil {
		return nil, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, err
	}
	if conf, err = channel.Parse(b); err != nil {
		return nil, err
	}
	return conf.Rules(), nil
}

// configBefore is the number of the configuration block in force before block
// n > 0: the one before it says.
func (f *forks) configBefore(n uint64) (uint64, error) {
	if latest := f.conf().Number(); n > latest {
		return latest, nil
	}
	if n == 1 {
		return 0, nil
	}
	b, err := f.header(n - 1)
	if err != nil {
		return 0, err
	}
	return block.LastConfigOf(b)
}

// configsBefore are the configuration blocks, from block 0 to the one in force
// before block n.
func (f *forks) configsBefore(n uint64) ([][]byte, error) {
	var list [][]byte
	for {
		at, err := f.configBefore(n)
		if err != nil {
			return nil, err
		}
		raw, err := f.ledger.Block(at)
		if err != nil {
			return nil, err
		}
		list = append(list, raw)
		if at == 0 {
			slices.Reverse(list)
			return list, nil
		}
		n = at
	}
}

// header is that of a block held, with its metadata.
func (f *forks) header(n uint64) (*common.Block, error) {
	raw, err := f.ledger.Block(n)
	if err != nil {
		return nil, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, err
	}
	return &common.Block{Header: b.Header, Metadata: b.Metadata}, nil
}
