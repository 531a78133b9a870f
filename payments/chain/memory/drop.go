package memory

import "github.com/bitcdn/bitcdn/payments/bsv"

// Drop takes an unconfirmed transaction and all that build on it out of the
// mempool, as nodes do that start anew or have no room. It can be broadcast
// again.
func (c *Chain) Drop(txid bsv.Txid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.txs[txid]; e != nil && !e.mined {
		c.evict(txid)
		c.announce()
	}
}
