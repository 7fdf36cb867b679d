package dev

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

const (
	askTime  = 2 * time.Second        // for one node's answer
	lookTime = 100 * time.Millisecond // between two looks at a network that isn't ready
	lastFile = "last.json"
)

// last is what a node said when it was last asked, for when it can't answer.
type last struct {
	Height  uint64 `json:"height"`
	TipHash string `json:"tipHash"`

	StateHash string        `json:"stateHash"`
	Ref       admin.NodeRef `json:"ref"`
}

// Status asks every node and tells what it saw. It never fails because a node
// is silent.
func (n *Network) Status(ctx context.Context) *admin.DevState {
	s := &admin.DevState{
		Orderers: make([]admin.DevOrderer, len(n.Orderers())),
		Peers:    make([]admin.DevPeer, len(n.Peers())),
	}
	var g sync.WaitGroup
	for i, v := range n.Orderers() {
		g.Go(func() { s.Orderers[i] = n.lookOrderer(ctx, v) })
	}
	for i, v := range n.Peers() {
		g.Go(func() { s.Peers[i] = n.lookPeer(ctx, v) })
	}
	g.Wait()
	ch := admin.DevChannel{Name: n.Shape.Channel}
	for _, o := range s.Orderers {
		if o.State == string(Alive) {
			ch.Height = max(ch.Height, o.Height)
		}
	}
	for _, p := range s.Peers {
		if p.State == string(Alive) {
			ch.Height = max(ch.Height, p.Height)
		}
	}
	s.Channels = []admin.DevChannel{ch}
	s.Ready = ready(s)
	return s
}

func (n *Network) lookOrderer(ctx context.Context, v *Node) admin.DevOrderer {
	state, pid, c, l := n.look(ctx, v)
	o := admin.DevOrderer{Name: v.Name, PID: pid, State: string(state), Height: l.Height}
	if c != nil {
		o.Leader = c.IsLeader
	}
	return o
}

func (n *Network) lookPeer(ctx context.Context, v *Node) admin.DevPeer {
	state, pid, c, l := n.look(ctx, v)
	p := admin.DevPeer{
		NodeRef: l.Ref, PID: pid, State: string(state), Anchor: v.Anchor,
		Channel: n.Shape.Channel, Height: l.Height, TipHash: l.TipHash, StateHash: l.StateHash,
	}
	p.Name, p.Org, p.MSPID = v.Name, v.Org, v.MSPID
	if c != nil {
		p.Leader, p.Members = c.IsLeader, c.Alive
	}
	return p
}

// look asks one node; c is nil unless it answered and has joined the channel.
// A process that doesn't answer is dead to its users.
func (n *Network) look(ctx context.Context, v *Node) (State, int, *admin.StatusChannel, last) {
	state, pid := n.Process(v)
	l := n.last(v)
	if state != Alive {
		return state, pid, nil, l
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	client := admin.Dial(n.Folder(v))
	defer client.Close()
	s, err := client.Status(ctx)
	if err != nil {
		return Dead, 0, nil, l
	}
	l.Ref = s.NodeRef
	for i := range s.Channels {
		if c := &s.Channels[i]; c.Name == n.Shape.Channel {
			l.Height, l.TipHash, l.StateHash = c.Height, c.TipHash, c.StateHash
			n.keep(v, l)
			return Alive, pid, c, l
		}
	}
	return Alive, pid, nil, l
}

func (n *Network) last(v *Node) (l last) {
	raw, err := os.ReadFile(filepath.Join(n.Folder(v), lastFile))
	if err != nil || json.Unmarshal(raw, &l) != nil {
		return last{} // never seen
	}
	return l
}

// keep records what was seen. It is a courtesy to later looks: that it can't be
// written changes no answer.
func (n *Network) keep(v *Node, l last) {
	if n.last(v) == l {
		return
	}
	if raw, err := json.Marshal(l); err == nil {
		_ = renameio.WriteFile(filepath.Join(n.Folder(v), lastFile), raw, 0o644)
	}
}

// ready says whether most orderers are alive and one leads, every organisation
// with a living peer has exactly one leader, and the living peers see each
// other, all of them.
func ready(s *admin.DevState) bool {
	alive, leads := 0, 0
	for _, o := range s.Orderers {
		if o.State == string(Alive) {
			alive++
			if o.Leader {
				leads++
			}
		}
	}
	if 2*alive <= len(s.Orderers) || leads != 1 {
		return false
	}
	living := 0
	leaders := map[string]int{}
	for _, p := range s.Peers {
		if p.State == string(Alive) {
			living++
			leaders[p.Org] += 0
			if p.Leader {
				leaders[p.Org]++
			}
		}
	}
	for _, k := range leaders {
		if k != 1 {
			return false
		}
	}
	for _, p := range s.Peers {
		if p.State == string(Alive) && p.Members != living {
			return false
		}
	}
	return living > 0
}

// Wait returns once ok accepts the network's state, which it then returns;
// DEV013 when ctx ends first.
func (n *Network) Wait(ctx context.Context, ok func(*admin.DevState) bool) (*admin.DevState, error) {
	t := time.NewTicker(lookTime)
	defer t.Stop()
	s := &admin.DevState{}
	for {
		if now := n.Status(ctx); ctx.Err() == nil { // else those that weren't heard in time seem dead
			if s = now; ok(s) {
				return s, nil
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return s, ctx.Err()
			}
			return s, fault.New("DEV013", "the network did not become ready in time").
				Because(why(s)...).Do(n.verb("logs"), n.verb("status"))
		}
	}
}

// why says in words what a network lacks.
func why(s *admin.DevState) []string {
	var out []string
	living := 0
	for _, p := range s.Peers {
		if p.State == string(Alive) {
			living++
		} else {
			out = append(out, p.Name+" is "+p.State)
		}
	}
	for _, o := range s.Orderers {
		if o.State != string(Alive) {
			out = append(out, o.Name+" is "+o.State)
		}
	}
	if leading(s) == "" {
		out = append(out, "no orderer leads")
	}
	for _, p := range s.Peers {
		if p.State == string(Alive) && p.Members != living {
			out = append(out, p.Name+" doesn't see every living peer")
		}
	}
	return out
}
