package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel/evidence"
	"grapevine/msp"
)

// signedBlock is a block that the ordering service's signer vouches for,
// whatever it follows.
func signedBlock(t *testing.T, c *Channel, s msp.Signer, number uint64, prev byte, text string) *block.Checked {
	t.Helper()
	previous := make([]byte, 32)
	previous[0] = prev
	return signedOn(t, c, s, number, previous, text)
}

func signedOn(t *testing.T, c *Channel, s msp.Signer, number uint64, previous []byte, text string) *block.Checked {
	t.Helper()
	env, err := tx.SignedEnvelope(common.HeaderType_MESSAGE, c.Name(), &common.ConfigValue{Value: []byte(text)}, s, time.Now())
	require.NoError(t, err)
	raw, err := proto.Marshal(env)
	require.NoError(t, err)
	b := &common.Block{
		Header: &common.BlockHeader{Number: number, PreviousHash: previous},
		Data:   &common.BlockData{Data: [][]byte{raw}},
	}
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	require.NoError(t, block.Sign(b, s, 0, nil))
	checked, err := block.CheckBlock(c.Config().Rules(), b)
	require.NoError(t, err)
	return checked
}

// TestForkStopsTheChannelAlone is B5, S2 and S10: of two blocks that the orderers
// signed for one place none is chosen, other channels go on, and the proof is kept;
// the channel stays stopped until an operator has dealt with it.
func TestForkStopsTheChannelAlone(t *testing.T) {
	w := newWorld(t)
	cfg, _ := w.config(0, "peer0.org1")
	first := w.genesis("forked", 0)
	n, err := Open(cfg)
	require.NoError(t, err)
	for _, g := range []*common.Block{first, w.genesis("other", 0)} {
		_, err := n.Join(t.Context(), g)
		require.NoError(t, err)
	}
	stop := running(t, n)
	defer func() { stop() }()
	orderer, err := w.orderer.Identity("orderer1", "orderer")
	require.NoError(t, err)
	forked, err := n.Channel("forked")
	require.NoError(t, err)
	other, err := n.Channel("other")
	require.NoError(t, err)

	// Of two blocks that follow different ones, the link decides.
	forked.sync.Offer(signedBlock(t, forked, orderer, 3, 1, "a"), n.PeerID(), "push")
	forked.sync.Offer(signedBlock(t, forked, orderer, 3, 2, "b"), n.PeerID(), "push")
	require.NoError(t, forked.Halted())

	one, another := signedBlock(t, forked, orderer, 2, 7, "one"), signedBlock(t, forked, orderer, 2, 7, "another")
	forked.sync.Offer(one, n.PeerID(), "push")
	forked.sync.Offer(another, n.PeerID(), "push")
	require.ErrorIs(t, forked.Halted(), block.Fork, "at once")
	ended(t, forked)
	require.ErrorIs(t, forked.Halted(), block.Fork)
	require.NoError(t, other.Halted())
	require.EqualValues(t, 1, forked.Ledger().Height(), "what was held is still read")

	kept, err := ReadEvidence(cfg.Dir)
	require.NoError(t, err)
	require.Len(t, kept, 1)
	require.Contains(t, forked.Halted().Error(), kept[0].File)
	raw, err := proto.Marshal(first)
	require.NoError(t, err)
	proof, err := evidence.Verify(kept[0].Raw, raw, nil)
	require.NoError(t, err)
	require.Len(t, proof.Accused, 1)
	require.Equal(t, orderer.Identity().PKIID(), proof.Accused[0].PKIID())

	again := func() *Channel {
		stop()
		n, err := Open(cfg)
		require.NoError(t, err)
		stop = running(t, n)
		c, err := n.Channel("forked")
		require.NoError(t, err)
		return c
	}
	forked = again()
	ended(t, forked)
	require.ErrorIs(t, forked.Halted(), block.Fork)
	require.EqualValues(t, 1, forked.Ledger().Height())

	settled := filepath.Join(EvidenceFolder(cfg.Dir), "settled")
	require.NoError(t, os.Mkdir(settled, 0o700))
	require.NoError(t, os.Rename(kept[0].File, filepath.Join(settled, filepath.Base(kept[0].File))))
	forked = again()
	require.NoError(t, forked.Halted())
	forked.sync.Offer(one, n.PeerID(), "push")
	forked.sync.Offer(another, n.PeerID(), "push")
	require.NoError(t, forked.Halted(), "that is settled")
	forked.sync.Offer(signedBlock(t, forked, orderer, 2, 7, "a third"), n.PeerID(), "push")
	ended(t, forked)
	kept, err = ReadEvidence(cfg.Dir)
	require.NoError(t, err)
	require.Len(t, kept, 2)
}

func ended(t *testing.T, c *Channel) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(time.Minute):
		t.Fatal("the channel goes on")
	}
}

// A fork is found wherever its two headers meet: in the ledger and announced
// (B8), announced without their bodies, shown by another orderer. Copies of a
// block accuse nobody, whoever signed them.
func TestForksMeet(t *testing.T) {
	w := newWorld(t)
	orderer, err := w.orderer.Identity("orderer1", "orderer")
	require.NoError(t, err)
	copier, err := w.orderer.Identity("orderer2", "orderer")
	require.NoError(t, err)
	head := func(c *block.Checked) *common.Block {
		return &common.Block{Header: c.Block().Header, Metadata: c.Block().Metadata}
	}
	for name, meet := range map[string]func(t *testing.T, c *Channel){
		"below the height": func(t *testing.T, c *Channel) {
			own := following(t, c, orderer, "own")
			again, err := block.SignAgain(own.Block(), copier)
			require.NoError(t, err)
			false1 := following(t, c, copier, "false")
			unsigned := proto.Clone(head(false1)).(*common.Block)
			unsigned.Header.DataHash[0] ^= 1
			c.sync.Offer(own, c.node.PeerID(), "push")
			require.NoError(t, c.ledger.Wait(patience(t), 2))
			require.ErrorIs(t, c.forks.below(head(own)), block.Stale)
			require.ErrorIs(t, c.forks.below(&common.Block{Header: again.Header, Metadata: again.Metadata}), block.Stale)
			require.ErrorIs(t, c.forks.below(unsigned), block.BadSignature)
			require.NoError(t, c.Halted())
			require.ErrorIs(t, c.forks.below(head(false1)), block.Stale)
		},
		"headers alone": func(t *testing.T, c *Channel) {
			c.forks.shown(head(signedBlock(t, c, orderer, 9, 1, "a")))
			c.forks.shown(head(signedBlock(t, c, copier, 9, 2, "of another channel")))
			require.NoError(t, c.Halted())
			c.forks.shown(head(signedBlock(t, c, copier, 9, 1, "b")))
		},
		"an orderer's tip": func(t *testing.T, c *Channel) {
			own := signedBlock(t, c, orderer, 2, 1, "a")
			c.sync.Offer(own, c.node.PeerID(), "push")
			require.NoError(t, c.attest(head(own)))
			require.NoError(t, c.attest(head(signedBlock(t, c, orderer, 2, 1, "b"))))
		},
		"pushed after it was kept": func(t *testing.T, c *Channel) {
			own, other := following(t, c, orderer, "own"), following(t, c, orderer, "false")
			c.sync.Offer(own, c.node.PeerID(), "push")
			require.NoError(t, c.ledger.Wait(patience(t), 2))
			c.sync.Offer(other, c.node.PeerID(), "push")
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := w.config(0, "peer0.org1")
			n := start(t, cfg, w.genesis("forked", 0))
			c, err := n.Channel("forked")
			require.NoError(t, err)
			meet(t, c)
			ended(t, c)
			require.ErrorIs(t, c.Halted(), block.Fork)
			kept, err := ReadEvidence(cfg.Dir)
			require.NoError(t, err)
			require.Len(t, kept, 1)
		})
	}
}

// following is a block that follows the channel's tip.
func following(t *testing.T, c *Channel, s msp.Signer, text string) *block.Checked {
	t.Helper()
	tip := c.ledger.Tip()
	return signedOn(t, c, s, tip.Height, tip.Hash[:], text)
}
