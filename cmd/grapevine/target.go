package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/dev"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp"
)

// whichNode is the rule by which a verb finds the node that it speaks to; it
// stands in the help of every such verb.
const whichNode = `The node is, in this order: the one of --target, which is a node's name in the
development network, its data folder, its admin socket, or http(s)://HOST:PORT of
its operations listener (to read only); with --context dev, peer0.org1 of that
network; the node whose data folder the configuration names (peer.fileSystemPath
in core.yaml or CORE_PEER_FILESYSTEMPATH, as grapevine dev env prints it);
peer0.org1 of the development network, if there is one.`

const (
	firstPeer = "peer0.org1"     // of a development network
	askTime   = 10 * time.Second // for a node's answer, unless --timeout
)

// A target is the node that a verb speaks to.
type target struct {
	*admin.Client
	dev  *dev.Network // or nil
	node *dev.Node    // of dev
}

// node finds the node that the flags, the configuration or a development
// network name. It connects to nobody.
func (a *app) node() (*target, error) {
	if c := a.flags.context; c != "" && c != dev.ContextName {
		return nil, fault.Newf(fault.NoContext, "there is no context %s", c)
	}
	switch t := a.flags.target; {
	case t == "" && a.flags.context != "":
		return a.devNode(firstPeer)
	case t == "":
		return a.usualNode()
	case strings.Contains(t, "://"):
		return a.operationsNode(t)
	case strings.ContainsRune(t, filepath.Separator) || a.exists(t):
		return a.folderNode(a.path(t))
	case strings.Contains(t, ":"):
		return a.operationsNode("http://" + t)
	default:
		return a.devNode(t)
	}
}

func (a *app) exists(path string) bool {
	_, err := os.Stat(a.path(path))
	return err == nil
}

// folderNode is the node of a data folder, or of the socket itself.
func (a *app) folderNode(path string) (*target, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fault.Newf(fault.Unreachable, "no node answers at %s", path).Because(bare(err)).From(err).
			Do("name a node's data folder with --target")
	case info.IsDir():
		return &target{Client: admin.Dial(path)}, nil
	case info.Mode()&os.ModeSocket != 0:
		return &target{Client: admin.DialSocket(path)}, nil
	}
	return nil, fault.Newf(fault.Usage, "--target %s is neither a folder nor a socket", path).Do("name a node's data folder")
}

// devNode is a node of the network that the context dev names.
func (a *app) devNode(name string) (*target, error) {
	n, err := a.devNetwork()
	if err != nil {
		return nil, err
	}
	v, err := n.Node(name)
	if err != nil {
		return nil, err
	}
	c := admin.Dial(n.Folder(v)).StartWith("grapevine dev restart " + v.Name + " --dir " + dev.Quote(n.Dir()))
	return &target{c, n, v}, nil
}

// devNetwork is the one that the context dev names, or the one that lies where
// dev up makes them.
func (a *app) devNetwork() (*dev.Network, error) {
	dir, err := dev.Registered(a.getenv)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		if dir, err = dev.DefaultDir(a.getenv); err != nil {
			return nil, err
		}
	}
	return dev.Find(dir)
}

// usualNode is the configuration's node, or the development network's first.
func (a *app) usualNode() (*target, error) {
	s := a.settings(conf.RolePeer)
	dir, named := s.DataDir()
	switch {
	case named:
		return &target{Client: admin.Dial(dir)}, nil
	case s.Err() != nil:
		return nil, s.Err()
	}
	t, err := a.devNode(firstPeer)
	if err == nil {
		return t, nil
	}
	if fault.Of(err).Code != "DEV001" {
		return nil, err
	}
	if len(s.Files) > 0 || a.exists(dir) {
		return &target{Client: admin.Dial(dir)}, nil
	}
	return nil, fault.New(fault.NoTarget, "")
}

// operationsNode is a node by its operations listener.
func (a *app) operationsNode(text string) (*target, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fault.Newf(fault.Usage, "--target %q is no address", text).Do("write it as http://HOST:PORT or https://HOST:PORT")
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return nil, fault.Newf(fault.Usage, "--target %q names no port", text).Do("write it as " + u.Scheme + "://HOST:PORT")
	}
	t := &http.Transport{MaxIdleConnsPerHost: 2}
	if u.Scheme == "https" {
		if t.TLSClientConfig, err = a.clientTLS(); err != nil {
			return nil, err
		}
	}
	return &target{Client: admin.DialHTTP(u.Scheme+"://"+u.Host, t)}, nil
}

// clientTLS is what this user shows and trusts: the configuration's
// peer.tls.clientCert, clientKey and rootcert, as Fabric's own clients read them.
func (a *app) clientTLS() (*tls.Config, error) {
	s := a.settings(conf.RolePeer)
	cert, key, roots := s.ClientTLS()
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if cert != "" && key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fault.Newf(fault.Unreadable, "the TLS certificate %s and key %s can't be used", cert, key).Because(err.Error()).From(err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	if roots != "" {
		pool, err := readPool(roots)
		if err != nil {
			return nil, err
		}
		out.RootCAs = pool
	}
	return out, nil
}

// readPool reads trusted certificates.
func readPool(file string) (*x509.CertPool, error) {
	ders, err := readCertificates(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fault.Newf("CERT006", "%s holds a certificate that cannot be read", file).Because(err.Error()).From(err)
		}
		pool.AddCert(c)
	}
	return pool, nil
}

// signer is the identity in whose name the user asks others: the development
// node's own, or the configuration's.
func (a *app) signer(t *target) (msp.Signer, error) {
	if t.dev != nil {
		return t.dev.Signer(t.node)
	}
	p, err := a.settings(conf.RolePeer).Peer()
	if err != nil {
		return nil, err
	}
	s, err := msp.Load(p.MSPID, p.MSPDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.Newf("MSP001", "the MSP folder %s cannot be used", p.MSPDir).Because(bare(err)).From(err)
	}
	return s, err
}
