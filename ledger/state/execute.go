package state

import (
	"fmt"
	"math"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// configKey is where the configuration in force lies, in the namespace "".
const configKey = "CHANNEL_CONFIG_ENV_BYTES"

// Execute goes through a block of prepared transactions and says what becomes of
// the state, of which last is the mark before. Its order is Fabric's: for each
// transaction what it was prepared with, duplicates in the ledger, definitions and
// policies; then duplicates in the block; then conflicts and writes in turn.
//
// Rules are nil for block 0 alone, whose transaction nobody judges. The error is
// one of the view, or Unjudged.
func Execute(r *Rules, v View, last *Mark, number uint64, txs []*Tx) (*Outcome, error) {
	out, err := execute(r, v, last, number, txs)
	if err != nil {
		return nil, fmt.Errorf("execute block %d: %w", number, err)
	}
	return out, nil
}

// Genesis is the outcome of block 0, a configuration that is taken as it is.
func Genesis(entry []byte) (*Outcome, error) {
	t := &Tx{}
	var e envelope
	if err := walk(entry, func(f field) bool {
		if f.is(1) {
			e.payload = f.bytes
		}
		return true
	}); err != nil {
		return nil, fmt.Errorf("execute block 0: %w", err)
	}
	p, err := readPayload(e.payload)
	if err != nil {
		return nil, fmt.Errorf("execute block 0: %w", err)
	}
	t.configures, t.config = true, p.data
	empty := View{Get: func(Key) (*Entry, error) { return nil, nil }}
	return Execute(nil, empty, &Mark{}, 0, []*Tx{t})
}

func execute(r *Rules, v View, last *Mark, number uint64, txs []*Tx) (*Outcome, error) {
	if r != nil && r.Unbuilt != "" {
		return nil, fmt.Errorf("%s: %w", r.Unbuilt, Unjudged)
	}
	u := newUpdates(number, v)
	codes, err := judge(r, u, txs)
	if err != nil {
		return nil, err
	}
	out := &Outcome{Codes: codes}
	for i, t := range txs {
		if codes[i] != byte(peer.TxValidationCode_VALID) {
			continue
		}
		if t.configures {
			u.configure(t, uint64(i))
			continue
		}
		code, err := u.conflicts(t)
		if err != nil {
			return nil, err
		}
		if codes[i] = byte(code); code != peer.TxValidationCode_VALID {
			continue
		}
		if err := u.apply(t, uint64(i)); err != nil {
			return nil, err
		}
		out.Touches = append(out.Touches, touches(t, uint64(i))...)
	}
	mark := &Mark{Sum: last.Sum}
	if number > 0 {
		mark.CommitHash = commitHash(last.CommitHash, codes, u)
	}
	if out.Schedule, err = expire(r, u); err != nil {
		return nil, err
	}
	if out.Writes, err = u.settle(&mark.Sum); err != nil {
		return nil, err
	}
	out.Mark = mark
	return out, nil
}

// judge gives each transaction the code it has before conflicts are looked for.
func judge(r *Rules, u *updates, txs []*Tx) ([]byte, error) {
	d := &endorsed{
		rules: r, get: u.before, changed: make(map[Key]struct{}),
		defs: &definitions{rules: r, get: u.before, known: make(map[string]*definition)},
	}
	codes := make([]byte, len(txs))
	seen := make(map[string]struct{})
	for i, t := range txs {
		code, err := d.first(u, t)
		if err != nil {
			return nil, fmt.Errorf("transaction %d: %w", i, err)
		}
		if code == peer.TxValidationCode_VALID && t.id != "" {
			if _, ok := seen[t.id]; ok {
				code = peer.TxValidationCode_DUPLICATE_TXID
			}
			seen[t.id] = struct{}{}
		}
		codes[i] = byte(code)
	}
	return codes, nil
}

// first judges a transaction but for what others of its block do.
func (d *endorsed) first(u *updates, t *Tx) (Code, error) {
	switch {
	case t.form != peer.TxValidationCode_VALID && t.configures:
		// A Fabric peer goes on with the configuration before, but verifies blocks
		// by the one that it refused.
		return 0, fmt.Errorf("a configuration with code %v: %w", t.form, Unjudged)
	case t.form != peer.TxValidationCode_VALID || t.configures:
		return t.form, nil
	}
	dup, err := u.view.HasTx(t.id)
	switch {
	case err != nil:
		return 0, err
	case dup:
		return peer.TxValidationCode_DUPLICATE_TXID, nil
	case t.late != peer.TxValidationCode_VALID:
		return t.late, nil
	}
	return d.judge(t)
}

// configure writes a configuration into the state.
func (u *updates) configure(t *Tx, index uint64) {
	k := Key{Key: configKey}
	if len(t.config) == 0 {
		u.set(k, &Entry{Block: u.number, Tx: index})
		return
	}
	u.set(k, &Entry{Block: u.number, Tx: index, Value: t.config})
}

// settle lists the writes, and brings the sum from before the block to behind it.
func (u *updates) settle(sum *Sum) ([]Write, error) {
	writes := make([]Write, 0, len(u.written))
	for _, k := range u.sorted() {
		old, err := u.before(k)
		if err != nil {
			return nil, err
		}
		if old != nil {
			sum.remove(k, old)
		}
		w := Write{Key: k}
		if e := u.written[k]; e.Value != nil {
			sum.Add(k, e)
			w.Entry = e
		}
		if w.Entry != nil || old != nil {
			writes = append(writes, w)
		}
	}
	return writes, nil
}

// expire deletes what was to live until this block and wasn't written since, and
// schedules what the block wrote. It comes behind the commit hash, as in Fabric
// (core/ledger/kvledger/txmgmt/pvtstatepurgemgmt).
func expire(r *Rules, u *updates) ([]Expiry, error) {
	if u.number == 0 {
		return nil, nil
	}
	defs := &definitions{rules: r, get: u.before, known: make(map[string]*definition)}
	var schedule []Expiry
	for _, k := range u.sorted() {
		e := u.written[k]
		if k.Collection == "" || e.Value == nil {
			continue
		}
		def, err := defs.of(k.Namespace)
		if err != nil {
			return nil, err
		}
		if def == nil {
			continue
		}
		live := def.static(k.Collection).GetBlockToLive()
		if at := u.number + live + 1; live > 0 && at > u.number && at < math.MaxUint64 {
			schedule = append(schedule, Expiry{Key: k, At: at, Written: u.number})
		}
	}
	for x, err := range u.view.Expiring(u.number) {
		if err != nil {
			return nil, err
		}
		if _, ok := u.written[x.Key]; ok {
			continue
		}
		e, err := u.before(x.Key)
		if err != nil {
			return nil, err
		}
		if e != nil && e.Block == x.Written {
			u.set(x.Key, &Entry{Block: u.number, Tx: math.MaxUint64})
		}
	}
	return schedule, nil
}
