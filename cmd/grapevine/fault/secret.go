package fault

import (
	"regexp"
	"strings"
	"unicode"
)

// maxLine bounds a line of an error, in bytes: input that a message quotes may
// be of any length.
const maxLine = 2000

// privateKey matches a PEM block that holds, or may hold, a private key, whole
// or cut off.
var privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`)

// Clean makes a text of unknown origin fit to be shown on one line: private keys
// are replaced, control characters too, and it ends.
func Clean(s string) string { return clean(s) }

// clean makes s fit for one line of a terminal: no private key, no control
// character, no endless quotation.
func clean(s string) string {
	s = privateKey.ReplaceAllString(s, "[private key]")
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r):
			return '?'
		}
		return r
	}, s)
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine], "") + "..."
	}
	return s
}

func cleanAll(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, clean(l))
	}
	return out
}
