package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/dev"
	"grapevine/itest/figures"
)

// A soak is a network of real processes under load.
type soak struct {
	*machine
	t        *testing.T
	net      *dev.Network
	orderers []string
	count    int             // transactions of one load, 200 a second
	taken    int             // transactions that were acknowledged
	figures  figures.Records // what is measured
}

func newSoak(t *testing.T) *soak {
	s := &soak{machine: newMachine(t), t: t, orderers: []string{"orderer0", "orderer1", "orderer2"}, count: 1000}
	if n, err := strconv.Atoi(os.Getenv("GRAPEVINE_SOAK_TX")); err == nil {
		s.count = n
	}
	t.Cleanup(func() {
		c, _, _ := s.command(t, "dev", "down")
		_ = c.Run() // the test says what went wrong
	})
	up := s.object(t, 0, "dev", "up", "--detach", "--orgs", "2", "--peers", "2", "--orderers", "3")
	var err error
	s.net, err = dev.Find(up["dir"].(string))
	require.NoError(t, err)
	return s
}

// item is the channel at a node, by its admin socket.
func (s *soak) item(name string) (*admin.ChannelItem, error) {
	n, err := s.net.Node(name)
	require.NoError(s.t, err)
	c := admin.Dial(s.net.Folder(n))
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	l, err := c.Channels(ctx)
	if err != nil || len(l.Items) == 0 {
		return nil, fmt.Errorf("channels of %s: %w", name, err)
	}
	return &l.Items[0], nil
}

func (s *soak) leader() string {
	for {
		for _, o := range of(s.object(s.t, 0, "dev", "status"), "orderers") {
			if o["leader"].(bool) {
				return o["name"].(string)
			}
		}
	}
}

// load orders transactions while f does its harm, and notes their latency: until
// all peers hold them. Each that is acknowledged is committed.
func (s *soak) load(what string, f func()) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, s.bin, "dev", "tx", "--count", strconv.Itoa(s.count), "--rate", "200", "--timeout", "8m", "-o", "json")
	var out, errs bytes.Buffer
	c.Dir, c.Env, c.Stdout, c.Stderr = s.root, s.env, &out, &errs
	require.NoError(s.t, c.Start())
	f()
	require.NoError(s.t, c.Wait(), "%s: %s%s", what, &out, &errs)
	var tx admin.DevTx
	require.NoError(s.t, json.Unmarshal(out.Bytes(), &tx))
	require.Equal(s.t, s.count, tx.Accepted, what)
	require.Equal(s.t, s.count, tx.Committed, what)
	require.Zero(s.t, tx.Failed, what)
	s.taken += tx.Accepted
	for q, v := range map[string]float64{"p50": tx.LatencyMs.P50, "p99": tx.LatencyMs.P99, "max": tx.LatencyMs.Max} {
		s.figures.Add("orderers/latency/"+q, map[string]any{"during": what, "tx": s.count, "rate": 200}, "ms", v)
	}
	s.t.Logf("%-22s %d transactions, until all peers hold them: p50 %.0f ms, p99 %.0f ms, max %.0f ms", what, s.count, tx.LatencyMs.P50, tx.LatencyMs.P99, tx.LatencyMs.Max)
}

// resumes notes how long it takes from now until a peer commits.
func (s *soak) resumes(after string) {
	s.t.Helper()
	began := time.Now()
	before, err := s.item("peer0.org2")
	require.NoError(s.t, err)
	require.Eventually(s.t, func() bool {
		now, err := s.item("peer0.org2")
		return err == nil && now.Height > before.Height
	}, 2*time.Minute, 20*time.Millisecond, "after "+after)
	took := time.Since(began)
	s.figures.Add("orderers/resume", map[string]any{"after": after}, "ms", float64(took.Milliseconds()))
	s.t.Logf("  peers resume %.1f s after: %s", took.Seconds(), after)
}

func (s *soak) pause(d time.Duration) { time.Sleep(d) } // real processes have no other clock

// ledgers holds that all nodes keep the same blocks, that these are true, that
// every acknowledged transaction is valid in them once, and that none was ordered
// again although its answer was lost.
func (s *soak) ledgers() {
	s.t.Helper()
	type count struct{ entries, valid int }
	var height uint64
	var tip string
	require.Eventually(s.t, func() bool {
		v, err := s.item("peer0.org1")
		if err != nil {
			return false
		}
		height, tip = v.Height, v.TipHash
		for _, n := range s.all() {
			if w, err := s.item(n); err != nil || w.Height != height || w.TipHash != tip {
				return false
			}
		}
		return true
	}, 2*time.Minute, 200*time.Millisecond, "equal ledgers")
	for _, name := range s.all() {
		require.Equal(s.t, true, s.object(s.t, 0, "block", "verify", "mychannel", "--target", name)["ok"], name)
		n, err := s.net.Node(name)
		require.NoError(s.t, err)
		r := admin.Remote{Client: admin.Dial(s.net.Folder(n)), Name: "mychannel"}
		ids := map[string]*count{}
		last := [32]byte{}
		for number := range height {
			b, err := r.Block(s.t.Context(), strconv.FormatUint(number, 10), false)
			require.NoError(s.t, err)
			if number > 0 {
				require.Equal(s.t, hex.EncodeToString(last[:]), b.PreviousHash)
			}
			sum, err := hex.DecodeString(b.Hash)
			require.NoError(s.t, err)
			copy(last[:], sum)
			for _, x := range b.Txs {
				if x.Type != "endorser" {
					continue
				}
				c := ids[x.ID]
				if c == nil {
					c = &count{}
					ids[x.ID] = c
				}
				if c.entries++; x.ValidityCode == 0 {
					c.valid++
				}
			}
		}
		r.Close()
		again, valid := 0, 0
		for id, c := range ids {
			again += c.entries - 1
			valid += c.valid
			if strings.HasPrefix(name, "peer") { // orderers judge none
				require.LessOrEqual(s.t, c.valid, 1, "transaction %s took effect twice at %s", id, name)
			}
		}
		if name == "peer0.org1" {
			require.GreaterOrEqual(s.t, len(ids), s.taken, "acknowledged transactions are lost")
			require.GreaterOrEqual(s.t, valid, s.taken)
			s.figures.Add("orderers/ordered again", nil, "transactions", float64(again))
			s.figures.Add("orderers/acknowledged", nil, "transactions", float64(s.taken))
			require.Zero(s.t, again, "transactions were ordered twice")
			s.t.Logf("%d blocks, %d transactions acknowledged, 0 lost, 0 ordered twice", height, s.taken)
		}
	}
}

func (s *soak) all() []string {
	return append([]string{"peer0.org1", "peer1.org1", "peer0.org2", "peer1.org2"}, s.orderers...)
}

// soaked says how long loops run, and skips the test unless somebody asks.
func soaked(t *testing.T) time.Duration {
	d, err := time.ParseDuration(os.Getenv("GRAPEVINE_SOAK"))
	if err != nil {
		t.Skip("GRAPEVINE_SOAK gives no duration, such as 10m")
	}
	return d
}

// Real processes under load: each orderer, and whoever leads, is killed and
// suspended in turn, and the quorum is lost for a while. No transaction that was
// acknowledged is lost, none takes effect twice, peers resume, and all ledgers end
// equal and true.
func TestSoakOrderers(t *testing.T) {
	without := time.Minute // a quorum
	if soaked(t) < time.Minute {
		without = 15 * time.Second
	}
	s := newSoak(t)
	s.load("before", func() {})
	for _, who := range append(s.orderers, "the leader") {
		name := func() string {
			if who == "the leader" {
				return s.leader()
			}
			return who
		}
		s.load("kill -9 "+who, func() {
			n := name()
			s.run(t, 0, "dev", "kill", n)
			s.resumes("kill -9 " + who)
			s.run(t, 0, "dev", "restart", n)
		})
		s.load("SIGSTOP "+who, func() {
			n := name()
			s.run(t, 0, "dev", "pause", n)
			s.resumes("SIGSTOP " + who)
			s.pause(time.Second)
			s.run(t, 0, "dev", "resume", n)
		})
	}
	s.load("no quorum", func() {
		s.run(t, 0, "dev", "kill", "orderer0")
		s.run(t, 0, "dev", "kill", "orderer1")
		s.pause(without)
		s.run(t, 0, "dev", "restart", "orderer0")
		s.resumes(fmt.Sprintf("the quorum's return, %v without", without))
		s.run(t, 0, "dev", "restart", "orderer1")
	})
	s.load("after", func() {})
	s.ledgers()
	figures.Save(t, "soak-orderers", s.figures)
}

// Each orderer is killed again and again at random moments under load. After each
// start it holds what it held before, and what the others hold; every block that
// anybody has is signed as the channel asks.
func TestSoakOrdererCrashes(t *testing.T) {
	end := time.Now().Add(soaked(t))
	each := 100
	s := newSoak(t)
	kills := map[string]int{}
	restarts := []time.Duration{}
	least := func() int { return min(kills["orderer0"], kills["orderer1"], kills["orderer2"]) }
	for least() < each && (time.Now().Before(end) || least() == 0) {
		s.load("kill -9 at random", func() {
			for range 3 {
				for _, n := range s.orderers {
					s.pause(time.Duration(rand.IntN(500)) * time.Millisecond)
					before, err := s.item(n)
					require.NoError(t, err)
					s.run(t, 0, "dev", "kill", n)
					kills[n]++
					s.pause(time.Duration(rand.IntN(100)) * time.Millisecond)
					began := time.Now()
					s.run(t, 0, "dev", "restart", n)
					restarts = append(restarts, time.Since(began))
					s.kept(n, before)
				}
			}
		})
	}
	s.ledgers()
	d := figures.Sorted(restarts)
	s.figures.Add("orderers/kills", map[string]any{"each": least()}, "kills", float64(len(restarts)))
	s.figures.Spread("orderers/restart", nil, restarts)
	t.Logf("%d kills, at least %d of each orderer; restart p50 %v, p99 %v", len(restarts), least(), d[len(d)/2], d[len(d)*99/100])
	figures.Save(t, "soak-orderer-crashes", s.figures)
}

// kept holds that a restarted node has what it told of before it was killed.
func (s *soak) kept(name string, before *admin.ChannelItem) {
	s.t.Helper()
	now, err := s.item(name)
	require.NoError(s.t, err)
	require.GreaterOrEqual(s.t, now.Height, before.Height, "%s has lost blocks", name)
	n, err := s.net.Node(name)
	require.NoError(s.t, err)
	r := admin.Remote{Client: admin.Dial(s.net.Folder(n)), Name: "mychannel"}
	defer r.Close()
	require.NoError(s.t, r.Raw(s.t.Context(), strconv.FormatUint(before.Height-1, 10), func(raw []byte) error {
		b, err := block.Decode(raw)
		if err == nil {
			hash := block.HeaderHash(b.Header)
			require.Equal(s.t, before.TipHash, hex.EncodeToString(hash[:]), "%s has another block than before", name)
		}
		return err
	}))
}
