package node_test

import (
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

func TestConformanceBsvd(t *testing.T) {
	n := regnode.ForTest(t)
	b, err := node.Dial(n.URL(), node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	chaintest.Run(t, chaintest.Harness{
		Backend: b,
		Mine: func(t testing.TB, blocks int) {
			t.Helper()
			if err := n.Mine(t.Context(), blocks); err != nil {
				t.Fatal(err)
			}
		},
		Fund: func(t testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			t.Helper()
			coin, err := n.Fund(t.Context(), script, value)
			if err != nil {
				t.Fatal(err)
			}
			return coin
		},
		Reorganise: func(t testing.TB, depth int) {
			t.Helper()
			if err := n.Reorganise(t.Context(), depth, regnode.ToMempool); err != nil {
				t.Fatal(err)
			}
		},
		Stop: func(t testing.TB) {
			if err := n.Stop(); err != nil {
				t.Fatal(err)
			}
		},
	})
}
