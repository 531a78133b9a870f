package paylink

import (
	"sync"

	"github.com/bitcdn/bitcdn/payments/wire"
)

// claims says who steps each channel: a channel has one owner at a time. The
// zero value is ready.
type claims[T comparable] struct {
	mu     sync.Mutex
	owners map[wire.ChannelID]T
}

// claim makes owner the one who steps a channel, or says that another one is.
func (c *claims[T]) claim(id wire.ChannelID, owner T) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.owners[id]; taken {
		return false
	}
	if c.owners == nil {
		c.owners = make(map[wire.ChannelID]T)
	}
	c.owners[id] = owner
	return true
}

// release ends what claim began, if owner is the one.
func (c *claims[T]) release(id wire.ChannelID, owner T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owners[id] == owner {
		delete(c.owners, id)
	}
}

// owner is who steps a channel, or zero.
func (c *claims[T]) owner(id wire.ChannelID) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owners[id]
}
