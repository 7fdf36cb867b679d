// Package update makes and signs configuration updates: what a channel's
// configuration is to become, as the CONFIG_UPDATE envelope that Fabric's own
// tools read and write.
package update

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hyperledger/fabric-config/configtx"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/msp"
)

// What can be wrong with an update.
var (
	ErrNoChange = errors.New("the update changes nothing")
	ErrNoUpdate = errors.New("not a CONFIG_UPDATE envelope")
	ErrSigned   = errors.New("this identity has signed already")
)

// An Edit changes a channel's configuration in place.
type Edit func(root *common.ConfigGroup) error

// Make returns the unsigned update, in an envelope as Fabric's tools keep it in
// a file, that leads a channel from a configuration to the edited one. Now is
// left as it is.
func Make(channel string, now *common.Config, edits ...Edit) (*common.Envelope, error) {
	c := configtx.New(now)
	for _, edit := range edits {
		if err := edit(c.UpdatedConfig().ChannelGroup); err != nil {
			return nil, err
		}
	}
	if proto.Equal(now.ChannelGroup, c.UpdatedConfig().ChannelGroup) {
		return nil, ErrNoChange
	}
	raw, err := c.ComputeMarshaledUpdate(channel)
	if err != nil {
		return nil, fmt.Errorf("computing the update: %w", err)
	}
	env, err := configtx.NewEnvelope(raw)
	if err != nil {
		return nil, fmt.Errorf("wrapping the update: %w", err)
	}
	return env, nil
}

// To is the edit that makes the whole configuration another one.
func To(next *common.Config) Edit {
	return func(root *common.ConfigGroup) error {
		if next.GetChannelGroup() == nil {
			return errors.New("the new configuration has no channel group")
		}
		proto.Reset(root)
		proto.Merge(root, next.ChannelGroup)
		return nil
	}
}

// An Update is what an envelope asks for.
type Update struct {
	Channel string
	Changes []Change
	Signers []*msp.Identity // of its signatures, which aren't verified here
}

// A Change is one element that is written anew: a group, value or policy. Of a
// group, its list of members changes.
type Change struct {
	Path    string // such as /Channel/Application/org1/values/AnchorPeers
	Version uint64 // that it gets
}

// Read says what an envelope asks for.
func Read(env *common.Envelope) (*Update, error) {
	_, _, signed, update, err := open(env)
	if err != nil {
		return nil, err
	}
	out := &Update{Channel: update.ChannelId}
	walk("/Channel", update.ReadSet, update.WriteSet, &out.Changes)
	slices.SortFunc(out.Changes, func(a, b Change) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	for _, s := range signed.Signatures {
		id, err := signer(s)
		if err != nil {
			return nil, err
		}
		out.Signers = append(out.Signers, id)
	}
	return out, nil
}

// walk collects what is written at another version than it was read.
func walk(path string, read, write *common.ConfigGroup, out *[]Change) {
	if write == nil {
		return
	}
	note := func(path string, known bool, was, is uint64) {
		if !known || was != is {
			*out = append(*out, Change{path, is})
		}
	}
	note(path, read != nil, read.GetVersion(), write.Version)
	for name, v := range write.Values {
		r, ok := read.GetValues()[name]
		note(path+"/values/"+name, ok, r.GetVersion(), v.Version)
	}
	for name, p := range write.Policies {
		r, ok := read.GetPolicies()[name]
		note(path+"/policies/"+name, ok, r.GetVersion(), p.Version)
	}
	for name, g := range write.Groups {
		walk(path+"/"+name, read.GetGroups()[name], g, out)
	}
}

// Sign adds a signature to an update. One identity signs once: [ErrSigned].
func Sign(env *common.Envelope, s msp.Signer) (*common.Envelope, error) {
	payload, header, signed, _, err := open(env)
	if err != nil {
		return nil, err
	}
	for _, has := range signed.Signatures {
		if id, err := signer(has); err == nil && id.PKIID() == s.Identity().PKIID() {
			return nil, fmt.Errorf("%s of %s: %w", id.Name(), id.MSPID(), ErrSigned)
		}
	}
	nonce := make([]byte, 24)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	head, err := proto.Marshal(&common.SignatureHeader{Creator: s.Identity().Serialized(), Nonce: nonce})
	if err != nil {
		return nil, fmt.Errorf("encoding a signature's header: %w", err)
	}
	sig, err := s.Sign(append(slices.Clone(head), signed.ConfigUpdate...))
	if err != nil {
		return nil, fmt.Errorf("signing the update: %w", err)
	}
	signed.Signatures = append(signed.Signatures, &common.ConfigSignature{SignatureHeader: head, Signature: sig})
	data, err := proto.Marshal(signed)
	if err != nil {
		return nil, fmt.Errorf("encoding the update: %w", err)
	}
	raw, err := proto.Marshal(&common.Payload{Header: payload.Header, Data: data})
	if err != nil {
		return nil, fmt.Errorf("encoding the update of %s: %w", header.ChannelId, err)
	}
	return &common.Envelope{Payload: raw}, nil
}

// Seal returns what is submitted to an orderer: the update in an envelope that
// s signs. S's signature of the update itself isn't added; see [Sign].
func Seal(env *common.Envelope, s msp.Signer, now time.Time) (*common.Envelope, error) {
	_, header, signed, _, err := open(env)
	if err != nil {
		return nil, err
	}
	return tx.SignedEnvelope(common.HeaderType_CONFIG_UPDATE, header.ChannelId, signed, s, now)
}

// open decodes an envelope down to the update.
func open(env *common.Envelope) (*common.Payload, *common.ChannelHeader, *common.ConfigUpdateEnvelope, *common.ConfigUpdate, error) {
	fail := func(err error) (*common.Payload, *common.ChannelHeader, *common.ConfigUpdateEnvelope, *common.ConfigUpdate, error) {
		return nil, nil, nil, nil, err
	}
	header, _, err := block.Header(env)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNoUpdate, err))
	}
	if header.Type != int32(common.HeaderType_CONFIG_UPDATE) {
		return fail(fmt.Errorf("%w: its header's type is %d", ErrNoUpdate, header.Type))
	}
	payload, signed, update := &common.Payload{}, &common.ConfigUpdateEnvelope{}, &common.ConfigUpdate{}
	err = proto.Unmarshal(env.Payload, payload)
	if err == nil {
		err = proto.Unmarshal(payload.Data, signed)
	}
	if err == nil {
		err = proto.Unmarshal(signed.ConfigUpdate, update)
	}
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNoUpdate, err))
	}
	if update.ChannelId != header.ChannelId {
		return fail(fmt.Errorf("%w: its header names channel %q, the update %q", ErrNoUpdate, header.ChannelId, update.ChannelId))
	}
	return payload, header, signed, update, nil
}

// signer is who a signature says has made it.
func signer(s *common.ConfigSignature) (*msp.Identity, error) {
	var h common.SignatureHeader
	if err := proto.Unmarshal(s.GetSignatureHeader(), &h); err != nil {
		return nil, fmt.Errorf("%w: a signature's header: %w", ErrNoUpdate, err)
	}
	id, err := msp.Deserialize(h.Creator)
	if err != nil {
		return nil, fmt.Errorf("a signature's signer: %w", err)
	}
	return id, nil
}
