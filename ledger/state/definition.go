package state

import (
	"fmt"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer/lifecycle"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
)

// Namespaces that hold the definitions of chaincodes, since Fabric 2.0 and
// before; and what the names of collections of one organisation begin with.
const (
	lifecycleNS    = "_lifecycle"
	legacyNS       = "lscc"
	implicitPrefix = "_implicit_org_"
	plugin         = "vscc" // Fabric's own validation plug-in, the one that is built
)

// A definition is what a chaincode's definition, as committed before the block,
// says about the validation of what it writes.
type definition struct {
	modern      bool // under _lifecycle
	plugin      string
	policy      msp.Policy // the chaincode's; nil if the definition lacks one
	collections *peer.CollectionConfigPackage
}

// definitions reads definitions, each once for a block.
type definitions struct {
	rules *Rules
	get   func(Key) (*Entry, error)
	known map[string]*definition // nil for a chaincode without definition
}

// of returns a namespace's definition, or nil if there is none or it can't be
// read: a Fabric peer stops at one that can't be read, which only a majority of
// the organisations can commit.
func (d *definitions) of(namespace string) (*definition, error) {
	if def, ok := d.known[namespace]; ok {
		return def, nil
	}
	def, err := d.read(namespace)
	if err != nil {
		return nil, fmt.Errorf("definition of %q: %w", namespace, err)
	}
	d.known[namespace] = def
	return def, nil
}

func (d *definitions) read(namespace string) (*definition, error) {
	if namespace == lifecycleNS {
		return &definition{modern: true, plugin: plugin, policy: d.rules.lifecycle()}, nil
	}
	var meta lifecycle.StateMetadata
	found, err := d.message("namespaces/metadata/"+namespace, &meta)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return d.legacy(namespace)
	case meta.Datatype != "ChaincodeDefinition":
		return nil, nil
	}
	var (
		endorsement lifecycle.ChaincodeEndorsementInfo
		validation  lifecycle.ChaincodeValidationInfo
		collections peer.CollectionConfigPackage
		sequence    lifecycle.StateData
	)
	fields := "namespaces/fields/" + namespace + "/"
	readable := true
	for field, m := range map[string]proto.Message{"EndorsementInfo": &endorsement, "ValidationInfo": &validation, "Collections": &collections} {
		ok, err := d.field(fields+field, m)
		if err != nil {
			return nil, err
		}
		readable = readable && ok
	}
	if _, err := d.message(fields+"Sequence", &sequence); err != nil {
		return nil, err
	}
	if _, ok := sequence.Type.(*lifecycle.StateData_Int64); !readable || !ok && sequence.Type != nil {
		return nil, nil
	}
	def := &definition{modern: true, plugin: validation.ValidationPlugin, collections: &collections}
	if len(validation.ValidationParameter) > 0 {
		def.policy = d.rules.application(validation.ValidationParameter)
	} else if def.plugin == "" {
		return d.legacy(namespace)
	}
	return def, nil
}

// field reads a field of a definition, a message within bytes; an absent one is
// an empty message.
func (d *definitions) field(key string, m proto.Message) (bool, error) {
	var data lifecycle.StateData
	if _, err := d.message(key, &data); err != nil {
		return false, err
	}
	if data.Type == nil {
		return true, nil
	}
	b, ok := data.Type.(*lifecycle.StateData_Bytes)
	return ok && proto.Unmarshal(b.Bytes, m) == nil, nil
}

// message reads a value of _lifecycle. What can't be decoded leaves m as if it
// were of no type at all.
func (d *definitions) message(key string, m proto.Message) (bool, error) {
	e, err := d.get(Key{Namespace: lifecycleNS, Key: key})
	if err != nil || e == nil {
		return false, err
	}
	if err := proto.Unmarshal(e.Value, m); err != nil {
		if s, ok := m.(*lifecycle.StateData); ok {
			s.Type = &lifecycle.StateData_String_{} // of no field's type
		}
	}
	return true, nil
}

// legacy reads a definition of Fabric before 2.0, of which the channel may have
// kept some.
func (d *definitions) legacy(namespace string) (*definition, error) {
	e, err := d.get(Key{Namespace: legacyNS, Key: namespace})
	if err != nil || e == nil {
		return nil, err
	}
	var data peer.ChaincodeData
	if proto.Unmarshal(e.Value, &data) != nil {
		return nil, nil
	}
	def := &definition{plugin: data.Vscc, collections: &peer.CollectionConfigPackage{}}
	if data.Policy != nil && proto.Size(data.Policy) > 0 {
		def.policy = signature(data.Policy)
	}
	if e, err = d.get(Key{Namespace: legacyNS, Key: namespace + "~collection"}); err != nil {
		return nil, err
	}
	if e != nil && proto.Unmarshal(e.Value, def.collections) != nil {
		return nil, nil
	}
	return def, nil
}

// collection returns the policy for what is written to one, nil where the
// chaincode's counts; false if it isn't defined.
func (d *definitions) collection(def *definition, name string) (msp.Policy, bool) {
	if !def.modern {
		return nil, true
	}
	if mspID, ok := strings.CutPrefix(name, implicitPrefix); ok {
		return d.rules.implicit(mspID)
	}
	c := def.static(name)
	if c == nil {
		return nil, false
	}
	if c.EndorsementPolicy == nil {
		return def.policy, true
	}
	marshalled, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.EndorsementPolicy)
	if err != nil || len(marshalled) == 0 {
		return nil, true
	}
	return d.rules.application(marshalled), true
}

// static returns the configuration of a collection that the definition lists.
func (def *definition) static(name string) *peer.StaticCollectionConfig {
	for _, c := range def.collections.GetConfig() {
		if s := c.GetStaticCollectionConfig(); s != nil && s.Name == name {
			return s
		}
	}
	return nil
}
