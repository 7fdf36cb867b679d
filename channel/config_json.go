package channel

import (
	"bytes"
	"fmt"

	"github.com/hyperledger/fabric-config/protolator"
	"github.com/hyperledger/fabric-config/protolator/protoext"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"
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

// ParseJSON reads a configuration that [Config.JSON], or configtxlator, has
// printed, and that may have been edited since.
func ParseJSON(text []byte) (*common.Config, error) {
	c := &common.Config{}
	if err := protolator.DeepUnmarshalJSON(bytes.NewReader(text), protoext.Decorate(c)); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return c, nil
}

// Content returns a copy of the configuration as the channel's block holds it.
func (c *Config) Content() *common.Config { return proto.CloneOf(c.content) }
