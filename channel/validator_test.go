package channel

import (
	"math"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/wire"
)

const big = wire.InlineLimit + 1

// TestJudge names the hostile cases by their ids in the catalogue.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(j *judged) []byte
		from peer.ID
		want *wire.Reason // nil: Accept
	}{
		{name: "inline", make: func(j *judged) []byte { return encode(j.t, j.inline(j.block(5, 100, 0, 0))) }},
		{name: "B6 within the window", make: func(j *judged) []byte { return encode(j.t, j.inline(j.block(12, 100, 0, 0))) }},
		{name: "large", make: func(j *judged) []byte { return encode(j.t, j.large(j.block(5, big, 0, 0), big)) }},
		{name: "stranger", from: strangerPeer, want: NotMember, make: func(j *judged) []byte {
			return encode(j.t, j.inline(j.block(5, 100, 0, 0)))
		}},
		{name: "W1", want: wire.Empty, make: func(*judged) []byte { return nil }},
		{name: "W10", want: wire.UnknownFields, make: func(j *judged) []byte {
			return append(encode(j.t, j.inline(j.block(5, 100, 0, 0))), 0x7a, 0)
		}},
		{name: "G2", want: WrongChannel, make: func(j *judged) []byte {
			a := j.inline(j.block(5, 100, 0, 0))
			a.Tag = make([]byte, 32)
			return encode(j.t, a)
		}},
		{name: "G2 tag cut short", want: WrongChannel, make: func(j *judged) []byte {
			a := j.inline(j.block(5, 100, 0, 0))
			a.Tag = a.Tag[:31]
			return encode(j.t, a)
		}},
		{name: "G3", want: WrongTopic, make: func(j *judged) []byte {
			return encode(j.t, &wire.SignedAlive{Alive: []byte("a"), Certificate: []byte("c"), Signature: []byte("s")})
		}},
		{name: "G5 another's signature", want: BadSignature, make: func(j *judged) []byte {
			a := j.large(j.block(5, big, 0, 0), big)
			a.Size++
			return encode(j.t, a)
		}},
		{name: "G5 signature stripped", want: BadAnnouncement, make: func(j *judged) []byte {
			a := j.large(j.block(5, big, 0, 0), big)
			a.Signature = nil
			return encode(j.t, a)
		}},
		{name: "announcer nobody knows", want: UnknownAnnouncer, make: func(j *judged) []byte {
			a := j.large(j.block(5, big, 0, 0), big)
			a.Announcer = make([]byte, 32)
			return encode(j.t, j.sign(a))
		}},
		{name: "inline with an announcer", want: BadAnnouncement, make: func(j *judged) []byte {
			a := j.inline(j.block(5, 100, 0, 0))
			a.Announcer = make([]byte, 32)
			return encode(j.t, a)
		}},
		{name: "inline with roots", want: BadAnnouncement, make: func(j *judged) []byte {
			a := j.inline(j.block(5, 100, 0, 0))
			a.Roots = testRoots
			return encode(j.t, a)
		}},
		{name: "large without roots", want: BadAnnouncement, make: func(j *judged) []byte {
			a := j.large(j.block(5, big, 0, 0), big)
			a.Roots = nil
			return encode(j.t, j.sign(a))
		}},
		{name: "G5 another's roots", want: BadSignature, make: func(j *judged) []byte {
			a := j.large(j.block(5, big, 0, 0), big)
			a.Roots = make([]byte, 32)
			return encode(j.t, a)
		}},
		{name: "inline with a false size", want: BadAnnouncement, make: func(j *judged) []byte {
			a := j.inline(j.block(5, 100, 0, 0))
			a.Size++
			return encode(j.t, a)
		}},
		{name: "inline and too large", want: BadAnnouncement, make: func(j *judged) []byte {
			return encode(j.t, j.inline(j.block(5, big, 0, 0)))
		}},
		{name: "large and small", want: BadAnnouncement, make: func(j *judged) []byte {
			return encode(j.t, j.large(j.block(5, 100, 0, 0), 100))
		}},
		{name: "B1", want: block.NoHeader, make: func(j *judged) []byte {
			b := j.block(5, 100, 0, 0)
			b.Header = nil
			return encode(j.t, j.inline(b))
		}},
		{name: "B3", want: block.NoMetadata, make: func(j *judged) []byte {
			b := j.block(5, 100, 0, 0)
			b.Metadata = nil
			return encode(j.t, j.inline(b))
		}},
		{name: "B4", want: block.Stale, make: func(j *judged) []byte { return encode(j.t, j.inline(j.block(4, 100, 0, 0))) }},
		{name: "B6 beyond the window", want: block.TooFar, make: func(j *judged) []byte {
			return encode(j.t, j.inline(j.block(13, 100, 0, 0)))
		}},
		{name: "B7", want: block.TooFar, make: func(j *judged) []byte {
			return encode(j.t, j.inline(j.block(math.MaxUint64, 100, 0, 0)))
		}},
		{name: "B12", want: block.BadDataHash, make: func(j *judged) []byte {
			b := j.block(5, 100, 0, 0)
			b.Header.DataHash = make([]byte, 32)
			return encode(j.t, j.inline(b))
		}},
		{name: "B31", want: block.BadSignature, make: func(j *judged) []byte {
			b := j.block(5, 100, 0, 0)
			b.Header.PreviousHash[0]++ // signed before
			defer func() { b.Header.PreviousHash[0]-- }()
			return encode(j.t, j.inline(b))
		}},
		{name: "B33 ahead", want: block.UnknownConfig, make: func(j *judged) []byte {
			return encode(j.t, j.inline(j.block(7, 100, 0, 6)))
		}},
		{name: "B33 behind", want: block.LastConfig, make: func(j *judged) []byte {
			j.ordered.rules.LastConfig = 3
			return encode(j.t, j.inline(j.block(5, 100, 0, 0)))
		}},
		{name: "B33 large, ahead", want: block.UnknownConfig, make: func(j *judged) []byte {
			return encode(j.t, j.large(j.block(7, big, 0, 6), big))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJudged(t)
			data := c.make(j)
			if c.from == "" {
				c.from = relayPeer
			}
			told, err := j.announcement(c.from, data)
			if c.want == nil {
				require.NoError(t, err)
				require.Equal(t, c.from, told.From)
				require.Equal(t, pubsub.ValidationAccept, verdict(err))
				_, err = j.announcement(announcerPeer, data)
				require.ErrorIs(t, err, block.Stale, "G7: a second time it is no news")
				return
			}
			require.ErrorIs(t, err, c.want)
			require.Same(t, c.want, wire.ReasonOf(err))
			require.Zero(t, told)
			require.Equal(t, c.want.Verdict() == wire.Ignore, verdict(err) == pubsub.ValidationIgnore)
		})
	}
}

// What can't be taken now is still a hint.
func TestJudgeHints(t *testing.T) {
	j := newJudged(t)
	for _, n := range []uint64{13, 1000} {
		_, err := j.announcement(relayPeer, encode(t, j.inline(j.block(n, 100, 0, 0))))
		require.ErrorIs(t, err, block.TooFar)
	}
	_, err := j.announcement(relayPeer, encode(t, j.inline(j.block(7, 100, 0, 6))))
	require.ErrorIs(t, err, block.UnknownConfig)
	_, err = j.announcement(relayPeer, encode(t, j.inline(j.block(math.MaxUint64, 100, 0, 0))))
	require.ErrorIs(t, err, block.TooFar)
	require.Equal(t, []uint64{14, 1001, 8}, j.ahead, "a height above all numbers is none")

	j.judge.rules = func() *block.Rules { return nil }
	_, err = j.announcement(relayPeer, encode(t, j.inline(j.block(5, 100, 0, 0))))
	require.ErrorIs(t, err, block.UnknownConfig)
}

// Two leaders' copies of one block, signed by two orderers, are one block; a
// body is news after its header, not before.
func TestJudgeDresses(t *testing.T) {
	j := newJudged(t)
	small := j.block(5, 100, 0, 0)
	twin := j.block(5, 100, 1, 0)
	require.Equal(t, block.HeaderHash(small.Header), block.HeaderHash(twin.Header))
	require.NotEqual(t, encode(t, j.inline(small)), encode(t, j.inline(twin)))

	_, err := j.announcement(relayPeer, encode(t, j.large(small, big))) // a member lies about the size
	require.NoError(t, err)
	told, err := j.announcement(relayPeer, encode(t, j.inline(small)))
	require.NoError(t, err, "the header must not keep the body out")
	require.NotNil(t, told.Checked)
	_, err = j.announcement(relayPeer, encode(t, j.inline(twin)))
	require.ErrorIs(t, err, block.Stale)
	_, err = j.announcement(relayPeer, encode(t, j.large(twin, big)))
	require.ErrorIs(t, err, block.Stale)
}

// G6: a forgery under the true block's header, first, doesn't keep the true
// block out.
func TestJudgeForgeryFirst(t *testing.T) {
	j := newJudged(t)
	b := j.block(5, 100, 0, 0)
	forged := j.inline(b)
	forged.Block = append([]byte(nil), forged.Block...)
	forged.Block[len(forged.Block)/2] ^= 1
	_, err := j.announcement(relayPeer, encode(t, forged))
	require.Error(t, err)
	_, err = j.announcement(relayPeer, encode(t, j.inline(b)))
	require.NoError(t, err)
}

// K3: who announces two encodings of one block has signed his own proof. It is
// asked for once; a contradiction that somebody else forged proves nothing.
func TestTwoEncodings(t *testing.T) {
	j := newJudged(t)
	b := j.block(5, big, 0, 0)
	first := encode(t, j.large(b, big))
	_, err := j.announcement(relayPeer, first)
	require.NoError(t, err)
	other := j.large(b, big)
	other.Roots = make([]byte, 32)
	_, err = j.announcement(relayPeer, encode(t, other))
	require.ErrorIs(t, err, BadSignature)
	require.Empty(t, j.lies)
	second := encode(t, j.sign(other))
	_, err = j.announcement(relayPeer, second)
	require.ErrorIs(t, err, TwoEncodings)
	require.Equal(t, pubsub.ValidationIgnore, verdict(err), "the relay can't know of both")
	require.Equal(t, []lie{{j.self.Identity().PKIID(), first, second}}, j.lies)
	other.Roots[0]++
	_, err = j.announcement(relayPeer, encode(t, j.sign(other)))
	require.ErrorIs(t, err, block.Stale)
	require.Len(t, j.lies, 1)

	twin := j.large(j.block(5, big, 1, 0), big) // after a restart, with another orderer's signature
	_, err = j.announcement(relayPeer, encode(t, twin))
	require.ErrorIs(t, err, block.Stale)
	require.Len(t, j.lies, 1)
}

func TestHeardIsBounded(t *testing.T) {
	var h heard
	head := func(n uint64, hash, who int) claim {
		return claim{number: n, hash: [32]byte{byte(hash), 1}, announcer: [32]byte{byte(who)}}
	}
	taken := 0
	for hash := range 100 {
		for who := range 100 {
			if h.add(head(7, hash, who), 5) {
				taken++
			}
		}
	}
	require.Equal(t, headsPerNumber, taken)
	for i := range 100 {
		require.Equal(t, i < bodiesPerNumber, h.add(claim{number: 7, hash: [32]byte{byte(i)}, body: true}, 5), "bodies aren't kept out by heads")
	}
	require.True(t, h.add(claim{number: 9, body: true}, 9))
	require.Len(t, h.numbers, 1)
	require.False(t, h.news(head(7, 200, 200)), "what is held is no news")
	require.False(t, h.add(head(8, 200, 200), 9))
}

// An inline announcement is a function of the block; a large one names and is
// signed by who made it.
func TestAnnounce(t *testing.T) {
	o := newOrdered(t)
	small, again := o.checked(5, 100), signer()
	a, said, err := announce(testTag, small, nil, again)
	require.NoError(t, err)
	require.True(t, said.body)
	b, _, err := announce(testTag, small, nil, nil) // no identity needed
	require.NoError(t, err)
	require.Equal(t, a, b)

	large := o.checked(6, 5*wire.InlineLimit)
	a, said, err = announce(testTag, large, testRoots, signer())
	require.NoError(t, err)
	require.False(t, said.body)
	require.Less(t, len(a), wire.InlineLimit)
	m := &wire.Announcement{}
	require.NoError(t, wire.Unmarshal(a, m))
	id := signer().Identity().PKIID()
	require.Equal(t, id[:], m.Announcer)
	require.NoError(t, signer().Identity().Verify(announcementBytes(m), m.Signature))
}
