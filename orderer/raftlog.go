package orderer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// backing is where Raft keeps its log and its votes.
type backing interface {
	raft.LogStore
	raft.StableStore
}

// openBacking opens the file at path. Another process that has it open is waited for but a moment.
func openBacking(path string) (*raftboltdb.BoltStore, error) {
	b, err := raftboltdb.New(raftboltdb.Options{
		Path:        path,
		BoltOptions: &bbolt.Options{Timeout: 2 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	return b, nil
}

// store stands between Raft and its backing, for Raft panics when a vote can't be kept. It waits while the disk is full.
// After any other failed write nothing that Raft would say could be relied on: store is broken, and the write never
// returns. The goroutines that wait for it then stay as they are, and the process should end.
type store struct {
	backing
	log     *slog.Logger
	closing <-chan struct{} // ends the wait for a full disk, as a failure
	fail    func(error)     // told of the failure
	once    sync.Once       // closes broken
	broken  chan struct{}   // closed after a failure
}

// StoreLog keeps one entry.
func (s *store) StoreLog(l *raft.Log) error {
	return s.keep(func() error { return s.backing.StoreLog(l) })
}

// StoreLogs keeps entries.
func (s *store) StoreLogs(ls []*raft.Log) error {
	return s.keep(func() error { return s.backing.StoreLogs(ls) })
}

// Set keeps a value.
func (s *store) Set(key, value []byte) error {
	return s.keep(func() error { return s.backing.Set(key, value) })
}

// SetUint64 keeps a number.
func (s *store) SetUint64(key []byte, value uint64) error {
	return s.keep(func() error { return s.backing.SetUint64(key, value) })
}

func (s *store) keep(write func() error) error {
	for {
		err := write()
		if err == nil {
			return nil
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			s.log.Error("raft waits for the disk", "reason", err)
			t := time.NewTimer(retryEvery)
			select {
			case <-t.C:
				continue
			case <-s.closing:
				t.Stop()
			}
		}
		s.once.Do(func() {
			s.fail(fmt.Errorf("write raft log: %w: %w", BrokenLog, err))
			close(s.broken)
		})
		select {}
	}
}

// logLines passes on what Raft logs, one message for each write:
//
//	2006-01-02T15:04:05.000Z [WARN]  raft: text: key=value key="another value"
//
// What Raft calls errors are mostly other nodes that can't be reached, and its warnings elections: they come a level lower.
// The same message about the same node comes once in a while only, though Raft repeats it several times a second.
type logLines struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]*saying // guarded by mu
}

// saying is what became of one message.
type saying struct {
	at   time.Time // when it was last passed on
	kept int       // how often not, since
}

const (
	sayEvery   = 10 * time.Second
	maxSayings = 256 // kinds of message remembered; more would be a node's name gone wild
)

func (l *logLines) Write(b []byte) (int, error) {
	text := strings.Join(strings.Fields(string(b)), " ")
	_, text, _ = strings.Cut(text, "[")
	level, text, ok := strings.Cut(text, "]")
	if !ok {
		return len(b), nil
	}
	text = strings.TrimSpace(text)
	if again, say := l.due(text, time.Now()); say {
		to := slog.LevelInfo
		if level == "ERROR" {
			to = slog.LevelWarn
		}
		l.log.Log(context.Background(), to, text, "more", again)
	}
	return len(b), nil
}

// due says whether a message is to be passed on, and how often it was not since the last time.
func (l *logLines) due(text string, now time.Time) (again int, say bool) {
	// What it is about lies before the first value, and whom it is about is that value.
	key := text
	if i := strings.Index(text, "="); i >= 0 {
		if j := strings.IndexByte(text[i:], ' '); j >= 0 {
			key = text[:i+j]
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said == nil || len(l.said) >= maxSayings {
		l.said = make(map[string]*saying)
	}
	s := l.said[key]
	if s == nil {
		s = &saying{}
		l.said[key] = s
	}
	if now.Sub(s.at) < sayEvery {
		s.kept++
		return 0, false
	}
	again = s.kept
	*s = saying{at: now}
	return again, true
}
