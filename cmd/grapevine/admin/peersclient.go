package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Peers asks for the peers that the node knows: of a channel and in a state,
// where these aren't empty.
func (c *Client) Peers(ctx context.Context, channel, state string) (*PeerList, error) {
	return get[PeerList](ctx, c, "/peers", url.Values{"channel": {channel}, "state": {state}})
}

// Peer asks for one peer: by its name, peer ID or PKI-ID.
func (c *Client) Peer(ctx context.Context, name string) (*PeerInfo, error) {
	return get[PeerInfo](ctx, c, peerPath(name), nil)
}

// Ping has the node ask a peer for an echo, on a channel or, with "", any.
func (c *Client) Ping(ctx context.Context, name, channel string) (*PeerPing, error) {
	return get[PeerPing](ctx, c, peerPath(name)+"/ping", url.Values{"channel": {channel}})
}

// Connect has the node dial an endpoint.
func (c *Client) Connect(ctx context.Context, endpoint string) (*PeerAction, error) {
	return send[PeerAction](ctx, c, http.MethodPost, "/peers", url.Values{"endpoint": {endpoint}}, nil)
}

// Disconnect has the node close its connections to a peer.
func (c *Client) Disconnect(ctx context.Context, name string) (*PeerAction, error) {
	return send[PeerAction](ctx, c, http.MethodPost, peerPath(name)+"/disconnect", nil, nil)
}

// Ban has the node refuse a peer for a while, or, with 0, until Unban.
func (c *Client) Ban(ctx context.Context, name string, d time.Duration) (*PeerAction, error) {
	q := url.Values{}
	if d > 0 {
		q.Set("for", d.String())
	}
	return send[PeerAction](ctx, c, http.MethodPost, peerPath(name)+"/ban", q, nil)
}

// Unban lifts a ban.
func (c *Client) Unban(ctx context.Context, name string) (*PeerAction, error) {
	return send[PeerAction](ctx, c, http.MethodPost, peerPath(name)+"/unban", nil, nil)
}

// Members asks for the channel's members as the node sees them.
func (r Remote) Members(ctx context.Context) (*ChannelMemberList, error) {
	return get[ChannelMemberList](ctx, r.Client, channelPath(r.Name)+"/members", nil)
}

// Anchors has the node call at the channel's anchor peers.
func (r Remote) Anchors(ctx context.Context) (*AnchorList, error) {
	return get[AnchorList](ctx, r.Client, channelPath(r.Name)+"/anchors", nil)
}

func peerPath(name string) string { return "/peers/" + url.PathEscape(name) }
