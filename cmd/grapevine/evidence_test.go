package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/block"
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
