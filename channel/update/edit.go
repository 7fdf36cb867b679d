package update

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/channel/genesis"
)

const (
	groupApplication = "Application"
	groupOrderer     = "Orderer"
	valueMSP         = "MSP"
	valueAnchors     = "AnchorPeers"
	modPolicy        = "Admins"
)

// SetAnchors makes the endpoints, host:port, the anchor peers of an application
// organisation, named by its group or its MSP ID. None: it has none any more.
func SetAnchors(org string, endpoints ...string) Edit {
	return func(root *common.ConfigGroup) error {
		_, g, err := find(root, groupApplication, org)
		if err != nil {
			return err
		}
		if len(endpoints) == 0 {
			delete(g.Values, valueAnchors)
			return nil
		}
		var peers peer.AnchorPeers
		for _, e := range endpoints {
			host, text, err := net.SplitHostPort(e)
			port, perr := strconv.ParseUint(text, 10, 16)
			if err != nil || perr != nil || host == "" || port == 0 {
				return fmt.Errorf("anchor peer %q is not HOST:PORT", e)
			}
			peers.AnchorPeers = append(peers.AnchorPeers, &peer.AnchorPeer{Host: host, Port: int32(port)})
		}
		return setValue(g, valueAnchors, &peers)
	}
}

// AddOrg adds an application organisation, with the policies of
// [genesis.Org].
func AddOrg(o genesis.Org) Edit {
	return func(root *common.ConfigGroup) error {
		app := root.GetGroups()[groupApplication]
		if app == nil {
			return fmt.Errorf("the channel has no group %s", groupApplication)
		}
		name, g, err := o.ApplicationGroup()
		if err != nil {
			return err
		}
		for has, old := range app.Groups {
			id, err := mspID(old)
			if err != nil {
				return fmt.Errorf("organisation %s: %w", has, err)
			}
			if has == name || id == o.MSP.GetName() {
				return fmt.Errorf("the channel has organisation %s (%s) already", has, id)
			}
		}
		if app.Groups == nil {
			app.Groups = map[string]*common.ConfigGroup{}
		}
		app.Groups[name] = g
		return nil
	}
}

// RemoveOrg removes an application organisation.
func RemoveOrg(org string) Edit {
	return func(root *common.ConfigGroup) error {
		name, _, err := find(root, groupApplication, org)
		if err != nil {
			return err
		}
		delete(root.Groups[groupApplication].Groups, name)
		return nil
	}
}

// SetMSP replaces the definition of an organisation, of the application or the
// ordering service; its name may not change.
func SetMSP(org string, conf *mspproto.FabricMSPConfig) Edit {
	return editMSP(org, func(now *mspproto.FabricMSPConfig) error {
		if conf.GetName() != now.Name {
			return fmt.Errorf("organisation %s is %s, the new definition is of %s", org, now.Name, conf.GetName())
		}
		proto.Reset(now)
		proto.Merge(now, conf)
		return nil
	})
}

// Revoke gives an organisation's definition a certificate revocation list, PEM,
// in place of those it has of the same issuer. A list older than one that is
// replaced is refused: it would lift revocations.
func Revoke(org string, crl []byte) Edit {
	return editMSP(org, func(now *mspproto.FabricMSPConfig) error {
		list, err := parseCRL(crl)
		if err != nil {
			return err
		}
		var kept [][]byte
		for _, raw := range now.RevocationList {
			has, err := parseCRL(raw)
			if err != nil || !bytes.Equal(has.RawIssuer, list.RawIssuer) || !bytes.Equal(has.AuthorityKeyId, list.AuthorityKeyId) {
				kept = append(kept, raw) // what can't be read isn't ours to drop
				continue
			}
			if list.ThisUpdate.Before(has.ThisUpdate) {
				return fmt.Errorf("the revocation list of %s is older than the channel's of %s", list.ThisUpdate, has.ThisUpdate)
			}
		}
		now.RevocationList = append(kept, crl)
		return nil
	})
}

func parseCRL(raw []byte) (*x509.RevocationList, error) {
	der := raw
	if b, _ := pem.Decode(raw); b != nil {
		der = b.Bytes
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("certificate revocation list: %w", err)
	}
	return list, nil
}

// editMSP changes an organisation's definition wherever the organisation
// stands: one that is in both groups has one definition.
func editMSP(org string, edit func(*mspproto.FabricMSPConfig) error) Edit {
	return func(root *common.ConfigGroup) error {
		found := false
		var last error
		for _, section := range []string{groupApplication, groupOrderer} {
			_, g, err := find(root, section, org)
			if err != nil {
				last = err
				continue
			}
			found = true
			kind, conf, err := definition(g)
			if err != nil {
				return fmt.Errorf("organisation %s: %w", org, err)
			}
			if err := edit(conf); err != nil {
				return err
			}
			raw, err := proto.Marshal(conf)
			if err != nil {
				return fmt.Errorf("encoding the definition of %s: %w", org, err)
			}
			if err := setValue(g, valueMSP, &mspproto.MSPConfig{Type: kind, Config: raw}); err != nil {
				return err
			}
		}
		if !found {
			return last
		}
		return nil
	}
}

// find finds an organisation of a section by its group's name or its MSP ID.
func find(root *common.ConfigGroup, section, org string) (string, *common.ConfigGroup, error) {
	s := root.GetGroups()[section]
	if g := s.GetGroups()[org]; g != nil {
		return org, g, nil
	}
	var names []string
	for name, g := range s.GetGroups() {
		id, err := mspID(g)
		if err != nil {
			return "", nil, fmt.Errorf("organisation %s: %w", name, err)
		}
		if id == org {
			return name, g, nil
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return "", nil, fmt.Errorf("no organisation %s in %s, which has %s", org, section, strings.Join(names, ", "))
}

func mspID(g *common.ConfigGroup) (string, error) {
	_, conf, err := definition(g)
	return conf.GetName(), err
}

// definition opens an organisation's MSP, and tells its type.
func definition(g *common.ConfigGroup) (int32, *mspproto.FabricMSPConfig, error) {
	var outer mspproto.MSPConfig
	conf := &mspproto.FabricMSPConfig{}
	err := proto.Unmarshal(g.GetValues()[valueMSP].GetValue(), &outer)
	if err == nil {
		err = proto.Unmarshal(outer.Config, conf)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("its MSP definition: %w", err)
	}
	return outer.Type, conf, nil
}

// setValue sets a value; its mod_policy stays, or is Admins.
func setValue(g *common.ConfigGroup, name string, m proto.Message) error {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", name, err)
	}
	if g.Values == nil {
		g.Values = map[string]*common.ConfigValue{}
	}
	has := g.Values[name]
	if has == nil {
		has = &common.ConfigValue{ModPolicy: modPolicy}
		g.Values[name] = has
	}
	has.Value = raw
	return nil
}
