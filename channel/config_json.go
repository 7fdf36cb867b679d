package channel

import (
	"bytes"
	"fmt"

	"github.com/hyperledger/fabric-config/protolator"
	"google.golang.org/protobuf/proto"

	"github.com/hyperledger/fabric-config/protolator/protoext"
)

// JSON returns the configuration as Fabric's configtxlator prints a
// common.Config: opaque bytes opened where their type is known.
func (c *Config) JSON() ([]byte, error) {
	var out bytes.Buffer
	// The printer wraps what it is given, so it gets a copy.
	if err := protolator.DeepMarshalJSON(&out, protoext.Decorate(proto.CloneOf(c.content))); err != nil {
		return nil, fmt.Errorf("print configuration of channel %q: %w", c.name, err)
	}
	return out.Bytes(), nil
}
