package conf

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"grapevine/cmd/grapevine/fault"
	"grapevine/wire"
)

// maxBackoff bounds one pause between two attempts to reach an orderer.
const maxBackoff = 10 * time.Second

// fabricPull is Fabric's pullInterval, by which the waits are judged when no
// interval is set and Grapevine may choose one.
const fabricPull = 4 * time.Second

// judge looks at values together, and at the files they name.
func (s *Settings) judge() {
	if s.Role == RoleOrderer {
		s.judgeListen()
		s.judgeTLS("General.TLS.Enabled", "General.TLS.Certificate", "General.TLS.PrivateKey", "General.TLS.RootCAs", "General.TLS.ClientRootCAs")
		s.judgeTLS("Operations.TLS.Enabled", "Operations.TLS.Certificate", "Operations.TLS.PrivateKey", "Operations.TLS.ClientRootCAs")
		s.judgeLogging()
		s.judgeEffect()
		return
	}
	s.deriveTimings()
	s.judgeLeader()
	s.judgeTimings()
	s.judgeSpread()
	s.judgeAddresses()
	s.judgeOverrides()
	s.judgeTLS("peer.tls.enabled", "peer.tls.cert.file", "peer.tls.key.file", "peer.tls.clientRootCAs.files", "peer.tls.clientCert.file", "peer.tls.clientKey.file")
	s.judgeTLS("operations.tls.enabled", "operations.tls.cert.file", "operations.tls.key.file", "operations.tls.clientRootCAs.files")
	s.judgeLogging()
	s.judgeEffect()
	s.mapValues()
}

// both returns "name = value  from source" lines for several keys, aligned.
func (s *Settings) both(paths ...string) []string {
	width := 0
	short := make([]string, len(paths))
	for i, p := range paths {
		short[i] = p[strings.LastIndexByte(p, '.')+1:]
		width = max(width, len(short[i]))
	}
	var out []string
	for i, p := range paths {
		v := s.value(p)
		out = append(out, fmt.Sprintf("%-*s = %s  from %s", width, short[i], v.Text, v.Source))
	}
	return out
}

// refuse adds a refusal under the first path's name, with where all come from.
func (s *Settings) refuse(code, severity, message string, paths ...string) *Finding {
	v := s.value(paths[0])
	for _, p := range paths { // the one that somebody set is the one to blame
		if !v.Set && s.value(p).Set {
			v = s.value(p)
		}
	}
	f := found(code, severity, v.Key.Path, v.Text, v.Source, message)
	f.Why = append(s.both(paths...), f.Why...)
	s.add(f)
	return f
}

// judgeLeader refuses both leader flags. A flag that nobody set follows the
// other, so that orgLeader alone makes a static leader.
func (s *Settings) judgeLeader() {
	const dynamic, static = "peer.gossip.useLeaderElection", "peer.gossip.orgLeader"
	if s.flag(static) && s.set(static) && !s.set(dynamic) {
		v := s.value(dynamic)
		s.values[strings.ToLower(dynamic)] = &Value{Key: v.Key, Parsed: false, Text: "false", Source: v.Source}
	}
	if s.flag(dynamic) && s.flag(static) {
		f := s.refuse(fault.BothLeader, SeverityError, "", dynamic, static)
		f.Why = s.both(dynamic, static)
	}
	if s.flag("peer.gossip.skipBlockVerification") {
		s.refuse(fault.SkipVerify, SeverityError, "", "peer.gossip.skipBlockVerification")
	}
}

// deriveTimings fits the times that nobody set to those that somebody did.
func (s *Settings) deriveTimings() {
	const alive, expire, again = "peer.gossip.aliveTimeInterval", "peer.gossip.aliveExpirationTimeout", "peer.gossip.reconnectInterval"
	derive := func(path string, d time.Duration) {
		if v := s.value(path); !v.Set && d > s.dur(path) {
			s.values[strings.ToLower(path)] = &Value{Key: v.Key, Parsed: d, Text: d.String(), Source: v.Source}
		}
	}
	derive(expire, 3*s.dur(alive))
	derive(again, s.dur(expire))
	if s.dur("peer.deliveryclient.reConnectBackoffThreshold") > maxBackoff {
		v := *s.value("peer.deliveryclient.reConnectBackoffThreshold")
		s.refuse(fault.BackoffCapped, SeverityWarning, "", "peer.deliveryclient.reConnectBackoffThreshold")
		v.Mapped = "capped at " + maxBackoff.String()
		s.values[strings.ToLower(v.Key.Path)] = &v
	}
}

func (s *Settings) judgeTimings() {
	const alive, expire = "peer.gossip.aliveTimeInterval", "peer.gossip.aliveExpirationTimeout"
	if s.dur(expire) < 2*s.dur(alive) {
		s.refuse(fault.Contradiction, SeverityError, "peer.gossip.aliveExpirationTimeout is below twice aliveTimeInterval", expire, alive).
			Fix = []string{"set aliveExpirationTimeout to at least twice aliveTimeInterval"}
	}
	const low, high = "peer.deliveryclient.minimalReconnectInterval", "peer.deliveryclient.reConnectBackoffThreshold"
	if s.dur(low) > s.dur(high) {
		s.refuse(fault.Contradiction, SeverityError, "peer.deliveryclient.minimalReconnectInterval is above reConnectBackoffThreshold", low, high).
			Fix = []string{"lower minimalReconnectInterval"}
	}
	const pull, digest, response = "peer.gossip.pullInterval", "peer.gossip.digestWaitTime", "peer.gossip.responseWaitTime"
	if !s.set(pull) && !s.set(digest) && !s.set(response) {
		return // nobody chose these: no pull runs by them
	}
	interval := s.dur(pull)
	if !s.set(pull) {
		interval = fabricPull
	}
	if interval <= s.dur(digest)+s.dur(response) {
		f := s.refuse(fault.PullTooShort, SeverityError, "", pull, digest, response)
		f.Key = pull
	}
}

// judgeSpread says what a configuration does to the spread of blocks.
func (s *Settings) judgeSpread() {
	const push, repair = "peer.deliveryclient.blockGossipEnabled", "peer.gossip.state.enabled"
	const dynamic, static = "peer.gossip.useLeaderElection", "peer.gossip.orgLeader"
	switch isStatic := s.flag(static) && !s.flag(dynamic); {
	case s.flag(dynamic) && !s.flag(static) && !s.flag(push) && !s.flag(repair):
		s.refuse(fault.CannotFollow, SeverityError, "", push, repair, dynamic)
	case !isStatic && !s.flag(repair):
		s.refuse(fault.NoRepair, SeverityWarning, "", repair)
	}
	if !s.flag(push) {
		s.refuse(fault.SpreadOff, SeverityWarning, "", push, repair, dynamic, static)
	}
}

func (s *Settings) judgeAddresses() {
	external := s.str("peer.gossip.externalEndpoint")
	for _, p := range []string{"peer.gossip.externalEndpoint", "peer.gossip.endpoint"} {
		if _, _, err := wire.EncodeEndpoint(s.str(p)); err != nil {
			v := s.value(p)
			s.add(wrong(v.Key, v.Text, v.Source, err.Error()))
		}
	}
	if external == "" {
		f := found(fault.NoExternal, SeverityWarning, "peer.gossip.externalEndpoint", "", s.value("peer.gossip.externalEndpoint").Source, "")
		s.add(f)
	}
	s.judgeBootstrap()
}

// judgeBootstrap warns of entries that name this peer itself or stand twice.
func (s *Settings) judgeBootstrap() {
	v := s.value("peer.gossip.bootstrap")
	self := map[string]bool{}
	for _, p := range []string{"peer.address", "peer.gossip.endpoint", "peer.gossip.externalEndpoint", "peer.listenAddress"} {
		self[s.str(p)] = true
	}
	if host, port, err := net.SplitHostPort(s.str("peer.listenAddress")); err == nil {
		if ip := net.ParseIP(host); host == "" || (ip != nil && (ip.IsUnspecified() || ip.IsLoopback())) {
			self["127.0.0.1:"+port], self["localhost:"+port], self["[::1]:"+port] = true, true, true
		}
	}
	seen, others := map[string]bool{}, 0
	warn := func(message string) {
		s.add(found(fault.BadBootstrap, SeverityWarning, v.Key.Path, v.Text, v.Source, message))
	}
	for _, a := range s.list("peer.gossip.bootstrap") {
		switch {
		case seen[a]:
			warn("peer.gossip.bootstrap names " + a + " twice")
		case !self[a]:
			others++
		}
		seen[a] = true
	}
	if len(seen) > 0 && others == 0 {
		warn("peer.gossip.bootstrap names only this peer itself")
	}
}

// judgeListen checks the orderer's listener, which is two keys.
func (s *Settings) judgeListen() {
	if s.num("General.ListenPort") > 65535 {
		v := s.value("General.ListenPort")
		s.add(wrong(v.Key, v.Text, v.Source, v.Text+" is no port"))
	}
	addr := net.JoinHostPort(s.str("General.ListenAddress"), strconv.Itoa(s.num("General.ListenPort")))
	if b := checkListen(addr); b != nil {
		v := s.value("General.ListenAddress")
		s.add(wrong(v.Key, v.Text, v.Source, b.what))
	}
}

// judgeOverrides refuses a CA file that can't be read: going to the real
// address instead would be a silent change of whom to trust.
func (s *Settings) judgeOverrides() {
	v := s.value("peer.deliveryclient.addressOverrides")
	list, _ := v.Parsed.([]Override)
	for _, o := range list {
		src := v.Source
		if o.Line > 0 {
			src.Line = o.Line
		}
		if o.CACertsFile == "" {
			continue
		}
		p := s.resolve(v, o.CACertsFile)
		if _, err := readFile(p); err != nil {
			s.add(unreadable(v.Key.Path, p, src, err))
		}
	}
}

// judgeTLS refuses an enabled listener whose files can't be read.
func (s *Settings) judgeTLS(enabled string, files ...string) {
	if !s.flag(enabled) {
		return
	}
	for i, key := range files {
		v := s.value(key)
		names := s.paths(key)
		if v.Key.Kind == Path {
			names = []string{s.path(key)}
		}
		for _, p := range names {
			if p == "" {
				if i < 2 { // certificate and key are needed
					s.refuse(fault.Contradiction, SeverityError, enabled+" is true, but "+v.Key.Path+" is not set", v.Key.Path, enabled).
						Fix = []string{"name the file, or turn TLS off"}
				}
				continue
			}
			if _, err := readFile(p); err != nil {
				s.add(unreadable(v.Key.Path, p, v.Source, err))
			}
		}
	}
}

// judgeLogging checks the logging specification.
func (s *Settings) judgeLogging() {
	v := s.value("logging.spec")
	if _, _, err := ParseLogSpec(s.str("logging.spec")); err != nil {
		s.add(wrong(v.Key, v.Text, v.Source, err.Error()))
	}
}

// ParseLogSpec reads Fabric's logging specification, [logger[,logger…]=]level[:…],
// into the default level, info where it has none, and the levels of loggers.
func ParseLogSpec(spec string) (def string, named map[string]string, err error) {
	def, named = "info", map[string]string{}
	for _, field := range strings.Split(spec, ":") {
		names, level, two := strings.Cut(field, "=")
		if !two {
			names, level = "", field
		}
		level = strings.ToLower(strings.TrimSpace(level))
		switch level {
		case "fatal", "panic", "error", "warning", "warn", "info", "debug":
		case "":
			if !two {
				continue
			}
			fallthrough
		default:
			return "", nil, fmt.Errorf("%s is no log level", quote(level))
		}
		if !two {
			def = level
			continue
		}
		for _, n := range strings.Split(names, ",") {
			if n = strings.TrimSpace(n); strings.Trim(n, ".") == "" || strings.ContainsAny(n, " =") {
				return "", nil, fmt.Errorf("%s is no logger's name", quote(n))
			}
			named[n] = level
		}
	}
	return def, named, nil
}

// mapValues notes what the keys that are honoured by meaning become.
func (s *Settings) mapValues() {
	for path, meaning := range map[string]string{
		"peer.gossip.propagatePeerNum":           "mesh degree %s",
		"peer.gossip.propagateIterations":        "push, if not 0",
		"peer.gossip.maxPropagationBurstLatency": "push batching %s",
		"peer.gossip.maxPropagationBurstSize":    "push batching %s",
		"peer.gossip.maxBlockCountToStore":       "message cache %s",
	} {
		if v := s.value(path); v.Parsed != nil {
			m := *v
			m.Mapped = strings.ReplaceAll(meaning, "%s", v.Text)
			s.values[strings.ToLower(path)] = &m
		}
	}
}
