package tx

import (
	"fmt"
	"sort"
	"unicode/utf8"

	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer/lifecycle"
	"google.golang.org/protobuf/proto"
)

// Names of Fabric's system namespaces and of what a chaincode's definition
// says.
const (
	// Lifecycle holds the chaincodes' definitions.
	Lifecycle = "_lifecycle"
	legacy    = "lscc" // definitions before Fabric 2.0

	// DefaultVersion is the version in definitions that [Define] makes.
	DefaultVersion = "1.0"
	// EndorsementRef is the policy they refer to.
	EndorsementRef = "/Channel/Application/Endorsement"
)

// Sets joins what a transaction does in several namespaces, each given once,
// in the order that Fabric's simulator has: by name.
func Sets(byNamespace map[string]*kvrwset.KVRWSet) (*rwset.TxReadWriteSet, error) {
	t := &rwset.TxReadWriteSet{DataModel: rwset.TxReadWriteSet_KV}
	for ns, kv := range byNamespace {
		b, err := marshal(kv)
		if err != nil {
			return nil, fmt.Errorf("read-write set of %s: %w", ns, err)
		}
		t.NsRwset = append(t.NsRwset, &rwset.NsReadWriteSet{Namespace: ns, Rwset: b})
	}
	sort.Slice(t.NsRwset, func(i, j int) bool { return t.NsRwset[i].Namespace < t.NsRwset[j].Namespace })
	return t, nil
}

// Write is a blind write of one key: it reads nothing, so it never conflicts.
// An empty value deletes. It returns nil, which [Endorse] refuses, if ns or key
// isn't valid UTF-8.
func Write(ns, key string, value []byte) *rwset.TxReadWriteSet {
	t, err := Sets(map[string]*kvrwset.KVRWSet{
		ns: {Writes: []*kvrwset.KVWrite{{Key: key, IsDelete: len(value) == 0, Value: value}}},
	})
	if err != nil || !utf8.ValidString(ns) {
		return nil
	}
	return t
}

// Define is what committing the first definition of a chaincode does: sequence
// 1, version [DefaultVersion], the standard plug-ins, the channel's own
// endorsement policy, no collections. It reads that there was no definition
// before, so that of two only one takes effect. Submit it as a call of
// [Lifecycle], endorsed as /Channel/Application/LifecycleEndorsement asks. The
// organisations' approvals, which a peer looks at when it endorses, leave
// nothing that validation looks at. It returns nil, which [Endorse] refuses, if
// the name isn't valid UTF-8.
func Define(chaincode string) *rwset.TxReadWriteSet {
	t, err := define(chaincode)
	if err != nil {
		return nil
	}
	return t
}

func define(chaincode string) (*rwset.TxReadWriteSet, error) {
	info, err := marshal(&lifecycle.ChaincodeEndorsementInfo{Version: DefaultVersion, EndorsementPlugin: "escc"})
	if err != nil {
		return nil, err
	}
	policy, err := marshal(&peer.ApplicationPolicy{
		Type: &peer.ApplicationPolicy_ChannelConfigPolicyReference{ChannelConfigPolicyReference: EndorsementRef},
	})
	if err != nil {
		return nil, err
	}
	validation, err := marshal(&lifecycle.ChaincodeValidationInfo{ValidationPlugin: "vscc", ValidationParameter: policy})
	if err != nil {
		return nil, err
	}
	blob := func(b []byte) *lifecycle.StateData {
		return &lifecycle.StateData{Type: &lifecycle.StateData_Bytes{Bytes: b}}
	}
	fields := "namespaces/fields/" + chaincode + "/"
	metadata := "namespaces/metadata/" + chaincode
	set := &kvrwset.KVRWSet{Reads: []*kvrwset.KVRead{{Key: fields + "Sequence"}, {Key: metadata}}}
	for _, w := range []struct {
		key   string
		value proto.Message
	}{ // sorted by key, as a simulator leaves them
		{fields + "Collections", blob(nil)},
		{fields + "EndorsementInfo", blob(info)},
		{fields + "Sequence", &lifecycle.StateData{Type: &lifecycle.StateData_Int64{Int64: 1}}},
		{fields + "ValidationInfo", blob(validation)},
		{metadata, &lifecycle.StateMetadata{
			Datatype: "ChaincodeDefinition",
			Fields:   []string{"Sequence", "EndorsementInfo", "ValidationInfo", "Collections"},
		}},
	} {
		b, err := marshal(w.value)
		if err != nil {
			return nil, fmt.Errorf("definition of %s, %s: %w", chaincode, w.key, err)
		}
		set.Writes = append(set.Writes, &kvrwset.KVWrite{Key: w.key, Value: b})
	}
	return Sets(map[string]*kvrwset.KVRWSet{
		Lifecycle: set,
		legacy:    {Reads: []*kvrwset.KVRead{{Key: chaincode}}},
	})
}
