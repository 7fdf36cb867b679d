package wire

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
)

// An endpoint is where a host can be dialled. People write it as host:port,
// which stands for TCP and QUIC on that number, or as a multiaddr, or as several
// of these with spaces or commas between. On the wire it is multiaddrs in binary
// form, of these two shapes, where A is ip4, ip6, dns, dns4 or dns6:
//
//	/A/HOST/tcp/PORT
//	/A/HOST/udp/PORT/quic-v1
//
// Private addresses are fine: consortia run in them. What nobody can dial isn't:
// port 0, an address that is everywhere or many, one that only its own machine
// knows by its zone, a name with other signs than names have.
const (
	maxEndpointAddrs = 8
	maxHostName      = 253
)

// ParseEndpoint reads an endpoint as people write it. A multiaddr may end in
// /p2p/ID, the peer that must be there; nothing yields nothing.
func ParseEndpoint(text string) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,\t\r\n", r) }) {
		addrs, err := parsePlace(word)
		if err != nil {
			return nil, fmt.Errorf("endpoint %.80q: %w", word, err)
		}
		for _, a := range addrs {
			if !slices.ContainsFunc(out, a.Equal) {
				out = append(out, a)
			}
		}
	}
	if len(out) > maxEndpointAddrs {
		return nil, fmt.Errorf("endpoint: %d addresses; %d are the most", len(out), maxEndpointAddrs)
	}
	return out, nil
}

func parsePlace(word string) ([]ma.Multiaddr, error) {
	texts := []string{word}
	if word[0] != '/' {
		host, port, err := net.SplitHostPort(word)
		if err != nil {
			return nil, fmt.Errorf("neither host:port nor a multiaddr: %w", err)
		}
		if host == "" || strings.Contains(host, "/") {
			return nil, fmt.Errorf("host:port with the host %q", host)
		}
		kind := "dns"
		if ip, err := netip.ParseAddr(host); err == nil {
			ip = ip.Unmap()
			kind, host = "ip4", ip.String()
			if ip.Is6() {
				kind = "ip6"
			}
		}
		texts = []string{"/" + kind + "/" + host + "/tcp/" + port, "/" + kind + "/" + host + "/udp/" + port + "/quic-v1"}
	}
	var out []ma.Multiaddr
	for _, t := range texts {
		a, err := ma.NewMultiaddr(t)
		if err != nil {
			return nil, err
		}
		bare := a
		if c, id := ma.SplitLast(a); id != nil && id.Protocol().Code == ma.P_P2P {
			bare = c
		}
		if err := checkAddr(bare); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// EncodeEndpoint reads an endpoint of one's own, which names no peer, and returns
// it as others will see it and as it travels.
func EncodeEndpoint(text string) (shown string, raw [][]byte, err error) {
	addrs, err := ParseEndpoint(text)
	if err != nil {
		return "", nil, err
	}
	for _, a := range addrs {
		if err := checkAddr(a); err != nil {
			return "", nil, fmt.Errorf("endpoint %s: %w", a, err)
		}
		raw = append(raw, a.Bytes())
	}
	return FormatEndpoint(addrs), raw, nil
}

// DecodeEndpoint reads an endpoint from the wire.
func DecodeEndpoint(raw [][]byte) ([]ma.Multiaddr, error) {
	if len(raw) > maxEndpointAddrs {
		return nil, fmt.Errorf("endpoint: %d addresses; %d are the most", len(raw), maxEndpointAddrs)
	}
	out := make([]ma.Multiaddr, 0, len(raw))
	for _, b := range raw {
		if len(b) > maxHostName+32 {
			return nil, fmt.Errorf("endpoint: an address of %d bytes", len(b))
		}
		a, err := ma.NewMultiaddrBytes(b)
		if err == nil {
			err = checkAddr(a)
		}
		if err != nil {
			return nil, fmt.Errorf("endpoint %.80x: %w", b, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// checkAddr holds an address to one of the two shapes.
func checkAddr(a ma.Multiaddr) error {
	if len(a) < 2 {
		return fmt.Errorf("%s has no port", a)
	}
	host, port := a[0], a[1]
	switch host.Protocol().Code {
	case ma.P_IP4, ma.P_IP6:
		ip, ok := netip.AddrFromSlice(host.RawValue())
		if ip = ip.Unmap(); !ok || ip.IsUnspecified() || ip.IsMulticast() {
			return fmt.Errorf("nobody can dial %s", host.Value())
		}
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		const name = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
		if v := host.Value(); v == "" || len(v) > maxHostName || strings.Trim(v, name) != "" {
			return fmt.Errorf("%.80q is no host's name", v)
		}
	default:
		return fmt.Errorf("/%s is no address of a host", host.Protocol().Name)
	}
	if n, err := strconv.Atoi(port.Value()); err != nil || n == 0 {
		return fmt.Errorf("port %q", port.Value())
	}
	tcp := len(a) == 2 && port.Protocol().Code == ma.P_TCP
	quic := len(a) == 3 && port.Protocol().Code == ma.P_UDP && a[2].Protocol().Code == ma.P_QUIC_V1
	if !tcp && !quic {
		return fmt.Errorf("%s is neither TCP nor QUIC v1", a)
	}
	return nil
}

// FormatEndpoint writes an endpoint for people: host:port where TCP and QUIC
// share a number, else multiaddrs. ParseEndpoint reads it back.
func FormatEndpoint(addrs []ma.Multiaddr) string {
	var out []string
	done := make(map[string]bool)
	for _, a := range addrs {
		text := a.String()
		if done[text] {
			continue
		}
		if len(a) >= 2 {
			host, port := a[0], a[1].Value()
			place := net.JoinHostPort(host.Value(), port)
			if pair, err := parsePlace(place); err == nil && len(pair) == 2 &&
				slices.ContainsFunc(addrs, pair[0].Equal) && slices.ContainsFunc(addrs, pair[1].Equal) && slices.ContainsFunc(pair, a.Equal) {
				done[pair[0].String()], done[pair[1].String()] = true, true
				out = append(out, place)
				continue
			}
		}
		done[text] = true
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// OnlyHere reports whether an address is the loopback's: another machine that
// dials it meets itself.
func OnlyHere(a ma.Multiaddr) bool {
	if len(a) == 0 {
		return false
	}
	ip, ok := netip.AddrFromSlice(a[0].RawValue())
	code := a[0].Protocol().Code
	return ok && (code == ma.P_IP4 || code == ma.P_IP6) && ip.Unmap().IsLoopback()
}
