package state

// A Tally adds up the entries of a state that is taken over whole. The zero value
// is the empty state's.
type Tally struct{ sum Sum }

// Add puts an entry in; each key comes once.
func (t *Tally) Add(k Key, e *Entry) { t.sum.Add(k, e) }

// Join adds what another tally counted.
func (t *Tally) Join(o *Tally) {
	for i, v := range o.sum {
		t.sum[i] += v
	}
}

// Mark is the state's mark behind the block with this commit hash.
func (t *Tally) Mark(commitHash []byte) *Mark { return &Mark{CommitHash: commitHash, Sum: t.sum} }
