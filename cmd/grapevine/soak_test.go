package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Real processes under load: each orderer, and whoever leads, is killed and
// suspended in turn, the quorum is lost for a while, and then orderers are killed
// at random moments. Every transaction ends in the ledgers of all peers, and all
// ledgers end equal and true.
func TestSoakOrderers(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("GRAPEVINE_SOAK"))
	if err != nil {
		t.Skip("GRAPEVINE_SOAK gives no duration, such as 10m")
	}
	m := newMachine(t)
	t.Cleanup(func() {
		c, _, _ := m.command(t, "dev", "down")
		_ = c.Run() // the test says what went wrong
	})
	m.object(t, 0, "dev", "up", "--detach", "--orgs", "2", "--peers", "2", "--orderers", "3")
	orderers := []string{"orderer0", "orderer1", "orderer2"}
	leader := func() string {
		for {
			for _, o := range of(m.object(t, 0, "dev", "status"), "orderers") {
				if o["leader"].(bool) {
					return o["name"].(string)
				}
			}
		}
	}
	// load orders transactions while f does its harm, and tells of their latency.
	load := func(what string, count int, f func()) {
		t.Helper()
		c, out, errs := m.command(t, "dev", "tx", "--count", fmt.Sprint(count), "--rate", "200", "-o", "json")
		require.NoError(t, c.Start())
		f()
		require.NoError(t, c.Wait(), "%s: %s%s", what, out, errs)
		var tx map[string]any
		require.NoError(t, json.Unmarshal(out.Bytes(), &tx))
		require.Equal(t, float64(count), tx["committed"], what)
		require.Zero(t, tx["failed"], what)
		t.Logf("%s: %d transactions, latency in ms %v", what, count, tx["latencyMs"])
	}
	pause := func(seconds int) { time.Sleep(time.Duration(seconds) * time.Second) } // real processes have no other clock
	load("before", 1000, func() {})
	for _, who := range append(orderers, "the leader") {
		name := func() string {
			if who == "the leader" {
				return leader()
			}
			return who
		}
		load("kill -9 "+who, 1000, func() {
			n := name()
			m.run(t, 0, "dev", "kill", n)
			pause(2)
			m.run(t, 0, "dev", "restart", n)
		})
		load("SIGSTOP "+who, 1000, func() {
			n := name()
			m.run(t, 0, "dev", "pause", n)
			pause(3)
			m.run(t, 0, "dev", "resume", n)
		})
	}
	load("no quorum", 1000, func() {
		m.run(t, 0, "dev", "kill", "orderer0")
		m.run(t, 0, "dev", "kill", "orderer1")
		pause(15)
		m.run(t, 0, "dev", "restart", "orderer0")
		m.run(t, 0, "dev", "restart", "orderer1")
	})
	kills := 0
	for end := time.Now().Add(d); time.Now().Before(end) || kills < 3; {
		load("kill -9 at random", 1000, func() {
			for range 3 {
				time.Sleep(time.Duration(rand.IntN(900)) * time.Millisecond)
				n := orderers[rand.IntN(3)]
				m.run(t, 0, "dev", "kill", n)
				kills++
				time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
				m.run(t, 0, "dev", "restart", n)
			}
		})
	}
	load("after", 1000, func() {})
	t.Logf("%d orderers killed at random moments", kills)

	tips := map[any]bool{}
	for _, n := range append(orderers, "peer0.org1", "peer1.org1", "peer0.org2", "peer1.org2") {
		require.Eventually(t, func() bool {
			return m.object(t, 0, "channel", "info", "mychannel", "--target", n)["height"] == m.object(t, 0, "channel", "info", "mychannel", "--target", "peer0.org1")["height"]
		}, 30*time.Second, 100*time.Millisecond, n)
		tips[m.object(t, 0, "channel", "info", "mychannel", "--target", n)["tipHash"]] = true
		require.Equal(t, true, m.object(t, 0, "block", "verify", "mychannel", "--target", n)["ok"], n)
	}
	require.Len(t, tips, 1)
}
