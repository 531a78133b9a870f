package memory

import (
	"crypto/sha256"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// Script returns the locking script with this SHA-256, for a service in front
// of the chain that is asked for scripts by their hash; false where no output
// ever had it.
func (c *Chain) Script(hash [32]byte) (bsv.Script, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.txs {
		for _, o := range e.tx.Outputs {
			if sha256.Sum256(o.Script) == hash {
				return append(bsv.Script(nil), o.Script...), true
			}
		}
	}
	return nil, false
}
