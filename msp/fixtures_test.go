package msp

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

func decodeAs[M proto.Message](t testing.TB, b []byte, m M) M {
	t.Helper()
	require.NoError(t, proto.Unmarshal(b, m))
	return m
}

// group reads the channel group out of a genesis or configuration block.
func group(t testing.TB, path string) *common.ConfigGroup {
	t.Helper()
	b := readBlock(t, path)
	env := decodeAs(t, b.Data.Data[0], &common.Envelope{})
	payload := decodeAs(t, env.Payload, &common.Payload{})
	return decodeAs(t, payload.Data, &common.ConfigEnvelope{}).Config.ChannelGroup
}

func readBlock(t testing.TB, path string) *common.Block {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	return decodeAs(t, raw, &common.Block{})
}

// definitions returns the MSPs of a channel group, and their configurations.
func definitions(t testing.TB, g *common.ConfigGroup) (Directory, map[string]*mspproto.FabricMSPConfig) {
	t.Helper()
	d, confs := Directory{}, map[string]*mspproto.FabricMSPConfig{}
	for _, part := range []string{"Orderer", "Application"} {
		for _, org := range g.Groups[part].Groups {
			wrap := decodeAs(t, org.Values["MSP"].Value, &mspproto.MSPConfig{})
			conf := decodeAs(t, wrap.Config, &mspproto.FabricMSPConfig{})
			d[conf.Name], confs[conf.Name] = build(t, conf), conf
		}
	}
	return d, confs
}

// networks runs f for each network of the fixtures.
func networks(t *testing.T, f func(t *testing.T, dir string)) {
	for _, n := range []string{"raft", "bft"} {
		t.Run(n, func(t *testing.T) { f(t, filepath.Join(fixtures(t), n)) })
	}
}

// identities returns the MSP folders of a network's people, by MSP ID.
func identities(t testing.TB, dir string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for org, mspID := range map[string]string{
		"ordererOrganizations/example.com": "OrdererMSP", "peerOrganizations/orga.example.com": "OrgAMSP",
		"peerOrganizations/orgb.example.com": "OrgBMSP", "peerOrganizations/orgc.example.com": "OrgCMSP",
	} {
		list, err := filepath.Glob(filepath.Join(dir, "crypto", org, "*", "*", "msp"))
		require.NoError(t, err)
		require.NotEmpty(t, list)
		found[mspID] = list
	}
	return found
}

func TestRealFoldersAreTheRealDefinitions(t *testing.T) {
	networks(t, func(t *testing.T, dir string) {
		d, confs := definitions(t, group(t, filepath.Join(dir, "genesis.block")))
		require.Len(t, d, 4)
		require.NoError(t, d.CheckRoots())
		for mspID, list := range identities(t, dir) {
			org := filepath.Join(list[0], "..", "..", "..", "msp")
			conf, warnings, err := LoadConfig(mspID, org)
			require.NoError(t, err)
			require.Empty(t, warnings)
			require.True(t, proto.Equal(confs[mspID], conf), "%s: the folder is not what the genesis block says:\n%v\n%v", mspID, confs[mspID], conf)
			for _, l := range list {
				member, _, err := LoadConfig(mspID, l)
				require.NoError(t, err)
				require.True(t, proto.Equal(conf, member), "%s", l)
			}
		}
	})
}

func TestRealPeopleSignAndAreKnown(t *testing.T) {
	networks(t, func(t *testing.T, dir string) {
		d, _ := definitions(t, group(t, filepath.Join(dir, "genesis.block")))
		ids := map[PKIID]string{}
		for mspID, list := range identities(t, dir) {
			for _, l := range list {
				s, err := Load(mspID, l)
				require.NoError(t, err, l)
				chain, err := LoadChain(l)
				require.NoError(t, err)
				require.Empty(t, chain)
				id := s.Identity()
				require.Empty(t, ids[id.PKIID()], "one PKI-ID for two")
				ids[id.PKIID()] = l

				sig, err := s.Sign([]byte("x"))
				require.NoError(t, err)
				require.NoError(t, id.Verify([]byte("x"), sig))
				back, m, err := d.Identify(id.Serialized())
				require.NoError(t, err)
				require.Equal(t, id.PKIID(), back.PKIID())
				require.NoError(t, m.Validate(back))
				require.NoError(t, m.ValidateLive(back, nil, id.Certificate().NotBefore))
				refused(t, m.ValidateLive(back, nil, id.Certificate().NotBefore.Add(-earlyBy-1)), NotYetValid)
				for other := range d {
					if other != mspID {
						foreign, err := FromDER(other, id.Certificate().Raw)
						require.NoError(t, err)
						require.Error(t, d[other].Validate(foreign))
						require.Error(t, d[other].ValidateLive(foreign, nil, noon))
					}
				}
				want := map[mspproto.MSPRole_MSPRoleType]bool{
					mspproto.MSPRole_ADMIN:   strings.Contains(l, "Admin@"),
					mspproto.MSPRole_CLIENT:  strings.Contains(l, "User"),
					mspproto.MSPRole_PEER:    strings.Contains(l, "/peers/"),
					mspproto.MSPRole_ORDERER: strings.Contains(l, "/orderers/"),
				}
				for r, has := range want {
					require.Equal(t, has, m.Satisfies(back, role(t, mspID, r)) == nil, "%s as %v", l, r)
				}
			}
		}
	})
}

// The texts of configtx.yaml make the very policies that Fabric's tool made.
func TestRealPolicies(t *testing.T) {
	networks(t, func(t *testing.T, dir string) {
		g := group(t, filepath.Join(dir, "genesis.block"))
		for _, org := range []string{"OrgA", "OrgB", "OrgC"} {
			for name, text := range map[string]string{
				"Readers":     "OR('%[1]sMSP.admin', '%[1]sMSP.peer', '%[1]sMSP.client')",
				"Writers":     "OR('%[1]sMSP.admin', '%[1]sMSP.client')",
				"Admins":      "OR('%[1]sMSP.admin')",
				"Endorsement": "OR('%[1]sMSP.peer')",
			} {
				want := g.Groups["Application"].Groups[org].Policies[name].Policy.Value
				e, err := ParsePolicy(fmt.Sprintf(text, org))
				require.NoError(t, err)
				require.True(t, proto.Equal(decodeAs(t, want, &common.SignaturePolicyEnvelope{}), e), "%s %s", org, name)
			}
		}
	})
}

// Every creator and endorser of both chains is known, and all their signatures
// fit but the one that was bent on purpose; the revoked user is refused once the
// configuration says so.
func TestRealChains(t *testing.T) {
	networks(t, func(t *testing.T, dir string) {
		d, _ := definitions(t, group(t, filepath.Join(dir, "genesis.block")))
		paths, err := filepath.Glob(filepath.Join(dir, "blocks", "*.block"))
		require.NoError(t, err)
		require.Len(t, paths, 31)
		slices.Sort(paths)
		var creators, endorsers, bent int
		for _, p := range paths[1:] {
			for _, raw := range readBlock(t, p).Data.Data {
				env := decodeAs(t, raw, &common.Envelope{})
				payload := &common.Payload{}
				if proto.Unmarshal(env.Payload, payload) != nil || payload.Header == nil {
					continue // broken on purpose
				}
				sh := decodeAs(t, payload.Header.SignatureHeader, &common.SignatureHeader{})
				id, m, err := d.Identify(sh.Creator)
				require.NoError(t, err)
				require.NoError(t, m.Validate(id))
				require.NoError(t, m.Verify(id, env.Payload, env.Signature))
				require.NoError(t, id.Verify(env.Payload, env.Signature))
				creators++
				for _, e := range endorsements(t, payload) {
					id, m, err := d.Identify(e.endorser)
					require.NoError(t, err)
					require.NoError(t, m.Satisfies(id, role(t, m.ID(), mspproto.MSPRole_PEER)))
					endorsers++
					if m.Verify(id, e.signed, e.signature) != nil {
						bent++
					}
				}
			}
		}
		t.Logf("%d creators, %d endorsements, %d bent", creators, endorsers, bent)
		require.Greater(t, creators, 40)
		require.Greater(t, endorsers, 60)
		require.Positive(t, bent)
		require.Less(t, bent, 4)
	})
}

func TestRealRevocation(t *testing.T) {
	networks(t, func(t *testing.T, dir string) {
		d, confs := definitions(t, group(t, filepath.Join(dir, "config.block")))
		require.NotEmpty(t, confs["OrgBMSP"].RevocationList)
		require.Empty(t, d["OrgBMSP"].Warnings())
		gone := 0
		for _, l := range identities(t, dir)["OrgBMSP"] {
			s, err := Load("OrgBMSP", l)
			require.NoError(t, err)
			id := s.Identity()
			if !strings.Contains(l, "User2") {
				require.NoError(t, d["OrgBMSP"].Validate(id))
				continue
			}
			gone++
			refused(t, d["OrgBMSP"].Validate(id), Revoked)
			refused(t, d["OrgBMSP"].ValidateLive(id, nil, noon), Revoked)
		}
		require.Equal(t, 1, gone)
	})
}

type endorsement struct{ endorser, signed, signature []byte }

func endorsements(t testing.TB, p *common.Payload) (list []endorsement) {
	t.Helper()
	if decodeAs(t, p.Header.ChannelHeader, &common.ChannelHeader{}).Type != int32(common.HeaderType_ENDORSER_TRANSACTION) {
		return nil
	}
	tx := &peer.Transaction{}
	if proto.Unmarshal(p.Data, tx) != nil {
		return nil // broken on purpose
	}
	for _, a := range tx.Actions {
		c := decodeAs(t, a.Payload, &peer.ChaincodeActionPayload{})
		for _, e := range c.GetAction().GetEndorsements() {
			signed := append(slices.Clone(c.Action.ProposalResponsePayload), e.Endorser...)
			list = append(list, endorsement{e.Endorser, signed, e.Signature})
		}
	}
	return list
}
