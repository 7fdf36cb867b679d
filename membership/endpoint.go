package membership

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// maxEndpoint is a host name's limit, a colon and a port.
const maxEndpoint = 253 + 1 + 5

// checkEndpoint refuses what nobody can dial: none, a place that is everywhere,
// port 0, or bytes that are no name. Private addresses are fine: consortia run
// in them.
func checkEndpoint(e string) error {
	if e == "" {
		return nil // invisible to other organisations
	}
	if len(e) > maxEndpoint {
		return fmt.Errorf("%d bytes: %w", len(e), BadEndpoint)
	}
	host, port, err := net.SplitHostPort(e)
	if err != nil {
		return fmt.Errorf("%w: %w", BadEndpoint, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q: %w", port, BadEndpoint)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap(); ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" {
			return fmt.Errorf("address %s: %w", ip, BadEndpoint)
		}
		return nil
	}
	const name = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	if host == "" || strings.ContainsFunc(host, func(r rune) bool { return !strings.ContainsRune(name, r) }) {
		return fmt.Errorf("host %q: %w", host, BadEndpoint)
	}
	return nil
}
