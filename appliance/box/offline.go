package box

import (
	"context"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// offline is the chain of a box for which none is set: it never answers.
type offline struct{}

var errOffline = fmt.Errorf("no chain service is set: %w", chain.ErrUnavailable)

func (offline) Tip(context.Context) (chain.Header, error) { return chain.Header{}, errOffline }
func (offline) Header(context.Context, uint32) (chain.Header, error) {
	return chain.Header{}, errOffline
}
func (offline) FeeRate(context.Context) (money.FeeRate, error) { return 0, errOffline }
func (offline) Broadcast(context.Context, *bsv.Tx, []bsv.Output) error {
	return errOffline
}
func (offline) Status(context.Context, bsv.Txid) (chain.Status, error) {
	return chain.Status{}, errOffline
}
func (offline) RawTx(context.Context, bsv.Txid) (*bsv.Tx, error) { return nil, errOffline }
func (offline) Unspent(context.Context, bsv.Script) ([]chain.Coin, error) {
	return nil, errOffline
}
func (offline) Spent(context.Context, bsv.Outpoint) (bool, error) { return false, errOffline }
