package membership

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/wire"
)

// FuzzAlive: whatever comes, nothing panics, and nothing but what the member
// signed is accepted.
func FuzzAlive(f *testing.F) {
	s := signed(1, nil)
	f.Add(s.Alive, s.Certificate, s.Signature)
	f.Add([]byte{}, []byte{}, []byte{})
	f.Add(s.Alive[:40], s.Certificate, s.Signature)
	f.Add(append(bytes.Clone(s.Alive), 0x78, 1), s.Certificate, s.Signature)
	f.Fuzz(func(t *testing.T, alive, certificate, signature []byte) {
		p := newParty(t, 0, nil)
		err := p.Receive(hostOf(1), &wire.SignedAlive{Alive: alive, Certificate: certificate, Signature: signature})
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
			return
		}
		// The corpus comes from other processes with other keys: ask the
		// certificate itself.
		id := must(msp.FromDER("Org1MSP", certificate))
		sum := wire.HashParts([]byte(wire.DomainAlive), alive)
		require.NoError(t, id.Verify(sum[:], signature))
		require.Equal(t, id.PKIID(), p.List()[1].PKIID)
	})
}

// FuzzMarks: stored marks decode or are refused; what decodes encodes to itself.
func FuzzMarks(f *testing.F) {
	v := newView(time.Second)
	f.Add(v.encode())
	f.Add([]byte{})
	f.Add([]byte{9})
	f.Add(append([]byte{1}, make([]byte, markSize)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := newView(time.Second)
		if v.decode(b) != nil || len(b) == 0 {
			return
		}
		require.Equal(t, b, v.encode())
	})
}

// FuzzEndpoint: what passes can be dialled: one host, one port, a transport that
// we have; and what people are shown of it reads back as the same.
func FuzzEndpoint(f *testing.F) {
	for _, e := range []string{"peer0.org1.example.com:7051", "[::1]:1", "/ip4/10.0.0.1/udp/1/quic-v1"} {
		for _, a := range place(e) {
			f.Add(a)
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		addrs, err := readEndpoint([][]byte{b}, true)
		if err != nil {
			require.Equal(t, BadEndpoint, wire.ReasonOf(err))
			return
		}
		require.Len(t, addrs, 1)
		_, err = netip.ParseAddr(addrs[0][0].Value())
		require.True(t, err == nil || !strings.ContainsAny(addrs[0][0].Value(), "/ \x00:"), "%s", addrs[0])
		again, err := wire.ParseEndpoint(wire.FormatEndpoint(addrs))
		require.NoError(t, err)
		require.Len(t, again, 1)
		require.True(t, addrs[0].Equal(again[0]) || wire.FormatEndpoint(addrs) == wire.FormatEndpoint(again), "%s, %s", addrs, again)
	})
}
