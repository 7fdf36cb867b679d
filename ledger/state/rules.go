package state

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
)

// Org is an application organisation: its group's name in the configuration, and
// its MSP ID.
type Org struct{ Name, MSPID string }

// Rules are what a configuration in force demands of transactions. They are safe
// for concurrent use, and remember the policies they compiled.
type Rules struct {
	Channel string
	MSPs    msp.Directory
	// Policy returns the policy at an absolute path of the configuration,
	// msp.Deny if there is none.
	Policy func(path string) msp.Policy
	Orgs   []Org
	// Unbuilt says why transactions under this configuration can't be judged
	// here; "" if they can.
	Unbuilt string

	mu       sync.Mutex
	compiled map[string]msp.Policy    // guarded by mu: by kind and marshalled policy
	known    map[string]*msp.Identity // guarded by mu: by serialised identity
}

// Paths of policies that validation itself refers to, and what a policy is
// called below an organisation.
const (
	root                 = "/Channel"
	lifecycleEndorsement = root + "/Application/LifecycleEndorsement"
	orgEndorsement       = root + "/Application/%s/Endorsement"
)

// Bounds on what Rules remember. Keys' own policies and identities come from
// transactions, so they may be many; a channel has fewer members than this.
const (
	maxCompiled = 1024
	maxKnown    = 1024
)

// application compiles a marshalled peer.ApplicationPolicy. What can't be read
// or isn't there is a policy that nobody meets.
func (r *Rules) application(marshalled []byte) msp.Policy {
	return r.remember("a"+string(marshalled), func() msp.Policy {
		var p peer.ApplicationPolicy
		if err := proto.Unmarshal(marshalled, &p); err != nil {
			return msp.Deny
		}
		switch t := p.Type.(type) {
		case *peer.ApplicationPolicy_SignaturePolicy:
			return signature(t.SignaturePolicy)
		case *peer.ApplicationPolicy_ChannelConfigPolicyReference:
			return r.reference(t.ChannelConfigPolicyReference)
		}
		return msp.Deny
	})
}

// keyLevel compiles a key's own policy, a marshalled signature policy.
func (r *Rules) keyLevel(marshalled []byte) msp.Policy {
	return r.remember("k"+string(marshalled), func() msp.Policy {
		var p common.SignaturePolicyEnvelope
		if err := proto.Unmarshal(marshalled, &p); err != nil {
			return msp.Deny // a Fabric peer stops here
		}
		return signature(&p)
	})
}

func (r *Rules) remember(key string, compile func() msp.Policy) msp.Policy {
	r.mu.Lock()
	p, ok := r.compiled[key]
	r.mu.Unlock()
	if ok {
		return p
	}
	p = compile()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.compiled == nil || len(r.compiled) >= maxCompiled {
		r.compiled = make(map[string]msp.Policy)
	}
	r.compiled[key] = p
	return p
}

// identity reads a creator or an endorser: parsing a certificate takes a quarter
// of what verifying a signature takes, and few sign much.
func (r *Rules) identity(serialized []byte) (*msp.Identity, error) {
	r.mu.Lock()
	id, ok := r.known[string(serialized)]
	r.mu.Unlock()
	if ok {
		return id, nil
	}
	id, err := msp.Deserialize(serialized)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= maxKnown {
		r.known = make(map[string]*msp.Identity)
	}
	r.known[string(serialized)] = id
	return id, nil
}

func signature(p *common.SignaturePolicyEnvelope) msp.Policy {
	s, err := msp.SignaturePolicy(p)
	if err != nil {
		return msp.Deny
	}
	return s
}

// reference finds a policy as Fabric's policy manager does: by an absolute path,
// of which it looks at the root's name and skips one character, or by a path
// below the root.
func (r *Rules) reference(path string) msp.Policy {
	if strings.HasPrefix(path, "/") {
		if !strings.HasPrefix(path, root) || len(path) <= len(root) {
			return msp.Deny
		}
		path = path[len(root)+1:]
	}
	if path == "" {
		return msp.Deny
	}
	return r.Policy(root + "/" + path)
}

// lifecycle is the policy of the namespace _lifecycle. Where the configuration
// has none, members of more than half of the organisations must sign.
func (r *Rules) lifecycle() msp.Policy {
	if p := r.Policy(lifecycleEndorsement); p != msp.Deny {
		return p
	}
	ids := make([]string, len(r.Orgs))
	for i, o := range r.Orgs {
		ids[i] = o.MSPID
	}
	return members(len(ids)/2+1, ids)
}

// implicit is the policy of an organisation's implicit collection, and false if
// the channel has no such organisation.
func (r *Rules) implicit(mspID string) (msp.Policy, bool) {
	i := slices.IndexFunc(r.Orgs, func(o Org) bool { return o.MSPID == mspID })
	if i < 0 {
		return nil, false
	}
	if p := r.Policy(fmt.Sprintf(orgEndorsement, r.Orgs[i].Name)); p != msp.Deny {
		return p, true
	}
	return members(1, []string{mspID}), true
}

// members is met by members of n of these MSPs.
func members(n int, mspIDs []string) msp.Policy {
	slices.Sort(mspIDs)
	gate := &common.SignaturePolicy_NOutOf{N: int32(n)}
	p := &common.SignaturePolicyEnvelope{Rule: &common.SignaturePolicy{Type: &common.SignaturePolicy_NOutOf_{NOutOf: gate}}}
	for i, id := range mspIDs {
		role, err := proto.Marshal(&mspproto.MSPRole{MspIdentifier: id, Role: mspproto.MSPRole_MEMBER})
		if err != nil {
			return msp.Deny // a name that is not UTF-8, which no configuration has
		}
		p.Identities = append(p.Identities, &mspproto.MSPPrincipal{PrincipalClassification: mspproto.MSPPrincipal_ROLE, Principal: role})
		gate.Rules = append(gate.Rules, &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	return signature(p)
}
