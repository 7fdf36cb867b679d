package itest

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel"
	"grapevine/msp"
)

const application = "Application"

// SetAnchor makes the next block: a configuration in which an organisation
// that has an anchor peer names another one, host:port.
func (w *World) SetAnchor(org int, endpoint string) (*common.Block, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return nil, err
	}
	raw, err := proto.Marshal(&peer.AnchorPeers{AnchorPeers: []*peer.AnchorPeer{{Host: host, Port: int32(n)}}})
	if err != nil {
		return nil, err
	}
	return w.reconfigure(func(now *common.ConfigGroup, u *common.ConfigUpdate) error {
		name := w.Orgs[org].Domain
		has := now.Groups[application].Groups[name].GetValues()["AnchorPeers"]
		if has == nil {
			return fmt.Errorf("%s has no anchor peer yet", name)
		}
		u.ReadSet.Groups = map[string]*common.ConfigGroup{application: {Groups: map[string]*common.ConfigGroup{name: {}}}}
		u.WriteSet.Groups = map[string]*common.ConfigGroup{application: {Groups: map[string]*common.ConfigGroup{name: {
			Values: map[string]*common.ConfigValue{"AnchorPeers": {Version: has.Version + 1, ModPolicy: has.ModPolicy, Value: raw}},
		}}}}
		return nil
	}, org)
}

// Remove makes the next block: a configuration without one organisation, which
// all organisations sign for.
func (w *World) Remove(org int) (*common.Block, error) {
	var all []int
	for i := range w.Orgs {
		all = append(all, i)
	}
	return w.reconfigure(func(now *common.ConfigGroup, u *common.ConfigUpdate) error {
		app := now.Groups[application]
		list := func(version uint64, without string) *common.ConfigGroup {
			g := &common.ConfigGroup{
				Version: version, ModPolicy: app.ModPolicy, Groups: map[string]*common.ConfigGroup{},
				Values: map[string]*common.ConfigValue{}, Policies: map[string]*common.ConfigPolicy{},
			}
			for name, v := range app.Groups {
				if name != without {
					g.Groups[name] = &common.ConfigGroup{Version: v.Version}
				}
			}
			for name, v := range app.Values {
				g.Values[name] = &common.ConfigValue{Version: v.Version}
			}
			for name, v := range app.Policies {
				g.Policies[name] = &common.ConfigPolicy{Version: v.Version}
			}
			return g
		}
		u.ReadSet.Groups = map[string]*common.ConfigGroup{application: list(app.Version, "")}
		u.WriteSet.Groups = map[string]*common.ConfigGroup{application: list(app.Version+1, w.Orgs[org].Domain)}
		return nil
	}, all...)
}

// reconfigure makes the next block from an update that the administrators of
// some organisations sign, as an orderer makes it.
func (w *World) reconfigure(edit func(now *common.ConfigGroup, u *common.ConfigUpdate) error, orgs ...int) (*common.Block, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	conf, err := channel.Parse(w.blocks[w.config])
	if err != nil {
		return nil, err
	}
	now, err := block.ConfigEnvelope(w.blocks[w.config])
	if err != nil {
		return nil, err
	}
	u := &common.ConfigUpdate{ChannelId: ChannelName, ReadSet: &common.ConfigGroup{}, WriteSet: &common.ConfigGroup{}}
	if err := edit(now.Config.ChannelGroup, u); err != nil {
		return nil, err
	}
	signed := &common.ConfigUpdateEnvelope{}
	if signed.ConfigUpdate, err = proto.Marshal(u); err != nil {
		return nil, err
	}
	var admin msp.Signer
	for _, i := range orgs {
		if admin, err = w.Orgs[i].Identity("Admin@"+w.Orgs[i].Domain, "admin"); err != nil {
			return nil, err
		}
		s := &common.ConfigSignature{}
		if s.SignatureHeader, err = proto.Marshal(&common.SignatureHeader{Creator: admin.Identity().Serialized(), Nonce: []byte("nonce")}); err != nil {
			return nil, err
		}
		if s.Signature, err = admin.Sign(append(append([]byte{}, s.SignatureHeader...), signed.ConfigUpdate...)); err != nil {
			return nil, err
		}
		signed.Signatures = append(signed.Signatures, s)
	}
	env, err := tx.SignedEnvelope(common.HeaderType_CONFIG_UPDATE, ChannelName, signed, admin, time.Now())
	if err != nil {
		return nil, err
	}
	next, err := conf.Propose(env)
	if err != nil {
		return nil, err
	}
	if env, err = tx.SignedEnvelope(common.HeaderType_CONFIG, ChannelName, next, w.Orderer, time.Now()); err != nil {
		return nil, err
	}
	raw, err := proto.Marshal(env)
	if err != nil {
		return nil, err
	}
	return w.seal(raw)
}
