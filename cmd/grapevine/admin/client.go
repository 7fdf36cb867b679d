package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"grapevine/cmd/grapevine/fault"
	"grapevine/wire"
)

// A Client speaks to one node: over its admin socket, or, to read only, over
// its operations listener. It is safe for concurrent use.
type Client struct {
	place string   // where it dials, for people
	base  string   // URL before the path
	start []string // what to do when nobody listens
	http  *http.Client
}

var startOne = []string{"start it: grapevine peer start", nameAnother}

// StartWith names the command that starts the node, for when it is down, and
// returns c.
func (c *Client) StartWith(command string) *Client {
	c.start = []string{"start it: " + command, nameAnother}
	return c
}

// Dial returns a client of the node with this data folder. It connects with
// the first request.
func Dial(dir string) *Client { return DialSocket(Socket(dir)) }

// DialSocket returns a client of the node that listens on this Unix socket.
func DialSocket(path string) *Client {
	return &Client{path, "http://node", startOne, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		MaxIdleConnsPerHost: 4,
	}}}
}

// DialHTTP returns a client of the node whose operations listener is there: an
// http or https URL without a path.
func DialHTTP(base string, transport *http.Transport) *Client {
	return &Client{base, base, startOne, &http.Client{Transport: transport}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return get[Status](ctx, c, "/status", nil)
}

// Channels asks which channels the node has.
func (c *Client) Channels(ctx context.Context) (*ChannelList, error) {
	return get[ChannelList](ctx, c, "/channels", nil)
}

// Join hands the node a genesis block; ch, if not empty, is the channel that it
// must be of.
func (c *Client) Join(ctx context.Context, ch string, block []byte, sync string) (*Joined, error) {
	return send[Joined](ctx, c, http.MethodPost, "/channels", url.Values{"channel": {ch}, "sync": {sync}}, block)
}

// Leave makes the node leave a channel.
func (c *Client) Leave(ctx context.Context, ch string, purge bool) (*Left, error) {
	return send[Left](ctx, c, http.MethodPost, channelPath(ch)+"/leave", url.Values{"purge": {strconv.FormatBool(purge)}}, nil)
}

// Ordered asks an ordering node what it is to its channels, or to the one named.
func (c *Client) Ordered(ctx context.Context, ch string) (*OrderedChannelList, error) {
	return get[OrderedChannelList](ctx, c, "/participation", url.Values{"channel": {ch}})
}

// RemoveOrdered has an ordering node remove a channel, with all it has of it.
func (c *Client) RemoveOrdered(ctx context.Context, ch string) (*RemovedChannel, error) {
	return send[RemovedChannel](ctx, c, http.MethodPost, "/participation/"+url.PathEscape(ch)+"/remove", nil, nil)
}

// Post sends an empty request outside the API, as the process that hosts a
// development network takes them.
func (c *Client) Post(ctx context.Context, path string) error {
	resp, err := c.send(ctx, http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// A Remote is one channel of a node: what [Chain] is to those who hold the
// ledger.
type Remote struct {
	*Client
	Name string
}

// Info asks for the channel.
func (r Remote) Info(ctx context.Context) (*ChannelInfo, error) {
	return get[ChannelInfo](ctx, r.Client, channelPath(r.Name), nil)
}

// JSON asks for the configuration in force.
func (r Remote) JSON(ctx context.Context) ([]byte, error) {
	resp, err := r.do(ctx, http.MethodGet, channelPath(r.Name)+"/config", nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, r.lost(ctx, err)
	}
	return raw, nil
}

// Block asks for one block: a number, "oldest" or "newest".
func (r Remote) Block(ctx context.Context, n string, full bool) (*Block, error) {
	return get[Block](ctx, r.Client, channelPath(r.Name)+"/blocks/"+url.PathEscape(n), url.Values{"full": {strconv.FormatBool(full)}})
}

// Verify asks the node to check a span's blocks again.
func (r Remote) Verify(ctx context.Context, span string) (*BlockVerification, error) {
	return get[BlockVerification](ctx, r.Client, channelPath(r.Name)+"/verification", url.Values{"range": {span}})
}

// Height waits until more than above blocks are held, or for a while, and
// returns the channel as it is then.
func (r Remote) Height(ctx context.Context, above uint64, wait time.Duration) (*ChannelItem, error) {
	return get[ChannelItem](ctx, r.Client, channelPath(r.Name)+"/height", url.Values{"above": {strconv.FormatUint(above, 10)}, "wait": {wait.String()}})
}

// Tail calls each with every block from from on (a number, "oldest" or
// "newest"; "" for what comes next), until ctx ends or each returns an error.
func (r Remote) Tail(ctx context.Context, from string, each func(*Block) error) error {
	resp, err := r.do(ctx, http.MethodGet, channelPath(r.Name)+"/blocks", url.Values{"from": {from}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		b := new(Block)
		if err := d.Decode(b); err != nil {
			return r.lost(ctx, err)
		}
		if err := each(b); err != nil {
			return err
		}
	}
}

// Raw calls each with the marshalled blocks of a span.
func (r Remote) Raw(ctx context.Context, span string, each func(raw []byte) error) error {
	resp, err := r.do(ctx, http.MethodGet, channelPath(r.Name)+"/raw", url.Values{"range": {span}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for in := bufio.NewReader(resp.Body); ; {
		raw, err := wire.ReadFrame(in, wire.MaxBlock)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.lost(ctx, err)
		}
		if err := each(raw); err != nil {
			return err
		}
	}
}

// lost is an answer that broke off.
func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Newf(fault.Unreachable, "the node at %s ended its answer too early", c.place).Because(err.Error()).From(err).Do("see whether it still runs: grapevine status")
}

func channelPath(ch string) string { return "/channels/" + url.PathEscape(ch) }

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (*T, error) {
	return send[T](ctx, c, http.MethodGet, path, q, nil)
}

func send[T any](ctx context.Context, c *Client, method, path string, q url.Values, body []byte) (*T, error) {
	resp, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := new(T)
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return nil, c.lost(ctx, err)
	}
	return out, nil
}

// do sends a request of the API.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	path = "/api/v1" + path
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.send(ctx, method, path, body)
}

// send sends a request; the error of an answer that is one is the node's.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", c.place, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	return nil, c.refusal(resp.StatusCode, raw)
}
