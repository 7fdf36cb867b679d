package conf

import (
	"net"
	"path/filepath"
	"strconv"
	"time"

	"grapevine/cmd/grapevine/fault"
)

// An Orderer is an ordering node's configuration, typed.
type Orderer struct {
	NetworkID  string
	MSPID      string
	MSPDir     string
	Dir        string   // data folder
	RaftDir    string   // consensus log and snapshots
	GRPC       string   // host:port of AtomicBroadcast
	Listen     []string // libp2p multiaddrs, for Raft
	TLS        TLS      // of GRPC
	MaxRecv    int
	MaxSend    int
	Keepalive  Keepalive
	TimeWindow time.Duration
	Bootstrap  string // genesis block to join at the first start; "" for none
	Operations Operations
	Admin      Operations // channel participation; only Listen and TLS are used
	MaxRequest int        // bytes of a participation request
	Profile    string
	Logging    Logging
}

// Orderer returns the typed configuration of an ordering node, or the first refusal.
func (s *Settings) Orderer() (*Orderer, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	if s.Role != RoleOrderer {
		return nil, fault.New(fault.Contradiction, "this is a peer's configuration").Do("name an orderer.yaml, or start it with grapevine peer start")
	}
	if s.str("General.LocalMSPID") == "" {
		return nil, fault.New(fault.NoIdentity, "General.LocalMSPID is not set").
			Do("set General.LocalMSPID and General.LocalMSPDir, or ORDERER_GENERAL_LOCALMSPID and ORDERER_GENERAL_LOCALMSPDIR")
	}
	dir := s.path("FileLedger.Location")
	o := &Orderer{
		NetworkID: orDefault(s.str("p2p.networkId"), "dev"), MSPID: s.str("General.LocalMSPID"), MSPDir: s.path("General.LocalMSPDir"),
		Dir: dir, RaftDir: orDefault(s.path("Consensus.WALDir"), filepath.Join(dir, "raft")),
		GRPC: net.JoinHostPort(s.str("General.ListenAddress"), strconv.Itoa(s.num("General.ListenPort"))),
		TLS: TLS{
			Enabled: s.flag("General.TLS.Enabled"), ClientAuth: s.flag("General.TLS.ClientAuthRequired"),
			Cert: s.path("General.TLS.Certificate"), Key: s.path("General.TLS.PrivateKey"),
			Roots: s.paths("General.TLS.RootCAs"), ClientRoots: s.paths("General.TLS.ClientRootCAs"),
		},
		MaxRecv: s.num("General.MaxRecvMsgSize"), MaxSend: s.num("General.MaxSendMsgSize"),
		Keepalive: Keepalive{
			s.dur("General.Keepalive.ServerInterval"), s.dur("General.Keepalive.ServerTimeout"), s.dur("General.Keepalive.ServerMinInterval"),
		},
		TimeWindow: s.dur("General.Authentication.TimeWindow"),
		Operations: Operations{
			Listen: s.str("Operations.ListenAddress"), TLS: s.ordererTLS("Operations.TLS."),
			Metrics: s.str("Metrics.Provider"), Dashboard: s.flag("dashboard.enabled"),
			Statsd: Statsd{s.str("Metrics.Statsd.Network"), s.str("Metrics.Statsd.Address"), s.str("Metrics.Statsd.Prefix"), s.dur("Metrics.Statsd.WriteInterval")},
		},
		MaxRequest: s.num("ChannelParticipation.MaxRequestBodySize"), Logging: s.logging(),
	}
	// Without TLS it is served only if somebody says where.
	if s.flag("ChannelParticipation.Enabled") && (s.flag("Admin.TLS.Enabled") || s.set("Admin.ListenAddress")) {
		o.Admin = Operations{Listen: s.str("Admin.ListenAddress"), TLS: s.ordererTLS("Admin.TLS.")}
	}
	if s.str("General.BootstrapMethod") == "file" {
		o.Bootstrap = s.path("General.BootstrapFile")
	}
	if s.flag("General.Profile.Enabled") {
		o.Profile = s.str("General.Profile.Address")
	}
	var err error
	o.Listen, err = s.listen("")
	return o, err
}

func (s *Settings) ordererTLS(prefix string) TLS {
	return TLS{
		Enabled: s.flag(prefix + "Enabled"), ClientAuth: s.flag(prefix + "ClientAuthRequired"),
		Cert: s.path(prefix + "Certificate"), Key: s.path(prefix + "PrivateKey"), ClientRoots: s.paths(prefix + "ClientRootCAs"),
	}
}
