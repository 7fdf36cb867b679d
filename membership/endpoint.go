package membership

import (
	"fmt"
	"slices"

	ma "github.com/multiformats/go-multiaddr"

	"grapevine/wire"
)

// readEndpoint refuses what nobody can dial; see [wire.ParseEndpoint]. Without
// loopback, neither is an endpoint taken that is the speaker's own machine's: a
// relay that stands there too may know better, so passing it on is no offence.
func readEndpoint(raw [][]byte, loopback bool) ([]ma.Multiaddr, error) {
	addrs, err := wire.DecodeEndpoint(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", BadEndpoint, err)
	}
	if !loopback && slices.ContainsFunc(addrs, wire.OnlyHere) {
		return nil, fmt.Errorf("endpoint %s: %w", wire.FormatEndpoint(addrs), LoopbackEndpoint)
	}
	return addrs, nil
}
