package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/dev"
	"grapevine/itest/figures"
)

// Real processes under 50 transactions a second: the leader of one organisation
// after the other is killed, suspended, cut from all orderers, and cut from
// everybody. How long until another peer of its organisation pulls, and until
// every peer that can has the block that is ordered next? All ledgers end equal.
//
// For the cuts each peer reaches each orderer through a relay of its own, which
// falls silent; connections stay open, as when a cable is pulled. The links
// between peers are cut by routing rules, for which the test needs root: it then
// plays in a network namespace of its own. Without root that act is left out.
func TestSoakLeaders(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("GRAPEVINE_SOAK"))
	if err != nil {
		t.Skip("GRAPEVINE_SOAK gives no duration, such as 10m")
	}
	apart, done := ownNetwork(t)
	if done {
		return
	}
	repetitions := min(20, max(3, int(d/(30*time.Second)))) // 20 for make soak
	s := newLeaderSoak(t)
	var out figures.Records
	faults := []harm{
		{"kill -9", func(name string) { s.must(s.net.Kill(t.Context(), s.node(name))) }, func(name string) { s.run(t, 0, "dev", "restart", name) }},
		{"SIGSTOP", func(name string) { s.must(s.net.Pause(s.node(name))) }, func(name string) { s.must(s.net.Resume(s.node(name))) }},
		{"cut from orderers", func(name string) { s.cut(name, true) }, func(name string) { s.cut(name, false) }},
	}
	if apart {
		faults = append(faults, harm{"cut from all", func(name string) { s.isolate(name, true) }, func(name string) { s.isolate(name, false) }})
	}
	for _, f := range faults {
		var pulls, blocks []time.Duration
		for i := range repetitions {
			org := fmt.Sprintf("org%d", i%3+1)
			leader := s.settle(org)
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond) // at any moment of its beat
			p, b := s.strike(org, leader, f.do)
			t.Logf("%s of %s: another pulls after %v, all have the next block after %v", f.name, leader, p.Round(time.Millisecond), b.Round(time.Millisecond))
			pulls, blocks = append(pulls, p), append(blocks, b)
			f.un(leader)
		}
		params := map[string]any{"fault": f.name, "repetitions": repetitions, "orgs": 3, "peers": 9, "orderers": 3, "rate": 50}
		out.Spread("leader gone until another pulls", params, pulls)
		out.Spread("leader gone until all have the next block", params, blocks)
		sp, sb := figures.Sorted(pulls), figures.Sorted(blocks)
		t.Logf("%s, %d times: another pulls after p50 %v, max %v; all have the next block after p50 %v, max %v", f.name, repetitions,
			figures.At(sp, .5).Round(time.Millisecond), figures.At(sp, 1).Round(time.Millisecond), figures.At(sb, .5).Round(time.Millisecond), figures.At(sb, 1).Round(time.Millisecond))
	}
	s.same()
	require.NoError(t, out.Write(filepath.Join("..", "..", "build", "soak-leaders.json")))
}

// A harm is done to a leader, and undone.
type harm struct {
	name   string
	do, un func(name string)
}

// inside says that the process runs in a network namespace of its own.
const inside = "GRAPEVINE_NETNS"

// ownNetwork says whether links can be cut here. As root it plays the test in a
// network namespace of its own, and is done then.
func ownNetwork(t *testing.T) (apart, done bool) {
	if os.Getenv(inside) != "" {
		return true, false
	}
	const prepare = "ip link set lo up && ip rule add pref 100 lookup local && ip rule del pref 0"
	if os.Getuid() != 0 || exec.Command("unshare", "-n", "sh", "-c", prepare).Run() != nil {
		t.Log("without root, or without network namespaces: no links between peers are cut")
		return false, false
	}
	c := exec.CommandContext(t.Context(), "unshare", "-n", "sh", "-c", prepare+` && exec "$0" "$@"`,
		os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", flag.Lookup("test.timeout").Value.String())
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), inside+"=yes"), os.Stdout, os.Stderr
	require.NoError(t, c.Run())
	return false, true
}

// leaderSoak is a development network whose peers reach the orderers through
// relays, under load.
type leaderSoak struct {
	*machine
	t       *testing.T
	net     *dev.Network
	relays  map[string][]*relay // by peer
	endLoad func()
}

func newLeaderSoak(t *testing.T) *leaderSoak {
	s := &leaderSoak{machine: newMachine(t), t: t, relays: map[string][]*relay{}}
	t.Cleanup(func() {
		c, _, _ := s.command(t, "dev", "down")
		_ = c.Run() // the test says what went wrong
	})
	s.object(t, 0, "dev", "up", "--detach")
	s.run(t, 0, "dev", "down")
	var err error
	s.net, err = dev.Find(filepath.Join(s.root, "data", "grapevine", "dev"))
	s.must(err)
	for _, p := range s.net.Peers() {
		s.relay(p)
	}
	s.object(t, 0, "dev", "up", "--detach")

	ctx, cancel := context.WithCancel(context.Background())
	load := exec.CommandContext(ctx, s.bin, "dev", "tx", "--count", "1000000", "--rate", "50", "--no-wait")
	load.Dir, load.Env = s.root, s.env
	s.must(load.Start())
	s.endLoad = sync.OnceFunc(func() {
		cancel()
		_ = load.Wait() // it was killed
	})
	t.Cleanup(s.endLoad)
	return s
}

func (s *leaderSoak) must(err error) {
	s.t.Helper()
	require.NoError(s.t, err)
}

func (s *leaderSoak) node(name string) *dev.Node {
	n, err := s.net.Node(name)
	s.must(err)
	return n
}

// relay puts relays between a peer and the orderers, by its configuration.
func (s *leaderSoak) relay(p *dev.Node) {
	file := s.net.ConfigFiles(p)[0]
	raw, err := os.ReadFile(file)
	s.must(err)
	var c map[string]any
	s.must(yaml.Unmarshal(raw, &c))
	var overrides []any
	for _, o := range s.net.Orderers() {
		at := fmt.Sprintf("127.0.0.1:%d", o.GRPC)
		r := newRelay(s.t, at)
		s.relays[p.Name] = append(s.relays[p.Name], r)
		overrides = append(overrides, map[string]any{"from": at, "to": r.addr(), "caCertsFile": filepath.Join(s.net.Dir(), filepath.FromSlash(o.TLS), "ca.crt")})
	}
	c["peer"].(map[string]any)["deliveryclient"] = map[string]any{"addressOverrides": overrides}
	raw, err = yaml.Marshal(c)
	s.must(err)
	s.must(os.WriteFile(file, raw, 0o600))
}

func (s *leaderSoak) cut(name string, yes bool) {
	for _, r := range s.relays[name] {
		r.cut(yes)
	}
}

// isolate takes a peer's links to all others away, or gives them back. Its
// connections are of its listening port, also those that it opens.
func (s *leaderSoak) isolate(name string, yes bool) {
	verb := map[bool]string{true: "add", false: "del"}[yes]
	for _, side := range []string{"sport", "dport"} {
		out, err := exec.Command("ip", "rule", verb, "pref", "10", side, strconv.Itoa(s.node(name).Listen), "blackhole").CombinedOutput()
		require.NoError(s.t, err, "%s", out)
	}
	s.cut(name, yes)
}

// settle waits until the network is whole, and returns who leads an organisation.
func (s *leaderSoak) settle(org string) (leader string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	state, err := s.net.Wait(ctx, func(d *admin.DevState) bool {
		return d.Ready && !slices.ContainsFunc(d.Peers, func(p admin.DevPeer) bool {
			return p.State != string(dev.Alive) || p.Height+5 < d.Channels[0].Height
		})
	})
	s.must(err)
	for _, p := range state.Peers {
		if p.Org == org && p.Leader {
			leader = p.Name
		}
	}
	return leader
}

// strike does harm to a leader, and returns how long it took until another peer
// of its organisation pulled from an orderer, and until every other peer had
// the block that was ordered next.
func (s *leaderSoak) strike(org, leader string, do func(string)) (pulls, block time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	height := uint64(0)
	for _, o := range s.net.Orderers() {
		c := s.remote(o)
		v, err := c.Height(ctx, 0, time.Second)
		s.must(err)
		height = max(height, v.Height)
		c.Close()
	}
	var mu sync.Mutex
	var g sync.WaitGroup
	began := time.Now()
	note := func(d *time.Duration, first bool) {
		mu.Lock()
		defer mu.Unlock()
		if took := time.Since(began); *d == 0 || !first {
			*d = max(*d, took)
		}
	}
	looking, found := context.WithCancel(ctx)
	defer found()
	g.Go(func() { do(leader) })
	for _, p := range s.net.Peers() {
		if p.Name == leader {
			continue
		}
		c := s.remote(p)
		defer c.Close()
		g.Go(func() {
			if v, err := c.Height(ctx, height, time.Minute); err == nil && v.Height > height {
				note(&block, false)
			}
		})
		if p.Org != org {
			continue
		}
		g.Go(func() {
			for tick := time.NewTicker(10 * time.Millisecond); looking.Err() == nil; <-tick.C {
				if v, err := c.Leader(looking); err == nil && v.Leading && v.Orderer != "" {
					note(&pulls, true)
					found()
				}
			}
		})
	}
	g.Wait()
	require.NoError(s.t, ctx.Err(), "%s is gone: another pulls after %v, all have block %d after %v", leader, pulls, height, block)
	return pulls, block
}

func (s *leaderSoak) remote(n *dev.Node) admin.Remote {
	return admin.Remote{Client: admin.Dial(s.net.Folder(n)), Name: "mychannel"}
}

// same ends the load, and compares what all peers hold.
func (s *leaderSoak) same() {
	s.t.Helper()
	s.settle("org1")
	s.endLoad()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	state, err := s.net.Wait(ctx, func(d *admin.DevState) bool {
		for _, p := range d.Peers {
			if p.State != string(dev.Alive) || p.Height != d.Channels[0].Height {
				return false
			}
		}
		return true
	})
	s.must(err)
	for _, p := range state.Peers {
		require.Equal(s.t, state.Peers[0].TipHash, p.TipHash, p.Name)
		require.Equal(s.t, state.Peers[0].StateHash, p.StateHash, p.Name)
	}
	s.t.Logf("all %d peers hold the same %d blocks and state", len(state.Peers), state.Peers[0].Height)
}
