package msp

import (
	"fmt"
	"slices"
)

// A Directory holds the definitions in force, by MSP ID. It is treated as
// immutable.
type Directory map[string]*MSP

// Identify reads the creator of a header as the ledger judge does and finds its
// MSP. It asks neither for the identity's validity nor for a signature.
func (d Directory) Identify(creator []byte) (*Identity, *MSP, error) {
	id, err := Deserialize(creator)
	if err != nil {
		return nil, nil, err
	}
	m, ok := d[id.mspID]
	if !ok {
		return nil, nil, fmt.Errorf("identity of MSP %q: %w", id.mspID, UnknownMSP)
	}
	return id, m, nil
}

// CheckRoots refuses, as [SharedRoot], a directory in which two MSPs trust one
// CA and list no different organisational units to tell their members apart: a
// certificate of the one could be shown as the other's.
func (d Directory) CheckRoots() error {
	names := make([]string, 0, len(d))
	for n := range d {
		names = append(names, n)
	}
	slices.Sort(names)
	for i, a := range names {
		for _, b := range names[:i] {
			if shareRoot(d[a], d[b]) && !apart(d[a], d[b]) {
				return fmt.Errorf("MSPs %s and %s trust one CA and list no organisational units that differ: %w", b, a, SharedRoot)
			}
		}
	}
	return nil
}

func shareRoot(a, b *MSP) bool {
	for _, x := range a.cas() {
		for _, y := range b.cas() {
			if sameKey(x, y) && !a.inner[string(x.Raw)] && !b.inner[string(y.Raw)] {
				return true // it issues members of both
			}
		}
	}
	return false
}

func apart(a, b *MSP) bool {
	for _, x := range a.units {
		for _, y := range b.units {
			if x.name == y.name && sameKey(x.ca, y.ca) {
				return false
			}
		}
	}
	return len(a.units) > 0 && len(b.units) > 0
}
