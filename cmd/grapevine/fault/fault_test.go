package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

func TestText(t *testing.T) {
	e := New(BothLeader, "").Because(
		"useLeaderElection = true  from env CORE_PEER_GOSSIP_USELEADERELECTION",
		"orgLeader         = true  from env CORE_PEER_GOSSIP_ORGLEADER")
	require.Equal(t, `error CFG012: peer.gossip.useLeaderElection and peer.gossip.orgLeader are both true
  why:  useLeaderElection = true  from env CORE_PEER_GOSSIP_USELEADERELECTION
        orgLeader         = true  from env CORE_PEER_GOSSIP_ORGLEADER
  fix:  dynamic election: ORGLEADER=false · static leader: USELEADERELECTION=false · standby: both false
`, e.Text())
	require.Equal(t, ExitConfig, e.Exit)
	require.Equal(t, "config.both_leader_flags", e.Reason)
}

func TestJSONHasEveryFieldOnOneLine(t *testing.T) {
	b := New(Interrupted, "").JSON()
	require.NotContains(t, string(b), "\n")
	require.JSONEq(t, `{"apiVersion":"grapevine/v1","kind":"Error","code":"API004","message":"interrupted","why":[],"fix":[],"exitCode":130}`, string(b))
	require.True(t, strings.HasPrefix(string(b), `{"apiVersion":"grapevine/v1","kind":"Error","code":`))
	require.Contains(t, string(New(Usage, "a <b> & c").JSON()), "a <b> & c")
}

func TestRegistry(t *testing.T) {
	form := regexp.MustCompile(`^(CFG|MSP|CERT|NET|GOS|CHN|BLK|STA|ORD|DEV|API|FAB)\d{3}$`)
	for _, e := range Entries() {
		require.Regexp(t, form, e.Code)
		require.NotEmpty(t, e.Title, e.Code)
		require.Contains(t, []int{1, 2, 3, 4, 5, 6, 7, 74, 130}, e.Exit, e.Code)
		require.NotContains(t, e.Title, "\n", e.Code)
	}
	require.Panics(t, func() { index([]Entry{{Code: "CFG001"}, {Code: "CFG001"}}) })
}

func TestOf(t *testing.T) {
	reason := func(code string) error {
		return fmt.Errorf("block 7: %w", wire.NewReason(code, wire.Reject))
	}
	listen := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}
	dial := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		err  error
		code string
		exit int
	}{
		{reason("config.both_leader_flags"), "CFG012", 3},
		{reason("block.bad_link"), "BLK001", 6},
		{reason("block.malformed"), "BLK003", 1},
		{reason("msp.path_length"), "MSP002", 4},
		{reason("config.key_readable"), "CERT003", 4},
		{reason("ledger.foreign_store"), "CFG019", 3},
		{reason("ledger.disk_failed"), "STA012", 74},
		{reason("nobody.knows"), "API099", 1},
		{fmt.Errorf("outer: %w", New(BadNumber, "x")), "API003", 2},
		{context.Canceled, "API004", 130},
		{context.DeadlineExceeded, "API006", 7},
		{&fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, "API002", 1},
		{listen, "CFG009", 3},
		{dial, "NET001", 5},
		{&fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}, "API005", 1},
		{errors.New("odd"), "API099", 1},
	} {
		got := Of(c.err)
		require.Equal(t, c.code, got.Code, c.err)
		require.Equal(t, c.exit, got.Exit, c.err)
		require.ErrorIs(t, got, unwrapTo(c.err))
	}
	require.Nil(t, Of(nil))
	require.Equal(t, "the block is not valid (block.bad_link)", Of(wire.NewReason("block.bad_link", wire.Reject)).Message)
}

// unwrapTo returns the coded error inside err, or err.
func unwrapTo(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return err
}

// Every reason that any package refuses with becomes a code.
func TestEveryReasonIsMapped(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	declared := regexp.MustCompile(`NewReason\("([a-z_]+\.[a-z_0-9]+)"`)
	n := 0
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, m := range declared.FindAllStringSubmatch(string(src), -1) {
			if m[1] == "block.bad_link" && strings.Contains(p, "wire") { // an example in a comment
				continue
			}
			n++
			_, ok := ByReason(m[1])
			require.True(t, ok, "%s: reason %s becomes no code", p, m[1])
		}
		return nil
	}))
	require.Positive(t, n)
}

func TestCLI10NoKeyIsPrinted(t *testing.T) {
	const body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
	for _, key := range []string{
		"-----BEGIN PRIVATE KEY-----\n" + body + "\n-----END PRIVATE KEY-----\n",
		"-----BEGIN EC PRIVATE KEY-----\n" + body, // cut off
	} {
		e := Newf(BadFile, "found %s", key).Because("it says " + key).Do("drop " + key)
		require.NotContains(t, e.Text(), body)
		require.NotContains(t, string(e.JSON()), body)
	}
}

func TestMessagesAreOneCleanLine(t *testing.T) {
	e := New(BadFile, "a\x1b[31m\nb\x00\xff"+strings.Repeat("x", 5000))
	require.NotContains(t, e.Message, "\x1b")
	require.NotContains(t, e.Message, "\n")
	require.Less(t, len(e.Message), maxLine+10)
	require.True(t, json.Valid(e.JSON()))
}
