package serve

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	golog "github.com/ipfs/go-log/v2"

	"grapevine/cmd/grapevine/conf"
)

// own begins the names of this program's loggers in go-log; all others are
// libraries'.
const own = "grapevine/"

// A Log is a node's log, whose level follows Fabric's logging specification and
// can be changed while the node runs. It is safe for concurrent use.
type Log struct {
	*slog.Logger
	level *slog.LevelVar

	mu   sync.Mutex
	spec string // in force, owned by mu
	all  bool   // go-log follows it too, owned by mu
}

// NewLog makes a node's log on w.
func NewLog(w io.Writer, c conf.Logging, name string) (*Log, error) {
	l := &Log{level: new(slog.LevelVar)}
	opts := &slog.HandlerOptions{Level: l.level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if c.JSON {
		h = slog.NewJSONHandler(w, opts)
	}
	l.Logger = slog.New(h)
	if name != "" {
		l.Logger = l.With("node", name)
	}
	return l, l.Set(c.Spec)
}

// Lead makes what logs through go-log follow this log's specification: our
// rooms, and libraries, which speak of errors alone unless it names them. It
// goes to file, or to stderr for "". A process has one log that leads.
func (l *Log) Lead(c conf.Logging, file string) error {
	to := golog.Config{Format: golog.PlaintextOutput, Stderr: file == "", File: file, Level: golog.LevelError}
	if c.JSON {
		to.Format = golog.JSONOutput
	}
	golog.SetupLogging(to)
	l.mu.Lock()
	l.all = true
	l.mu.Unlock()
	return l.Set(l.Spec())
}

// Spec is the specification in force.
func (l *Log) Spec() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spec
}

// Set puts a specification in force: [logger[,logger…]=]level[:…]. A logger
// covers its dotted children, a trailing dot means that one only. Without a
// default level it is info.
func (l *Log) Set(spec string) error {
	def, named, err := conf.ParseLogSpec(spec)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spec = spec
	l.level.Set(slogLevels[def])
	if v, ok := levelFor("node", named); ok {
		l.level.Set(slogLevels[v])
	}
	if !l.all {
		return nil
	}
	for _, name := range golog.GetSubsystems() {
		level := "error" // libraries
		if strings.HasPrefix(name, own) {
			level = def
		}
		if v, ok := levelFor(strings.TrimPrefix(name, own), named); ok {
			level = v
		}
		if err := golog.SetLogLevel(name, gologLevel(level)); err != nil {
			return fmt.Errorf("setting the level of %s: %w", name, err)
		}
	}
	return nil
}

// slogLevels are Fabric's levels as slog has them.
var slogLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "warn": slog.LevelWarn,
	"error": slog.LevelError, "panic": slog.LevelError, "fatal": slog.LevelError,
}

func gologLevel(level string) string {
	if level == "warning" {
		return "warn"
	}
	return level
}

// familiar are the names that our rooms' loggers have in Fabric.
var familiar = map[string]string{
	"blocksync": "gossip.state", "membership": "gossip.discovery", "election": "gossip.election",
}

// levelFor is the level that the longest fitting name gives a logger.
func levelFor(name string, named map[string]string) (level string, ok bool) {
	for _, name := range []string{name, familiar[name]} {
		if v, ok := named[name+"."]; ok {
			return v, true
		}
		for n := name; n != ""; n = n[:max(strings.LastIndexAny(n, "./"), 0)] {
			if v, ok := named[n]; ok {
				return v, true
			}
		}
	}
	return "", false
}
