package node

import (
	"errors"
	"fmt"
	"time"

	"grapevine/block"
	"grapevine/ledger"
	"grapevine/msp"
)

// bind ties a data folder to a network and to a name in an organisation, which
// outlast a renewal of the key: a folder of another node is refused before
// anything in it is touched.
func bind(db *ledger.DB, dir, networkID string, id *msp.Identity) error {
	for key, want := range map[string]string{"network": networkID, "member": id.MSPID() + "/" + id.Name()} {
		have, err := db.Meta(key)
		if errors.Is(err, ledger.ErrNotFound) {
			if err := db.PutMeta(key, []byte(want)); err != nil {
				return fmt.Errorf("marking the data folder: %w", err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the data folder's mark: %w", err)
		}
		if string(have) != want {
			return fmt.Errorf("data folder %s is of %s %q, this node's is %q: %w", dir, key, have, want, ledger.ErrForeign)
		}
	}
	return nil
}

// sameGenesis refuses a genesis block that is not the one a ledger began with.
func sameGenesis(led *ledger.Ledger, want [32]byte) error {
	raw, err := led.Block(0)
	if err != nil {
		return fmt.Errorf("channel %s: %w", led.Name(), err)
	}
	v, err := block.Genesis(raw)
	if err != nil {
		return fmt.Errorf("channel %s, block 0 on disk: %w", led.Name(), err)
	}
	if v.Hash() != want {
		return fmt.Errorf("channel %s: %w", led.Name(), ErrJoined)
	}
	return nil
}

// membersOf judges by one organisation's definition.
func membersOf(m *msp.MSP) judge {
	return func(id *msp.Identity, intermediates [][]byte, now time.Time) error {
		if id.MSPID() != m.ID() {
			return errNotMine
		}
		return m.ValidateLive(id, intermediates, now)
	}
}
