package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"grapevine/block"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
	"grapevine/node"
)

// Orderer runs an ordering node until ctx ends.
func Orderer(ctx context.Context, c *conf.Orderer, name string, b admin.Build, log *Log) error {
	who, err := newMSPFolder(c.MSPID, c.MSPDir, log)
	if err != nil {
		return err
	}
	id := who.now.Load()
	if !c.TLS.Enabled {
		return fault.New(fault.Contradiction, "General.TLS.Enabled is false").
			Because("the ordering service's gRPC listener is served over TLS only").
			Do("set General.TLS.Enabled, Certificate and PrivateKey (a tls/ folder of grapevine ca generate has them)")
	}
	shown, err := newPair(c.TLS.Cert, c.TLS.Key, log)
	if err != nil {
		return err
	}
	cert := shown.now.Load()
	watched := []*files{who.files, shown.files}
	var roots func() *x509.CertPool
	if c.TLS.ClientAuth {
		p, err := newPool(c.TLS.ClientRoots, log)
		if err != nil {
			return err
		}
		roots, watched = p.now.Load, append(watched, p.files)
	}
	listen := c.Listen
	if len(listen) == 0 {
		listen = []string{"/ip4/127.0.0.1/tcp/0"} // a consenter that is alone need not be found
	}
	reg := registry()
	o, err := node.OpenOrderer(node.OrdererConfig{
		Dir: c.Dir, Name: name, NetworkID: c.NetworkID, Signer: id.Signer, Chain: id.Chain, MSP: id.MSP,
		RaftDir: c.RaftDir,
		Listen:  listen, Address: c.GRPC, Certificate: *cert, ClientRoots: roots, Log: log.Logger, Metrics: reg, HostMetrics: reg,
	})
	if err != nil {
		return startFault(err, c.Dir)
	}
	if c.Bootstrap != "" {
		if err := joinFile(o, c.Bootstrap); err != nil {
			return closing(admin.Explain(err), o.Close())
		}
	}
	part, err := newParticipation(c, o, log)
	if err != nil {
		return closing(err, o.Close())
	}
	shown.changed, who.changed = o.SetCertificate, o.Renew
	srv := &admin.Server{Orderer: o, Build: b, Name: name, Log: log.Logger}
	err = runAll(ctx, o.Run, who, srv, c.Dir, c.Operations, reg, log, watched, part...)
	return closing(err, o.Close())
}

func joinFile(o *node.Orderer, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return fault.Newf(fault.Unreadable, "cannot read the genesis block %s", file).From(err)
	}
	g, err := block.Genesis(raw)
	if err != nil {
		return fault.Newf("BLK003", "%s is no genesis block", file).Because(err.Error()).From(err).WithExit(fault.ExitConfig).
			Do("name a genesis block in General.BootstrapFile")
	}
	return o.Join(g.Block())
}

// newParticipation opens the listener for osnadmin and returns what serves it;
// nothing if none is configured. Who gets through its TLS may add and remove
// channels, so without TLS it listens to this machine alone.
func newParticipation(c *conf.Orderer, o *node.Orderer, log *Log) (run []func(context.Context) error, _ error) {
	if c.Admin.Listen == "" {
		return nil, nil
	}
	if c.Admin.TLS.Enabled && !c.Admin.TLS.ClientAuth {
		return nil, fault.New(fault.Contradiction, "Admin.TLS.ClientAuthRequired is false").
			Because("whoever reaches the admin listener may remove channels").Do("set Admin.TLS.ClientAuthRequired, or switch ChannelParticipation.Enabled off")
	}
	l, err := net.Listen("tcp", c.Admin.Listen)
	if err != nil {
		return nil, startFault(err, "")
	}
	switch {
	case c.Admin.TLS.Enabled:
		t, files, err := serverTLS(c.Admin.TLS, log) // which asks for certificates, as was checked
		if err != nil {
			return nil, closing(err, l.Close())
		}
		l = tls.NewListener(l, t)
		for _, f := range files {
			run = append(run, f.watch)
		}
	case !loopback(l.Addr()):
		return nil, closing(fault.Newf(fault.Contradiction, "Admin.ListenAddress is %s and Admin.TLS.Enabled is false", c.Admin.Listen).
			Because("whoever reaches the admin listener may remove channels").Do("set Admin.TLS, or listen on 127.0.0.1"), l.Close())
	}
	api := &admin.Participation{Node: o, MaxBody: int64(c.MaxRequest), Log: log.Logger}
	srv := &http.Server{Handler: api.Handler(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	log.Info("channel participation is served", "address", l.Addr().String())
	return append(run, func(ctx context.Context) error { return admin.ServeHTTP(ctx, srv, l, shutdown) }), nil
}
