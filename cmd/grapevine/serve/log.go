package serve

import (
	"io"
	"log/slog"
	"strings"

	golog "github.com/ipfs/go-log/v2"

	"grapevine/cmd/grapevine/conf"
)

// Logger makes a node's log from Fabric's logging specification: its default
// level. Libraries that log through go-log follow the same level, at warning
// or above.
func Logger(w io.Writer, c conf.Logging, name string) *slog.Logger {
	level := levelOf(c.Spec)
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	format := golog.PlaintextOutput
	if c.JSON {
		h, format = slog.NewJSONHandler(w, opts), golog.JSONOutput
	}
	golog.SetupLogging(golog.Config{Format: format, Stderr: true, Level: golog.LevelError})
	log := slog.New(h)
	if name != "" {
		log = log.With("node", name)
	}
	return log
}

// levelOf reads the default level of [logger[,logger…]=]level[:…].
func levelOf(spec string) slog.Level {
	for _, f := range strings.Split(spec, ":") {
		if strings.Contains(f, "=") {
			continue
		}
		switch strings.ToLower(strings.TrimSpace(f)) {
		case "debug":
			return slog.LevelDebug
		case "warning", "warn":
			return slog.LevelWarn
		case "error", "panic", "fatal":
			return slog.LevelError
		}
	}
	return slog.LevelInfo
}
