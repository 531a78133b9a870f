package chain

import (
	"context"
	"errors"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// BulkUsed is a Backend that knows the past of scripts: which ever were paid
// to, also where all of that is spent again. A wallet that is restored from its
// words needs it to tell a key that was emptied from one that was never used.
type BulkUsed interface {
	// UsedBulk reports for each script, in their order, whether a transaction
	// that is mined or in a mempool has ever paid to it. It takes any number of
	// scripts. ErrUnsupported where the service behind cannot tell.
	UsedBulk(ctx context.Context, scripts []bsv.Script) ([]bool, error)
}

// SpentBy is a Backend that can name what spends an output.
type SpentBy interface {
	// SpentBy is Spent, and the transaction that spends the output; the zero
	// txid where it cannot be told or where there is none. ErrUnsupported where
	// the service behind can never tell; then Spent still may.
	SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error)
}

// UnspentOf asks a backend for the unspent outputs of each script, in as few
// questions as it can.
func UnspentOf(ctx context.Context, b Backend, scripts []bsv.Script) ([][]Coin, error) {
	if bulk, ok := b.(BulkUnspent); ok {
		coins, err := bulk.UnspentBulk(ctx, scripts)
		if !errors.Is(err, ErrUnsupported) {
			return coins, err
		}
	}
	coins := make([][]Coin, len(scripts))
	for i, s := range scripts {
		var err error
		if coins[i], err = b.Unspent(ctx, s); err != nil {
			return nil, err
		}
	}
	return coins, nil
}

// UsedOf asks a backend which scripts were ever paid to; ErrUnsupported where it
// is no BulkUsed.
func UsedOf(ctx context.Context, b Backend, scripts []bsv.Script) ([]bool, error) {
	if bulk, ok := b.(BulkUsed); ok {
		return bulk.UsedBulk(ctx, scripts)
	}
	return nil, ErrUnsupported
}

// SpenderOf asks a backend whether an output is spent, and by what; the zero
// txid where it can only say that it is.
func SpenderOf(ctx context.Context, b Backend, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	if s, ok := b.(SpentBy); ok {
		by, spent, err = s.SpentBy(ctx, o)
		if !errors.Is(err, ErrUnsupported) {
			return by, spent, err
		}
	}
	spent, err = b.Spent(ctx, o)
	return bsv.Txid{}, spent, err
}
