package block

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/wire"
)

// A recorded chain, with the rules after each configuration block as far as
// blocks are concerned: package channel reads them from the configuration.
type recorded struct {
	dir     string
	blocks  [][]byte
	summary []struct {
		HeaderHash string `json:"header_hash"`
		LastConfig uint64 `json:"last_config"`
	}
	orderers msp.Directory
	genesis  *common.ConfigGroup
	bft      bool
}

func record(t testing.TB, network string) *recorded {
	r := &recorded{dir: fixtures(t, network), bft: network == "bft"}
	require.NoError(t, json.Unmarshal(read(t, r.dir, "summary.json"), &r.summary))
	for n := range r.summary {
		r.blocks = append(r.blocks, read(t, r.dir, "blocks", fmt.Sprintf("%04d.block", n)))
	}
	g, err := Genesis(r.blocks[0])
	require.NoError(t, err)
	env, err := ConfigEnvelope(g.Block())
	require.NoError(t, err)
	r.genesis = env.Config.ChannelGroup.Groups["Orderer"]
	var outer mspproto.MSPConfig
	var conf mspproto.FabricMSPConfig
	require.NoError(t, proto.Unmarshal(r.genesis.Groups["OrdererOrg"].Values["MSP"].Value, &outer))
	require.NoError(t, proto.Unmarshal(outer.Config, &conf))
	m, err := msp.New(&conf, msp.Features{NodeOUs: true, Ed25519: true})
	require.NoError(t, err)
	r.orderers = msp.Directory{conf.Name: m}
	return r
}

func read(t testing.TB, elem ...string) []byte {
	raw, err := os.ReadFile(filepath.Join(elem...))
	require.NoError(t, err)
	return raw
}

// rules returns those in force before block n, fresh.
func (r *recorded) rules(t testing.TB, n int) *Rules {
	env := must(msp.ParsePolicy("OR('OrdererMSP.member')"))(t)
	rules := &Rules{
		Channel: channelName, MSPs: r.orderers, BFT: r.bft, IdentifierHeaders: true,
		BlockValidation: must(msp.SignaturePolicy(env))(t),
		MaxMessages:     10, AbsoluteMaxBytes: 10 << 20,
	}
	if n > 0 {
		rules.LastConfig = r.summary[n-1].LastConfig
	}
	for i := 1; i < n; i++ {
		if r.summary[i].LastConfig == uint64(i) {
			rules.Sequence++
		}
	}
	var list common.Orderers
	if v := r.genesis.Values["Orderers"]; v != nil {
		require.NoError(t, proto.Unmarshal(v.Value, &list))
	}
	rules.Consenters = make(map[uint32]*msp.Identity)
	for _, c := range list.ConsenterMapping {
		id := must(msp.Deserialize(marshal(t, &mspproto.SerializedIdentity{Mspid: c.MspId, IdBytes: c.Identity})))(t)
		rules.Consenters[c.Id] = id
	}
	return rules
}

func (r *recorded) tip(t testing.TB, n int) Tip {
	b, err := Decode(r.blocks[n-1])
	require.NoError(t, err)
	return Tip{Height: uint64(n), Hash: HeaderHash(b.Header)}
}

func (r *recorded) verify(t testing.TB, n int, raw []byte) (Verified, error) {
	rules := r.rules(t, n)
	c, err := Check(rules, raw)
	if err != nil {
		return Verified{}, err
	}
	return Verify(rules, r.tip(t, n), c)
}

func eachNetwork(t *testing.T, f func(*testing.T, *recorded)) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) { f(t, record(t, network)) })
	}
}

// TestRecordedChains: every copy of every block that real orderers and peers
// kept is accepted, with the hash that they reported.
func TestRecordedChains(t *testing.T) {
	eachNetwork(t, func(t *testing.T, r *recorded) {
		for n := range r.blocks {
			copies := [][]byte{r.blocks[n], read(t, r.dir, "peerblocks", fmt.Sprintf("%04d.block", n))}
			others, err := filepath.Glob(filepath.Join(r.dir, "by-orderer", "*", fmt.Sprintf("%04d.block", n)))
			require.NoError(t, err)
			for _, file := range others {
				copies = append(copies, read(t, file))
			}
			for _, raw := range copies {
				v, err := Genesis(raw)
				if n > 0 {
					v, err = r.verify(t, n, raw)
				}
				require.NoError(t, err, "block %d", n)
				hash := v.Hash()
				require.Equal(t, r.summary[n].HeaderHash, hex.EncodeToString(hash[:]))
				require.Equal(t, raw, marshal(t, v.Block()))
			}
		}
		var info map[string]struct{ CurrentBlockHash []byte }
		require.NoError(t, json.Unmarshal(read(t, r.dir, "chaininfo.json"), &info))
		require.NotEmpty(t, info)
		for name, i := range info {
			last := r.tip(t, len(r.blocks))
			require.Equal(t, last.Hash[:], i.CurrentBlockHash, name)
		}
	})
}

// TestFlippedBytes: no byte of a block, as orderers send it, can be changed.
// Every fifth block of ordinary size is tried byte by byte; of the others the
// ends, which hold header and signatures, and a sample between.
func TestFlippedBytes(t *testing.T) {
	const ordinary, stride = 5000, 97
	eachNetwork(t, func(t *testing.T, r *recorded) {
		for n := 1; n < len(r.blocks); n++ {
			rules, tip := r.rules(t, n), r.tip(t, n)
			raw := bytes.Clone(r.blocks[n])
			step := 1
			if len(raw) > ordinary || n%5 != 0 {
				step = stride
			}
			for i := 0; i < len(raw); i++ {
				if i > 150 && i < len(raw)-1200 && step > 1 {
					i += step - 1
				}
				raw[i] ^= 1 << (i % 8)
				c, err := Check(rules, raw)
				if err == nil {
					_, err = Verify(rules, tip, c)
				}
				require.NotNil(t, wire.ReasonOf(err), "block %d, byte %d: %v", n, i, err)
				raw[i] ^= 1 << (i % 8)
			}
			_, err := r.verify(t, n, raw)
			require.NoError(t, err)
		}
	})
}

// TestRecordedSignatures: a signature replaced by a copy of another, or by a
// non-consenter's, breaks the quorum.
func TestRecordedSignatures(t *testing.T) {
	r := record(t, "bft")
	for n := 1; n < len(r.blocks); n++ {
		for _, id := range []uint32{0, 9} {
			b, err := Decode(r.blocks[n])
			require.NoError(t, err)
			md := signatures(t, b)
			if id == 0 {
				md.Signatures[1] = md.Signatures[0]
			} else {
				md.Signatures[1].IdentifierHeader = marshal(t, &common.IdentifierHeader{Identifier: id, Nonce: []byte("n")})
			}
			b.Metadata.Metadata[0] = marshal(t, md)
			_, err = r.verify(t, n, marshal(t, b))
			refused(t, NoQuorum, err)
		}
	}
}
