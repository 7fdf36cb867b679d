package conf

import (
	"fmt"
	"slices"
	"strings"

	"grapevine/cmd/grapevine/fault"
)

// effective are the keys, in lower case, whose values this build acts on. Those
// of the tables that aren't here are read and judged, so that a configuration
// can be written now; what they ask for isn't built, and that is said.
var effective = lowered(
	"peer.id", "peer.networkId", "peer.listenAddress", "peer.localMspId", "peer.mspConfigPath", "peer.fileSystemPath",
	"peer.tls.rootcert.file", "General.TLS.RootCAs", // judged; both sides of our own TLS name their roots elsewhere
	"peer.tls.enabled", "peer.tls.cert.file", "peer.tls.key.file", "peer.tls.clientCert.file", "peer.tls.clientKey.file",
	"peer.address", "peer.addressAutoDetect", "peer.gossip.bootstrap", "peer.gossip.endpoint", "peer.gossip.externalEndpoint", "peer.gossip.useLeaderElection", "peer.gossip.orgLeader",
	"peer.gossip.state.enabled", "peer.gossip.state.checkInterval", "peer.gossip.state.responseTimeout",
	"peer.gossip.state.batchSize", "peer.gossip.state.blockBufferSize", "peer.gossip.state.maxRetries",
	"peer.gossip.election.startupGracePeriod", "peer.gossip.election.membershipSampleInterval",
	"peer.gossip.election.leaderAliveThreshold", "peer.gossip.election.leaderElectionDuration",
	"peer.deliveryclient.reconnectTotalTimeThreshold", "peer.deliveryclient.blockGossipEnabled",
	"peer.gossip.aliveTimeInterval", "peer.gossip.aliveExpirationTimeout", "peer.gossip.reconnectInterval", "peer.gossip.maxConnectionAttempts",
	"peer.gossip.skipBlockVerification",
	"peer.deliveryclient.connTimeout", "peer.deliveryclient.minimalReconnectInterval",
	"peer.deliveryclient.reConnectBackoffThreshold", "peer.deliveryclient.addressOverrides",
	"peer.deliveryclient.blockCensorshipTimeoutKey", "peer.deliveryclient.policy",
	"relay.listenAddress", "relay.orderers", "relay.tls.cert.file", "relay.tls.key.file",
	"operations.listenAddress", "operations.tls.enabled", "operations.tls.cert.file", "operations.tls.key.file",
	"operations.tls.clientAuthRequired", "operations.tls.clientRootCAs.files", "metrics.provider",
	"fabricCompat.listenAddress", "peer.tls.clientAuthRequired", "peer.tls.clientRootCAs.files",
	"peer.limits.concurrency.deliverService", "peer.authentication.timewindow",
	"events.validity", "events.fabricPeer", "p2p.listen", "p2p.networkId", "p2p.sync", "p2p.keepBlocks",
	"p2p.snapshots.every", "p2p.snapshots.keep", "p2p.snapshots.attested", "p2p.snapshots.ahead", "p2p.scrub.every", "p2p.scrub.rate", "logging.spec", "logging.format",
	"General.ListenAddress", "General.ListenPort", "General.LocalMSPID", "General.LocalMSPDir",
	"General.BootstrapMethod", "General.BootstrapFile", "FileLedger.Location",
	"General.TLS.Enabled", "General.TLS.Certificate", "General.TLS.PrivateKey", "General.TLS.ClientAuthRequired", "General.TLS.ClientRootCAs",
	"Operations.ListenAddress", "Operations.TLS.Enabled", "Operations.TLS.Certificate", "Operations.TLS.PrivateKey",
	"Operations.TLS.ClientAuthRequired", "Operations.TLS.ClientRootCAs", "Metrics.Provider",
	"Admin.ListenAddress", "Admin.TLS.Enabled", "Admin.TLS.Certificate", "Admin.TLS.PrivateKey", "Admin.TLS.ClientAuthRequired", "Admin.TLS.ClientRootCAs",
	"ChannelParticipation.Enabled", "ChannelParticipation.MaxRequestBodySize", "Consensus.WALDir",
)

func lowered(paths ...string) map[string]bool {
	out := make(map[string]bool, len(paths))
	for _, p := range paths {
		out[strings.ToLower(p)] = true
	}
	return out
}

// needed are keys that must not be passed over: going on without what they ask
// for would be another node than the one configured. The values, separated by
// spaces, are what isn't built; "" stands for any.
var needed = map[string]string{
	"peer.bccsp.default":    "PKCS11",
	"general.bccsp.default": "PKCS11",
	"metrics.provider":      "statsd",
}

// judgeEffect says which values that somebody set this build doesn't act on.
func (s *Settings) judgeEffect() {
	var idle []string
	var first *Value
	for low, v := range s.values {
		if !v.Set || v.Key.Treatment != Honoured && v.Key.Treatment != Mapped {
			continue
		}
		if want, ok := needed[low]; ok && v.Text != "" && (want == "" || slices.Contains(strings.Fields(strings.ToLower(want)), strings.ToLower(v.Text))) {
			f := found(fault.NotBuilt, SeverityError, v.Key.Path, v.Text, v.Source, fmt.Sprintf("%s: %s isn't built yet", v.Key.Path, quote(v.Text)))
			f.Why = []string{"without it this would be another node than the one configured"}
			s.add(f)
			continue
		}
		if !effective[low] && v.Parsed != nil && !sameAsDefault(v) {
			idle = append(idle, v.Key.Path)
			if first == nil || v.Key.Path < first.Key.Path {
				first = v
			}
		}
	}
	if len(idle) == 0 {
		return
	}
	slices.Sort(idle)
	f := found(fault.NotBuilt, SeverityWarning, first.Key.Path, "", first.Source, fmt.Sprintf("%d keys are read but have no effect in this build yet", len(idle)))
	f.Why = []string{strings.Join(idle, " ")}
	s.add(f)
}

// sameAsDefault says whether a value asks for what happens anyway.
func sameAsDefault(v *Value) bool {
	if v.Key.Default == "" {
		return false
	}
	d, b := parseText(v.Key, v.Key.Default)
	return b == nil && text(d) == v.Text
}
