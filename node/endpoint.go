package node

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"grapevine/membership"
	"grapevine/wire"
)

// hidden says that no other organisation knows of this node. It calls on none
// of them, for its address and certificate would be known there.
func (n *Node) hidden() bool { return n.cfg.ExternalEndpoint == "" }

// endpoint is where this node dials a member: inside the organisation its
// internal endpoint, if it has told one. Empty: nowhere.
func (n *Node) endpoint(v membership.Member) string {
	switch own := v.MSPID == n.Identity().MSPID(); {
	case n.guard.isBanned(v.PKIID):
		return ""
	case own && v.Internal != "":
		return v.Internal
	case !own && n.hidden():
		return ""
	}
	return v.Endpoint
}

// loopback says whether the node listens on the loopback, so that the loopback's
// addresses are places where others may be.
func (n *Node) loopback() bool {
	return slices.ContainsFunc(n.cfg.Listen, func(text string) bool {
		ip, ok := listensOn(text)
		return ok && (ip.IsLoopback() || ip.IsUnspecified())
	})
}

// listensOn is the address of a multiaddr to listen on.
func listensOn(text string) (netip.Addr, bool) {
	a, err := ma.NewMultiaddr(text)
	if err != nil || len(a) == 0 {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(a[0].RawValue())
	return ip.Unmap(), ok
}

// internal is the endpoint that the own organisation is told: the configured
// one; where none is, and no external one either, what the node listens on, as
// far as it has a number before the node listens.
func (c *Config) internal() (string, error) {
	if port, ok := strings.CutPrefix(c.Endpoint, ":"); ok {
		ip, err := machine()
		if err != nil {
			return "", err
		}
		return net.JoinHostPort(ip.String(), port), nil
	}
	if c.Endpoint != "" || c.ExternalEndpoint != "" {
		return c.Endpoint, nil
	}
	var addrs []ma.Multiaddr
	for _, text := range c.Listen {
		if ip, ok := listensOn(text); ok && ip.IsUnspecified() {
			ip, err := machine()
			if err != nil {
				return "", err
			}
			_, rest, _ := strings.Cut(text[1:], "/") // the address and what is behind
			_, rest, _ = strings.Cut(rest, "/")
			text = fmt.Sprintf("/ip%d/%s/%s", 4+2*(ip.BitLen()/128), ip, rest)
		}
		if a, err := wire.ParseEndpoint(text); err == nil {
			addrs = append(addrs, a...)
		}
	}
	return wire.FormatEndpoint(addrs), nil
}

// checkEndpoint says what is wrong with an endpoint of our own.
func checkEndpoint(field, text string) error {
	if _, _, err := wire.EncodeEndpoint(text); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// machine is this machine's own address, as others on its network reach it: the
// first of its interfaces' that isn't the loopback's, IPv4 before IPv6; the
// loopback's if there is no other.
func machine() (netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("finding this machine's address: %w", err)
	}
	best := netip.MustParseAddr("127.0.0.1")
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if ip := p.Addr().Unmap(); err == nil && ip.IsGlobalUnicast() && (best.IsLoopback() || best.Is6() && ip.Is4()) {
			best = ip
		}
	}
	return best, nil
}
