package wire

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Reasons for which a message of ours is refused before its content is looked
// at.
var (
	TooManyItems  = NewReason("wire.too_many_items", Reject)
	TooDeep       = NewReason("wire.too_deep", Reject)
	UnknownFields = NewReason("wire.unknown_fields", Reject)
	NotCanonical  = NewReason("wire.not_canonical", Reject)
	BadUTF8       = NewReason("wire.bad_utf8", Reject)
	BadWireType   = NewReason("wire.bad_wire_type", Reject)
	BadEnum       = NewReason("wire.bad_enum", Reject)
	TrailingBytes = NewReason("wire.trailing_bytes", Reject)
)

// Marshal encodes m in the one form that [Unmarshal] takes.
func Marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Unmarshal decodes b into m if, and only if, b is what [Marshal] makes of m.
// What a message costs is bounded before it is decoded: its fields are counted
// and its nesting measured on the bytes. It is for our own messages; Fabric's
// keep unknown fields and have other rules.
func Unmarshal(b []byte, m proto.Message) error {
	if len(b) == 0 {
		return fmt.Errorf("message of no bytes: %w", Empty)
	}
	s := scan{items: MaxItems}
	if err := s.message(b, m.ProtoReflect().Descriptor(), MaxDepth); err != nil {
		return err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", NotCanonical, err)
	}
	again, err := Marshal(m)
	if err != nil {
		return fmt.Errorf("%w: %w", NotCanonical, err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%d bytes re-marshal to others: %w", len(b), NotCanonical)
	}
	return nil
}

// A scan walks encoded fields without building anything.
type scan struct {
	items int // fields that may still come
}

func (s *scan) message(b []byte, d protoreflect.MessageDescriptor, depth int) error {
	if depth == 0 {
		return fmt.Errorf("nested deeper than %d: %w", MaxDepth, TooDeep)
	}
	var seen uint64 // singular fields that came; our numbers are below 64
	for len(b) > 0 {
		if s.items--; s.items < 0 {
			return fmt.Errorf("more than %d fields: %w", MaxItems, TooManyItems)
		}
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%d bytes that are no field: %w", len(b), TrailingBytes)
		}
		b = b[n:]
		if typ == protowire.StartGroupType || typ == protowire.EndGroupType {
			return fmt.Errorf("field %d is a group: %w", num, BadWireType)
		}
		f := d.Fields().ByNumber(num)
		if f == nil {
			return fmt.Errorf("field %d of %s: %w", num, d.Name(), UnknownFields)
		}
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return fmt.Errorf("field %s is cut off: %w", f.Name(), TrailingBytes)
		}
		value := b[:n]
		b = b[n:]
		if !f.IsList() {
			if seen&(1<<num) != 0 {
				return fmt.Errorf("field %s twice: %w", f.Name(), NotCanonical)
			}
			seen |= 1 << num
		}
		if err := s.value(f, typ, value, depth); err != nil {
			return err
		}
	}
	return nil
}

// value judges one field's value; length-delimited ones still have their
// length in front.
func (s *scan) value(f protoreflect.FieldDescriptor, typ protowire.Type, value []byte, depth int) error {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.StringKind, protoreflect.BytesKind:
		if typ != protowire.BytesType {
			return fmt.Errorf("field %s: %w", f.Name(), BadWireType)
		}
		v, _ := protowire.ConsumeBytes(value)
		switch f.Kind() {
		case protoreflect.MessageKind:
			return s.message(v, f.Message(), depth-1)
		case protoreflect.StringKind:
			if !utf8.Valid(v) {
				return fmt.Errorf("field %s: %w", f.Name(), BadUTF8)
			}
		}
	case protoreflect.EnumKind:
		if typ != protowire.VarintType {
			return fmt.Errorf("field %s: %w", f.Name(), BadWireType)
		}
		v, _ := protowire.ConsumeVarint(value)
		if v > 1<<31-1 || f.Enum().Values().ByNumber(protoreflect.EnumNumber(v)) == nil {
			return fmt.Errorf("field %s has no value %d: %w", f.Name(), v, BadEnum)
		}
	default: // the rest of our schema is unsigned varints
		if typ != protowire.VarintType {
			return fmt.Errorf("field %s: %w", f.Name(), BadWireType)
		}
	}
	return nil
}
