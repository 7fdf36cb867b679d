package deliver

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that exact stands on
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// A message is an answer with its encoding, made once for all streams that send it. It is a protobuf message to any
// codec; [Codec] takes the bytes as they are.
type message struct {
	proto.Message
	raw []byte // not altered
}

func encoded(m proto.Message) (*message, error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &message{Message: m, raw: raw}, nil
}

// exact encodes answers into buffers of their own size. gRPC's codec takes them from pools whose sizes go from 32 KiB to
// 1 MiB at one step, so that each of many streams that send a block of 100 KiB at once would hold ten times as much.
type exact struct{ encoding.CodecV2 }

// Codec is gRPC's for protobuf, but that it sends what many streams share without encoding or copying it again.
func Codec() encoding.CodecV2 { return exact{encoding.GetCodecV2("proto")} }

// Marshal encodes a protobuf message.
func (c exact) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *message:
		return mem.BufferSlice{mem.SliceBuffer(m.raw)}, nil
	case proto.Message:
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, err
		}
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}
