package admin

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write golden files anew; understand the difference")

// objects are one of each kind, lists with one empty item so that its fields show.
var objects = []any{
	&DevStatus{DevState: DevState{Channels: []DevChannel{{}}, Orderers: []DevOrderer{{}}, Peers: []DevPeer{{}}}},
	&DevUp{DevState: DevState{}, Steps: []DevStep{{}}}, &DevTx{},
	&LedgerChecks{Items: []LedgerCheck{{}}}, &LedgerRebuild{Items: []RebuiltState{{}}}, &LedgerUpkeep{},
	&Snapshot{}, &SnapshotList{Items: []Snapshot{{}}}, &SnapshotFile{}, &SnapshotVerification{},
	&Status{Problems: []Problem{{}}, Channels: []StatusChannel{{}}, Certificates: []Certificate{{}}},
	&PeerList{Items: []Peer{{}}}, &ChannelList{Items: []ChannelItem{{}}},
	&ChannelInfo{Orgs: []ChannelOrg{{}}, Orderers: []ChannelOrderer{{}}},
	&ChannelLeaderList{Items: []ChannelLeader{{}}}, &LeaderState{}, &LeaderHistory{Items: []LeaderChange{{}}}, &LeaderYield{}, &ChannelMemberList{Items: []ChannelMember{{}}},
	&Block{Txs: []Tx{{}}, Signatures: []Signature{{}}}, &BlockVerification{Failures: []BlockFailure{{}}}, &BlockTrace{Items: []BlockSighting{{}}},
	&StateEntry{}, &StateHash{}, &StateHistory{Items: []StateChange{{}}}, &ConfigCheck{Findings: []Finding{{}}}, &ConfigValueList{Items: []ConfigValue{{}}}, &ConfigKey{},
	&PeerInfo{Memberships: []PeerMembership{{Streams: []PeerStream{{}}}}, Connections: []PeerConnection{{}}}, &PeerPing{}, &PeerAction{},
	&PeerRTT{Items: []PeerLeg{{}}}, &AnchorList{Items: []Anchor{{}}},
	&EvidenceList{Items: []EvidenceItem{{}}}, &EvidenceVerification{Headers: []EvidenceHeader{{Signers: []EvidenceSigner{{}}}}, Accused: []EvidenceSigner{{}}},
	&Version{}, &LedgerImport{}, &CertificateList{Items: []CertificateInfo{{}}}, &MSPInfo{}, &MSPVerification{},
}

func TestObjectsAreTheContracts(t *testing.T) {
	var b bytes.Buffer
	for _, o := range objects {
		raw, err := Marshal(o)
		require.NoError(t, err)
		require.NotContains(t, string(raw), "null")
		require.NotContains(t, string(raw), "\n")
		b.Write(raw)
		b.WriteByte('\n')
	}
	const golden = "testdata/objects.golden"
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

func TestObjectsComeBack(t *testing.T) {
	in := &Status{StartedAt: Time{time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.FixedZone("x", 3600))}, NodeRef: NodeRef{Name: "peer0 <&>"}}
	raw, err := Marshal(in)
	require.NoError(t, err)
	require.Contains(t, string(raw), `"startedAt":"2026-01-02T02:04:05.678Z"`)
	require.Contains(t, string(raw), `"name":"peer0 <&>"`)
	out := &Status{}
	require.NoError(t, json.Unmarshal(raw, out))
	require.True(t, in.StartedAt.Equal(out.StartedAt.Time))
	again, err := Marshal(out)
	require.NoError(t, err)
	require.Equal(t, string(raw), string(again))
	require.Error(t, json.Unmarshal([]byte(`{"startedAt":"yesterday"}`), out))
}

func TestMarshalWantsAnObject(t *testing.T) {
	_, err := Marshal(Status{})
	require.Error(t, err)
	_, err = Marshal(new(int))
	require.Error(t, err)
}
