package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/msp/ca"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	tree, file := filepath.Join(dir, "crypto"), filepath.Join(dir, "ch.block")
	spec := &ca.Spec{
		OrdererOrgs: []ca.OrgSpec{{Name: "Orderer", Domain: "example.com", EnableNodeOUs: true, Specs: []ca.NodeSpec{{Hostname: "orderer"}}}},
		PeerOrgs:    []ca.OrgSpec{{Name: "Org1", Domain: "org1.example.com", EnableNodeOUs: true, Template: ca.Template{Count: 1}}},
	}
	require.NoError(t, ca.Generate(spec, tree, time.Now()))
	require.NoError(t, run([]string{
		"-org", "Org1MSP,org1.example.com,peer0.org1.example.com:7051", "-crypto", tree, "-o", file, "-channel", "ch",
		"-orderer", "OrdererMSP,example.com,orderer.example.com,orderer.example.com:7050",
	}))
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	b, err := block.Decode(raw)
	require.NoError(t, err)
	c, err := channel.Parse(b)
	require.NoError(t, err)
	require.Equal(t, "ch", c.Channel())
	require.Equal(t, []string{"peer0.org1.example.com:7051"}, c.Orgs()[0].Anchors)
	require.Equal(t, "orderer.example.com:7050", c.Orderers()[0].Endpoint)

	for _, bad := range [][]string{{"-orderer", "x"}, {"-org", "Org1MSP"}, {"-crypto", dir, "-org", "Org1MSP,org1.example.com"}} {
		require.Error(t, run(bad))
	}
}
