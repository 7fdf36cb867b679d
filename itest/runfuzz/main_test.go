package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	all, err := find("../..")
	require.NoError(t, err)
	require.Contains(t, all, target{"wire", "FuzzUnmarshal"})
	require.Contains(t, all, target{"block", "FuzzVerify"})
}

func TestRead(t *testing.T) {
	failed := errors.New("exit status 1")
	for name, c := range map[string]struct {
		out  string
		err  error
		want result
		bad  bool
	}{
		"runs":           {"fuzz: elapsed: 3s, execs: 20 (6/sec), new interesting: 1 (total: 7)\nfuzz: elapsed: 4s, execs: 31 (6/sec), new interesting: 2 (total: 8)\nPASS\n", nil, result{execs: 31, found: 8}, false},
		"makes none":     {"fuzz: elapsed: 0s, gathering baseline coverage: 0/5 completed\nPASS\n", nil, result{}, true},
		"crashes":        {"fuzz: elapsed: 3s, execs: 9 (3/sec), new interesting: 0 (total: 5)\n--- FAIL: FuzzX\n    Failing input written to testdata/fuzz/FuzzX/1\nFAIL\n", failed, result{execs: 9, found: 5}, true},
		"time was up":    {"fuzz: elapsed: 3s, execs: 9 (3/sec), new interesting: 0 (total: 5)\n--- FAIL: FuzzX (3.01s)\n    context deadline exceeded\nFAIL\n", failed, result{execs: 9, found: 5}, false},
		"up and none":    {"--- FAIL: FuzzX (3.01s)\n    context deadline exceeded\nFAIL\n", failed, result{}, true},
		"doesn't build":  {"FAIL\tgrapevine/x [build failed]\n", failed, result{}, true},
		"deadline panic": {"fuzz: elapsed: 3s, execs: 9 (3/sec)\npanic: context deadline exceeded\nFAIL\n", failed, result{execs: 9}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := read([]byte(c.out), c.err)
			require.Equal(t, c.bad, got.err != nil, "%v", got.err)
			got.err = nil
			require.Equal(t, c.want, got)
		})
	}
}
