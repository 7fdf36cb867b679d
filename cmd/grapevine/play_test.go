package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A play is one run of the program, in process.
type play struct {
	dir string
	env []string
	in  string
	now time.Time
}

// A result is what a run left behind.
type result struct {
	code     int
	out, err string
}

// epoch lies within the validity of the recorded certificates.
var epoch = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

func (p play) run(args ...string) result {
	var out, errs bytes.Buffer
	if p.now.IsZero() {
		p.now = epoch
	}
	code := run(world{args: args, env: p.env, dir: p.dir, in: strings.NewReader(p.in), out: &out, err: &errs, now: func() time.Time { return p.now }})
	return result{code, out.String(), errs.String()}
}

// object runs with -o json and decodes what came.
func (p play) object(t testing.TB, code int, args ...string) map[string]any {
	t.Helper()
	r := p.run(append(args, "-o", "json")...)
	require.Equal(t, code, r.code, "%s%s", r.out, r.err)
	require.Equal(t, 1, strings.Count(r.out, "\n"), "one line")
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.out), &v), r.out)
	require.Equal(t, "grapevine/v1", v["apiVersion"])
	noNull(t, v)
	return v
}

// fails runs and wants an exit code and a coded error, in both its forms.
func (p play) fails(t testing.TB, exit int, code string, args ...string) result {
	t.Helper()
	r := p.run(args...)
	require.Equal(t, exit, r.code, "%v: %s%s", args, r.out, r.err)
	require.True(t, strings.HasPrefix(r.err, "error "+code+": "), "%v: %s", args, r.err)
	require.NotContains(t, r.err, "goroutine")
	j := p.run(append(args, "--output=json")...)
	require.Equal(t, exit, j.code, j.err)
	var e map[string]any
	require.NoError(t, json.Unmarshal([]byte(j.err), &e), "%v: %s", args, j.err)
	require.Equal(t, code, e["code"])
	require.Equal(t, float64(exit), e["exitCode"])
	require.Equal(t, "Error", e["kind"])
	noNull(t, e)
	return r
}

func noNull(t testing.TB, v any) {
	t.Helper()
	switch v := v.(type) {
	case nil:
		require.Fail(t, "a null in the JSON")
	case map[string]any:
		for k, x := range v {
			require.NotNil(t, x, k)
			noNull(t, x)
		}
	case []any:
		for _, x := range v {
			noNull(t, x)
		}
	}
}

// fixtures is the folder of recorded Fabric channels.
func fixtures(t testing.TB, parts ...string) string {
	t.Helper()
	root := os.Getenv("GRAPEVINE_FIXTURES")
	if root == "" {
		shared, err := filepath.Abs(filepath.Join("..", "..", "..", "shared"))
		require.NoError(t, err)
		if _, err := os.Stat(shared); err != nil {
			t.Skip("no recorded channels: set GRAPEVINE_FIXTURES")
		}
		root = filepath.Join(shared, "fixtures")
	}
	p := filepath.Join(append([]string{root, "fabric"}, parts...)...)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("the recorded channels lack: %v", err)
	}
	return p
}

func write(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	p := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, b, 0o600))
	return p
}
