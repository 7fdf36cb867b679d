package orderer

import (
	"bytes"
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

// logLines passes on the lines that Raft logs: 2006-01-02T15:04:05.000Z [WARN]  raft: text.
type logLines struct{ log *slog.Logger }

func (l *logLines) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(string(line))
		if _, after, ok := strings.Cut(text, "["); ok {
			text = after
		}
		level, text, ok := strings.Cut(text, "]")
		switch {
		case !ok:
			l.log.Info(level)
		case level == "ERROR":
			l.log.Error(strings.TrimSpace(text))
		default:
			l.log.Warn(strings.TrimSpace(text))
		}
	}
	return len(b), nil
}
