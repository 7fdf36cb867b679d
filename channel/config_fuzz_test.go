package channel_test

import (
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/channel"
	"grapevine/wire"
)

// FuzzConfigEnvelope: no configuration makes the reader panic, and what it
// takes, it can print and read again.
func FuzzConfigEnvelope(f *testing.F) {
	w := newWorld(f)
	f.Add(pack(f, w.group()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var g common.ConfigGroup
		if proto.Unmarshal(raw, &g) != nil {
			return
		}
		c, err := channel.ParseChannelGroup("mychannel", 3, &common.Config{Sequence: 1, ChannelGroup: &g})
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
			return
		}
		require.NotNil(t, c.Rules())
		again, err := channel.ParseChannelGroup("mychannel", 3, &common.Config{Sequence: 1, ChannelGroup: proto.CloneOf(&g)})
		require.NoError(t, err)
		require.Len(t, again.Orderers(), len(c.Orderers()))
		require.Len(t, again.Orgs(), len(c.Orgs()))
	})
}

// FuzzConfigUpdate: no update makes the validator panic; one that passes is
// signed as the policies want, so only the seeds' own content does.
func FuzzConfigUpdate(f *testing.F) {
	w := newWorld(f)
	admin := w.admins["OrdererMSP"]
	f.Add(pack(f, w.sign(setBatch(f, 1, 20), admin)), false)
	f.Add(pack(f, setBatch(f, 1, 20)), true)
	f.Add(pack(f, setValue(0, "New", "Admins", nil, "Orderer")), true)
	f.Fuzz(func(t *testing.T, raw []byte, sign bool) {
		env := &common.Envelope{}
		if sign { // reach behind the signatures
			var u common.ConfigUpdate
			if proto.Unmarshal(raw, &u) != nil {
				return
			}
			own := *w
			own.t = t
			env = own.sign(&u, admin, w.admins["Org1MSP"], w.admins["Org2MSP"])
		} else if proto.Unmarshal(raw, env) != nil {
			return
		}
		got, err := w.config.Propose(env)
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
			return
		}
		require.Equal(t, w.config.Sequence()+1, got.Config.Sequence)
		_, err = channel.ParseChannelGroup("mychannel", 1, got.Config)
		require.NoError(t, err)
	})
}
