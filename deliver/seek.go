package deliver

import (
	"fmt"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/protobuf/proto"
)

// request is one seek envelope, taken apart. Nothing in it is proven yet.
type request struct {
	channel   string
	tlsHash   []byte
	creator   []byte // Fabric's SerializedIdentity
	payload   []byte // what the signature is over
	signature []byte
	seek      *ab.SeekInfo
}

// span is the range of blocks that one request asks for, both ends included.
type span struct {
	from, to uint64
	failing  bool // fail when a block isn't there yet, instead of waiting for it
	form     form
}

// parseRequest takes a seek envelope apart and judges what can be judged without any channel: form and clock. The
// header's type isn't looked at, nor is a nonce demanded: Fabric's servers don't, and its SDKs rely on it.
func parseRequest(env *common.Envelope, now time.Time, window time.Duration) (*request, error) {
	var (
		payload common.Payload
		header  common.ChannelHeader
		signer  common.SignatureHeader
		seek    ab.SeekInfo
	)
	if env == nil || len(env.GetPayload()) == 0 {
		return nil, fmt.Errorf("empty envelope: %w", Malformed)
	}
	r := &request{payload: env.Payload, signature: env.Signature, seek: &seek}
	if err := proto.Unmarshal(env.Payload, &payload); err != nil {
		return r, fmt.Errorf("payload: %w: %w", err, Malformed)
	}
	if payload.Header == nil {
		return r, fmt.Errorf("payload without header: %w", Malformed)
	}
	if err := proto.Unmarshal(payload.Header.ChannelHeader, &header); err != nil {
		return r, fmt.Errorf("channel header: %w: %w", err, Malformed)
	}
	r.channel, r.tlsHash = header.ChannelId, header.TlsCertHash
	if err := proto.Unmarshal(payload.Header.SignatureHeader, &signer); err != nil {
		return r, fmt.Errorf("signature header: %w: %w", err, Malformed)
	}
	r.creator = signer.Creator
	if header.Timestamp == nil || header.Timestamp.CheckValid() != nil {
		return r, fmt.Errorf("no valid timestamp: %w", Timestamp)
	}
	if off := now.Sub(header.Timestamp.AsTime()).Abs(); off > window {
		return r, fmt.Errorf("timestamp is %v off, %v is allowed: %w", off, window, Timestamp)
	}
	if err := proto.Unmarshal(payload.Data, &seek); err != nil {
		return r, fmt.Errorf("seek info: %w: %w", err, Malformed)
	}
	return r, nil
}

// resolve turns a seek into block numbers for a chain of the given height (FABRIC.md 8.1). What lies beyond the tip is
// waited for, but for a start beyond the next block, which is not found.
func resolve(seek *ab.SeekInfo, height uint64) (span, error) {
	sp := span{failing: seek.Behavior == ab.SeekInfo_FAIL_IF_NOT_READY}
	if seek.ContentType == ab.SeekInfo_HEADER_WITH_SIG {
		sp.form = bareHeader
	}
	tip := uint64(0) // an empty chain's first block will be its newest
	if height > 0 {
		tip = height - 1
	}
	switch start := seek.GetStart().GetType().(type) {
	case *ab.SeekPosition_Oldest:
		sp.from = 0
	case *ab.SeekPosition_Newest:
		sp.from = tip
	case *ab.SeekPosition_Specified:
		sp.from = start.Specified.GetNumber()
		if sp.from > height {
			return sp, fmt.Errorf("start %d, height %d: %w", sp.from, height, NotReady)
		}
	case *ab.SeekPosition_NextCommit:
		sp.from = height
	default:
		return sp, fmt.Errorf("no start: %w", BadRange)
	}
	switch stop := seek.GetStop().GetType().(type) {
	case *ab.SeekPosition_Oldest:
		sp.to = sp.from
	case *ab.SeekPosition_Newest:
		sp.to = tip
	case *ab.SeekPosition_Specified:
		sp.to = stop.Specified.GetNumber()
	case *ab.SeekPosition_NextCommit:
		return sp, fmt.Errorf("stop at the next commit: %w", BadRange)
	default:
		return sp, fmt.Errorf("no stop: %w", BadRange)
	}
	if sp.to < sp.from {
		return sp, fmt.Errorf("stop %d below start %d: %w", sp.to, sp.from, BadRange)
	}
	return sp, nil
}
