package membership

import (
	"bytes"
	"context"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// TestHostileAlive is group A of the catalogue; endpoints (A14) have a table of
// their own.
func TestHostileAlive(t *testing.T) {
	const second = uint64(1000)
	first := func(a *wire.Alive) { a.Incarnation, a.Sequence = uint64(bubbleEpoch.UnixMilli()), 10 }
	for _, k := range []struct {
		id, reason string
		verdict    wire.Verdict
		make       func() *wire.SignedAlive
	}{
		{"A1 bad signature", "membership.bad_signature", wire.Reject, func() *wire.SignedAlive {
			s := signed(1, func(a *wire.Alive) { a.Sequence = 11 })
			s.Signature[len(s.Signature)-1] ^= 1
			return s
		}},
		{"A1 no signature", "membership.bad_signature", wire.Reject, func() *wire.SignedAlive {
			s := signed(1, func(a *wire.Alive) { a.Sequence = 11 })
			s.Signature = nil
			return s
		}},
		{"A2 signature of an older body", "membership.bad_signature", wire.Reject, func() *wire.SignedAlive {
			s := signed(1, func(a *wire.Alive) { a.Sequence = 11 })
			s.Signature = signed(1, first).Signature
			return s
		}},
		{"A3 same number, other content", "membership.conflict", wire.Ignore, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { first(a); a.Height = 99 })
		}},
		{"A3 the same, badly signed", "membership.bad_signature", wire.Reject, func() *wire.SignedAlive {
			s := signed(1, func(a *wire.Alive) { first(a); a.Height = 99 })
			s.Signature = signed(2, nil).Signature
			return s
		}},
		{"A4 lower sequence", "membership.not_newer", wire.Ignore, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { first(a); a.Sequence-- })
		}},
		{"A5 lower incarnation", "membership.not_newer", wire.Ignore, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { first(a); a.Incarnation--; a.Sequence = 99 })
		}},
		{"A6 incarnation 31 s ahead", "membership.from_future", wire.Ignore, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Incarnation = a.SentAt + 31*second })
		}},
		{"A6 sent 31 s ahead", "membership.from_future", wire.Ignore, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.SentAt += 31 * second })
		}},
		{"A7 incarnation at the end of time", "membership.from_future", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Incarnation = 1<<64 - 1 })
		}},
		{"A8 incarnation wraps", "membership.not_newer", wire.Ignore, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Incarnation = 0; a.Sequence = 11 })
		}},
		{"A8 sequence wraps", "membership.not_newer", wire.Ignore, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { first(a); a.Sequence = 0 })
		}},
		{"A9 stale", "membership.stale", wire.Ignore, func() *wire.SignedAlive {
			return signed(2, func(a *wire.Alive) { a.SentAt -= 36 * second })
		}},
		{"A11 certificate absent and unknown", "membership.unknown_identity", wire.Ignore, func() *wire.SignedAlive {
			s := signed(3, func(a *wire.Alive) { a.PeerId = []byte(makeHost(99)) })
			s.Certificate = nil
			return s
		}},
		{"A12 another's certificate", "membership.id_mismatch", wire.Reject, func() *wire.SignedAlive {
			s := signed(1, func(a *wire.Alive) { a.Sequence = 11 })
			s.Certificate = cast()[2].Identity().Certificate().Raw
			return s
		}},
		{"A12 another MSP ID", "membership.id_mismatch", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.MspId = "Org2MSP" })
		}},
		{"A13 PEM", "msp.not_der", wire.Reject, func() *wire.SignedAlive {
			s := signed(2, nil)
			s.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate})
			return s
		}},
		{"A13 trailing bytes", "msp.not_der", wire.Reject, func() *wire.SignedAlive {
			s := signed(2, nil)
			s.Certificate = append(bytes.Clone(s.Certificate), 0)
			return s
		}},
		{"A15 a megabyte", "membership.too_large", wire.Reject, func() *wire.SignedAlive {
			s := signed(1, nil)
			s.Alive = make([]byte, 1<<20)
			return s
		}},
		{"A15 a long chain", "membership.too_large", wire.Reject, func() *wire.SignedAlive {
			s := signed(1, nil)
			s.Chain = make([][]byte, 5)
			return s
		}},
		{"W a lead of no meaning", "membership.malformed", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.Lead = leadOf(&wire.Lead{Mode: 4}) })
		}},
		{"W a term without leading", "membership.malformed", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.Lead = leadOf(&wire.Lead{Mode: 3, Term: 1<<64 - 1}) })
		}},
		{"W an orderer of a kilobyte", "membership.malformed", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) {
				a.Sequence, a.Lead = 11, leadOf(&wire.Lead{Mode: 3, Since: 1, Orderer: strings.Repeat("o", 1024)})
			})
		}},
		{"W a lead of other bytes", "wire.trailing_bytes", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.Lead = []byte{8} })
		}},
		{"A16 my own name from elsewhere", "membership.clone", wire.Ignore, func() *wire.SignedAlive {
			return signed(0, func(a *wire.Alive) { a.PeerId = []byte(hostOf(5)) })
		}},
		{"A16 my own name from a later start", "membership.clone", wire.Ignore, func() *wire.SignedAlive {
			return signed(0, func(a *wire.Alive) { a.Incarnation = a.SentAt + 1 })
		}},
		{"A16 I left, while I live", "membership.refuted", wire.Ignore, func() *wire.SignedAlive {
			return signed(0, func(a *wire.Alive) { a.Sequence = 1 << 40; a.Left = true })
		}},
		{"A16 in my name, badly signed", "membership.bad_signature", wire.Reject, func() *wire.SignedAlive {
			s := signed(0, func(a *wire.Alive) { a.Sequence = 1 << 40 })
			s.Signature = signed(1, nil).Signature
			return s
		}},
		{"A12 hash of another certificate", "membership.id_mismatch", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.Certificate = make([]byte, 32) })
		}},
		{"for another organisation", "membership.wrong_audience", wire.Reject, func() *wire.SignedAlive {
			return signed(6, func(a *wire.Alive) { a.Own = true; a.Internal = place("inside:7051") })
		}},
		{"internal endpoint for all", "membership.malformed", wire.Reject, func() *wire.SignedAlive {
			return signed(6, func(a *wire.Alive) { a.Internal = place("inside:7051") })
		}},
		{"of another channel", "membership.wrong_channel", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.Tag = make([]byte, 32) })
		}},
		{"another's host", "membership.wrong_peer", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.PeerId = []byte(hostOf(2)) })
		}},
		{"no host", "membership.malformed", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.PeerId = []byte("x") })
		}},
		{"short hash", "membership.malformed", wire.Reject, func() *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) { a.Sequence = 11; a.TipHash = make([]byte, 31) })
		}},
		{"W11 a field twice", "wire.not_canonical", wire.Reject, func() *wire.SignedAlive {
			s := signed(1, nil)
			s.Alive = append(bytes.Clone(s.Alive), s.Alive...)
			return s
		}},
		{"nothing", "membership.too_large", wire.Reject, func() *wire.SignedAlive { return nil }},
	} {
		t.Run(k.id, func(t *testing.T) {
			cast()
			synctest.Test(t, func(t *testing.T) {
				p := newParty(t, 0, nil)
				require.NoError(t, p.Receive(hostOf(1), signed(1, first)))
				before := p.List()
				err := p.Receive(hostOf(1), k.make())
				require.Error(t, err)
				require.Equal(t, k.reason, wire.ReasonOf(err).Code(), "%v", err)
				require.Equal(t, k.verdict, wire.VerdictOf(err))
				require.Equal(t, before, p.List(), "the view changed")
			})
		})
	}
}

func TestEndpoints(t *testing.T) {
	addr := func(text string) []byte { return must(ma.NewMultiaddr(text)).Bytes() }
	name := func(n string) []byte { // as nobody's library would write it
		return append([]byte{53, byte(len(n))}, n+"\x06\x1b\x8b"...)
	}
	many := slices.Repeat([][]byte{addr("/ip4/10.0.0.1/tcp/7051")}, 9)
	for _, k := range []struct {
		id       string
		endpoint [][]byte
		seen     string // "": it is refused
		verdict  wire.Verdict
	}{
		{"A14 name", place("peer0.org1.example.com:7051"), "peer0.org1.example.com:7051", wire.Accept},
		{"A14 private", place("10.0.0.1:7051"), "10.0.0.1:7051", wire.Accept},
		{"A14 IPv6", place("[fd00::1]:7051"), "[fd00::1]:7051", wire.Accept},
		{"A14 TCP alone", place("/ip4/10.0.0.1/tcp/7051"), "/ip4/10.0.0.1/tcp/7051", wire.Accept},
		{"A14 several", place("/dns4/a/tcp/1 /dns6/a/udp/2/quic-v1"), "/dns4/a/tcp/1 /dns6/a/udp/2/quic-v1", wire.Accept},
		{"A14 eight at most", many, "", wire.Reject},
		{"A14 loopback", place("127.0.0.1:7051"), "", wire.Ignore},
		{"A14 loopback, mapped", [][]byte{addr("/ip6/::ffff:127.0.0.1/tcp/1")}, "", wire.Ignore},
		{"A14 64 KiB", [][]byte{make([]byte, 64<<10)}, "", wire.Reject},
		{"A14 empty", [][]byte{{}}, "", wire.Reject},
		{"A14 garbage", [][]byte{[]byte("peer0:7051")}, "", wire.Reject},
		{"A14 port 0", [][]byte{addr("/ip4/10.0.0.1/tcp/0")}, "", wire.Reject},
		{"A14 no port", [][]byte{addr("/ip4/10.0.0.1")}, "", wire.Reject},
		{"A14 UDP alone", [][]byte{addr("/ip4/10.0.0.1/udp/1")}, "", wire.Reject},
		{"A14 everywhere", [][]byte{addr("/ip4/0.0.0.0/tcp/1")}, "", wire.Reject},
		{"A14 everywhere in IPv6", [][]byte{addr("/ip6/::/tcp/1")}, "", wire.Reject},
		{"A14 everywhere, mapped", [][]byte{addr("/ip6/::ffff:0.0.0.0/tcp/1")}, "", wire.Reject},
		{"A14 many at once", [][]byte{addr("/ip4/224.0.0.1/tcp/1")}, "", wire.Reject},
		{"A14 a name", [][]byte{name("peer0")}, "/dns/peer0/tcp/7051", wire.Accept},
		{"A14 NUL", [][]byte{name("peer0\x00")}, "", wire.Reject},
		{"A14 blank", [][]byte{name("a b")}, "", wire.Reject},
		{"A14 no host", [][]byte{name("")}, "", wire.Reject},
		{"A14 unix path", [][]byte{addr("/unix/tmp/socket")}, "", wire.Reject},
		{"A14 zone", [][]byte{addr("/ip6zone/eth0/ip6/fe80::1/tcp/1")}, "", wire.Reject},
		{"A14 by way of another", [][]byte{addr("/ip4/10.0.0.1/tcp/1/p2p/" + hostOf(1).String() + "/p2p-circuit")}, "", wire.Reject},
		{"A14 naming a peer", [][]byte{addr("/ip4/10.0.0.1/tcp/1/p2p/" + hostOf(1).String())}, "", wire.Reject},
		{"A14 behind a port", [][]byte{addr("/ip4/10.0.0.1/tcp/1/ws")}, "", wire.Reject},
	} {
		t.Run(k.id, func(t *testing.T) {
			cast()
			synctest.Test(t, func(t *testing.T) {
				p := newParty(t, 0, nil)
				for _, own := range []bool{false, true} {
					err := p.Receive(hostOf(1), signed(1, func(a *wire.Alive) {
						a.Endpoint, a.Sequence = k.endpoint, 1
						if own {
							a.Own, a.Endpoint, a.Internal, a.Sequence = true, nil, k.endpoint, 2
						}
					}))
					require.Equal(t, k.verdict, wire.VerdictOf(err), "%v", err)
					if k.seen == "" {
						require.Equal(t, "membership.bad_endpoint", wire.ReasonOf(err).Code(), "%v", err)
						require.Len(t, p.List(), 1)
					} else if m := p.List()[1]; own {
						require.Equal(t, k.seen, m.Internal)
					} else {
						require.Equal(t, k.seen, m.Endpoint)
					}
				}
			})
		})
	}
	t.Run("A14 none", func(t *testing.T) {
		cast()
		synctest.Test(t, func(t *testing.T) {
			p := newParty(t, 0, nil)
			require.NoError(t, p.Receive(hostOf(1), signed(1, func(a *wire.Alive) { a.Endpoint = nil })))
			require.Empty(t, p.List()[1].Endpoint)
		})
	})
	t.Run("A14 loopback where we listen on it", func(t *testing.T) {
		cast()
		synctest.Test(t, func(t *testing.T) {
			p := newParty(t, 0, func(c *Config) { c.Loopback = true })
			require.NoError(t, p.Receive(hostOf(1), signed(1, func(a *wire.Alive) { a.Endpoint = place("127.0.0.1:7051") })))
		})
	})
}

// A9, A10: a replay changes nothing, after a death, after a restart, ever.
func TestReplays(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 0, nil)
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() { over <- p.Run(ctx) }()
		old := signed(1, nil)
		require.NoError(t, p.Receive(hostOf(1), old))
		require.ErrorIs(t, p.Receive(hostOf(1), old), NotNewer)
		time.Sleep(2 * time.Minute)
		require.Equal(t, Dead, p.List()[1].State)
		require.ErrorIs(t, p.Receive(hostOf(1), old), NotNewer)
		last := signed(1, func(a *wire.Alive) { a.Sequence = 2 })
		require.NoError(t, p.Receive(hostOf(1), last))
		require.Equal(t, Alive, p.List()[1].State)
		cancel()
		require.ErrorIs(t, <-over, context.Canceled)

		// Restarted at once: remembered.
		again := newParty(t, 0, func(c *Config) { c.Load = func() ([]byte, error) { return p.stored, nil } })
		require.ErrorIs(t, again.Receive(hostOf(1), last), NotNewer)
		require.ErrorIs(t, again.Receive(hostOf(1), old), NotNewer)
		require.Len(t, again.List(), 1)

		// Forgotten with the certificate, or never known: stale.
		fresh := newParty(t, 0, nil)
		for range 5 {
			time.Sleep(1000 * time.Second)
			require.ErrorIs(t, fresh.Receive(hostOf(1), last), Stale)
		}
		time.Sleep(10 * 365 * 24 * time.Hour)
		require.ErrorIs(t, fresh.Receive(hostOf(1), last), Stale)
	})
}

func TestDamagedMarksAreRefused(t *testing.T) {
	c := Config{Self: cast()[0], Tip: func() (uint64, [32]byte) { return 0, [32]byte{} }}
	for _, b := range [][]byte{{2}, {1, 0}, append([]byte{1}, make([]byte, 2*markSize)...)} {
		c.Load = func() ([]byte, error) { return b, nil }
		_, err := New(c)
		require.ErrorContains(t, err, "stored marks")
	}
	c.Load = func() ([]byte, error) { return nil, context.DeadlineExceeded }
	_, err := New(c)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func leadOf(l *wire.Lead) []byte {
	b, err := wire.Marshal(l)
	if err != nil {
		panic(err)
	}
	return b
}
