package evidence_test

import (
	"encoding/pem"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/channel/evidence"
	"grapevine/channel/genesis"
	"grapevine/channel/update"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

// A world is a channel with one peer organisation, whose configuration changed
// once, in block 5.
type world struct {
	t        testing.TB
	orderers []msp.Signer
	peer     msp.Signer
	genesis  []byte
	config   []byte // block 5
	rules    *block.Rules
}

func newWorld(t testing.TB) *world {
	w := &world{t: t}
	now := time.Now()
	ordering, err := ca.NewOrg("OrdererMSP", "orderer", now)
	require.NoError(t, err)
	org, err := ca.NewOrg("Org1MSP", "org1", now)
	require.NoError(t, err)
	for _, name := range []string{"orderer0", "orderer1"} {
		s, err := ordering.Identity(name, "orderer")
		require.NoError(t, err)
		w.orderers = append(w.orderers, s)
	}
	w.peer, err = org.Identity("peer0.org1", "peer")
	require.NoError(t, err)
	admin, err := org.Identity("Admin", "admin")
	require.NoError(t, err)
	first, err := genesis.Block(genesis.Profile{
		Channel: "mychannel", Time: now, Timeout: time.Second,
		Orderers:   []genesis.Org{{Name: "OrdererOrg", MSPID: "OrdererMSP", MSP: ordering.MSPConfig(), Endpoints: []string{"127.0.0.1:7050"}}},
		Orgs:       []genesis.Org{{Name: "org1", MSPID: "Org1MSP", MSP: org.MSPConfig()}},
		Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7051, ServerTLS: []byte(tlsPEM(t, ordering))}},
	})
	require.NoError(t, err)
	w.genesis = w.marshal(first)
	conf, err := channel.Parse(first)
	require.NoError(t, err)

	change, err := update.Make("mychannel", conf.Content(), update.SetAnchors("org1", "peer0.org1:7051"))
	require.NoError(t, err)
	change, err = update.Sign(change, admin)
	require.NoError(t, err)
	next, err := conf.Propose(change)
	require.NoError(t, err)
	payload := w.marshal(&common.Payload{
		Header: &common.Header{ChannelHeader: w.marshal(&common.ChannelHeader{Type: int32(common.HeaderType_CONFIG), ChannelId: "mychannel"})},
		Data:   w.marshal(next),
	})
	b := w.block(5, 4, string(w.marshal(&common.Envelope{Payload: payload, Signature: []byte("s")})))
	require.NoError(t, block.Sign(b, w.orderers[0], 5, nil))
	w.config = w.marshal(b)
	conf, err = conf.Next(b)
	require.NoError(t, err)
	w.rules = conf.Rules()
	return w
}

func tlsPEM(t testing.TB, org *ca.Org) string {
	pair, err := org.TLS("localhost", "localhost")
	require.NoError(t, err)
	return string(pemOf(pair.Certificate[0]))
}

func (w *world) marshal(m proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(w.t, err)
	return raw
}

// block is one with a single entry, behind whatever previous stands for.
func (w *world) block(number uint64, previous byte, entry string) *common.Block {
	b := &common.Block{Header: &common.BlockHeader{Number: number, PreviousHash: make([]byte, 32)}, Data: &common.BlockData{Data: [][]byte{[]byte(entry)}}}
	b.Header.PreviousHash[0] = previous
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	return b
}

func (w *world) signed(number uint64, previous byte, entry string, by int, lastConfig uint64) *common.Block {
	b := w.block(number, previous, entry)
	require.NoError(w.t, block.Sign(b, w.orderers[by], lastConfig, nil))
	return b
}

func (w *world) fork(one, other *common.Block, configs ...[]byte) *wire.Evidence {
	e, err := evidence.Fork("dev", "mychannel", time.UnixMilli(1), configs, one, other)
	require.NoError(w.t, err)
	return e
}

func (w *world) verify(e *wire.Evidence, genesis []byte) (*evidence.Proof, error) {
	raw, err := wire.Marshal(e)
	require.NoError(w.t, err)
	return evidence.Verify(raw, genesis, nil)
}

// S10: a file proves a fork from the genesis block and the configurations alone,
// under the configuration in force, and accuses who signed both.
func TestForkIsProvenOffline(t *testing.T) {
	w := newWorld(t)
	one, other, third := w.signed(9, 1, "a", 0, 5), w.signed(9, 1, "b", 0, 5), w.signed(9, 1, "b", 1, 5)
	e := w.fork(one, other, w.genesis, w.config)
	for _, own := range [][]byte{nil, w.genesis} {
		p, err := w.verify(e, own)
		require.NoError(t, err)
		require.Len(t, p.Accused, 1)
		require.Equal(t, w.orderers[0].Identity().PKIID(), p.Accused[0].PKIID())
		require.EqualValues(t, 5, p.Config.Number())
	}
	p, err := w.verify(w.fork(one, third, w.genesis, w.config), w.genesis)
	require.NoError(t, err)
	require.Empty(t, p.Accused, "either may be right")
	require.Equal(t, evidence.Name(e), evidence.Name(w.fork(other, one)), "the order is nothing")
	require.Equal(t, evidence.Name(e), evidence.Name(w.fork(one, third)), "nor is who signed")
}

func TestNoProof(t *testing.T) {
	w, foreign := newWorld(t), newWorld(t)
	one, other := w.signed(9, 1, "a", 0, 5), w.signed(9, 1, "b", 0, 5)
	good := func() *wire.Evidence { return w.fork(one, other, w.genesis, w.config) }
	edited := func(f func(*wire.Evidence)) *wire.Evidence {
		e := good()
		f(e)
		return e
	}
	for name, c := range map[string]struct {
		e       *wire.Evidence
		genesis []byte
		want    *wire.Reason
	}{
		"copies of one block":    {w.fork(one, w.signed(9, 1, "a", 1, 5), w.genesis, w.config), nil, evidence.NoProof},
		"blocks of two channels": {w.fork(one, w.signed(9, 2, "b", 0, 5), w.genesis, w.config), nil, evidence.NoProof},
		"another number":         {edited(func(e *wire.Evidence) { e.Number = 10 }), nil, evidence.NoProof},
		"one header":             {edited(func(e *wire.Evidence) { e.Statements = e.Statements[:1] }), nil, evidence.NoProof},
		"signed by a peer": {w.fork(one, func() *common.Block {
			b := w.block(9, 1, "b")
			require.NoError(t, block.Sign(b, w.peer, 5, nil))
			return b
		}(), w.genesis, w.config), nil, evidence.NoProof},
		"the configuration lacks":  {w.fork(one, other, w.genesis), nil, evidence.NoProof},
		"no configuration":         {w.fork(one, other), nil, evidence.BadConfig},
		"the genesis block twice":  {w.fork(one, other, w.genesis, w.genesis), nil, evidence.BadConfig},
		"another's configurations": {w.fork(one, other, foreign.genesis, w.config), nil, evidence.BadConfig},
		"another channel's rules":  {w.fork(one, other, foreign.genesis, foreign.config), nil, evidence.NoProof},
		"another channel's name":   {edited(func(e *wire.Evidence) { e.Channel = "other" }), nil, evidence.BadConfig},
		"below its configuration":  {w.fork(w.signed(5, 1, "a", 0, 0), w.signed(5, 1, "b", 0, 0), w.genesis, w.config), nil, evidence.BadConfig},
		"another genesis block":    {good(), foreign.genesis, evidence.OtherGenesis},
		"a kind nobody judges":     {edited(func(e *wire.Evidence) { e.Kind = wire.Evidence_KIND_ENCODING }), nil, evidence.UnknownKind},
		"a later version":          {edited(func(e *wire.Evidence) { e.Version = 2 }), nil, evidence.BadVersion},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.verify(c.e, c.genesis)
			require.ErrorIs(t, err, c.want)
		})
	}
	_, err := evidence.Verify([]byte("garbage"), nil, nil)
	require.ErrorIs(t, err, evidence.BadFile)
	_, err = w.verify(w.fork(w.signed(5, 1, "a", 0, 5), w.signed(5, 1, "b", 0, 5), w.genesis), w.genesis)
	require.NoError(t, err, "two configurations for one place")
}

// announcement is what a member signs of a large block.
func (w *world) announcement(b *common.Block, roots string) []byte {
	g, err := block.Genesis(w.genesis)
	require.NoError(w.t, err)
	hash := g.Hash()
	tag, id := wire.ChannelTag("dev", hash[:]), w.peer.Identity().PKIID()
	a := &wire.Announcement{
		Tag: tag[:], Block: w.marshal(&common.Block{Header: b.Header, Metadata: b.Metadata}), Size: 9000, Announcer: id[:], Roots: []byte(roots),
	}
	sum := wire.HashParts([]byte(wire.DomainAnnouncement), a.Tag, a.Block, []byte{0, 0, 0, 0, 0, 0, 0x23, 0x28}, a.Announcer, a.Roots)
	a.Signature, err = w.peer.Sign(sum[:])
	require.NoError(w.t, err)
	raw, err := wire.Marshal(a)
	require.NoError(w.t, err)
	return raw
}

// Two encodings of one block by one member are proven; one, or those of two
// blocks, accuse nobody.
func TestTwoEncodings(t *testing.T) {
	w := newWorld(t)
	b, again, other := w.signed(9, 1, "a", 0, 5), w.signed(9, 1, "a", 1, 5), w.signed(9, 1, "b", 0, 5)
	made := func(one, two []byte) *wire.Evidence {
		e := evidence.New(wire.Evidence_KIND_ENCODINGS, "dev", "mychannel", 9, time.UnixMilli(1), [][]byte{w.genesis, w.config}, one, two)
		return evidence.By(e, "Org1MSP", w.peer.Identity().Certificate().Raw)
	}
	p, err := w.verify(made(w.announcement(b, "x"), w.announcement(again, "y")), w.genesis)
	require.NoError(t, err)
	require.Equal(t, w.peer.Identity().PKIID(), p.Accused[0].PKIID())
	for name, e := range map[string]*wire.Evidence{
		"one encoding": made(w.announcement(b, "x"), w.announcement(again, "x")),
		"two blocks":   made(w.announcement(b, "x"), w.announcement(other, "y")),
		"another network": func() *wire.Evidence {
			e := made(w.announcement(b, "x"), w.announcement(b, "y"))
			e.Network = "x"
			return e
		}(),
		"another's name": evidence.By(made(w.announcement(b, "x"), w.announcement(b, "y")), "OrdererMSP", w.orderers[0].Identity().Certificate().Raw),
		"nobody's":       evidence.By(made(w.announcement(b, "x"), w.announcement(b, "y")), "Org1MSP"),
	} {
		_, err := w.verify(e, w.genesis)
		require.ErrorIs(t, err, evidence.NoProof, name)
	}
}

// FuzzEvidence: no file makes Verify panic, and its verdict is stable.
func FuzzEvidence(f *testing.F) {
	w := newWorld(f)
	for _, e := range []*wire.Evidence{
		w.fork(w.signed(9, 1, "a", 0, 5), w.signed(9, 1, "b", 0, 5), w.genesis, w.config),
		evidence.By(evidence.New(wire.Evidence_KIND_ENCODINGS, "dev", "mychannel", 9, time.UnixMilli(1), [][]byte{w.genesis}, []byte("a"), []byte("b")), "Org1MSP", []byte("c")),
	} {
		raw, err := wire.Marshal(e)
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, err := evidence.Verify(raw, nil, nil)
		_, again := evidence.Verify(raw, nil, nil)
		require.Equal(t, wire.ReasonOf(err), wire.ReasonOf(again))
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
		}
	})
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
