package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"grapevine/cmd/grapevine/fault"
)

// unreachable says why a request got no answer: the node is down, the port is
// another program's, TLS met a port without it, or nobody answers in time.
func (c *Client) unreachable(ctx context.Context, err error) error {
	var (
		plain   tls.RecordHeaderError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		dial    *net.OpError
	)
	e := fault.Newf(fault.Unreachable, "no node answers at %s", c.place).From(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil:
		return e.Because("it took the connection and says nothing: it is suspended or overloaded").Do("wait longer with --timeout")
	case errors.Is(err, os.ErrPermission):
		return fault.Newf("NET003", "you may not speak to the node at %s", c.place).From(err)
	case errors.Is(err, os.ErrNotExist):
		return e.Because("the node is down: it has no socket there").Do(c.start...)
	case errors.Is(err, syscall.ECONNREFUSED):
		return e.Because("the node is down: nobody listens there").Do(c.start...)
	case errors.As(err, &plain), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return e.Because("TLS was spoken to a port without TLS").Do("name it as http://HOST:PORT")
	case errors.As(err, &unknown):
		return fault.Newf("NET002", "the certificate of %s is signed by an unknown CA", c.place).From(err).Do("name its CA in CORE_PEER_TLS_ROOTCERT_FILE")
	case errors.As(err, &name):
		return e.Because("its TLS certificate is not for this address: " + name.Error()).Do("name the node by a host name or address that its certificate bears")
	case strings.Contains(err.Error(), "remote error: tls: "):
		return fault.Newf("NET003", "the node at %s refuses this TLS certificate", c.place).Because(err.Error()).From(err).
			Do("name one of an administrator in CORE_PEER_TLS_CLIENTCERT_FILE and CORE_PEER_TLS_CLIENTKEY_FILE")
	case errors.As(err, &dial) && dial.Op == "dial":
		return e.Because(dial.Err.Error()).Do(c.start...)
	}
	var ask *url.Error
	if errors.As(err, &ask) {
		err = ask.Err
	}
	return e.Because("wrong port: what listens there is no node's (" + err.Error() + ")").Do(nameAnother)
}

const nameAnother = "name a running node with --target"

// refusal is an answer that is an error: the node's own, or one of something
// else that listens there.
func (c *Client) refusal(status int, raw []byte) error {
	var e struct {
		Code, Message string
		Why, Fix      []string
		ExitCode      int
	}
	if err := json.Unmarshal(raw, &e); err == nil && e.Code != "" {
		f := fault.New(e.Code, e.Message).Because(e.Why...).Do(e.Fix...)
		if f.Code != e.Code { // a newer node's
			f.Message = e.Code + ": " + f.Message
		}
		return f.WithExit(e.ExitCode)
	}
	f := fault.Newf(fault.Unreachable, "no node answers at %s", c.place)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fault.Newf("NET003", "the node at %s asks for a client certificate", c.place).
			Do("name one in CORE_PEER_TLS_CLIENTCERT_FILE and CORE_PEER_TLS_CLIENTKEY_FILE")
	case bytes.Contains(raw, []byte("HTTP request to an HTTPS server")):
		return f.Because("a port with TLS was spoken to without").Do("name it as https://HOST:PORT")
	}
	return f.Because("wrong port: what listens there is no node's (it answered " + http.StatusText(status) + ")").Do(nameAnother)
}
