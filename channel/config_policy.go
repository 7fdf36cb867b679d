package channel

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
)

// maxDepth bounds how deep groups nest; Fabric's own stop at three.
const maxDepth = 8

// readPolicies reads the policies of a group and those below it. An
// implicit-meta policy asks the direct sub-groups, so these come first.
func (c *Config) readPolicies(path string, g *common.ConfigGroup, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("group %s nests too deep: %w", path, block.BadConfig)
	}
	names := slices.Sorted(maps.Keys(g.GetGroups()))
	for _, name := range names {
		if err := c.readPolicies(path+"/"+name, g.Groups[name], depth+1); err != nil {
			return err
		}
	}
	for name, p := range g.GetPolicies() {
		policy, err := c.readPolicy(path, names, p.GetPolicy())
		if err != nil {
			return fmt.Errorf("policy %s/%s: %w: %s", path, name, block.BadConfig, err.Error())
		}
		c.policies[path+"/"+name] = policy
	}
	return nil
}

func (c *Config) readPolicy(path string, groups []string, p *common.Policy) (msp.Policy, error) {
	switch common.Policy_PolicyType(p.GetType()) {
	case common.Policy_SIGNATURE:
		var env common.SignaturePolicyEnvelope
		if err := proto.Unmarshal(p.GetValue(), &env); err != nil {
			return nil, err
		}
		return msp.SignaturePolicy(&env)
	case common.Policy_IMPLICIT_META:
		var meta common.ImplicitMetaPolicy
		if err := proto.Unmarshal(p.GetValue(), &meta); err != nil {
			return nil, err
		}
		subs := make([]msp.Policy, 0, len(groups))
		for _, group := range groups {
			subs = append(subs, c.policies[path+"/"+group+"/"+meta.SubPolicy])
		}
		return msp.ImplicitMeta(meta.Rule, subs)
	}
	return nil, fmt.Errorf("unknown type %d", p.GetType())
}

func hostPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

func poolOf(pems [][]byte) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, p := range pems {
		pool.AppendCertsFromPEM(p)
	}
	return pool
}

// ACL returns the path of the policy that guards a peer's resource, such as
// "event/Block": what the configuration's ACLs say, or def. A reference without
// a leading slash is relative to /Channel/Application.
func (c *Config) ACL(resource, def string) string {
	ref := c.acls[resource]
	switch {
	case ref == "":
		return def
	case ref[0] == '/':
		return ref
	}
	return "/" + groupChannel + "/" + groupApplication + "/" + ref
}

func (c *Config) readACLs(application *common.ConfigGroup) error {
	var acls peer.ACLs
	if _, err := readValue(application, "ACLs", &acls); err != nil {
		return err
	}
	c.acls = make(map[string]string, len(acls.Acls))
	for resource, a := range acls.Acls {
		c.acls[resource] = a.GetPolicyRef()
	}
	return nil
}
