package orderer_test

import (
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
	"grapevine/deliver"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/orderer"
)

// envelope is one of the given type for a channel, signed by who.
func envelope(t testing.TB, typ common.HeaderType, channel string, who msp.Signer) *common.Envelope {
	env, err := tx.SignedEnvelope(typ, channel, &common.Metadata{Value: []byte("x")}, who, time.Now())
	require.NoError(t, err)
	return env
}

func TestBroadcastStatuses(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	n := w.start(t.TempDir()).ready()
	defer n.stop()
	c := w.clientOf(nil, n)
	const ordinary = common.HeaderType_ENDORSER_TRANSACTION

	peer := w.identity(w.peers, "peer0", "peer")
	stranger := w.identity(w.strangers, "User1", "client")
	impostor, err := ca.NewOrg("Org1MSP", "org1.example.com", time.Now())
	require.NoError(t, err)
	forged := w.identity(impostor, "User1", "client")
	expired, err := w.peers.Enroll(ca.Request{
		CN: "User2", OU: []string{"client"},
		NotBefore: time.Now().Add(-2 * time.Minute), NotAfter: time.Now().Add(-time.Minute),
	}, ca.P256)
	require.NoError(t, err)
	tampered := w.tx(0, 10)
	tampered.Signature[len(tampered.Signature)-1] ^= 1
	unsigned := w.tx(0, 10)
	unsigned.Signature = nil
	odd := w.tx(0, 10)
	odd.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 15, protowire.VarintType), 7))

	for _, tc := range []struct {
		name string
		env  *common.Envelope
		want common.Status
		info string
	}{
		{"a transaction", w.tx(0, 10), common.Status_SUCCESS, ""},
		{"type MESSAGE", envelope(t, common.HeaderType_MESSAGE, channelName, w.client), common.Status_SUCCESS, ""},
		{"an unknown field in the envelope", odd, common.Status_SUCCESS, ""},
		{"an orderer's own", w.txBy(w.signer, 0, 10), common.Status_SUCCESS, ""},
		{"empty", &common.Envelope{}, common.Status_BAD_REQUEST, "malformed"},
		{"garbage", &common.Envelope{Payload: []byte{0xff}, Signature: []byte{1}}, common.Status_BAD_REQUEST, "malformed"},
		{"unknown channel", envelope(t, ordinary, "other", w.client), common.Status_BAD_REQUEST, "unknown channel"},
		{"too large", w.tx(0, 1<<20), common.Status_BAD_REQUEST, "too_large"},
		{"may read, not write", w.txBy(peer, 0, 10), common.Status_FORBIDDEN, "may not write"},
		{"expired", w.txBy(expired, 0, 10), common.Status_BAD_REQUEST, "ended"},
		{"configuration update", envelope(t, common.HeaderType_CONFIG_UPDATE, channelName, w.client), common.Status_BAD_REQUEST, "update"},
		{"configuration", envelope(t, common.HeaderType_CONFIG, channelName, w.client), common.Status_BAD_REQUEST, "CONFIG can't be submitted"},
		{"orderer transaction", envelope(t, common.HeaderType_ORDERER_TRANSACTION, channelName, w.client), common.Status_BAD_REQUEST, "can't be submitted"}, //nolint:staticcheck // old, and refused
		{"S8 stranger", w.txBy(stranger, 0, 10), common.Status_BAD_REQUEST, "unknown channel"},
		{"S8 forged certificate", w.txBy(forged, 0, 10), common.Status_BAD_REQUEST, "unknown channel"},
		{"S8 bad signature", tampered, common.Status_BAD_REQUEST, "unknown channel"},
		{"S8 unsigned", unsigned, common.Status_BAD_REQUEST, "unknown channel"},
		{"S8 a stranger's configuration update", envelope(t, common.HeaderType_CONFIG_UPDATE, channelName, stranger), common.Status_BAD_REQUEST, "unknown channel"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := n.ledger.Height()
			a, err := c.Submit(ctxFor(t, 10*time.Second), tc.env)
			require.NoError(t, err)
			require.Equal(t, tc.want, a.Status, a.Info)
			require.Contains(t, a.Info, tc.info)
			require.Equal(t, n.addr, a.Via)
			if tc.want != common.Status_SUCCESS {
				require.Equal(t, before, n.ledger.Height())
				return
			}
			raw, err := proto.Marshal(tc.env)
			require.NoError(t, err)
			all := n.entries()
			require.Equal(t, raw, all[len(all)-1], "ordered as it came")
		})
	}
}

// Answers pair with envelopes in order, though a refusal in the middle ends the stream.
func TestBroadcastGoesOnAfterARefusal(t *testing.T) {
	w := newWorld(t, batchOf(10), 20*time.Millisecond)
	n := w.start(t.TempDir()).ready()
	defer n.stop()
	envs := make(chan *common.Envelope, 100)
	for i := range 100 {
		if i%10 == 5 {
			envs <- envelope(t, common.HeaderType_CONFIG, channelName, w.client)
		} else {
			envs <- w.tx(i, 10)
		}
	}
	close(envs)
	i := 0
	for a, err := range w.clientOf(nil, n).Broadcast(ctxFor(t, 20*time.Second), envs) {
		require.NoError(t, err)
		want := common.Status_SUCCESS
		if i%10 == 5 {
			want = common.Status_BAD_REQUEST
		}
		require.Equal(t, want, a.Status, "answer %d: %s", i, a.Info)
		i++
	}
	require.Equal(t, 100, i)
	// Envelopes behind a refusal are sent again over the next stream; none of them had been taken before.
	require.Len(t, n.entries(), 90)
}

// Who can't order says so, and the client finds one who can.
func TestBroadcastFindsTheLeader(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	led := w.start(t.TempDir()).ready()
	defer led.stop()
	// The other isn't a consenter, and knows none to follow.
	idle := w.start(t.TempDir(), func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
		cert, _ := w.tls(w.orderers)
		c.Keys = keys(cert)
	})
	defer idle.stop()
	c := w.clientOf(nil, idle)
	ctx := ctxFor(t, 300*time.Millisecond)
	_, err := c.Submit(ctx, w.tx(0, 10))
	require.ErrorIs(t, err, ctx.Err(), "never gives up")

	for i := range 4 {
		a, err := w.clientOf(nil, idle, led).Submit(ctxFor(t, 10*time.Second), w.tx(i, 10))
		require.NoError(t, err)
		require.Equal(t, common.Status_SUCCESS, a.Status)
		require.Equal(t, led.addr, a.Via)
	}
}

// onlyGenesis is a ledger from which nothing but block 0 is read.
type onlyGenesis struct {
	orderer.Ledger
	w *world
}

func (l onlyGenesis) Block(uint64) ([]byte, error) { return proto.Marshal(l.w.genesis) }

// FuzzBroadcastEnvelope judges envelopes as they come, and channel headers that a writer has signed, so that what lies
// behind the signature is reached: whatever comes, the verdict is the same again, the client's fault is no trouble of
// ours, and what is taken decodes and encodes to itself.
func FuzzBroadcastEnvelope(f *testing.F) {
	w := newWorld(f, batchOf(1), time.Second)
	// Ed25519 signs without chance, which the fuzzer would take for new paths.
	writer, err := w.peers.Enroll(ca.Request{CN: "User2", OU: []string{"client"}}, ca.Ed25519)
	require.NoError(f, err)
	creator, err := proto.Marshal(&common.SignatureHeader{Creator: writer.Identity().Serialized()})
	require.NoError(f, err)
	chain, err := orderer.NewChain(orderer.ChainConfig{
		Name: channelName, Channel: func() orderer.Channel { return w.config }, Ledger: onlyGenesis{w: w},
		Signer: w.signer, Dir: f.TempDir(), Keys: keys(w.seats[0]),
	})
	require.NoError(f, err)
	for typ := range common.HeaderType_name {
		for _, name := range []string{channelName, "other"} {
			env := envelope(f, common.HeaderType(typ), name, writer)
			raw, err := proto.Marshal(env)
			require.NoError(f, err)
			var payload common.Payload
			require.NoError(f, proto.Unmarshal(env.Payload, &payload))
			f.Add(raw, payload.Header.ChannelHeader, payload.Data)
		}
	}
	judge := func(t *testing.T, env *common.Envelope) {
		entry, err := chain.Admit(env)
		_, again := chain.Admit(env)
		require.Equal(t, orderer.StatusOf(err), orderer.StatusOf(again))
		if err != nil {
			require.NotContains(t, []common.Status{common.Status_SUCCESS, common.Status_SERVICE_UNAVAILABLE}, orderer.StatusOf(err), "%v", err)
			return
		}
		var back common.Envelope
		require.NoError(t, proto.Unmarshal(entry, &back))
		twice, err := proto.Marshal(&back)
		require.NoError(t, err)
		require.Equal(t, entry, twice)
	}
	f.Fuzz(func(t *testing.T, raw, header, data []byte) {
		var env common.Envelope
		if proto.Unmarshal(raw, &env) == nil {
			judge(t, &env)
		}
		payload, err := proto.Marshal(&common.Payload{
			Header: &common.Header{ChannelHeader: header, SignatureHeader: creator}, Data: data,
		})
		require.NoError(t, err)
		sig, err := writer.Sign(payload)
		require.NoError(t, err)
		judge(t, &common.Envelope{Payload: payload, Signature: sig})
	})
}
