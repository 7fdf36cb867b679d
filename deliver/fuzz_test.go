package deliver

import (
	"math"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"grapevine/wire"
)

// FuzzSeekInfo feeds whole requests and their seek: whatever comes, the verdict is a reason of ours, the same again, and
// a range that is accepted lies within what the rules allow.
func FuzzSeekInfo(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	position := func(n uint64) *ab.SeekPosition {
		return &ab.SeekPosition{Type: &ab.SeekPosition_Specified{Specified: &ab.SeekSpecified{Number: n}}}
	}
	oldest := &ab.SeekPosition{Type: &ab.SeekPosition_Oldest{}}
	newest := &ab.SeekPosition{Type: &ab.SeekPosition_Newest{}}
	commit := &ab.SeekPosition{Type: &ab.SeekPosition_NextCommit{}}
	for _, seek := range []*ab.SeekInfo{
		{},
		{Start: oldest, Stop: newest},
		{Start: position(3), Stop: position(math.MaxUint64)},
		{Start: newest, Stop: newest},
		{Start: commit, Stop: position(0)},
		{Start: oldest, Stop: commit},
		{Start: position(9), Stop: oldest, Behavior: 1, ContentType: 1, ErrorResponse: 1},
	} {
		f.Add(marshal(&common.Payload{
			Header: &common.Header{ChannelHeader: marshal(&common.ChannelHeader{ChannelId: "c", Timestamp: timestamppb.New(now)})},
			Data:   marshal(seek),
		}), uint64(6))
	}
	f.Fuzz(func(t *testing.T, payload []byte, height uint64) {
		judge := func() (span, error) {
			r, err := parseRequest(&common.Envelope{Payload: payload, Signature: []byte{1}}, now, defaultTimeWindow)
			if err != nil {
				return span{}, err
			}
			return resolve(r.seek, height)
		}
		sp, err := judge()
		again, err2 := judge()
		if sp != again || wire.ReasonOf(err) != wire.ReasonOf(err2) {
			t.Fatalf("%v, %v, then %v, %v", sp, err, again, err2)
		}
		if err != nil {
			if wire.ReasonOf(err) == nil {
				t.Fatalf("without a reason: %v", err)
			}
			return
		}
		if sp.from > sp.to || sp.from > height {
			t.Fatalf("%+v at height %d", sp, height)
		}
	})
}
