package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	socketName = "admin.sock"
	// addressName holds the socket's place where the data folder's path is too
	// long for a socket.
	addressName = "admin.addr"
	socketLimit = 107 // bytes of a Unix socket's path
)

// Listen opens the admin socket of a node with this data folder. File
// permissions decide who may use it.
func Listen(dir string) (net.Listener, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the admin socket: %w", err)
	}
	path := filepath.Join(dir, socketName)
	addr := filepath.Join(dir, addressName)
	if err := remove(addr); err != nil {
		return nil, err
	}
	if len(path) > socketLimit {
		private, err := os.MkdirTemp("", "grapevine-")
		if err != nil {
			return nil, fmt.Errorf("opening the admin socket: %w", err)
		}
		path = filepath.Join(private, socketName)
		if err := os.WriteFile(addr, []byte(path+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("opening the admin socket: %w", err)
		}
	}
	// The ledger's lock says that no other node runs here: what lies there is
	// left from one that was killed.
	if err := remove(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a stale admin socket: %w", err)
	}
	return nil
}

// Socket returns where the node of a data folder listens.
func Socket(dir string) string {
	if raw, err := os.ReadFile(filepath.Join(dir, addressName)); err == nil {
		return strings.TrimSpace(string(raw))
	}
	return filepath.Join(dir, socketName)
}

// ServeHTTP serves until ctx ends, then gives requests under way a while.
func ServeHTTP(ctx context.Context, srv *http.Server, l net.Listener, grace time.Duration) error {
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := srv.Shutdown(end)
	if err != nil {
		err = srv.Close()
	}
	if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	return ctx.Err()
}
