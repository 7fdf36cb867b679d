package orderer_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/channel"
	"grapevine/deliver"
	"grapevine/orderer"
)

// childDir names the folder in which the test program, run again as a child, is an orderer to be killed.
const childDir = "GRAPEVINE_ORDERER_CHILD"

// childDamage says after how many writes the child's log breaks.
const childDamage = "GRAPEVINE_ORDERER_CHILD_DAMAGE"

// A node is killed in full flight, again and again. Whatever it acknowledged is in its ledger afterwards, exactly once,
// and the chain is whole.
func TestKilledNodeLosesNothing(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, &ab.BatchSize{MaxMessageCount: 5, AbsoluteMaxBytes: 1 << 20, PreferredMaxBytes: 1 << 19}, 20*time.Millisecond)
	w.save(dir)
	var acked []string
	for round := range 4 {
		acked = append(acked, killAfter(t, dir, 50+70*round)...)
	}
	n := w.start(dir).ready()
	require.NoError(t, n.chain.Order(ctxFor(t, 10*time.Second), w.tx(0, 1)), "the log goes on")
	times := make(map[string]int)
	for _, raw := range n.entries() {
		times[idOf(raw)]++
	}
	require.NoError(t, n.stop())
	for _, id := range acked {
		require.Equal(t, 1, times[id], "acknowledged envelope %s", id)
	}
	for id, k := range times {
		require.Equal(t, 1, k, "envelope %s", id)
	}
	t.Logf("%d acknowledged, %d in blocks", len(acked), len(times))
}

// killAfter runs a child that orders without pause, kills it when it has acknowledged count envelopes, and returns the
// ids of those that it had.
func killAfter(t *testing.T, dir string, count int) (acked []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if id := strings.TrimSpace(lines.Text()); len(id) == 64 { // the last line may be torn
			acked = append(acked, id)
		}
		if len(acked) == count {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait())
	require.GreaterOrEqual(t, len(acked), count)
	return acked
}

// F-D5: a write of Raft's log that fails for good ends the chain with its reason, at whichever write it happens, and no
// panic. It is played in a child, because Raft's goroutines can't be ended then.
func TestBrokenLogEndsTheChain(t *testing.T) {
	for after := range 6 {
		dir := t.TempDir()
		w := newWorld(t, batchOf(1), time.Second)
		w.save(dir)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("%s=%d", childDamage, after))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// runBroken runs a chain whose log breaks, and says by its exit code whether the chain did what it should.
func runBroken(dir string, after int64) {
	w := loadWorld(dir)
	n, _ := w.open(dir, func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
		c.Damage(after, -1, fmt.Errorf("write: %w", syscall.EIO))
	})
	select {
	case <-n.chain.Ready():
		for {
			if err := n.chain.Order(context.Background(), w.tx(0, 10)); err != nil {
				break
			}
		}
	case <-n.ran:
	}
	<-n.ran
	require.ErrorIs(w.t, n.err, orderer.BrokenLog)
	require.ErrorIs(w.t, n.err, syscall.EIO)
}

// runChild orders from several sides at once, and prints the id of each envelope that is acknowledged.
func runChild(dir string) {
	w := loadWorld(dir)
	n, _ := w.open(dir)
	n.ready()
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := 0; ; i++ {
				env := w.tx(i, 100)
				raw, err := proto.Marshal(env)
				require.NoError(w.t, err)
				require.NoError(w.t, n.chain.Order(context.Background(), env))
				mu.Lock()
				fmt.Println(idOf(raw))
				mu.Unlock()
			}
		})
	}
	all.Wait()
}

func idOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// save puts into dir what a child needs of the world.
func (w *world) save(dir string) {
	w.t.Helper()
	raw, err := proto.Marshal(w.genesis)
	require.NoError(w.t, err)
	for name, b := range map[string][]byte{"genesis.block": raw, "orderer1.pem": w.keys["orderer1"], "User1.pem": w.keys["User1"], "seat.pem": pemOf(w.t, w.seats[0])} {
		require.NoError(w.t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
}

func loadWorld(dir string) *world {
	w := &world{t: childT{}}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(w.t, err)
		return b
	}
	w.genesis = &common.Block{}
	require.NoError(w.t, proto.Unmarshal(read("genesis.block"), w.genesis))
	var err error
	w.config, err = channel.Parse(w.genesis)
	require.NoError(w.t, err)
	seat, err := tls.X509KeyPair(read("seat.pem"), read("seat.pem"))
	require.NoError(w.t, err)
	w.seats = []tls.Certificate{seat}
	w.signer = w.load("OrdererMSP", read("orderer1.pem"))
	w.client = w.load("Org1MSP", read("User1.pem"))
	return w
}

// childT ends the child process at the first failure.
type childT struct{}

func (childT) Helper() {}
func (childT) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
func (childT) FailNow() { os.Exit(1) }

// pemOf is a TLS certificate and its key as a file would hold them.
func pemOf(t tb, c tls.Certificate) []byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
}
