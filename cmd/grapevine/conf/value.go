package conf

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	"go.yaml.in/yaml/v3"

	"grapevine/wire"
)

// Bounds of values. A duration above ten years is a slip, not a wish.
const (
	maxDuration = 10 * 365 * 24 * time.Hour
	maxInt      = 1 << 31
	maxBytes    = 1 << 40
	maxItems    = 1000
)

// A badValue says why a text isn't a value of its kind. Code is empty for a
// wrong type.
type badValue struct{ code, what string }

func (b *badValue) Error() string { return b.what }

func bad(format string, args ...any) *badValue {
	return &badValue{what: fmt.Sprintf(format, args...)}
}

// parseText parses the text of a variable, a flag or a scalar.
func parseText(k *Key, s string) (any, *badValue) {
	switch k.Kind {
	case Bool:
		return parseBool(s)
	case Int:
		return parseInt(s, maxInt)
	case Bytes:
		return parseBytes(s)
	case Duration:
		return parseDuration(s)
	case List, Paths, Dials, Multi:
		return parseItems(k, words(s))
	case Overrides:
		return parseListText(s, parseOverrides)
	case Fronts:
		return parseListText(s, parseFronts)
	case Dial:
		return s, checkDial(s)
	case Endpoint:
		return s, checkEndpoint(s)
	case Listen:
		return s, checkListen(s)
	case String, Path, Anything:
		if strings.ContainsRune(s, 0) {
			return nil, bad("a NUL byte")
		}
		if len(k.Enum) > 0 {
			return parseEnum(k, s)
		}
	}
	return s, nil
}

// parseNode parses a value of a file.
func parseNode(k *Key, n *yaml.Node) (any, *badValue) {
	switch {
	case k.Kind == Anything:
		return "", nil
	case k.Kind == Overrides:
		return parseOverrides(n)
	case k.Kind == Fronts:
		return parseFronts(n)
	case n.Kind == yaml.SequenceNode && (k.Kind == List || k.Kind == Paths || k.Kind == Dials || k.Kind == Multi):
		var items []string
		for _, c := range n.Content {
			if c.Kind == yaml.AliasNode {
				c = c.Alias
			}
			if c.Kind != yaml.ScalarNode {
				return nil, bad("an entry of the list is no word")
			}
			if c.Tag != "!!null" {
				items = append(items, words(c.Value)...)
			}
		}
		return parseItems(k, items)
	case n.Kind != yaml.ScalarNode:
		return nil, bad("a %s was expected", k.Kind)
	case n.Tag == "!!binary":
		return nil, bad("binary values are not allowed")
	case k.Kind == Bool && n.Tag != "!!bool" && n.Tag != "!!str":
		return nil, bad("%s is neither true nor false", quote(n.Value))
	}
	return parseText(k, n.Value)
}

// words splits a list that is written as one string.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' || r == '\n' || r == '\r' })
}

func parseBool(s string) (any, *badValue) {
	switch strings.ToLower(s) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return nil, bad("%s is neither true nor false", quote(s))
}

func parseInt(s string, most int64) (any, *badValue) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, bad("%s is not a whole number", quote(s))
	}
	if n > most {
		return nil, bad("%d is above %d", n, most)
	}
	return n, nil
}

// parseBytes reads 104857600, 100m, 100 MB. k, m and g are powers of 1024, as in Fabric.
func parseBytes(s string) (any, *badValue) {
	low := strings.ToLower(strings.ReplaceAll(s, " ", ""))
	low = strings.TrimSuffix(low, "b")
	shift := 0
	if low != "" {
		switch low[len(low)-1] {
		case 'k':
			shift = 10
		case 'm':
			shift = 20
		case 'g':
			shift = 30
		}
	}
	if shift > 0 {
		low = low[:len(low)-1]
	}
	n, err := strconv.ParseInt(low, 10, 64)
	if err != nil {
		return nil, bad("%s is not a size", quote(s))
	}
	if n > maxBytes>>shift {
		return nil, bad("%s is above %d bytes", quote(s), int64(maxBytes))
	}
	return n << shift, nil
}

// parseDuration refuses what Fabric would read as nanoseconds: a bare number.
// Zero needs no unit.
func parseDuration(s string) (any, *badValue) {
	if n, err := strconv.ParseFloat(s, 64); err == nil && n != 0 {
		return nil, &badValue{"CFG010", fmt.Sprintf("%s has no unit", quote(s))}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		if s != "" && strings.Trim(s, "0123456789.+-hmsµun") == "" && strings.HasSuffix(s, "h") {
			return nil, &badValue{what: quote(s) + " is out of range"}
		}
		return nil, bad("%s is not a duration", quote(s))
	}
	if d > maxDuration || d < -maxDuration {
		return nil, bad("%s is out of range", quote(s))
	}
	return d, nil
}

func parseEnum(k *Key, s string) (any, *badValue) {
	for _, e := range k.Enum {
		if strings.EqualFold(s, e) {
			return e, nil
		}
	}
	return nil, bad("%s is none of %v", quote(s), k.Enum)
}

func parseItems(k *Key, items []string) (any, *badValue) {
	if len(items) > maxItems {
		return nil, bad("%d entries; %d is the most", len(items), maxItems)
	}
	for _, it := range items {
		switch {
		case k.Kind == Multi, k.Kind == Dials && strings.HasPrefix(it, "/"):
			if _, err := multiaddr.NewMultiaddr(it); err != nil {
				return nil, bad("%s is not a multiaddr", quote(it))
			}
		case k.Kind == Dials:
			if b := checkDial(it); b != nil {
				return nil, b
			}
		}
	}
	return items, nil
}

// checkDial checks host:port; empty is fine.
func checkDial(s string) *badValue {
	if s == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(host, " /\x00") {
		return bad("%s is not host:port", quote(s))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad("%s has no port from 1 to 65535", quote(s))
	}
	return nil
}

// checkEndpoint checks host:port and multiaddrs. Fabric's sample says 0.0.0.0
// where the address is to be found, so an address that is everywhere passes.
func checkEndpoint(s string) *badValue {
	for _, w := range words(s) {
		if w[0] != '/' {
			if b := checkDial(w); b != nil {
				return b
			}
		} else if _, err := wire.ParseEndpoint(w); err != nil {
			return bad("%s is no multiaddr of a TCP or QUIC port: %v", quote(w), err)
		}
	}
	return nil
}

// checkListen checks host:port with any port; empty turns a listener off.
func checkListen(s string) *badValue {
	if s == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || strings.ContainsAny(host, " /\x00") {
		return bad("%s is not host:port", quote(s))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return bad("%s has no port from 0 to 65535", quote(s))
	}
	return nil
}

// text shows a parsed value.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []string:
		return "[" + strings.Join(v, " ") + "]"
	case []Front:
		parts := make([]string, len(v))
		for i, f := range v {
			parts[i] = f.From + "→" + f.Listen
		}
		return "[" + strings.Join(parts, " ") + "]"
	case []Override:
		parts := make([]string, len(v))
		for i, o := range v {
			parts[i] = o.From + "→" + o.To
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return fmt.Sprint(v)
}
