package deliver_test

import (
	"crypto/rand"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/msp/ca"
)

const (
	success     = common.Status_SUCCESS
	badRequest  = common.Status_BAD_REQUEST
	notFound    = common.Status_NOT_FOUND
	forbidden   = common.Status_FORBIDDEN
	unavailable = common.Status_SERVICE_UNAVAILABLE
	waits       = common.Status_UNKNOWN // no status yet
	fail        = ab.SeekInfo_FAIL_IF_NOT_READY
	block       = ab.SeekInfo_BLOCK_UNTIL_READY
)

// The rows of Fabric's seek rules, over a chain of blocks 0 to 5, each for whole blocks and for headers, from a consenter
// that is well, and with BEST_EFFORT from one that isn't. Who waits gets what is asked for once block 6 is there.
func TestSeek(t *testing.T) {
	for _, tc := range []struct {
		name        string
		start, stop *ab.SeekPosition
		behavior    ab.SeekInfo_SeekBehavior
		want        []uint64
		status      common.Status
	}{
		{"oldest to newest", oldest, newest, block, []uint64{0, 1, 2, 3, 4, 5}, success},
		{"oldest to oldest", oldest, oldest, block, []uint64{0}, success},
		{"newest to newest is one block", newest, newest, block, []uint64{5}, success},
		{"a stop at oldest is the start itself", at(3), oldest, block, []uint64{3}, success},
		{"a range", at(2), at(4), block, []uint64{2, 3, 4}, success},
		{"one block", at(2), at(2), fail, []uint64{2}, success},
		{"to the tip", at(4), newest, fail, []uint64{4, 5}, success},
		{"beyond the next block", at(7), at(7), block, []uint64{}, notFound},
		{"beyond the next block, failing", at(7), at(9), fail, []uint64{}, notFound},
		{"the next block is waited for", at(6), at(6), block, []uint64{6}, waits},
		{"the next block, failing", at(6), at(6), fail, []uint64{}, notFound},
		{"next commit", commit, at(6), block, []uint64{6}, waits},
		{"next commit, failing", commit, at(9), fail, []uint64{}, notFound},
		{"beyond the tip", at(4), at(6), block, []uint64{4, 5, 6}, waits},
		{"beyond the tip, failing", at(4), at(8), fail, []uint64{4, 5}, notFound},
		{"D2 start after stop", at(4), at(3), block, []uint64{}, badRequest},
		{"D2 newest before oldest", newest, at(0), block, []uint64{}, badRequest},
		{"next block to newest", at(6), newest, block, []uint64{}, badRequest},
		{"stop at the next commit", at(1), commit, block, []uint64{}, badRequest},
		{"no start", nil, newest, block, []uint64{}, badRequest},
		{"no stop", oldest, nil, block, []uint64{}, badRequest},
		{"newest, failing", newest, newest, fail, []uint64{5}, success},
		{"newest and on, failing", newest, at(9), fail, []uint64{5}, notFound},
		{"newest and on", newest, at(6), block, []uint64{5, 6}, waits},
		{"the genesis block", oldest, at(0), fail, []uint64{0}, success},
		{"all there is, failing", oldest, at(math.MaxUint64), fail, []uint64{0, 1, 2, 3, 4, 5}, notFound},
		{"a start at the end of numbers", at(math.MaxUint64), at(math.MaxUint64), block, []uint64{}, notFound},
		{"next commit to oldest is that block", commit, oldest, block, []uint64{6}, waits},
		{"next commit to newest", commit, newest, block, []uint64{}, badRequest},
		{"stop at the next commit, failing", oldest, commit, fail, []uint64{}, badRequest},
		{"empty positions", &ab.SeekPosition{}, &ab.SeekPosition{}, block, []uint64{}, badRequest},
	} {
		for _, content := range []ab.SeekInfo_SeekContentType{ab.SeekInfo_BLOCK, ab.SeekInfo_HEADER_WITH_SIG} {
			for _, effort := range []ab.SeekInfo_SeekErrorResponse{ab.SeekInfo_STRICT, ab.SeekInfo_BEST_EFFORT} {
				t.Run(fmt.Sprintf("%s/%s/%s", tc.name, content, effort), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						if effort == ab.SeekInfo_BEST_EFFORT {
							close(w.errored)
						}
						s := w.connect(t.Context())
						defer s.cancel()
						s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: tc.start, Stop: tc.stop, Behavior: tc.behavior, ContentType: content, ErrorResponse: effort}})
						want := tc.status
						if want == waits {
							go func() {
								synctest.Wait()
								w.chain.grow(1)
							}()
							want = success
						}
						blocks, st := s.until()
						require.Equal(t, want, st)
						require.Equal(t, tc.want, numbers(blocks))
						for _, b := range blocks { // of block 0, the configuration, the data is there always
							require.Equal(t, content == ab.SeekInfo_BLOCK || b.Header.Number == 0, b.Data != nil)
						}
						if st != success {
							require.NoError(t, <-s.done, "any other status ends the stream")
						}
					})
				})
			}
		}
		t.Run(tc.name+"/consenter in error", func(t *testing.T) {
			w := newWorld(t)
			close(w.errored)
			s := w.connect(t.Context())
			defer s.cancel()
			s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: tc.start, Stop: tc.stop, Behavior: tc.behavior}})
			blocks, st := s.until()
			require.Empty(t, blocks)
			require.Equal(t, unavailable, st, "whatever is asked for")
		})
	}
}

// D2: a stop at the largest number follows for ever.
func TestFollows(t *testing.T) {
	w := newWorld(t)
	s := w.connect(t.Context())
	s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: oldest, Stop: at(math.MaxUint64)}})
	for n := range uint64(20) {
		if n >= 6 {
			w.chain.grow(1)
		}
		require.Equal(t, n, s.next().GetBlock().Header.Number)
	}
	s.cancel()
	require.Error(t, <-s.done)
}

func TestSeveralRequestsOnOneStream(t *testing.T) {
	w := newWorld(t)
	s := w.connect(t.Context())
	for range 3 {
		s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: at(1), Stop: at(2)}})
		blocks, st := s.until()
		require.Equal(t, success, st)
		require.Len(t, blocks, 2)
	}
	close(s.requests)
	require.NoError(t, <-s.done)
}

// Blocks without data, but configurations whole; the source's own blocks stay as they are.
func TestHeaders(t *testing.T) {
	w := newWorld(t)
	before := proto.Clone(w.chain.blocks[3])
	s := w.connect(t.Context())
	defer s.cancel()
	s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: oldest, Stop: newest, ContentType: ab.SeekInfo_HEADER_WITH_SIG}})
	blocks, st := s.until()
	require.Equal(t, success, st)
	for n, b := range blocks {
		require.Equal(t, n == 0, b.Data != nil, "block %d", n)
		require.True(t, proto.Equal(w.chain.blocks[n].Header, b.Header))
		require.True(t, proto.Equal(w.chain.blocks[n].Metadata, b.Metadata))
	}
	require.True(t, proto.Equal(before, w.chain.blocks[3]))
}

func TestConsenterInError(t *testing.T) {
	w := newWorld(t)
	all := &ab.SeekInfo{Start: oldest, Stop: at(math.MaxUint64)}
	s := w.connect(t.Context())
	s.requests <- w.envelope(ask{seek: all})
	for range 6 {
		require.NotNil(t, s.next().GetBlock())
	}
	close(w.errored) // while the client waits
	_, st := s.until()
	require.Equal(t, unavailable, st)
	require.NoError(t, <-s.done)

	s = w.connect(t.Context())
	s.requests <- w.envelope(ask{seek: all})
	_, st = s.until()
	require.Equal(t, unavailable, st)

	s = w.connect(t.Context())
	s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: oldest, Stop: newest, ErrorResponse: ab.SeekInfo_BEST_EFFORT}})
	blocks, st := s.until()
	require.Equal(t, success, st)
	require.Len(t, blocks, 6)
	s.cancel()
	<-s.done
}

// Requests that are refused, with what the client is told and what we count.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	all := &ab.SeekInfo{Start: oldest, Stop: newest}
	impostors, err := ca.NewOrg("Org1MSP", "org1.example.com", time.Now())
	require.NoError(t, err)
	expired, err := w.org.Enroll(ca.Request{
		CN: "peer9", OU: []string{"peer"}, NotBefore: time.Now().Add(-2 * time.Minute), NotAfter: time.Now().Add(-time.Minute),
	}, ca.P256)
	require.NoError(t, err)
	unsign := func(env *common.Envelope) { env.Signature = nil }
	for _, tc := range []struct {
		name   string
		ask    ask
		status common.Status
		code   string
	}{
		{"D1 unsigned", ask{seek: all, spoil: unsign}, notFound, "deliver.unsigned"},
		{"D1 timestamp too old", ask{seek: all, skew: -16 * time.Minute}, badRequest, "deliver.timestamp"},
		{"D1 timestamp from the future", ask{seek: all, skew: 16 * time.Minute}, badRequest, "deliver.timestamp"},
		{"D1 no timestamp", ask{seek: all, timeless: true}, badRequest, "deliver.timestamp"},
		{"D2 start after stop", ask{seek: &ab.SeekInfo{Start: at(3), Stop: at(1)}}, badRequest, "deliver.bad_range"},
		{"no payload", ask{seek: all, spoil: func(e *common.Envelope) { e.Payload = nil }}, badRequest, "deliver.malformed"},
		{"garbage payload", ask{seek: all, spoil: func(e *common.Envelope) { e.Payload = []byte{0xff} }}, badRequest, "deliver.malformed"},
		{"garbage seek", ask{data: []byte{0xff}}, badRequest, "deliver.malformed"},
		{"unknown channel", ask{seek: all, channel: "other"}, notFound, "deliver.unknown_channel"},
		{"D5 a stranger", ask{seek: all, who: w.identity(w.stranger, "peer0", "peer")}, notFound, "deliver.unknown_channel"},
		{"D5 a stranger with a member's MSP id", ask{seek: all, who: w.identity(impostors, "peer0", "peer")}, notFound, "deliver.unknown_channel"},
		{"bad signature", ask{seek: all, spoil: func(e *common.Envelope) { e.Signature[len(e.Signature)-1] ^= 1 }}, notFound, "deliver.bad_signature"},
		{"a member that may not read", ask{seek: all, who: w.identity(w.org, "orderer0", "orderer")}, forbidden, "deliver.forbidden"},
		{"an expired member", ask{seek: all, who: expired}, notFound, "deliver.unknown_channel"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(w.reasons())
			s := w.connect(t.Context())
			s.requests <- w.envelope(tc.ask)
			blocks, st := s.until()
			require.Equal(t, tc.status, st)
			require.Empty(t, blocks)
			require.NoError(t, <-s.done)
			require.Equal(t, []string{tc.code}, w.reasons()[before:])
		})
	}
}

// S8, D5: to who isn't of its organisations, a channel answers to the byte as one that doesn't exist.
func TestUniformForOutsiders(t *testing.T) {
	w := newWorld(t)
	stranger := w.identity(w.stranger, "peer0", "peer")
	answers := func(who msp.Signer, name string, seek *ab.SeekInfo, spoil func(*common.Envelope)) (all []byte) {
		s := w.connect(t.Context())
		s.requests <- w.envelope(ask{seek: seek, who: who, channel: name, spoil: spoil})
		for r := s.next(); r != nil; r = s.next() {
			b, err := proto.Marshal(r)
			require.NoError(t, err)
			all = append(all, b...)
		}
		require.NoError(t, <-s.done)
		return all
	}
	for _, seek := range []*ab.SeekInfo{
		{Start: oldest, Stop: newest}, {Start: at(99), Stop: at(99)}, {Start: at(3), Stop: at(1)}, {},
	} {
		for _, spoil := range []func(*common.Envelope){
			nil, func(e *common.Envelope) { e.Signature = nil }, func(e *common.Envelope) { rand.Read(e.Signature) },
		} {
			for _, who := range []msp.Signer{stranger, w.reader} {
				if who == w.reader && spoil == nil {
					continue
				}
				require.Equal(t, answers(who, "other", seek, spoil), answers(who, channelName, seek, spoil))
			}
		}
	}
}

// A configuration that takes the right to read away ends the session before the next block.
func TestReadersAreJudgedAgain(t *testing.T) {
	w := newWorld(t)
	s := w.connect(t.Context())
	s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: oldest, Stop: at(math.MaxUint64)}})
	for range 6 {
		require.NotNil(t, s.next().GetBlock())
	}
	w.mu.Lock()
	w.access.Readers = msp.Deny // under the same sequence: not looked at
	w.mu.Unlock()
	w.chain.grow(1)
	require.NotNil(t, s.next().GetBlock())
	w.mu.Lock()
	w.access.Sequence++
	w.mu.Unlock()
	w.chain.grow(1)
	blocks, st := s.until()
	require.Empty(t, blocks)
	require.Equal(t, forbidden, st)
	require.Equal(t, []string{"deliver.forbidden"}, w.reasons())
}

// L7: the session ends with the certificate, though nothing happens on the channel.
func TestSessionEndsWithTheCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		brief, err := w.org.Enroll(ca.Request{CN: "peer9", OU: []string{"peer"}, NotAfter: time.Now().Add(time.Hour)}, ca.P256)
		require.NoError(t, err)
		begin := time.Now()
		s := w.connect(t.Context())
		s.requests <- w.envelope(ask{who: brief, seek: &ab.SeekInfo{Start: oldest, Stop: at(math.MaxUint64)}})
		blocks, st := s.until()
		require.Len(t, blocks, 6)
		require.Equal(t, forbidden, st)
		require.InDelta(t, time.Hour, time.Since(begin), float64(time.Second))
		require.Equal(t, []string{"deliver.expired"}, w.reasons())
	})
}

// D3: a reader that takes nothing is let go, and blocks nobody.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.connect(t.Context())
		s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: oldest, Stop: at(math.MaxUint64)}})
		require.NotNil(t, s.next().GetBlock())
		err := <-s.done
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.Equal(t, []string{"deliver.slow_reader"}, w.reasons())
	})
}

// D4: beyond the limit, streams are refused as a whole; a free place is taken again.
func TestBusy(t *testing.T) {
	w := newWorld(t)
	w.handler.MaxStreams = 2
	var open []*stream
	for range 2 {
		s := w.connect(t.Context())
		s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: newest, Stop: at(math.MaxUint64)}})
		require.NotNil(t, s.next().GetBlock())
		open = append(open, s)
	}
	err := <-w.connect(t.Context()).done
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, []string{"deliver.busy"}, w.reasons())
	open[0].cancel()
	<-open[0].done
	s := w.connect(t.Context())
	s.requests <- w.envelope(ask{seek: &ab.SeekInfo{Start: newest, Stop: newest}})
	_, st := s.until()
	require.Equal(t, success, st)
	s.cancel()
	<-s.done
	open[1].cancel()
	<-open[1].done
}
