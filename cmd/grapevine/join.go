package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/node"
	"grapevine/orderer"
)

// changeTime is enough for a node to join or leave a channel, and to fetch a
// block for it first.
const changeTime = time.Minute

func newChannelJoinCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "join CH --block FILE | --from ADDR --cafile FILE [--hash HEX] [--sync snapshot|genesis|auto] [--wait]", Short: "Join by a genesis or configuration block",
		Long: `Makes the node join channel CH by its genesis block: that of a file, or block 0 of
an orderer, whose gRPC address --from names and whose TLS certificate --cafile must
have signed. The orderer is trusted for that block, unless --hash, the block's
header hash, says which one it must be. The file may hold a later configuration
block (peer channel fetch config): then the node asks the orderers that it names
for block 0, and for the headers that link the two. Joining again changes nothing. With --sync
snapshot the node takes a snapshot of the world state from other members, which
enough organisations must attest, instead of every block; with auto only if there is
one far ahead. With --wait
it returns when the node has caught up with the channel, and shows meanwhile how
that goes.

Block 0 is asked for in the name of the development node that --target names, or
of the configuration's peer.localMspId and peer.mspConfigPath.

` + whichNode,
		Example: "  grapevine channel join mychannel --block genesis.block\n  grapevine channel join mychannel --from orderer.example.com:7050 --cafile tlsca.pem --hash 51ab...",
		Args:    exactly("CH"), Annotations: next("grapevine channel info CH", "grapevine status"),
	}
	f := c.Flags()
	file := f.String("block", "", "the genesis block's file")
	from := f.String("from", "", "an orderer's gRPC address, HOST:PORT")
	cafile := f.String("cafile", "", "the PEM file of the CA that signed the orderer's TLS certificate")
	by := f.String("sync", "", "how to come to what others hold: genesis, snapshot or auto; else as p2p.sync says")
	wait := f.Bool("wait", false, "return when the node has caught up")
	pin := f.String("hash", "", "the header hash that block 0 must have")
	c.RunE = func(c *cobra.Command, args []string) error {
		want, err := hex.DecodeString(*pin)
		_, synced := node.ParseSync(*by)
		switch {
		case (*file == "") == (*from == ""):
			return usage(c, "one of --block and --from is needed")
		case *from != "" && *cafile == "":
			return usage(c, "--from needs --cafile: who signed the orderer's TLS certificate?")
		case *from == "" && *cafile != "":
			return usage(c, "--cafile goes with --from")
		case !synced:
			return usage(c, "--sync is genesis, snapshot or auto")
		case err != nil || (len(want) != 0 && len(want) != 32):
			return usage(c, "--hash is no header hash: 64 hexadecimal digits")
		}
		if err := admin.CheckChannel(args[0]); err != nil {
			return err
		}
		t, err := a.node()
		if err != nil {
			return err
		}
		defer t.Close()
		ctx, cancel := a.within(c.Context(), changeTime)
		defer cancel()
		var raw []byte
		if *file != "" {
			raw, err = readFile(a.path(*file), maxBlockFile)
		} else {
			raw, err = a.fetch(ctx, t, args[0], *from, *cafile)
		}
		if err != nil {
			return err
		}
		if err := pinned(raw, want); err != nil {
			return err
		}
		j, err := t.Join(ctx, args[0], raw, *by)
		if err != nil {
			return err
		}
		if *wait {
			ctx, cancel := a.within(c.Context(), syncTime)
			defer cancel()
			if _, err := a.caughtUp(ctx, admin.Remote{Client: t.Client, Name: j.Channel}, 0, settleTime); err != nil {
				return err
			}
		}
		return a.emit(j, func(t *table) {
			if j.Already {
				t.row("already joined " + j.Channel)
			} else {
				t.row("joined " + j.Channel)
			}
		}, func() []string { return []string{j.Channel} })
	}
	return c
}

// fetch asks an orderer for block 0.
func (a *app) fetch(ctx context.Context, t *target, ch, addr, cafile string) ([]byte, error) {
	client, err := a.ordering(t, ch, addr, cafile)
	if err != nil {
		return nil, err
	}
	b, err := client.Fetch(ctx, 0)
	if err != nil {
		return nil, unfetched(addr, err)
	}
	raw, err := proto.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("block 0 of %s: %w", addr, err)
	}
	return raw, nil
}

// ordering speaks to one orderer in the name of the node.
func (a *app) ordering(t *target, ch, addr, cafile string) (*orderer.Client, error) {
	if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
		return nil, fault.Newf(fault.Usage, "%q is not HOST:PORT", addr).Do("name an orderer's gRPC address")
	}
	roots, err := readPool(a.path(cafile))
	if err != nil {
		return nil, err
	}
	me, err := a.signer(t)
	if err != nil {
		return nil, err
	}
	own, err := a.clientTLS()
	if err != nil {
		return nil, err
	}
	conf := orderer.ClientConfig{Channel: ch, Signer: me, Endpoints: func() []orderer.Endpoint {
		return []orderer.Endpoint{{Address: addr, Roots: roots}}
	}}
	if len(own.Certificates) > 0 {
		conf.ClientCert = func() *tls.Certificate { return &own.Certificates[0] }
	}
	return orderer.NewClient(conf), nil
}

// unfetched says why an orderer didn't hand over a block.
func unfetched(addr string, err error) error {
	e := fault.Of(fmt.Errorf("fetching a block: %w", err))
	switch text := err.Error(); {
	case strings.Contains(text, "certificate signed by unknown authority"):
		return fault.Newf("NET002", "the certificate of %s is signed by another CA than --cafile names", addr).From(err).Do("name the CA of the orderer's TLS certificate")
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return e.Because("TLS was spoken to a port without TLS").Do("name the orderer's gRPC port")
	case strings.Contains(text, "connection refused"):
		return e.Because("nobody listens there").Do("name the orderer's gRPC address, and see that it runs")
	}
	return e
}

// pinned refuses a block that isn't the one asked for; no hash pins none. A later
// configuration block is the node's to judge.
func pinned(raw, want []byte) error {
	b, err := block.Decode(raw)
	if err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	if b.Header.Number == 0 {
		if _, err := block.Genesis(raw); err != nil {
			return fmt.Errorf("genesis block: %w", err)
		}
	}
	if got := block.HeaderHash(b.Header); len(want) > 0 && string(want) != string(got[:]) {
		return fault.New("CHN007", "").Because(fmt.Sprintf("its header hash is  %x", got), fmt.Sprintf("--hash asks for     %x", want))
	}
	return nil
}

func newChannelLeaveCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "leave CH [--purge] [--yes]", Short: "Leave a channel",
		Long: `Makes the node leave channel CH. Its blocks stay and are used again when it joins
again; with --purge they are deleted. It asks first on a terminal; elsewhere it
needs --yes.

` + whichNode,
		Example: "  grapevine channel leave mychannel\n  grapevine channel leave mychannel --purge --yes",
		Args:    exactly("CH"), Annotations: next("grapevine channel ls"), ValidArgsFunction: a.completeChannels,
	}
	purge := c.Flags().Bool("purge", false, "delete its data")
	yes := c.Flags().Bool("yes", false, "don't ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := admin.CheckChannel(args[0]); err != nil {
			return err
		}
		t, err := a.node()
		if err != nil {
			return err
		}
		defer t.Close()
		if !*yes {
			question := "leave " + args[0] + "?"
			if *purge {
				question = "leave " + args[0] + " and delete its blocks here?"
			}
			if err := a.confirm(question); err != nil {
				return err
			}
		}
		ctx, cancel := a.within(c.Context(), changeTime)
		defer cancel()
		l, err := t.Leave(ctx, args[0], *purge)
		if err != nil {
			return err
		}
		return a.emit(l, func(t *table) {
			if l.Purged {
				t.row("left " + l.Channel + "; its blocks are deleted")
			} else {
				t.row("left " + l.Channel + "; its blocks are kept")
			}
		}, func() []string { return []string{l.Channel} })
	}
	return c
}
