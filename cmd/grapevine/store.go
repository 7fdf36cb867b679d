package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
)

// A chain is where a verb reads a channel's blocks: a node, or a data folder.
type chain interface {
	Info(ctx context.Context) (*admin.ChannelInfo, error)
	JSON(ctx context.Context) ([]byte, error)
	Block(ctx context.Context, number string, full bool) (*admin.Block, error)
	Verify(ctx context.Context, span string) (*admin.BlockVerification, error)
	Raw(ctx context.Context, span string, each func(raw []byte) error) error
	State(ctx context.Context, namespace, key string) (*admin.StateEntry, error)
	Dump(ctx context.Context, q admin.DumpQuery, each func(*admin.StateEntry) error) error
	History(ctx context.Context, namespace, key string) (*admin.StateHistory, error)
	StateHash(ctx context.Context, at string) (*admin.StateHash, error)
	Snapshots(ctx context.Context) (*admin.SnapshotList, error)
	Export(ctx context.Context, height string, w io.Writer) error
	Close() error
}

// ledgerDir is where a node keeps its ledger within its data folder.
func ledgerDir(data string) string { return filepath.Join(data, "ledger") }

// A stored chain is one read from a data folder.
type stored struct {
	*admin.Chain
	db *ledger.DB
}

func (s *stored) Close() error { return s.db.Close() }

// A remote chain is a running node's.
type remote struct{ admin.Remote }

func (r remote) Close() error {
	r.Client.Close()
	return nil
}

// chain opens a channel's blocks: those of the data folder, or, without one, of
// the node that the flags name.
func (a *app) chain(name, data string) (chain, error) {
	if err := admin.CheckChannel(name); err != nil {
		return nil, err
	}
	if data != "" {
		return a.openChain(name, data)
	}
	t, err := a.node()
	if err != nil {
		return nil, err
	}
	return remote{admin.Remote{Client: t.Client, Name: name}}, nil
}

// openChain opens a channel in a data folder. It makes nothing.
func (a *app) openChain(name, data string) (chain, error) {
	dir := ledgerDir(a.path(data))
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fault.Newf(fault.BadFile, "%s holds no ledger", data).Because("there is no folder " + dir).
			Do("name a node's data folder, or fill one: grapevine ledger import")
	}
	db, err := ledger.Open(dir, ledger.Options{})
	if err != nil {
		return nil, err
	}
	l, err := db.Channel(name)
	if err != nil {
		if errors.Is(err, ledger.ErrNotFound) {
			err = fault.Newf(fault.NotFound, "%s holds no channel %s", data, name).Because(held(db)).From(err)
		}
		return nil, errors.Join(err, db.Close())
	}
	c, err := admin.ReadChain(l)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &stored{c, db}, nil
}

func held(db *ledger.DB) string {
	names := db.Channels()
	if len(names) == 0 {
		return "it holds none"
	}
	return "it holds " + strings.Join(names, ", ")
}
