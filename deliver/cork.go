package deliver

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// corkBytes is what a connection gathers before it writes. A block of 100 KiB is seven TLS records, and crypto/tls makes a
// system call for each.
const corkBytes = 128 << 10

// corked is TLS whose records go out together: those that one write of gRPC's becomes.
type corked struct {
	credentials.TransportCredentials
}

func (c corked) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	k := &cork{Conn: raw}
	conn, info, err := c.TransportCredentials.ServerHandshake(k)
	if err != nil {
		return nil, nil, err
	}
	return &bottle{Conn: conn, cork: k}, info, nil
}

func (c corked) Clone() credentials.TransportCredentials {
	return corked{c.TransportCredentials.Clone()}
}

func (c corked) ClientHandshake(ctx context.Context, name string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.TransportCredentials.ClientHandshake(ctx, name, raw)
}

// bottle is the TLS connection.
type bottle struct {
	net.Conn
	cork *cork
}

func (b *bottle) Write(p []byte) (int, error) {
	b.cork.hold()
	n, err := b.Conn.Write(p)
	if e := b.cork.release(); err == nil {
		err = e
	}
	return n, err
}

// cork is what lies under it.
type cork struct {
	net.Conn

	mu   sync.Mutex
	held *[]byte // what waits; nil: nothing is held back; owned by mu
}

var corkBuffers = sync.Pool{New: func() any { b := make([]byte, 0, corkBytes+corkBytes/16); return &b }}

func (c *cork) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = corkBuffers.Get().(*[]byte) //nolint:forcetypeassert // made above
}

func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return c.Conn.Write(p)
	}
	*c.held = append(*c.held, p...)
	return len(p), nil
}

func (c *cork) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.Conn.Write(*c.held)
	*c.held = (*c.held)[:0]
	corkBuffers.Put(c.held)
	c.held = nil
	return err
}
