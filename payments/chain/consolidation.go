package chain

import (
	"context"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// Consolidation is when a miner takes a transaction without a fee because it
// joins many coins in few. The zero value is never.
//
// It is what bitcoin-sv knows by the settings minconsolidationfactor,
// minconsolidationinputmaturity and maxconsolidationinputscriptsize: a
// transaction has at least Factor times as many inputs as outputs, the locking
// scripts that it spends have at least Factor times the bytes of those that it
// makes, every input has at least Confirmations blocks and an unlocking script
// of at most MaxScript bytes. All else that is wanted of the scripts a P2PKH
// meets.
type Consolidation struct {
	Factor        int
	Confirmations uint32 // blocks, that of the coin included; 0 takes coins of the mempool too
	MaxScript     int    // bytes
}

// Consolidator is a backend that tells the rule for free consolidations.
type Consolidator interface {
	// Consolidation returns the rule as it is now, or ErrUnsupported where the
	// service has none that it tells.
	Consolidation(ctx context.Context) (Consolidation, error)
}

// unlockSize is the largest unlocking script of a P2PKH output in bytes.
const unlockSize = bsv.P2PKHInputSize - bsv.OutpointSize - 1 - 4

// Free reports whether a transaction that spends coins, all P2PKH, for this
// number of P2PKH outputs costs nothing in the block after tip.
func (c Consolidation) Free(coins []Coin, outputs int, tip uint32) bool {
	if c.Factor <= 0 || outputs <= 0 || len(coins) < c.Factor*outputs || unlockSize > c.MaxScript {
		return false
	}
	for _, coin := range coins {
		if !c.Mature(coin.Height, tip) {
			return false
		}
	}
	return true
}

// Mature reports whether a coin of the block at height, 0 for one of the
// mempool, may be an input of a free consolidation in the block after tip.
func (c Consolidation) Mature(height, tip uint32) bool {
	if c.Confirmations == 0 {
		return true
	}
	return height > 0 && height <= tip && tip-height+1 >= c.Confirmations
}
