package state_test

import (
	"fmt"
	"testing"

	"grapevine/ledger/state"
)

// entries are n transactions that write one key of 1 KiB each, with the
// endorsements of two organisations.
func entries(p *play, n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = p.call("cc", p.put(fmt.Sprintf("key%d", i), string(make([]byte, 1024))), "A", "B")
	}
	return list
}

// BenchmarkPrepare is what a transaction costs before its turn: three signatures
// above all.
func BenchmarkPrepare(b *testing.B) {
	p := newPlay(b)
	list := entries(p, 100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if state.Prepare(p.rules, list[i%len(list)]).Code() != 0 {
			b.Fatal("not valid")
		}
	}
}

// BenchmarkExecute is what one costs in its turn, the state hash included; the
// state is in memory.
func BenchmarkExecute(b *testing.B) {
	p := newPlay(b)
	var txs []*state.Tx
	for _, e := range entries(p, 100) {
		txs = append(txs, state.Prepare(p.rules, e))
	}
	b.ReportAllocs()
	for b.Loop() {
		out, err := state.Execute(p.rules, p.view(), p.mark, p.height, txs)
		if err != nil || out.Codes[99] != 0 {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(txs)), "ns/tx")
}

// BenchmarkSum is one entry put into the state hash.
func BenchmarkSum(b *testing.B) {
	e := &state.Entry{Block: 1, Value: make([]byte, 1024)}
	k := state.Key{Namespace: "cc", Key: "key"}
	var s state.Sum
	for b.Loop() {
		s.Add(k, e)
	}
}
