package deliver

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that exact stands on
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// exact encodes answers into buffers of their own size. gRPC's codec takes them from pools whose sizes go from 32 KiB to
// 1 MiB at one step, so that each of many streams that send a block of 100 KiB at once would hold ten times as much.
type exact struct{ encoding.CodecV2 }

func newExact() exact { return exact{encoding.GetCodecV2("proto")} }

// Marshal encodes a protobuf message.
func (c exact) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}
