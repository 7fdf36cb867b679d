package orderer

import (
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
)

// Admit judges an envelope without ordering it.
func (c *Chain) Admit(env *common.Envelope) error {
	_, err := c.admit(env, time.Now())
	return err
}

// StatusOf is what a client is told of a refusal.
func StatusOf(err error) common.Status {
	st, _ := statusOf(err)
	return st
}

// Snapshot takes a snapshot now.
func (c *Chain) Snapshot() error { return c.raft.Load().Snapshot().Error() }
