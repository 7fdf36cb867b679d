package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"grapevine/channel/evidence"
	"grapevine/wire"
)

const (
	evidenceFolder = "evidence" // in a data folder
	settledFolder  = "settled"  // in evidenceFolder: what an operator has dealt with
	evidenceSuffix = ".evidence"
	// maxAccusations bounds the files about members of one channel; a fork, which
	// stops it, is always kept.
	maxAccusations = 64
)

// EvidenceFolder is where, in a node's data folder, evidence is kept.
func EvidenceFolder(dir string) string { return filepath.Join(dir, evidenceFolder) }

// Evidence is one file of a node's.
type Evidence struct {
	File    string // whole path
	Settled bool   // it lies where an operator put it who has dealt with it
	Raw     []byte
	*wire.Evidence
}

// ReadEvidence reads what a data folder keeps, by channel, number and name of
// the file. Nothing of it is proven here. A file that can't be read is an error,
// beside the others.
func ReadEvidence(dir string) ([]Evidence, error) {
	var all []Evidence
	var errs []error
	for _, in := range []string{EvidenceFolder(dir), filepath.Join(EvidenceFolder(dir), settledFolder)} {
		list, err := os.ReadDir(in)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the evidence kept: %w", err)
		}
		for _, f := range list {
			if f.IsDir() || !strings.HasSuffix(f.Name(), evidenceSuffix) {
				continue
			}
			e := Evidence{File: filepath.Join(in, f.Name()), Settled: filepath.Base(in) == settledFolder}
			if e.Raw, err = os.ReadFile(e.File); err == nil {
				e.Evidence, err = evidence.Read(e.Raw)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", e.File, err))
				continue
			}
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b Evidence) int {
		return cmp.Or(cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Number, b.Number), cmp.Compare(a.File, b.File))
	})
	return all, errors.Join(errs...)
}

// Dir is the node's data folder.
func (n *Node) Dir() string { return n.cfg.Dir }

// Dir is the node's data folder.
func (o *Orderer) Dir() string { return o.cfg.Dir }

// evidences are those that a node keeps: files, which are never overwritten nor
// removed.
type evidences struct {
	dir  string
	kept []Evidence // as the node was opened

	mu      sync.Mutex
	settled map[string]bool // names of files that an operator has dealt with; guarded by mu
	others  map[string]int  // by channel: files that aren't forks; guarded by mu
}

// openEvidence reads what the data folder of a node keeps.
func openEvidence(dir string, log *slog.Logger) *evidences {
	s := &evidences{dir: EvidenceFolder(dir), settled: map[string]bool{}, others: map[string]int{}}
	var err error
	if s.kept, err = ReadEvidence(dir); err != nil {
		log.Error("some of the evidence kept can't be read", "err", err)
	}
	for _, e := range s.kept {
		if e.Settled {
			s.settled[filepath.Base(e.File)] = true
		} else if e.Kind != wire.Evidence_KIND_FORK {
			s.others[e.Channel]++
		}
	}
	return s
}

// known says whether an operator has dealt with such evidence.
func (s *evidences) known(e *wire.Evidence) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled[evidence.Name(e)]
}

// errEnough: there is enough evidence about members of this channel.
var errEnough = fmt.Errorf("%d files accuse members of this channel already", maxAccusations)

// keep writes evidence to a file of its own and returns its path; it is durable
// when it returns. What is kept already stays as it is.
func (s *evidences) keep(e *wire.Evidence) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, evidence.Name(e))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if e.Kind != wire.Evidence_KIND_FORK && s.others[e.Channel] >= maxAccusations {
		return "", errEnough
	}
	raw, err := wire.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("evidence: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return "", fmt.Errorf("keeping evidence: %w", err)
	}
	if err := renameio.WriteFile(path, raw, 0o600); err != nil {
		return "", fmt.Errorf("keeping evidence: %w", err)
	}
	if err := errors.Join(syncFolder(s.dir), syncFolder(filepath.Dir(s.dir))); err != nil {
		return "", fmt.Errorf("keeping evidence: %w", err)
	}
	if e.Kind != wire.Evidence_KIND_FORK {
		s.others[e.Channel]++
	}
	return path, nil
}

// syncFolder makes a folder's entries durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
