package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"grapevine/block"
	"grapevine/channel/cast"
	"grapevine/channel/evidence"
	"grapevine/channel/genesis"
	"grapevine/msp"
	"grapevine/wire"
)

// A fork of a channel is listed where it is kept, and proven from its file.
func TestEvidence(t *testing.T) {
	dir := site(t)
	p := play{dir: dir, now: time.Now()}
	first := genesisOf(t, dir)
	signer, err := msp.Load("OrdererMSP", filepath.Join(dir, oneOrderer, "msp"))
	require.NoError(t, err)
	var both []*common.Block
	for _, text := range []string{"a", "b"} {
		b := &common.Block{Header: &common.BlockHeader{Number: 1, PreviousHash: make([]byte, 32), DataHash: make([]byte, 32)}}
		b.Header.DataHash[0] = text[0]
		require.NoError(t, block.Sign(b, signer, 0, nil))
		both = append(both, b)
	}
	e, err := evidence.Fork("dev", "mychannel", time.Now(), [][]byte{first}, both[0], both[1])
	require.NoError(t, err)
	raw, err := wire.Marshal(e)
	require.NoError(t, err)
	name := evidence.Name(e)
	write(t, dir, filepath.Join("data/evidence", name), raw)
	write(t, dir, filepath.Join("data/evidence/settled", "z-"+name), raw)
	write(t, dir, "genesis.block", first)
	write(t, dir, "noise", []byte("noise"))

	l := of(p.object(t, 0, "evidence", "ls", "--data", "data"), "items")
	require.Len(t, l, 2)
	for i, v := range l {
		require.Equal(t, true, v["ok"])
		require.Equal(t, "fork", v["type"])
		require.Equal(t, i == 1, v["settled"])
	}
	file := filepath.Join("data/evidence", name)
	for _, args := range [][]string{{"evidence", "verify", file}, {"evidence", "verify", file, "--genesis", "genesis.block"}} {
		v := p.object(t, 0, args...)
		require.Equal(t, len(args) > 3, v["pinned"])
		require.Len(t, of(v, "headers"), 2)
		require.Len(t, of(v, "accused"), 1)
		require.Contains(t, p.run(args...).out, "accused")
	}
	e.Statements[1] = e.Statements[0]
	if raw, err = wire.Marshal(e); err == nil {
		write(t, dir, "same", raw)
	}
	v := p.object(t, 6, "evidence", "verify", "same")
	require.Equal(t, "evidence.no_proof", v["code"])
	p.fails(t, 6, "BLK004", "evidence", "verify", "noise")
	p.fails(t, 1, "BLK003", "evidence", "verify", file, "--genesis", "noise")
	p.fails(t, 1, "API002", "evidence", "ls", "--data", "nowhere")
	require.Contains(t, p.run("evidence", "ls", "--data", ".").out, "no evidence")
}

// genesisOf is block 0 of a channel of a site's organisations.
func genesisOf(t *testing.T, dir string) []byte {
	t.Helper()
	org := func(name, mspID, folder string) genesis.Org {
		def, _, err := msp.LoadConfig(mspID, filepath.Join(dir, folder, "msp"))
		require.NoError(t, err)
		def.SigningIdentity = nil
		return genesis.Org{Name: name, MSPID: mspID, MSP: def}
	}
	ordering := org("OrdererOrg", "OrdererMSP", oneOrderer)
	ordering.Endpoints = []string{"127.0.0.1:7050"}
	cert, err := os.ReadFile(filepath.Join(dir, oneOrderer, "tls/server.crt"))
	require.NoError(t, err)
	b, err := genesis.Block(genesis.Profile{
		Channel: "mychannel", Time: time.Now(), Timeout: time.Second,
		Orderers: []genesis.Org{ordering}, Orgs: []genesis.Org{org("org1", "Org1MSP", onePeer)},
		Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7051, ServerTLS: cert}},
	})
	require.NoError(t, err)
	raw, err := block.Marshal(b)
	require.NoError(t, err)
	return raw
}

// A member's false encoding of a block is proven from the bytes that travelled:
// a signed announcement, and the body that came for it (spec.md 8).
func TestEvidenceOfAnEncoding(t *testing.T) {
	dir := site(t)
	p := play{dir: dir, now: time.Now()}
	first := genesisOf(t, dir)
	member, err := msp.Load("Org1MSP", filepath.Join(dir, onePeer, "msp"))
	require.NoError(t, err)
	orderer, err := msp.Load("OrdererMSP", filepath.Join(dir, oneOrderer, "msp"))
	require.NoError(t, err)
	b := &common.Block{Header: &common.BlockHeader{Number: 1, PreviousHash: make([]byte, 32), DataHash: make([]byte, 32)}}
	require.NoError(t, block.Sign(b, orderer, 0, nil))
	header, err := block.Marshal(b)
	require.NoError(t, err)
	body := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), bytes.Repeat([]byte("another"), 2000))
	code, err := new(cast.Coder).Encode(body)
	require.NoError(t, err)
	g, err := block.Decode(first)
	require.NoError(t, err)
	start := block.HeaderHash(g.Header)
	tag, id := wire.ChannelTag("dev", start[:]), member.Identity().PKIID()
	size := binary.BigEndian.AppendUint64(nil, uint64(len(body)))
	a := &wire.Announcement{Tag: tag[:], Block: header, Size: uint64(len(body)), Announcer: id[:], Roots: code.Roots}
	sum := wire.HashParts([]byte(wire.DomainAnnouncement), a.Tag, a.Block, size, a.Announcer, a.Roots)
	a.Signature, err = member.Sign(sum[:])
	require.NoError(t, err)
	said, err := wire.Marshal(a)
	require.NoError(t, err)

	hash := block.HeaderHash(b.Header)
	session := wire.HashParts([]byte(wire.DomainCast), hash[:], size, code.Roots)
	frames := binary.BigEndian.AppendUint32([]byte{1, 3}, uint32(len(said)))
	frames = append(append(append(frames, said...), 9), session[:8]...)
	frames = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(frames, 0), uint32(len(body)))
	frames = append(frames, body...)
	verify := func(statement []byte, code int) map[string]any {
		e := evidence.New(wire.Evidence_KIND_ENCODING, "dev", "mychannel", 1, time.Now(), [][]byte{first}, statement)
		raw, err := wire.Marshal(evidence.By(e, "Org1MSP", member.Identity().Certificate().Raw))
		require.NoError(t, err)
		write(t, dir, "lie", raw)
		return p.object(t, code, "evidence", "verify", "lie")
	}
	v := verify(frames, 0)
	require.Equal(t, "encoding", v["type"])
	require.Len(t, of(v, "accused"), 1)
	frames[len(frames)-1]++ // a body that he never announced
	require.Equal(t, "evidence.no_proof", verify(frames, 6)["code"])
}
