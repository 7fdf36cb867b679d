package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
)

// An ordering node joins, tells what it is to a channel, and removes it with all
// it kept; what was left unfinished is finished at the next start.
func TestParticipation(t *testing.T) {
	ctx := patience(t)
	b := newBench(t, 1)
	b.start(0)
	o := b.nodes[0]
	b.submit(ctx)
	p, err := o.Participation("mychannel")
	require.NoError(t, err)
	require.Equal(t, Participation{Name: "mychannel", Relation: RelationConsenter, Status: StatusActive, Height: 2}, p)
	_, err = o.Participation("other")
	require.ErrorIs(t, err, ErrNoChannel)
	require.ErrorIs(t, o.Remove(ctx, "other"), ErrNoChannel)

	require.NoError(t, o.Join(b.w.genesis("other", 0)))
	require.Len(t, o.Participations(), 2)
	require.NoError(t, o.Remove(ctx, "other"))
	require.Len(t, o.Participations(), 1)
	require.NoDirExists(t, filepath.Join(b.configs[0].Dir, "raft", "other"))
	require.NoError(t, o.Join(b.w.genesis("other", 0)), "another one of that name")

	// As if the node had ended in the midst.
	require.NoError(t, o.mark(removingDir, "other", nil))
	b.stop(0)
	b.start(0)
	require.Len(t, b.nodes[0].Participations(), 1)
	files, err := os.ReadDir(filepath.Join(b.configs[0].Dir, removingDir))
	require.NoError(t, err)
	require.Empty(t, files)
	b.submit(ctx)
}

// Who joins by a later configuration block takes the earlier ones from the
// orderers that it names, though it restarts meanwhile; one that they don't lead
// to fails.
func TestJoinsByALaterBlock(t *testing.T) {
	ctx := patience(t)
	b := newBench(t, 1)
	c := b.w.ordering()
	var err error
	c.Name = "orderer9"
	c.Signer, err = b.w.orderer.Identity("orderer9", "orderer")
	require.NoError(t, err)
	c.Certificate, err = b.w.orderer.TLS("localhost", "localhost", "127.0.0.1")
	require.NoError(t, err)
	// run opens the node and runs it while f looks at it.
	run := func(f func(o *Orderer)) {
		t.Helper()
		o, err := OpenOrderer(c)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- o.Run(ctx) }()
		f(o)
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, o.Close())
	}
	state := func(o *Orderer) Participation {
		p, err := o.Participation("mychannel")
		require.NoError(t, err)
		return p
	}
	// No configuration block lies behind block 0: this one is of another chain.
	later := proto.Clone(b.genesis).(*common.Block)
	later.Header.Number, later.Header.PreviousHash = 2, make([]byte, 32)
	run(func(o *Orderer) {
		require.NoError(t, o.Join(later))
		require.NoError(t, o.Join(later), "again")
		require.Equal(t, Participation{Name: "mychannel", Relation: RelationFollower, Status: StatusOnboarding}, state(o), "nobody answers yet")
	})
	b.start(0)
	for range 3 {
		b.submit(ctx)
	}
	run(func(o *Orderer) {
		until(t, ctx, func() bool { return state(o).Status == StatusFailed })
		require.ErrorIs(t, state(o).Err, block.Fork)
		require.NoError(t, o.Remove(ctx, "mychannel"))
	})

	// The block that the chain has does.
	led, conf, err := b.nodes[0].Channel("mychannel")
	require.NoError(t, err)
	raw, err := led.Block(2)
	require.NoError(t, err)
	there, err := block.Decode(raw)
	require.NoError(t, err)
	run(func(o *Orderer) {
		o.mu.Lock()
		o.pins["mychannel"] = pin{2, block.HeaderHash(there.Header)}
		o.onboard(conf)
		o.mu.Unlock()
		until(t, ctx, func() bool { return state(o).Status == StatusActive && state(o).Height == led.Height() })
	})
}
