package ledger

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

func TestFolderLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "ledger")
	d, err := Open(dir, Options{})
	require.NoError(t, err)
	_, err = Open(dir, Options{})
	require.ErrorIs(t, err, ErrLocked)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	_, err = Open(link, Options{})
	require.ErrorIs(t, err, ErrLocked, "by another name")
	require.NoError(t, d.PutMeta("k", []byte("v")))
	require.NoError(t, d.Close())
	d, err = Open(link, Options{})
	require.NoError(t, err)
	require.NoError(t, d.Close())
}

// TestFolderLockedByAnotherProcess runs this test again in a child, which opens
// the same folder.
func TestFolderLockedByAnotherProcess(t *testing.T) {
	const variable = "GRAPEVINE_TEST_LOCKED"
	if dir := os.Getenv(variable); dir != "" {
		_, err := Open(dir, Options{})
		require.ErrorIs(t, err, ErrLocked)
		return
	}
	dir := t.TempDir()
	d, err := Open(dir, Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), variable+"="+dir)
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, d.Close())
}

// tree reads all files of a folder.
func tree(t *testing.T, dir string) map[string][]byte {
	m := make(map[string][]byte)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range names {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		m[e.Name()] = b
	}
	return m
}

func TestFolderForeign(t *testing.T) {
	made := func(t *testing.T) string {
		dir := t.TempDir()
		d, err := Open(dir, Options{})
		require.NoError(t, err)
		require.NoError(t, d.PutMeta("k", []byte("v")))
		require.NoError(t, d.Close())
		return dir
	}
	cases := []struct {
		name string
		make func(t *testing.T) string
	}{
		{"another's files", func(t *testing.T) string {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "novel.txt"), []byte("x"), 0o600))
			return dir
		}},
		{"another Pebble", func(t *testing.T) string {
			dir := t.TempDir()
			p, err := pebble.Open(dir, &pebble.Options{Logger: engineLog{log: silent{}}})
			require.NoError(t, err)
			require.NoError(t, p.Close())
			return dir
		}},
		{"a newer format of ours", func(t *testing.T) string {
			dir := made(t)
			require.NoError(t, os.WriteFile(filepath.Join(dir, markerName), []byte("grapevine ledger, format 2\n"), 0o600))
			return dir
		}},
		{"a marker that isn't ours", func(t *testing.T) string {
			dir := made(t)
			require.NoError(t, os.WriteFile(filepath.Join(dir, markerName), []byte("some game\n"), 0o600))
			return dir
		}},
		{"a newer format of Pebble", func(t *testing.T) string {
			dir := made(t)
			old, err := filepath.Glob(filepath.Join(dir, "marker.format-version.*"))
			require.NoError(t, err)
			require.Len(t, old, 1)
			require.NoError(t, os.Rename(old[0], filepath.Join(dir, "marker.format-version.000999.999")))
			return dir
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := c.make(t)
			before := tree(t, dir)
			_, err := Open(dir, Options{})
			require.ErrorIs(t, err, ErrForeign)
			require.Equal(t, before, tree(t, dir), "untouched")
		})
	}
}

func TestFolderGone(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir, Options{})
	require.NoError(t, err)
	require.NoError(t, d.Close())
	manifests, err := filepath.Glob(filepath.Join(dir, "*MANIFEST*"))
	require.NoError(t, err)
	for _, m := range manifests {
		require.NoError(t, os.Remove(m))
	}
	_, err = Open(dir, Options{})
	require.ErrorIs(t, err, ErrCorrupt, "a store without its files isn't a new store")
}

func TestFolderUnreadable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(file, Options{})
	require.Error(t, err)
	_, err = Open(filepath.Join(file, "below"), Options{})
	require.Error(t, err)
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o000))
	defer os.Chmod(dir, 0o700)
	_, err = Open(dir, Options{})
	require.ErrorIs(t, err, os.ErrPermission)
}

func TestInMemory(t *testing.T) {
	d, err := Open("anywhere", Options{InMemory: true})
	require.NoError(t, err)
	require.NoError(t, d.PutMeta("k", bytes.Repeat([]byte("v"), 100)))
	require.NoError(t, d.Close())
	require.NoDirExists(t, "anywhere")
}
