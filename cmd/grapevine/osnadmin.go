package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/cmd/grapevine/fault"
)

// newOSNAdminCmd is Fabric's osnadmin, with its flags, output and exit codes, so
// that what calls the one can call the other.
func newOSNAdminCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "osnadmin", Short: "Fabric's osnadmin, for orderers of both", GroupID: groupOperate,
		Example: "  grapevine osnadmin channel list -o orderer.example.com:9443 --ca-file ca.pem --client-cert client.pem --client-key client.key",
	}
	ch := &cobra.Command{
		Use: "channel", Short: "Join, list and remove channels of an ordering node over the network",
		Long: `Speaks to an ordering node's admin endpoint (Admin.ListenAddress in orderer.yaml),
one of Fabric's or one of ours, with the flags and the output of Fabric's osnadmin.
As with that, the exit code is 0 whenever the node answered: the status tells what.`,
		Example: "  grapevine osnadmin channel list -o orderer.example.com:9443 --ca-file ca.pem --client-cert client.pem --client-key client.key",
	}
	c.AddCommand(ch)
	ch.AddCommand(
		newOSNVerb(a, "join", "Join a channel. If it does not yet exist, it is created",
			"  grapevine osnadmin channel join -c mychannel -b mychannel.block -o localhost:9443 --ca-file ca.pem --client-cert c.pem --client-key c.key"),
		newOSNVerb(a, "list", "List channels; with -c, tell more of one",
			"  grapevine osnadmin channel list -c mychannel -o localhost:9443 --ca-file ca.pem --client-cert c.pem --client-key c.key"),
		newOSNVerb(a, "remove", "Remove a channel",
			"  grapevine osnadmin channel remove -c mychannel -o localhost:9443 --ca-file ca.pem --client-cert c.pem --client-key c.key"),
	)
	return c
}

// osnCall is one call of osnadmin.
type osnCall struct {
	*app
	address, ca, cert, key, channel, block string
	noStatus                               bool
}

func newOSNVerb(a *app, verb, short, example string) *cobra.Command {
	o := &osnCall{app: a}
	c := &cobra.Command{Use: verb, Short: short, Example: example, Args: exactly(), Annotations: next("grapevine orderer channel list")}
	f := c.Flags()
	f.StringVarP(&o.address, "orderer-address", "o", "", "admin endpoint of the orderer, HOST:PORT")
	f.StringVar(&o.ca, "ca-file", "", "PEM file of the CAs of the orderer's TLS certificate")
	f.StringVar(&o.cert, "client-cert", "", "PEM file of the certificate to show")
	f.StringVar(&o.key, "client-key", "", "PEM file of its private key")
	f.StringVarP(&o.channel, "channelID", "c", "", "the channel")
	f.BoolVar(&o.noStatus, "no-status", false, "leave the HTTP status out of the output")
	// As with osnadmin, -o names the orderer, and not the form of the output.
	f.String("output", "", "")
	_ = f.MarkHidden("output") // it was defined a line above
	if verb == "join" {
		f.StringVarP(&o.block, "config-block", "b", "", "file of an up-to-date configuration block of the channel")
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case o.address == "":
			return usage(c, "--orderer-address is missing")
		case verb != "list" && o.channel == "":
			return usage(c, "--channelID is missing")
		case verb == "join" && o.block == "":
			return usage(c, "--config-block is missing")
		}
		ctx, cancel := a.within(c.Context(), changeTime)
		defer cancel()
		switch verb {
		case "join":
			return o.join(ctx)
		case "remove":
			return o.send(ctx, http.MethodDelete, "/"+url.PathEscape(o.channel), "", nil)
		}
		path := ""
		if o.channel != "" {
			path = "/" + url.PathEscape(o.channel)
		}
		return o.send(ctx, http.MethodGet, path, "", nil)
	}
	return c
}

func (o *osnCall) join(ctx context.Context) error {
	raw, err := readFile(o.path(o.block), maxBlockFile)
	if err != nil {
		return err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return err
	}
	conf, err := channel.Parse(b)
	if err != nil {
		return err
	}
	if conf.Channel() != o.channel {
		return fault.Newf("CHN001", "specified --channelID %s does not match channel ID %s in config block", o.channel, conf.Channel())
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("config-block", "config.block")
	if err == nil {
		_, err = part.Write(raw)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("writing the form: %w", err)
	}
	return o.send(ctx, http.MethodPost, "", w.FormDataContentType(), &form)
}

// send makes the request and prints the answer as osnadmin does.
func (o *osnCall) send(ctx context.Context, method, path, kind string, body io.Reader) error {
	base, client := "http://"+o.address, &http.Client{}
	if o.ca != "" {
		roots, err := readPool(o.path(o.ca))
		if err != nil {
			return err
		}
		pair, err := tls.LoadX509KeyPair(o.path(o.cert), o.path(o.key))
		if err != nil {
			return fault.Newf(fault.Unreadable, "the client certificate %s and key %s can't be used", o.cert, o.key).Because(err.Error()).From(err)
		}
		base = "https://" + o.address
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
		defer client.CloseIdleConnections()
	}
	req, err := http.NewRequestWithContext(ctx, method, base+"/participation/v1/channels"+path, body)
	if err != nil {
		return fault.Newf(fault.Usage, "--orderer-address %q is not HOST:PORT", o.address).From(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fault.Newf(fault.Unreachable, "no answer from %s", base).Because(err.Error()).From(err).
			Do("see Admin.ListenAddress in the orderer's configuration", "with TLS, name --ca-file, --client-cert and --client-key")
	}
	defer func() { _ = resp.Body.Close() }() // only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBlockFile))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", base, err)
	}
	var out bytes.Buffer
	if !o.noStatus {
		fmt.Fprintf(&out, "Status: %d\n", resp.StatusCode)
	}
	if len(answer) > 0 {
		if err := json.Indent(&out, answer, "", "\t"); err != nil {
			return fault.Newf(fault.Unreachable, "%s answers something else than an orderer", base).From(err)
		}
	}
	out.WriteByte('\n')
	return o.write(out.Bytes())
}
