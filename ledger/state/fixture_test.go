package state_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/ledger/state"
)

// fixtures returns the folder of a recorded network, or skips.
func fixtures(t testing.TB, network string) string {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		shared := filepath.Join("..", "..", "..", "shared")
		if _, err := os.Stat(shared); err != nil {
			t.Skip("no recorded Fabric networks: set GRAPEVINE_FIXTURES")
		}
		dir = filepath.Join(shared, "fixtures")
	}
	return filepath.Join(dir, "fabric", network)
}

// A world is a state in memory, with the chain that leads to it.
type world struct {
	entries  map[state.Key]*state.Entry
	txs      map[string]bool
	expiries map[uint64][]state.Expiry
	mark     *state.Mark
	conf     *channel.Config
	rules    *state.Rules
	height   uint64
}

func newWorld() *world {
	return &world{
		entries: make(map[state.Key]*state.Entry), txs: make(map[string]bool),
		expiries: make(map[uint64][]state.Expiry), mark: &state.Mark{},
	}
}

func (w *world) view() state.View {
	return state.View{
		Get: func(k state.Key) (*state.Entry, error) { return w.entries[k], nil },
		Range: func(ns, from, to string) iter.Seq2[state.Found, error] {
			return func(yield func(state.Found, error) bool) {
				var keys []string
				for k := range w.entries {
					if k.Namespace == ns && k.Collection == "" && k.Key >= from && (to == "" || k.Key < to) {
						keys = append(keys, k.Key)
					}
				}
				slices.Sort(keys)
				for _, k := range keys {
					e := w.entries[state.Key{Namespace: ns, Key: k}]
					if !yield(state.Found{Key: k, Block: e.Block, Tx: e.Tx}, nil) {
						return
					}
				}
			}
		},
		HasTx: func(id string) (bool, error) { return w.txs[id], nil },
		Expiring: func(at uint64) iter.Seq2[state.Expiry, error] {
			return func(yield func(state.Expiry, error) bool) {
				for _, x := range w.expiries[at] {
					if !yield(x, nil) {
						return
					}
				}
			}
		},
	}
}

// rulesOf states what a configuration demands of transactions.
func rulesOf(c *channel.Config) *state.Rules {
	r := &state.Rules{Channel: c.Channel(), MSPs: c.MSPs(), Policy: c.Policy}
	for _, o := range c.Orgs() {
		r.Orgs = append(r.Orgs, state.Org{Name: o.Name, MSPID: o.MSPID})
	}
	return r
}

// take executes the next block and applies what comes of it.
func (w *world) take(t testing.TB, b *common.Block) *state.Outcome {
	var out *state.Outcome
	var err error
	if w.height == 0 {
		out, err = state.Genesis(b.Data.Data[0])
	} else {
		txs := make([]*state.Tx, len(b.Data.Data))
		for i, entry := range b.Data.Data {
			txs[i] = state.Prepare(w.rules, entry)
		}
		out, err = state.Execute(w.rules, w.view(), w.mark, w.height, txs)
	}
	require.NoError(t, err, "block %d", w.height)
	w.apply(out)
	for _, entry := range b.Data.Data {
		if id := idOf(entry); id != "" {
			w.txs[id] = true
		}
	}
	if block.IsConfig(b) {
		if w.height == 1 {
			w.conf, err = channel.Parse(b)
		} else {
			w.conf, err = w.conf.Next(b)
		}
		require.NoError(t, err)
		w.rules = rulesOf(w.conf)
	}
	return out
}

// apply makes a block's writes.
func (w *world) apply(out *state.Outcome) {
	for _, x := range out.Writes {
		if x.Entry == nil {
			delete(w.entries, x.Key)
		} else {
			w.entries[x.Key] = x.Entry
		}
	}
	for _, x := range out.Schedule {
		w.expiries[x.At] = append(w.expiries[x.At], x)
	}
	w.mark = out.Mark
	w.height++
}

// idOf returns the id that an entry claims.
func idOf(entry []byte) string {
	var env common.Envelope
	if proto.Unmarshal(entry, &env) != nil {
		return ""
	}
	h, _, err := block.Header(&env)
	if err != nil {
		return ""
	}
	return h.TxId
}

type summary struct {
	CommitHash string `json:"commit_hash"`
	Filter     string `json:"transactions_filter_hex"`
	Tx         []struct {
		Flag string `json:"flag"`
	} `json:"tx"`
}

func readJSON(t testing.TB, v any, elem ...string) {
	raw, err := os.ReadFile(filepath.Join(elem...))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, v))
}

func recorded(t testing.TB, dir, kind string, n int) *common.Block {
	raw, err := os.ReadFile(filepath.Join(dir, kind, fmt.Sprintf("%04d.block", n)))
	require.NoError(t, err)
	b, err := block.Decode(raw)
	require.NoError(t, err)
	return b
}

// Codes, commit hashes and the final state of the recorded chains are those that
// real Fabric peers kept.
func TestRecordedChains(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			dir := fixtures(t, network)
			var sums []summary
			readJSON(t, &sums, dir, "summary.json")
			w := newWorld()
			for n, s := range sums {
				out := w.take(t, recorded(t, dir, "blocks", n))
				for i, x := range s.Tx {
					require.Equal(t, x.Flag, peer.TxValidationCode_name[int32(out.Codes[i])], "block %d, transaction %d", n, i)
				}
				require.Equal(t, s.Filter, hex.EncodeToString(out.Codes), "block %d", n)
				require.Equal(t, s.CommitHash, hex.EncodeToString(out.Mark.CommitHash), "block %d", n)

				kept := recorded(t, dir, "peerblocks", n).Metadata.Metadata
				require.Equal(t, kept[common.BlockMetadataIndex_TRANSACTIONS_FILTER], out.Codes, "block %d", n)
				var m common.Metadata
				require.NoError(t, proto.Unmarshal(kept[common.BlockMetadataIndex_COMMIT_HASH], &m))
				require.Equal(t, m.Value, out.Mark.CommitHash, "block %d", n)
			}
			var final map[string]string
			readJSON(t, &final, dir, "state.json")
			got := make(map[string]string)
			for k, e := range w.entries {
				if k.Namespace == "basic" && k.Collection == "" && k.Key[0] != 0 {
					require.True(t, utf8.ValidString(k.Key))
					got[k.Key] = base64.StdEncoding.EncodeToString(e.Value)
				}
			}
			require.Equal(t, final, got)
			requireSum(t, w)
		})
	}
}

// requireSum holds the incremental state hash against that of the entries put in
// afresh.
func requireSum(t testing.TB, w *world) {
	var s state.Sum
	for k, e := range w.entries {
		s.Add(k, e)
	}
	require.Equal(t, s.Digest(), w.mark.StateHash())
}
