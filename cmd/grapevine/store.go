package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
)

// A chain is where a verb reads a channel's blocks: a data folder, or a node.
type chain interface {
	Height() uint64
	Block(n uint64) ([]byte, error)
	Close() error
}

// ledgerDir is where a node keeps its ledger within its data folder.
func ledgerDir(data string) string { return filepath.Join(data, "ledger") }

// A stored chain is one read from a data folder.
type stored struct {
	*ledger.Ledger
	db *ledger.DB
}

func (s *stored) Close() error { return s.db.Close() }

// chain opens a channel's blocks: those of the data folder, or, without one, of
// the node that the flags name.
func (a *app) chain(c *cobra.Command, name, data string) (chain, error) {
	if data == "" {
		return nil, fault.New(fault.Usage, "--data is missing").Do(c.CommandPath() + " --help")
	}
	return a.openChain(name, data)
}

// openChain opens a channel in a data folder. It makes nothing.
func (a *app) openChain(name, data string) (*stored, error) {
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
	return &stored{l, db}, nil
}

func held(db *ledger.DB) string {
	names := db.Channels()
	if len(names) == 0 {
		return "it holds none"
	}
	text := "it holds "
	for i, n := range names {
		if i > 0 {
			text += ", "
		}
		text += n
	}
	return text
}
