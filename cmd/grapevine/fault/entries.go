package fault

// entries is the registry: every code there is. A number, once given, is never
// given again, not even after its code has gone.
var entries = []Entry{
	// API: the command line itself.
	{Usage, "wrong usage", "", nil, ExitUsage, []string{"cli.usage"}},
	{BadFile, "the file cannot be used", "it is missing, a folder, unreadable, empty or too large", []string{"name a regular, readable file"}, ExitFailed, []string{"cli.bad_file"}},
	{BadNumber, "not a block number", "a block number is 0 or more, or oldest, or newest", []string{"give a number, oldest or newest"}, ExitUsage, []string{"cli.bad_number"}},
	{Interrupted, "interrupted", "", nil, ExitInterrupted, []string{"cli.interrupted"}},
	{StdoutGone, "standard output is closed", "the reader of the output went away", nil, ExitFailed, []string{"cli.stdout_closed"}},
	{TimedOut, "timed out waiting", "the condition did not come true in time", []string{"wait longer with --timeout"}, ExitTimeout, []string{"cli.timeout"}},
	{NotFound, "not found", "", nil, ExitFailed, []string{"ledger.not_found", "cli.not_found"}},
	{NotHere, "this build cannot do that yet", "", nil, ExitFailed, []string{"cli.not_built"}},
	{NoContext, "no such context", "only the context dev exists, which dev up registers", []string{"leave --context away, or use --context dev"}, ExitUsage, []string{"cli.context"}},
	{NoTarget, "no node is named", "neither --target, nor a configuration, nor a development network says which", []string{"name a node: --target DIR, the data folder of one that runs here", "make a development network: grapevine dev up"}, ExitUnreachable, []string{"cli.no_target"}},
	{Internal, "unexpected failure", "", nil, ExitFailed, nil},

	// CFG: configuration and data folder.
	{Unreadable, "a named file cannot be read", "", []string{"check the path and its permissions"}, ExitConfig, []string{"config.unreadable"}},
	{BadYAML, "the file is not the YAML expected here", "", []string{"indent with spaces, write UTF-8, use no merge keys"}, ExitConfig, []string{"config.yaml"}},
	{UnknownKey, "unknown key or variable", "a misspelt name has no effect", []string{"correct or remove it"}, ExitConfig, []string{"config.unknown_key"}},
	{WrongType, "wrong type or out of range", "", nil, ExitConfig, []string{"config.type", "config.environment"}},
	{DuplicateKey, "a key is given twice in one file", "keys match without regard to case", []string{"remove one of the two"}, ExitConfig, []string{"config.duplicate_key"}},
	{Contradiction, "two values contradict each other", "", nil, ExitConfig, []string{"config.contradiction"}},
	{BadBootstrap, "a bootstrap entry is of no use", "it names this peer itself, or stands there twice", []string{"name other peers of the own organisation"}, ExitConfig, []string{"config.bootstrap", "config.bootstrap_self", "config.bootstrap_wrong_org"}},
	{NoExternal, "this peer is invisible to other organisations", "peer.gossip.externalEndpoint is not set", []string{"set peer.gossip.externalEndpoint to an address that other organisations can dial"}, ExitConfig, []string{"config.no_external_endpoint"}},
	{BadPort, "an address cannot be listened on", "the port is in use, needs privileges, or the address isn't this machine's", []string{"choose another address or port; 0 takes a free one"}, ExitConfig, []string{"config.port"}},
	{BadDuration, "a duration needs a unit", "Fabric reads a bare 10 as 10 nanoseconds", []string{"write the unit: 10s, 500ms, 2m"}, ExitConfig, []string{"config.duration"}},
	{BothLeader, "peer.gossip.useLeaderElection and peer.gossip.orgLeader are both true", "a Fabric peer starts with this, then panics when it joins a channel", []string{"dynamic election: ORGLEADER=false · static leader: USELEADERELECTION=false · standby: both false"}, ExitConfig, []string{"config.both_leader_flags"}},
	{SkipVerify, "peer.gossip.skipBlockVerification is true", "blocks are always verified", []string{"remove the key"}, ExitConfig, []string{"config.skip_verification"}},
	{ZeroDefault, "zero or negative: the default is used", "Fabric silently takes its default here", []string{"remove the key, or give a positive value"}, ExitConfig, []string{"config.zero_default"}},
	{PullTooShort, "peer.gossip.pullInterval is not above digestWaitTime + responseWaitTime", "a pull would begin before the last one has ended", []string{"raise pullInterval, or lower the two waits"}, ExitConfig, []string{"config.pull_interval"}},
	{CannotFollow, "dynamic election with block gossip and state transfer both off", "a follower could never get a block", []string{"set peer.deliveryclient.blockGossipEnabled or peer.gossip.state.enabled to true"}, ExitConfig, []string{"config.cannot_follow"}},
	{NoRepair, "state transfer is off on a peer that isn't a static leader", "one missed block is never repaired", []string{"set peer.gossip.state.enabled to true"}, ExitConfig, []string{"config.no_repair"}},
	{BackoffCapped, "peer.deliveryclient.reConnectBackoffThreshold is capped at 10s", "Fabric's sample says an hour; a peer would sleep through an orderer's return", []string{"set it to 10s or less"}, ExitConfig, []string{"config.backoff_capped"}},
	{ForeignStore, "the data folder belongs to something else", "another node, another network, or a newer format; it was left untouched", []string{"name another folder in peer.fileSystemPath, or use the program that made it"}, ExitConfig, []string{"config.foreign_store", "ledger.foreign_store"}},
	{FewFiles, "few open files are allowed", "limits above RLIMIT_NOFILE were lowered", []string{"raise it: ulimit -n 65536"}, ExitConfig, []string{"config.nofile"}},
	{ClockOff, "this machine's clock is more than 30 s off", "", []string{"synchronise the clock"}, ExitConfig, []string{"config.clock"}},
	{StoreLocked, "another process holds the data folder", "two nodes cannot share one folder", []string{"stop the other process, or name another folder"}, ExitConfig, []string{"ledger.locked"}},
	{NoIdentity, "no MSP ID is configured", "a node needs an identity", []string{"set peer.localMspId and peer.mspConfigPath (General.LocalMSPID and General.LocalMSPDir for an orderer)"}, ExitConfig, []string{"config.no_identity"}},
	{SpreadOff, "the configuration turns block dissemination off", "Fabric's own samples do: static leaders since 2.2, no block gossip since 3.0", []string{"set peer.deliveryclient.blockGossipEnabled and peer.gossip.state.enabled to true"}, ExitConfig, []string{"config.spread_off"}},
	{UnusedKey, "a Fabric key without meaning here", "", nil, ExitConfig, []string{"config.unused_key"}},
	{NotBuilt, "a key asks for what this build doesn't have yet", "", []string{"remove the key, or wait for the build that has it"}, ExitConfig, []string{"config.not_built"}},

	// MSP: organisations and their rules.
	{"MSP001", "the MSP folder cannot be used", "a folder it needs is missing or empty", []string{"see what it holds: grapevine msp inspect DIR"}, ExitIdentity, []string{"config.msp_folder", "msp.bad_definition", "msp.shared_root"}},
	{"MSP002", "the MSP refuses this identity", "", []string{"see why: grapevine msp verify DIR --cert FILE"}, ExitIdentity, []string{"msp."}},
	{"MSP003", "the MSP is not known here", "", nil, ExitIdentity, []string{"msp.unknown_msp", "msp.wrong_msp", "node.unknown_msp"}},
	{"MSP004", "a policy is not satisfied", "", nil, ExitIdentity, []string{"msp.policy_unmet", "msp.policy_missing", "msp.bad_policy"}},
	{"MSP005", "a certificate revocation list cannot be used", "", nil, ExitIdentity, []string{"msp.crl_invalid", "msp.crl_too_large"}},
	{"MSP006", "a certificate revocation list is out of date", "its revocations still apply", []string{"fetch a fresh list from the certificate authority"}, ExitIdentity, []string{"msp.crl_stale"}},

	// CERT: certificates and keys.
	{WrongPEM, "the file holds a private key where a certificate is expected", "", []string{"name the certificate; keep the key where only its owner reads it"}, ExitIdentity, []string{"cli.wrong_pem"}},
	{"CERT002", "no key fits the certificate", "the keystore's keys belong to other certificates", []string{"put the certificate's own key into keystore"}, ExitIdentity, []string{"config.key_mismatch"}},
	{"CERT003", "a private key is readable by others", "", []string{"chmod 600 the key file"}, ExitIdentity, []string{"config.key_readable"}},
	{"CERT004", "the certificate is expired or not yet valid", "", []string{"renew the certificate; check the clock"}, ExitIdentity, []string{"msp.expired", "msp.not_yet_valid"}},
	{"CERT005", "the certificate is revoked", "", []string{"issue a new one: grapevine ca issue NAME"}, ExitIdentity, []string{"msp.revoked", "msp.revoked_issuer"}},
	{"CERT006", "the certificate cannot be read", "", nil, ExitIdentity, []string{"msp.not_der", "msp.bad_pem"}},
	{"CERT007", "a certificate expires soon", "", nil, ExitCheck, nil},

	// NET: addresses, connections, the wire.
	{Unreachable, "no answer", "", nil, ExitUnreachable, []string{"cli.unreachable"}},
	{"NET002", "the other side's certificate is signed by an unknown CA", "", nil, ExitUnreachable, nil},
	{"NET003", "the node refuses this user", "file permissions decide who may use a node's admin socket, client certificates who may use its operations listener", []string{"run it as the node's user"}, ExitIdentity, []string{"cli.refused"}},
	{"NET005", "others cannot dial our external endpoint", "", nil, ExitCheck, nil},
	{"NET006", "the peer is banned here", "an operator of this node banned it", []string{"lift the ban: grapevine peers unban NAME"}, ExitIdentity, []string{"node.banned"}},
	{"NET010", "a message breaks the wire's rules", "", nil, ExitFailed, []string{"wire."}},
	{"NET011", "the other host shows no valid binding", "", nil, ExitIdentity, []string{"node."}},

	// GOS: the network of peers.
	{"GOS002", "a gossip message was refused", "", nil, ExitFailed, []string{"membership.", "election."}},
	{"GOS003", "two live hosts show one identity", "one MSP folder is used by two nodes; the one that started later counts", []string{"stop one of the two, or give it a certificate of its own: grapevine ca issue NAME"}, ExitCheck, []string{"membership.clone"}},
	{"GOS014", "no anchor peer for an organisation of the channel", "", nil, ExitCheck, nil},
	{"GOS021", "no peer pulls blocks for an organisation", "", nil, ExitCheck, nil},
	{"GOS022", "several static leaders of one organisation pull blocks", "each is a stream more at the ordering service, which sends every block once to each", []string{"let the peers elect one: peer.gossip.useLeaderElection true and orgLeader false on all of them"}, ExitCheck, []string{"election.many_static"}},
	{"GOS023", "this peer doesn't lead by election", "only an elected leader can hand leadership over", []string{"see who leads: grapevine channel leader CH"}, ExitFailed, nil},

	// CHN: channels.
	{"CHN001", "the channel refused it", "", nil, ExitFailed, []string{"channel."}},
	{"CHN002", "the channel's configuration cannot be used", "", nil, ExitFailed, []string{"channel.bad_config", "block.bad_config"}},
	{"CHN003", "the channel needs a capability this build lacks", "", []string{"upgrade grapevine"}, ExitFailed, []string{"block.unsupported_capability"}},
	{"CHN004", "this organisation was removed from the channel", "", nil, ExitIdentity, []string{"channel.removed"}},
	{"CHN005", "the channel exists under another genesis block", "", []string{"use another data folder, or leave the channel first"}, ExitConfig, []string{"ledger.exists"}},
	{"CHN006", "not a channel name", "a name is a to z, 0 to 9, dots and dashes, begins with a letter and has at most 249 characters", nil, ExitUsage, []string{"cli.bad_channel"}},
	{"CHN012", "the channel is being left", "", []string{"try again in a moment"}, ExitFailed, nil},
	{"CHN007", "the genesis block is not the one that --hash pins", "", []string{"ask another orderer, or find out which hash is right"}, ExitCheck, nil},
	{"CHN008", "the configuration update cannot be made or read", "", nil, ExitFailed, nil},
	{"CHN009", "the configuration update changes nothing", "", nil, ExitFailed, nil},
	{"CHN010", "the ordering service refused the configuration update", "", []string{"see who must sign: the mod_policy of each changed element", "make it anew if the configuration has changed meanwhile: grapevine channel config CH"}, ExitFailed, nil},

	// BLK: blocks.
	{"BLK001", "the block is not valid", "", nil, ExitCheck, []string{"block."}},
	{"BLK002", "two valid blocks of one number", "the ordering service has signed both; the channel stops rather than choose", []string{"see the proof, and show it to those who run the ordering service: grapevine evidence ls", "if they hold this node's block to be the true one: move the proof into settled/, beside it, and start the node again", "if not: likewise, and leave the channel with its data before joining again: grapevine channel leave CH --purge"}, ExitCheck, []string{"block.fork", "ledger.fork"}},
	{"BLK003", "the file is not a block", "", []string{"name a file that holds one marshalled common.Block"}, ExitFailed, []string{"block.malformed"}},
	{"BLK004", "the file is no evidence, or proves nothing", "", []string{"name a file of a node's evidence/ folder: grapevine evidence ls"}, ExitCheck, []string{"evidence."}},

	// STA: ledger and world state.
	{"STA001", "the key is not in the world state", "", nil, ExitFailed, nil},
	{"STA002", "that height is not kept", "", nil, ExitFailed, nil},
	{"STA003", "transactions are not judged here, so there is no world state", "", nil, ExitFailed, []string{"state."}},
	{"STA010", "the ledger has stopped taking blocks", "", nil, ExitFailed, []string{"ledger.halted", "ledger.gap", "ledger.closed", "ledger."}},
	{"STA011", "the disk is full", "nothing is lost", []string{"free space; what waited goes on by itself"}, ExitFailed, []string{"ledger.full"}},
	{"STA012", "the disk failed a write", "only a restart can tell what it holds; nothing acknowledged is lost", []string{"check the disk, then start again"}, ExitDisk, []string{"ledger.disk_failed", "orderer.broken_log"}},
	{"STA013", "the disk gave back something else than was written", "", []string{"check the disk; move the data folder away and fetch the chain again"}, ExitFailed, []string{"ledger.corrupt"}},
	{"STA031", "the world state differs between peers", "peers that judged the same blocks found different states", []string{"make the one that differs anew: grapevine ledger rebuild-state CH"}, ExitCheck, nil},
	{"STA030", "what is kept of a channel is damaged", "the disk gave back something else than was written", []string{"let a running node repair it: grapevine state repair CH", "check the disk"}, ExitCheck, nil},
	{"STA014", "fetching blocks from another peer went wrong", "", nil, ExitFailed, []string{"blocksync.", "cast.", "trace."}},

	{"STA020", "it lies below the lowest block kept here", "the ledger began with a snapshot, or older blocks were pruned", []string{"ask a peer that keeps the chain from block 0 on"}, ExitFailed, []string{"ledger.pruned"}},
	{"STA021", "the snapshot is not what it says", "it is damaged, of another channel, or not made by this program", []string{"take it from somebody else"}, ExitCheck, []string{"ledger.bad_snapshot", "blocksync.bad_snapshot"}},
	{"STA022", "too few organisations attest the snapshot", "only peers that made the same snapshot themselves can attest it", []string{"have peers of other organisations make theirs at the same heights: p2p.snapshots.every", "ask for fewer with --attested, if those are to be trusted alone"}, ExitCheck, nil},
	{"STA023", "no such snapshot", "", []string{"see which there are: grapevine snapshot ls CH", "make one: grapevine snapshot create CH"}, ExitFailed, nil},

	// ORD: the ordering service.
	{"ORD001", "the ordering service refused it", "", nil, ExitFailed, []string{"orderer.", "deliver."}},
	{"ORD003", "no orderer answers", "", []string{"check the addresses and their TLS roots, or override them: peer.deliveryclient.addressOverrides"}, ExitUnreachable, []string{"orderer.unreachable", "orderer.no_endpoint"}},
	{"ORD004", "the ordering service refuses this identity", "", nil, ExitIdentity, []string{"orderer.forbidden", "deliver.forbidden", "orderer.outsider"}},
	{"ORD005", "the channel is being removed", "", []string{"try again in a moment"}, ExitFailed, nil},

	// DEV: the development network. DEV008 is used up.
	{"DEV001", "no development network here", "", []string{"make one: grapevine dev up"}, ExitUnreachable, nil},
	{"DEV002", "the development network's record is damaged", "", nil, ExitFailed, nil},
	{"DEV003", "a development network of another shape is here", "", nil, ExitFailed, nil},
	{"DEV004", "no such node in the development network", "", nil, ExitFailed, nil},
	{"DEV005", "the folder holds files and no finished development network", "", nil, ExitFailed, nil},
	{"DEV006", "this many orderers can't be built", "", nil, ExitUsage, nil},
	{"DEV007", "a development network of that size can't be built", "", nil, ExitUsage, nil},
	{"DEV009", "no free ports", "", nil, ExitFailed, nil},
	{"DEV010", "the node runs already", "", nil, ExitFailed, nil},
	{"DEV011", "the node does not run", "", nil, ExitFailed, nil},
	{"DEV012", "a node did not start", "", nil, ExitFailed, nil},
	{"DEV013", "the network did not become ready in time", "", nil, ExitTimeout, nil},
	{"DEV014", "transactions failed", "", nil, ExitFailed, nil},
	{"DEV015", "not possible with a network inside one process", "", nil, ExitFailed, nil},

	// FAB: beside Fabric.
	{"FAB001", "relay start has no address to serve Fabric peers at", "neither relay.listenAddress nor relay.orderers is set", []string{"Raft channels: set relay.listenAddress", "BFT channels: name one address for each orderer in relay.orderers"}, ExitConfig, []string{"config.no_relay_address"}},
	{"FAB002", "the relay has no TLS certificate", "Fabric peers speak TLS to an orderer, and so to what stands for it", []string{"set relay.tls.cert.file and relay.tls.key.file, or those of peer.tls: grapevine ca issue NAME --tls"}, ExitConfig, []string{"config.no_relay_certificate"}},
	{"FAB005", "no Fabric peer is named", "events.validity is fabricPeer, and events.fabricPeer is empty", []string{"set events.fabricPeer to the gRPC address of a Fabric peer of the own organisation"}, ExitConfig, []string{"config.no_fabric_peer"}},
	{"FAB006", "the Fabric peer's word isn't taken", "its blocks are another chain's, or bear no validation codes", []string{"see whether events.fabricPeer names a peer that has joined the same channel"}, ExitCheck, []string{"node.fabric_peer_differs", "node.fabric_peer_codes"}},
	{"FAB003", "a call of Fabric's clients is refused", "the peer answers a few functions of cscc, qscc and discovery, to members of its channels", []string{"see what it answers and to whom: docs/how-to/serve-fabric-clients.md"}, ExitFailed, []string{"system."}},
	{"FAB004", "the relay sends its clients on", "its orderer doesn't answer, or one address stands for several orderers of a BFT channel", []string{"see whether the orderers answer: grapevine status", "BFT channels: name one address for each orderer in relay.orderers"}, ExitUnreachable, []string{"deliver.source_gone", "deliver.shared_address"}},
}
