package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/cmd/grapevine/admin"
)

// progressed is catching up from 100 to 20,100, 42 % done.
func progressed() admin.Progress {
	return admin.Progress{
		Active: true, FromHeight: 100, Height: 8500, Target: 20_100, Blocks: 8400, Bytes: 86_016_000,
		BlocksPerSec: 500, BytesPerSec: 5_120_000, LeftSec: 23.2, Sources: []string{"peer0.org1", "peer1.org2"},
	}
}

// Off a terminal a line is written every ten seconds; on one a single line
// changes, and is gone at the end.
func TestBar(t *testing.T) {
	var errs bytes.Buffer
	now := epoch
	a := &app{world: world{err: &errs, now: func() time.Time { return now }}}
	p := progressed()
	b := a.newBar("mychannel")
	require.False(t, b.terminal)
	for range 25 {
		b.show(p, shareOf(p))
		now = now.Add(time.Second)
	}
	b.done()
	line := "mychannel  42 %  8,400 of 20,000 blocks  86.0 MB  5.1 MB/s, 23s left, from peer0.org1 peer1.org2"
	require.Equal(t, line+"\n"+line+"\n", errs.String())

	errs.Reset()
	b.terminal, b.every = true, barEvery
	now = now.Add(time.Minute)
	b.show(p, shareOf(p))
	b.show(p, shareOf(p)) // too soon
	now = now.Add(barEvery)
	p.Sources, p.LeftSec = nil, 0
	b.show(p, shareOf(p))
	b.done()
	short := "[==========              ] mychannel  42 %  8,400 of 20,000 blocks  86.0 MB  5.1 MB/s"
	blank := func(n int) string { return string(bytes.Repeat([]byte(" "), n)) }
	gone := len(line) - len("mychannel  42 %  8,400 of 20,000 blocks  86.0 MB  5.1 MB/s")
	require.Equal(t, "\r[==========              ] "+line+"\r"+short+blank(gone)+"\r"+blank(len(short))+"\r", errs.String())

	errs.Reset()
	for _, f := range []flags{{quiet: true}, {noProgress: true}} {
		a.flags = f
		b = a.newBar("x")
		now = now.Add(time.Minute)
		b.show(p, .5)
		b.done()
	}
	a.flags = flags{}
	b = a.newBar("x")
	now = now.Add(time.Minute)
	b.show(admin.Progress{}, -1) // nothing to do
	require.Empty(t, errs.String())
}

func TestProgressWords(t *testing.T) {
	require.Equal(t, "importing  3 blocks  999 B", progressLine("importing", admin.Progress{Active: true, Blocks: 3, Bytes: 999}, -1))
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, grouped(n))
	}
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 123_456: "123 kB", 9_950_000: "9.9 MB", 5e14: "500 TB"} {
		require.Equal(t, want, size(n))
	}
	require.Empty(t, gauge(-1))
	require.Equal(t, "["+string(bytes.Repeat([]byte("="), barWidth))+"] ", gauge(1.2))
}

// Work on what is kept tells its rate and the time that is left.
func TestSoFar(t *testing.T) {
	now := epoch
	a := &app{world: world{now: func() time.Time { return now }}}
	p, share := a.soFar(now, 0, 400, 0)
	require.Equal(t, "judging c  0 %  0 of 400 blocks", progressLine("judging c", p, share))
	now = now.Add(10 * time.Second)
	p, share = a.soFar(epoch, 100, 400, 50_000_000)
	require.Equal(t, "reading c  25 %  100 of 400 blocks  50.0 MB  5.0 MB/s, 30s left", progressLine("reading c", p, share))
}
