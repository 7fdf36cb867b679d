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

// A Client speaks to one node over its admin socket. It is safe for concurrent
// use.
type Client struct {
	dir  string
	http *http.Client
}

// Dial returns a client of the node with this data folder. It connects with
// the first request.
func Dial(dir string) *Client {
	path := Socket(dir)
	return &Client{dir: dir, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		MaxIdleConnsPerHost: 4,
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return get[Status](ctx, c, "/status", nil)
}

// Channels, Info, Config and Block are the objects of their verbs.
func (c *Client) Channels(ctx context.Context) (*ChannelList, error) {
	return get[ChannelList](ctx, c, "/channels", nil)
}

// Info asks for a channel.
func (c *Client) Info(ctx context.Context, ch string) (*ChannelInfo, error) {
	return get[ChannelInfo](ctx, c, channelPath(ch), nil)
}

// Config asks for a channel's configuration, as JSON.
func (c *Client) Config(ctx context.Context, ch string) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, channelPath(ch)+"/config", nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Block asks for one block: a number, "oldest" or "newest".
func (c *Client) Block(ctx context.Context, ch, n string, full bool) (*Block, error) {
	return get[Block](ctx, c, channelPath(ch)+"/blocks/"+url.PathEscape(n), url.Values{"full": {strconv.FormatBool(full)}})
}

// Height waits until more than above blocks are held, or for a while, and
// returns the channel as it is then.
func (c *Client) Height(ctx context.Context, ch string, above uint64, wait time.Duration) (*ChannelItem, error) {
	return get[ChannelItem](ctx, c, channelPath(ch)+"/height", url.Values{"above": {strconv.FormatUint(above, 10)}, "wait": {wait.String()}})
}

// Verify asks the node to check blocks again; span is FROM..TO, N, or empty for
// all.
func (c *Client) Verify(ctx context.Context, ch, span string) (*BlockVerification, error) {
	return get[BlockVerification](ctx, c, channelPath(ch)+"/verification", url.Values{"range": {span}})
}

// Join hands the node a genesis block; ch, if not empty, is the channel that it
// must be of.
func (c *Client) Join(ctx context.Context, ch string, block []byte) (*Joined, error) {
	return send[Joined](ctx, c, http.MethodPost, "/channels", url.Values{"channel": {ch}}, block)
}

// Leave makes the node leave a channel.
func (c *Client) Leave(ctx context.Context, ch string, purge bool) (*Left, error) {
	return send[Left](ctx, c, http.MethodPost, channelPath(ch)+"/leave", url.Values{"purge": {strconv.FormatBool(purge)}}, nil)
}

// Tail calls each with every block from from on (a number, "oldest" or
// "newest"; "" for what comes next) as one line of JSON, until ctx ends or each
// returns an error.
func (c *Client) Tail(ctx context.Context, ch, from string, each func(line []byte) error) error {
	resp, err := c.do(ctx, http.MethodGet, channelPath(ch)+"/blocks", url.Values{"from": {from}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return c.lost(ctx, err)
		}
		if err := each(bytes.TrimSpace(line)); err != nil {
			return err
		}
	}
}

// Raw calls each with the marshalled blocks of a span.
func (c *Client) Raw(ctx context.Context, ch, span string, each func(raw []byte) error) error {
	resp, err := c.do(ctx, http.MethodGet, channelPath(ch)+"/raw", url.Values{"range": {span}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for {
		raw, err := wire.ReadFrame(r, wire.MaxBlock)
		if errors.Is(err, io.EOF) && len(raw) == 0 && wire.ReasonOf(err) == nil {
			return nil
		}
		if err != nil {
			return c.lost(ctx, err)
		}
		if err := each(raw); err != nil {
			return err
		}
	}
}

// Post sends an empty request outside the API, as the process that hosts a
// development network takes them.
func (c *Client) Post(ctx context.Context, path string) (*http.Response, error) {
	return c.send(ctx, http.MethodPost, "http://node"+path, nil)
}

func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.New(fault.Unreachable, "the node ended the answer before its end").From(err)
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

// do sends a request; the error of an answer that is one is the node's.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	u := "http://node/api/v1" + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	resp, err := c.send(ctx, method, u, body)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	var e struct {
		Code, Message string
		Why, Fix      []string
		ExitCode      int
	}
	if err := json.Unmarshal(raw, &e); err != nil || e.Code == "" {
		return nil, fmt.Errorf("the node answered %s: %s", resp.Status, bytes.TrimSpace(raw))
	}
	f := fault.New(e.Code, e.Message).Because(e.Why...).WithExit(e.ExitCode)
	f.Fix = e.Fix
	return nil, f
}

func (c *Client) send(ctx context.Context, method, u string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fault.Newf(fault.Unreachable, "no node answers at %s", Socket(c.dir)).From(err).
			Do("start it: grapevine peer start", "name a running node with --target")
	}
	return resp, nil
}
