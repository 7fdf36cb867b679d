package ledger

import (
	"encoding/binary"
	"errors"
)

// The world state lies behind the blocks, in a space of its own, for its values
// change (engineOptions keeps them with their keys):
//
//	0x02 number(4) 'v' block(8)                        → verdict on the block
//	0x02 number(4) 'w'                                 → state record
//	0x03 number(4) 's' text(namespace) text(collection) key → entry
//	0x03 number(4) 'y' text(namespace) text(key) block(8) index(8) → 1 if deleted, else 0
//	0x03 number(4) 'e' block(8) text(namespace) text(collection) key → block(8) of the write
//
// A text ends with 00 01, and a zero byte in it is followed by ff: so no text is
// the beginning of another, and all sort by their bytes. The key of an entry is
// last and needs no end.
const (
	spaceState = 0x03

	kindVerdict = 'v'
	kindState   = 'w'
	kindEntry   = 's'
	kindTouch   = 'y'
	kindExpiry  = 'e'

	textZero = 0xff // behind a zero byte that belongs to the text
	textEnd  = 0x01 // behind the one that ends it
)

var errText = errors.New("not a text")

func appendText(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = append(dst, s[i])
		if s[i] == 0 {
			dst = append(dst, textZero)
		}
	}
	return append(dst, 0, textEnd)
}

// takeText takes a text off the front.
func takeText(b []byte) (s string, rest []byte, err error) {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] != 0 {
			out = append(out, b[i])
			continue
		}
		if i++; i == len(b) {
			break
		}
		switch b[i] {
		case textEnd:
			return string(out), b[i+1:], nil
		case textZero:
			out = append(out, 0)
		default:
			return "", nil, errText
		}
	}
	return "", nil, errText
}

func statePrefix(channel uint32, kind byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{spaceState}, channel), kind)
}

func verdictKey(channel uint32, n uint64) []byte {
	return key{channel: channel, kind: kindVerdict, number: n}.append(nil)
}

func stateKey(channel uint32) []byte { return key{channel: channel, kind: kindState}.append(nil) }

func entryKey(channel uint32, k Key) []byte {
	b := appendText(appendText(statePrefix(channel, kindEntry), k.Namespace), k.Collection)
	return append(b, k.Key...)
}

// parseEntryKey takes an entry's key apart, behind its prefix.
func parseEntryKey(b []byte) (k Key, err error) {
	if k.Namespace, b, err = takeText(b); err != nil {
		return k, err
	}
	if k.Collection, b, err = takeText(b); err != nil {
		return k, err
	}
	k.Key = string(b)
	return k, nil
}

func touchPrefix(channel uint32, namespace, key string) []byte {
	return appendText(appendText(statePrefix(channel, kindTouch), namespace), key)
}

func touchKey(channel uint32, namespace, key string, block, tx uint64) []byte {
	b := binary.BigEndian.AppendUint64(touchPrefix(channel, namespace, key), block)
	return binary.BigEndian.AppendUint64(b, tx)
}

func expiryPrefix(channel uint32, at uint64) []byte {
	return binary.BigEndian.AppendUint64(statePrefix(channel, kindExpiry), at)
}

func expiryKey(channel uint32, at uint64, k Key) []byte {
	b := appendText(appendText(expiryPrefix(channel, at), k.Namespace), k.Collection)
	return append(b, k.Key...)
}

// stateSpan is the range [lower, upper) of a channel's state.
func stateSpan(channel uint32) (lower, upper []byte) {
	lower = binary.BigEndian.AppendUint32([]byte{spaceState}, channel)
	return lower, after(lower)
}
