package orderer

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// openStore opens Raft's log and votes. Another process that has them open is waited for but a moment.
func openStore(path string) (*raftboltdb.BoltStore, error) {
	store, err := raftboltdb.New(raftboltdb.Options{
		Path:        path,
		BoltOptions: &bbolt.Options{Timeout: 2 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	return store, nil
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
