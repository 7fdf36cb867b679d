package channel

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/wire"
)

// How a configuration changes. An update names, as a tree of versions, what it
// has read and what it writes. What it read must be as it is now. What it
// writes at another version than it read is changed: an element that exists
// needs the next version and signatures that satisfy the mod_policy it *has*;
// a new one needs version 0, and appears only if the group above it lists it,
// hence was changed too. The rules are those of Fabric's common/configtx.

// maxConfigSignatures bounds the signatures of one update before the first is
// verified.
const maxConfigSignatures = 256

// elementName is what a group, value or policy may be called.
var elementName = regexp.MustCompile(`^[a-zA-Z0-9.-]{1,249}$`)

// Next returns the configuration after a configuration block of the chain,
// whose orderer signatures the caller has verified: its last update, applied to
// the present configuration under its policies, must give exactly what the
// block holds. If not, the error carries block.bad_config, with the verdict
// Halt: a Fabric peer would panic here. C itself doesn't change.
func (c *Config) Next(b *common.Block) (*Config, error) {
	hash := block.HeaderHash(b.GetHeader())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil && c.nextHash == hash && bytes.Equal(b.Header.DataHash, dataHash(b)) {
		return c.next, nil
	}
	next, err := c.follow(b)
	if err != nil {
		if wire.ReasonOf(err) == block.BadConfig {
			err = fmt.Errorf("%w: %w", block.SignedBadConfig, err)
		}
		return nil, fmt.Errorf("configuration in block %d: %w", b.GetHeader().GetNumber(), err)
	}
	c.next, c.nextHash = next, hash
	return next, nil
}

// Propose returns what an orderer puts into a CONFIG envelope for a signed
// CONFIG_UPDATE envelope. Errors carry block.bad_config, with the verdict
// Reject, or block.unsupported_capability.
func (c *Config) Propose(update *common.Envelope) (*common.ConfigEnvelope, error) {
	group, err := c.apply(update)
	if err != nil {
		return nil, fmt.Errorf("configuration update: %w", err)
	}
	content := &common.Config{Sequence: c.content.Sequence + 1, ChannelGroup: group}
	if _, err := ParseChannelGroup(c.name, c.number, content); err != nil {
		return nil, fmt.Errorf("configuration update: %w", err)
	}
	return &common.ConfigEnvelope{Config: content, LastUpdate: update}, nil
}

// Made says whether this configuration is what a CONFIG_UPDATE envelope, this very
// one, led to. A genesis block's is none's.
func (c *Config) Made(update *common.Envelope) bool {
	return c.lastUpdate != nil && proto.Equal(c.lastUpdate, update)
}

func dataHash(b *common.Block) []byte {
	sum := block.DataHash(b.GetData())
	return sum[:]
}

func (c *Config) follow(b *common.Block) (*Config, error) {
	env, err := block.ConfigEnvelope(b)
	if err != nil {
		return nil, err
	}
	if got, want := env.Config.Sequence, c.content.Sequence+1; got != want {
		return nil, fmt.Errorf("sequence %d, want %d: %w", got, want, block.BadConfig)
	}
	group, err := c.apply(env.LastUpdate)
	if err != nil {
		return nil, err
	}
	if !proto.Equal(group, env.Config.ChannelGroup) {
		return nil, fmt.Errorf("last update gives another configuration: %w", block.BadConfig)
	}
	next, err := Parse(b)
	if err != nil {
		return nil, err
	}
	if next.name != c.name {
		return nil, fmt.Errorf("names channel %q: %w", next.name, block.BadConfig)
	}
	return next, nil
}

// apply returns the channel group that a signed update leads to.
func (c *Config) apply(env *common.Envelope) (*common.ConfigGroup, error) {
	update, signatures, err := readUpdate(env)
	if err != nil {
		return nil, err
	}
	if update.ChannelId != c.name {
		return nil, fmt.Errorf("update of channel %q: %w", update.ChannelId, block.BadConfig)
	}
	now, err := flatten(c.content.ChannelGroup)
	if err != nil {
		return nil, err
	}
	read, err := flatten(update.ReadSet)
	if err != nil {
		return nil, fmt.Errorf("read set: %w", err)
	}
	write, err := flatten(update.WriteSet)
	if err != nil {
		return nil, fmt.Errorf("write set: %w", err)
	}
	for key, e := range read {
		if has, ok := now[key]; !ok || has.version() != e.version() {
			return nil, fmt.Errorf("%s was read at version %d: %w", key, e.version(), block.BadConfig)
		}
	}
	changed := make(map[string]element)
	for key, e := range write {
		if r, ok := read[key]; !ok || r.version() != e.version() {
			changed[key] = e
		}
	}
	if err := c.authorise(now, changed, signatures); err != nil {
		return nil, err
	}
	maps.Copy(now, changed)
	used := make(map[string]bool)
	group, err := compose(now, used, "/"+groupChannel)
	if err != nil {
		return nil, err
	}
	for key := range write {
		if !used[key] {
			return nil, fmt.Errorf("%s is written, but its group doesn't list it: %w", key, block.BadConfig)
		}
	}
	return group, nil
}

// authorise checks the versions of what changes, and that the signatures
// satisfy the mod_policy that each element has.
func (c *Config) authorise(now, changed map[string]element, signatures []msp.SignedData) error {
	if len(changed) == 0 {
		return fmt.Errorf("update changes nothing: %w", block.BadConfig)
	}
	satisfied := make(map[string]error) // by policy: an update touches few
	for _, key := range slices.Sorted(maps.Keys(changed)) {
		e := changed[key]
		if !validModPolicy(e.modPolicy()) {
			return fmt.Errorf("%s: mod_policy %q: %w", key, e.modPolicy(), block.BadConfig)
		}
		has, exists := now[key]
		if !exists {
			if e.version() != 0 {
				return fmt.Errorf("%s is new, at version %d: %w", key, e.version(), block.BadConfig)
			}
			continue
		}
		if e.version() != has.version()+1 {
			return fmt.Errorf("%s goes from version %d to %d: %w", key, has.version(), e.version(), block.BadConfig)
		}
		path := has.policyPath()
		err, asked := satisfied[path]
		if !asked {
			err = c.Policy(path).Evaluate(c.msps, signatures)
			satisfied[path] = err
		}
		if err != nil {
			return fmt.Errorf("%s: mod_policy %s: %w: %s", key, path, block.BadConfig, err.Error())
		}
	}
	return nil
}

func validModPolicy(name string) bool {
	if name == "" {
		return false
	}
	for _, part := range strings.Split(strings.TrimPrefix(name, "/"), "/") {
		if !validElement(part) {
			return false
		}
	}
	return true
}

func validElement(name string) bool {
	return elementName.MatchString(name) && name != "." && name != ".."
}

// readUpdate reads the CONFIG_UPDATE envelope that brought a configuration.
// Signers that can't be read are left out: they satisfy nothing.
func readUpdate(env *common.Envelope) (*common.ConfigUpdate, []msp.SignedData, error) {
	if env == nil {
		return nil, nil, fmt.Errorf("no last update: %w", block.BadConfig)
	}
	h, _, err := block.Header(env)
	if err != nil {
		return nil, nil, fmt.Errorf("last update: %w: %s", block.BadConfig, err.Error())
	}
	if h.Type != int32(common.HeaderType_CONFIG_UPDATE) {
		return nil, nil, fmt.Errorf("last update of type %d: %w", h.Type, block.BadConfig)
	}
	var payload common.Payload
	var signed common.ConfigUpdateEnvelope
	var update common.ConfigUpdate
	err = proto.Unmarshal(env.Payload, &payload)
	if err == nil {
		err = proto.Unmarshal(payload.Data, &signed)
	}
	if err == nil {
		err = proto.Unmarshal(signed.ConfigUpdate, &update)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("last update: %w: %w", block.BadConfig, err)
	}
	if n := len(signed.Signatures); n > maxConfigSignatures {
		return nil, nil, fmt.Errorf("update with %d signatures, %d allowed: %w", n, maxConfigSignatures, block.BadConfig)
	}
	var signatures []msp.SignedData
	for _, s := range signed.Signatures {
		var header common.SignatureHeader
		if err := proto.Unmarshal(s.GetSignatureHeader(), &header); err != nil {
			return nil, nil, fmt.Errorf("update's signature header: %w: %w", block.BadConfig, err)
		}
		id, err := msp.Deserialize(header.Creator)
		if err != nil {
			continue
		}
		signatures = append(signatures, msp.SignedData{
			Creator:   id,
			Data:      [][]byte{s.SignatureHeader, signed.ConfigUpdate},
			Signature: s.Signature,
		})
	}
	return &update, signatures, nil
}
