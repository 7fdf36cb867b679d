package itest

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/ledger"
	"grapevine/ledger/state"
	"grapevine/membership"
	"grapevine/node"
)

// A misjudge calls every transaction valid and says that nothing comes of it.
type misjudge struct{}

func (misjudge) Prepare([]*common.Block) {}

func (misjudge) Execute(_ ledger.View, _ []byte, b *common.Block) (*ledger.Effects, error) {
	hash := sha256.Sum256(b.Header.DataHash)
	m := &state.Mark{CommitHash: hash[:]}
	m.Sum[0] = uint16(b.Header.Number)
	return &ledger.Effects{Codes: make([]byte, len(b.Data.Data)), CommitHash: hash[:], StateHash: m.StateHash(), Carry: m.Marshal()}, nil
}

// TestDivergenceIsNamed plants another world state at one peer: the others name it
// within seconds, it learns that it is the one, and nothing else happens. When its
// state is made anew the alarm ends.
func TestDivergenceIsNamed(t *testing.T) {
	simulate(t, 3, 2, func(s *sim) {
		odd := s.Peers[4]
		events := make(chan membership.Event, 64)
		s.watch.Go(func() {
			for e := range s.Peers[0].Channel.MemberEvents(s.ctx) {
				if e.Kind == membership.Diverged || e.Kind == membership.Agreed {
					events <- e
				}
			}
		})
		order(t, s.World, 3)
		require.NoError(t, s.Await(s.ctx, s.World.Height()))
		require.NoError(t, s.Same())
		odd.Channel.Ledger().Judge(misjudge{})
		began := time.Now()
		order(t, s.World, 1)
		require.NoError(t, s.Await(s.ctx, s.World.Height()))
		require.ErrorContains(t, s.Same(), "world state")
		named := func(p *Peer) bool {
			d := p.Channel.Divergence()
			return d.Decided && !d.Self && len(d.Members) == 1 && d.Members[0].ID == odd.Node.Identity().PKIID()
		}
		s.until("everybody names the one that diverges", func() bool {
			for _, p := range s.Peers {
				if p != odd && !named(p) {
					return false
				}
			}
			d := odd.Channel.Divergence()
			return d.Self && d.Decided
		})
		took := time.Since(began)
		require.Less(t, took, 10*time.Second)
		t.Logf("named by all after %v", took)
		require.Equal(t, membership.Diverged, (<-events).Kind)
		order(t, s.World, 2)
		require.NoError(t, s.Await(s.ctx, s.World.Height()), "an alarm stops nobody")
		for _, p := range s.Peers {
			require.NoError(t, p.Channel.Halted())
		}
		require.NoError(t, odd.Channel.Ledger().ForgetState())
		require.NoError(t, node.Judge(s.ctx, odd.Channel.Ledger(), nil))
		order(t, s.World, 1)
		require.NoError(t, s.Await(s.ctx, s.World.Height()))
		require.NoError(t, s.Same())
		s.until("the alarm ends", func() bool {
			for _, p := range s.Peers {
				if !p.Channel.Divergence().None() {
					return false
				}
			}
			return true
		})
		require.Equal(t, membership.Agreed, (<-events).Kind)
	})
}
