package arc_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc"
	"github.com/bitcdn/bitcdn/payments/chain/arc/arcnode"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

// withIndex is a service with a node's answers where it has none of its own.
type withIndex struct {
	*arc.Backend
	node *node.Backend
}

func (w withIndex) Tip(ctx context.Context) (chain.Header, error) { return w.node.Tip(ctx) }

func (w withIndex) Header(ctx context.Context, height uint32) (chain.Header, error) {
	return w.node.Header(ctx, height)
}

func (w withIndex) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	return w.node.RawTx(ctx, txid)
}

func (w withIndex) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	return w.node.Unspent(ctx, script)
}

func (w withIndex) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	return w.node.Spent(ctx, o)
}

// height is what Options.Tip is in a running program: another backend's.
func height(n *regnode.Node) func(context.Context) (uint32, error) {
	return func(ctx context.Context) (uint32, error) {
		tip, err := n.Backend().Tip(ctx)
		return tip.Height, err
	}
}

// hasty is a clock by which every policy is too old, so that none is kept when
// the service has gone.
func hasty() func() time.Time {
	var days atomic.Int64
	return func() time.Time { return time.Unix(0, 0).AddDate(0, 0, int(2*days.Add(1))) }
}

func TestConformance(t *testing.T) {
	for _, dialect := range []arcnode.Dialect{arcnode.ARC, arcnode.Arcade} {
		t.Run(string(dialect), func(t *testing.T) {
			t.Parallel()
			n := regnode.ForTest(t)
			server := arcnode.ForTest(t, n, arcnode.Options{Dialect: dialect, Key: "open"})
			b, err := arc.Dial(server.URL(), arc.Options{Key: "open", Tip: height(n), Clock: hasty()})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			chaintest.Run(t, chaintest.Harness{
				Backend: withIndex{b, n.Backend()},
				Mine: func(t testing.TB, blocks int) {
					t.Helper()
					if err := n.Mine(t.Context(), blocks); err != nil {
						t.Fatal(err)
					}
				},
				// The service knows only what was sent to it.
				Fund: func(t testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
					t.Helper()
					tx, err := n.Send(t.Context(), bsv.Output{Value: value, Script: script})
					if err != nil {
						t.Fatal(err)
					}
					if err := b.Broadcast(t.Context(), tx, nil); err != nil {
						t.Fatal(err)
					}
					return bsv.Coin{Outpoint: bsv.Outpoint{Txid: tx.Txid()}, Output: tx.Outputs[0]}
				},
				Reorganise: func(t testing.TB, depth int) {
					t.Helper()
					if err := n.Reorganise(t.Context(), depth, regnode.ToMempool); err != nil {
						t.Fatal(err)
					}
				},
				Stop: func(t testing.TB) {
					server.Stop(t)
					if err := n.Stop(); err != nil {
						t.Fatal(err)
					}
				},
				RefusesLowFee: true,
				KeepsInvalid:  dialect == arcnode.Arcade,
			})
		})
	}
}
