package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/ledger"
	"grapevine/orderer"
)

// What an ordering node is to a channel, and how far it has come, in the words
// of Fabric's channel participation.
const (
	RelationConsenter = "consenter"
	RelationFollower  = "follower"

	StatusActive     = "active"
	StatusOnboarding = "onboarding" // below the block that it joined by
	StatusFailed     = "failed"
)

// ErrRemoving says that the channel is being removed from this ordering node.
var ErrRemoving = errors.New("the channel is being removed")

// Folders of files, one for each channel, in an ordering node's data folder.
const (
	joiningDir  = "joining"  // the block that was joined by, until the ledger has it
	removingDir = "removing" // empty: the channel is to be removed
)

// A Participation is what an ordering node is to a channel.
type Participation struct {
	Name, Relation, Status string
	Height                 uint64
	Err                    error // why it failed; nil otherwise
}

// A joining is a channel joined by a later configuration block, whose block 0
// isn't here yet.
type joining struct {
	conf   *channel.Config // of the block joined by
	cancel context.CancelFunc
	done   chan struct{}
}

// Join makes this node order the channel of a genesis or configuration block, or
// follow it if the configuration doesn't name this node. Who hands the block
// over is trusted. By a later block it takes the earlier ones from the orderers
// that the block names, and they must lead to it. Joining again changes nothing;
// by another genesis block it is [ErrJoined].
func (o *Orderer) Join(b *common.Block) error {
	if b.GetHeader().GetNumber() > 0 {
		return o.joinLater(b)
	}
	raw, err := proto.Marshal(b)
	if err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	v, err := block.Genesis(raw)
	if err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	conf, err := orderable(b)
	if err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	name := conf.Channel()
	if err := o.free(name); err != nil {
		return err
	}
	if o.joins[name] != nil {
		return nil
	}
	led, err := o.db.Channel(name)
	if errors.Is(err, ledger.ErrNotFound) {
		led, err = o.db.Create(name, v)
	}
	if err != nil {
		return fmt.Errorf("channel %s: %w", name, err)
	}
	if err := sameGenesis(led, v.Hash()); err != nil {
		return err
	}
	if o.chains[name] != nil {
		return nil
	}
	return o.add(led)
}

func (o *Orderer) joinLater(b *common.Block) error {
	conf, err := orderable(b)
	if err != nil {
		return fmt.Errorf("configuration block: %w", err)
	}
	name := conf.Channel()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.free(name); err != nil {
		return err
	}
	if o.joins[name] != nil || o.chains[name] != nil {
		return nil
	}
	if len(conf.Orderers()) == 0 {
		return fmt.Errorf("channel %s: %w", name, orderer.NoEndpoint)
	}
	raw, err := proto.Marshal(b)
	if err != nil {
		return fmt.Errorf("configuration block: %w", err)
	}
	if err := o.mark(joiningDir, name, raw); err != nil {
		return err
	}
	o.pins[name] = pin{b.Header.Number, block.HeaderHash(b.Header)}
	o.onboard(conf)
	return nil
}

// pinned holds a block against the one that its channel was joined by.
func (o *Orderer) pinned(v block.Verified, name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, ok := o.pins[name]
	if !ok || v.Number() != p.number {
		return nil
	}
	if v.Hash() != p.hash {
		return fmt.Errorf("block %d has header hash %x, the channel was joined by %x: %w", p.number, v.Hash(), p.hash, block.Fork)
	}
	delete(o.pins, name)
	return o.unmark(joiningDir, name)
}

// orderable reads the configuration of a channel that this node can order.
func orderable(b *common.Block) (*channel.Config, error) {
	conf, err := channel.Parse(b)
	if err != nil {
		return nil, err
	}
	if conf.Consensus() != channel.ConsensusRaft {
		return nil, fmt.Errorf("channel %s: consensus type %s: %w", conf.Channel(), conf.Consensus(), orderer.WrongConsensus)
	}
	return conf, nil
}

// free says whether a channel may be joined. mu is held.
func (o *Orderer) free(name string) error {
	switch {
	case o.closed:
		return errors.New("the ordering node is closed")
	case o.removing[name]:
		return fmt.Errorf("channel %s: %w", name, ErrRemoving)
	}
	return nil
}

// onboard begins to look for a channel's block 0. mu is held, or the node is
// being opened.
func (o *Orderer) onboard(conf *channel.Config) {
	j := &joining{conf: conf, done: make(chan struct{})}
	o.joins[conf.Channel()] = j
	if o.seek != nil {
		o.seek(j)
	}
}

// findGenesis asks the orderers for block 0 until one has it, and then opens the
// channel.
func (o *Orderer) findGenesis(ctx context.Context, j *joining) error {
	name := j.conf.Channel()
	client := orderer.NewClient(orderer.ClientConfig{
		Channel: name, Signer: o.signer, ClientCert: func() *tls.Certificate { return &o.pairs()[0] }, Avoid: o.keys, Logger: o.log,
		Endpoints: func() []orderer.Endpoint { return endpointsOf(j.conf) },
	})
	for b, err := range client.Blocks(ctx, 0) {
		if err != nil {
			return nil // ctx has ended
		}
		err = o.take(b, name)
		if err == nil {
			return nil
		}
		o.log.Warn("an orderer's block 0 is refused", "channel", name, "err", err)
		t := time.NewTimer(time.Second)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
	return nil
}

// take opens a channel by the block 0 that an orderer gave.
func (o *Orderer) take(b *common.Block, name string) error {
	raw, err := proto.Marshal(b)
	if err != nil {
		return err
	}
	v, err := block.Genesis(raw)
	if err != nil {
		return err
	}
	conf, err := orderable(b)
	if err != nil {
		return err
	}
	if conf.Channel() != name {
		return fmt.Errorf("it is of channel %s: %w", conf.Channel(), orderer.UnknownChannel)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.joins[name] == nil || o.closed {
		return nil // removed meanwhile
	}
	led, err := o.db.Create(name, v)
	if err != nil {
		return err
	}
	delete(o.joins, name)
	return o.add(led)
}

// Remove ends what this node does for a channel, and deletes its blocks and its
// part of Raft's log. [ErrNoChannel]: there is none; [ErrRemoving]: it is going
// already.
func (o *Orderer) Remove(ctx context.Context, name string) error {
	o.mu.Lock()
	c, j := o.chains[name], o.joins[name]
	switch {
	case o.removing[name]:
		o.mu.Unlock()
		return fmt.Errorf("channel %s: %w", name, ErrRemoving)
	case c == nil && j == nil:
		o.mu.Unlock()
		return fmt.Errorf("channel %s: %w", name, ErrNoChannel)
	}
	if err := o.mark(removingDir, name, nil); err != nil {
		o.mu.Unlock()
		return err
	}
	o.removing[name] = true
	delete(o.chains, name)
	delete(o.joins, name)
	delete(o.pins, name)
	o.mu.Unlock()
	// From here on it goes whatever becomes of ctx: the node finishes it at its
	// next start, at the latest.
	err := o.end(ctx, c, j)
	if err == nil {
		err = o.erase(name)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		delete(o.removing, name)
	}
	return err
}

func (o *Orderer) end(ctx context.Context, c *ordered, j *joining) error {
	cancel, done := context.CancelFunc(nil), (chan struct{})(nil)
	if j != nil {
		cancel, done = j.cancel, j.done
	} else {
		cancel, done = c.stop, c.done
	}
	if cancel != nil {
		cancel()
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if c == nil {
		return nil
	}
	return c.close()
}

// erase deletes what there is of a channel, and last of all the note that it is
// to be deleted.
func (o *Orderer) erase(name string) error {
	if err := o.db.Drop(name); err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	return errors.Join(os.RemoveAll(o.raftDir(name)), o.unmark(joiningDir, name), o.unmark(removingDir, name))
}

// recover takes up joins and removals that the last run left unfinished.
func (o *Orderer) recover() error {
	going, err := o.marked(removingDir)
	if err != nil {
		return err
	}
	for name := range going {
		if err := o.erase(name); err != nil {
			return fmt.Errorf("removing channel %s: %w", name, err)
		}
	}
	coming, err := o.marked(joiningDir)
	if err != nil {
		return err
	}
	for name, raw := range coming {
		b, err := block.Decode(raw)
		if err != nil {
			return fmt.Errorf("joining channel %s: %w", name, err)
		}
		conf, err := orderable(b)
		if err != nil {
			return fmt.Errorf("joining channel %s: %w", name, err)
		}
		o.pins[name] = pin{b.Header.Number, block.HeaderHash(b.Header)}
		if _, err := o.db.Channel(name); errors.Is(err, ledger.ErrNotFound) {
			o.onboard(conf)
		}
	}
	return nil
}

func (o *Orderer) mark(dir, name string, content []byte) error {
	dir = filepath.Join(o.cfg.Dir, dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, name), content, 0o600)
}

func (o *Orderer) unmark(dir, name string) error {
	err := os.Remove(filepath.Join(o.cfg.Dir, dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// marked are the files of a folder, by name.
func (o *Orderer) marked(dir string) (map[string][]byte, error) {
	dir = filepath.Join(o.cfg.Dir, dir)
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	out := map[string][]byte{}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue // a write that was cut off
		}
		raw, rerr := os.ReadFile(filepath.Join(dir, f.Name()))
		err = errors.Join(err, rerr)
		out[f.Name()] = raw
	}
	return out, err
}

// Participation tells what this node is to a channel; [ErrNoChannel] if nothing.
func (o *Orderer) Participation(name string) (Participation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if j := o.joins[name]; j != nil {
		p := Participation{Name: name, Relation: RelationFollower, Status: StatusOnboarding}
		if o.seated(j.conf) {
			p.Relation = RelationConsenter
		}
		return p, nil
	}
	c := o.chains[name]
	if c == nil {
		return Participation{}, fmt.Errorf("channel %s: %w", name, ErrNoChannel)
	}
	p := Participation{Name: name, Relation: RelationFollower, Status: StatusActive, Height: c.ledger.Height(), Err: c.halted()}
	if _, ok := c.chain.Self(); ok {
		p.Relation = RelationConsenter
	}
	switch _, pinned := o.pins[name]; {
	case p.Err != nil:
		p.Status = StatusFailed
	case pinned:
		p.Status = StatusOnboarding
	}
	return p, nil
}

// Participations are those of all channels, in no order.
func (o *Orderer) Participations() []Participation {
	o.mu.Lock()
	var names []string
	for name := range o.chains {
		names = append(names, name)
	}
	for name := range o.joins {
		names = append(names, name)
	}
	o.mu.Unlock()
	var out []Participation
	for _, name := range names {
		if p, err := o.Participation(name); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// seated says whether a configuration names this node among the consenters.
func (o *Orderer) seated(conf *channel.Config) bool {
	for _, c := range conf.Consenters() {
		for _, text := range [][]byte{c.ServerTLS, c.ClientTLS} {
			if orderer.Named(text, o.keys()) {
				return true
			}
		}
	}
	return false
}
