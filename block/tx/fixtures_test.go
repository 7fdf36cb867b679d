package tx_test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
)

// fixtures returns the folder of the recorded Raft network, or skips.
func fixtures(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		shared := filepath.Join("..", "..", "..", "shared")
		if _, err := os.Stat(shared); err != nil {
			t.Skip("no recorded Fabric networks: set GRAPEVINE_FIXTURES")
		}
		dir = filepath.Join(shared, "fixtures")
	}
	dir = filepath.Join(dir, "fabric", "raft")
	_, err := os.Stat(dir)
	require.NoError(t, err, "the recorded networks are incomplete")
	return dir
}

// recorded returns an entry of a recorded block.
func recorded(t *testing.T, number, index int) *common.Envelope {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(fixtures(t), "blocks", fmt.Sprintf("%04d.block", number)))
	require.NoError(t, err)
	b := new(common.Block)
	require.NoError(t, proto.Unmarshal(raw, b))
	env := new(common.Envelope)
	require.NoError(t, proto.Unmarshal(b.Data.Data[index], env))
	return env
}

// signerOf finds the recorded network's key of a creator or endorser.
func signerOf(t *testing.T, serialized []byte) msp.Signer {
	t.Helper()
	id, err := msp.Deserialize(serialized)
	require.NoError(t, err)
	certs, err := filepath.Glob(filepath.Join(fixtures(t), "crypto", "*", "*", "*", "*", "msp", "signcerts", "*.pem"))
	require.NoError(t, err)
	for _, c := range certs {
		text, err := os.ReadFile(c)
		require.NoError(t, err)
		if p, _ := pem.Decode(text); bytes.Equal(p.Bytes, id.Certificate().Raw) {
			// A copy: the recorded keys are readable by all, which Load refuses.
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Dir(filepath.Dir(c)))))
			key := filepath.Join(dir, "keystore", "priv_sk")
			require.NoError(t, os.Chmod(key, 0o600))
			s, err := msp.Load(id.MSPID(), dir)
			require.NoError(t, err)
			return s
		}
	}
	t.Fatalf("no key of %s", id.Name())
	return nil
}
