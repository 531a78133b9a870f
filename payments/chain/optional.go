package chain

import (
	"context"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// What follows is answered by some backends only. A backend that wraps others
// has the methods and returns ErrUnsupported where none of those does.

// BulkUnspent is a backend that answers Unspent for many scripts at less cost
// than one by one: a wallet that is restored asks for thousands.
type BulkUnspent interface {
	// UnspentBulk returns what Unspent does, for each of the scripts in their
	// order.
	UnspentBulk(ctx context.Context, scripts []bsv.Script) ([][]Coin, error)
}

// HeaderRange is a backend that hands out many headers at once.
type HeaderRange interface {
	// Headers returns the headers of the best chain from this height on, in
	// their order: at most n, fewer where the tip or the service's own limit
	// comes first, and at least one; ErrNotFound where from is above the tip.
	// They link to one another.
	Headers(ctx context.Context, from uint32, n int) ([]Header, error)
}

// Prover is a backend that proves where transactions are mined.
type Prover interface {
	// Proof returns the path from a transaction to its block, or ErrNotFound
	// where the service knows no block with it.
	Proof(ctx context.Context, txid bsv.Txid) (*Proof, error)
}
