package state

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Transactions come from anybody who may write to the channel, and a message of
// nothing but empty sub-messages costs fifty times its size once it is decoded
// (PROMISES.md T21). Nor may it be refused: Fabric's peers judge it. So what
// repeats is read in place, as Go's protobuf would read it, and never built.

// errWire is told of bytes that Go's protobuf refuses.
var errWire = errors.New("not a message of that type")

// A field of a message: bytes where typ is BytesType, number where it is
// VarintType.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	bytes  []byte // points into the message, never nil
	number uint64
}

// walk calls visit with each field of a message, until it returns false.
func walk(raw []byte, visit func(f field) bool) error {
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		if n < 0 || num > protowire.MaxValidNumber {
			return errWire
		}
		raw = raw[n:]
		f := field{num: num, typ: typ}
		switch typ {
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(raw)
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(raw)
		default:
			n = protowire.ConsumeFieldValue(num, typ, raw)
		}
		if n < 0 {
			return errWire
		}
		if typ == protowire.BytesType {
			f.bytes = raw[n-len(f.bytes) : n : n]
		}
		raw = raw[n:]
		if !visit(f) {
			return nil
		}
	}
	return nil
}

// is reports whether the field has this number and is bytes, a string or a
// message. A known number with another wire type is an unknown field.
func (f *field) is(num protowire.Number) bool {
	return f.num == num && f.typ == protowire.BytesType
}

// counts reports whether the field has this number and is a varint.
func (f *field) counts(num protowire.Number) bool {
	return f.num == num && f.typ == protowire.VarintType
}

// sub adds an occurrence of a singular message: the parser merges them, which is
// what reading one behind the other does.
func sub(have, more []byte) []byte {
	if have == nil {
		return more
	}
	return append(have[:len(have):len(have)], more...)
}

// check walks a message and returns what visit says of the first bad field.
func check(raw []byte, visit func(f field) error) error {
	var bad error
	if err := walk(raw, func(f field) bool {
		bad = visit(f)
		return bad == nil
	}); err != nil {
		return err
	}
	return bad
}

// text refuses a string that isn't UTF-8, as Go's protobuf does.
func text(b []byte) error {
	if !utf8.Valid(b) {
		return errWire
	}
	return nil
}
