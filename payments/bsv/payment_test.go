package bsv

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/bitcdn/bitcdn/payments/money"
)

// checkBuilt verifies a built transaction: signatures, money in and out, and
// that the fee covers the real size.
func checkBuilt(t *testing.T, tx *Tx, coins []Coin, paid money.Satoshis, rate money.FeeRate) {
	t.Helper()
	ok(t, VerifyInputs(tx, outputsOf(coins)))
	fee, err := feeOf(tx, outputsOf(coins))
	ok(t, err)
	if fee != paid || fee < rate.Fee(tx.Size()) {
		t.Fatalf("fee of %d, said to be %d, for %d bytes at %s", fee, paid, tx.Size(), rate)
	}
	worst := PaymentSize(len(tx.Inputs), tx.Outputs...)
	if size := tx.Size(); size > worst || size < worst-4*len(tx.Inputs) {
		t.Fatalf("%d bytes, at most %d expected", size, worst)
	}
	if tx.Version != 1 || !tx.FinalAt(1) {
		t.Fatalf("version %d, lock time %d", tx.Version, tx.LockTime)
	}
}

func TestBuildPayment(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	k := testKey(t, 7)
	for range 40 {
		rate := money.FeeRate(random.IntN(500))
		values := make([]money.Satoshis, 1+random.IntN(5))
		for i := range values {
			values[i] = 1 + money.Satoshis(random.Int64N(100_000))
		}
		coins, keys := testCoins(k, values...)
		have, err := money.Sum(values...)
		ok(t, err)
		outs := []Output{{Value: 1 + money.Satoshis(random.Int64N(int64(have))), Script: P2PKH(Hash160{1})}}
		tx, paid, err := BuildPayment(coins, keys, outs, Hash160{2}, rate)
		if need := outs[0].Value + rate.Fee(PaymentSize(len(coins), outs...)); need > have {
			wantErr(t, err, ErrFunds)
			var funds *FundsError
			if !errors.As(err, &funds) || funds.Missing != need-have {
				t.Fatalf("%v, want %d missing", err, need-have)
			}
			continue
		}
		ok(t, err)
		checkBuilt(t, tx, coins, paid, rate)
	}
}

// The change appears at exactly one satoshi.
func TestChangeOfOneSatoshi(t *testing.T) {
	k := testKey(t, 7)
	coins, keys := testCoins(k, 10_000)
	out := Output{Script: P2PKH(Hash160{1})}
	with := money.FeeRate(100).Fee(PaymentSize(1, out, out))
	for change, outputs := range map[money.Satoshis]int{0: 1, 1: 2, 2: 2} {
		out.Value = 10_000 - with - change
		tx, paid, err := BuildPayment(coins, keys, []Output{out}, Hash160{2}, 100)
		ok(t, err)
		checkBuilt(t, tx, coins, paid, 100)
		if len(tx.Outputs) != outputs {
			t.Errorf("change of %d: %d outputs", change, len(tx.Outputs))
		}
		if outputs == 2 && (tx.Outputs[1].Value != change || !tx.Outputs[1].Script.Equal(P2PKH(Hash160{2}))) {
			t.Errorf("change is %v", tx.Outputs[1])
		}
	}
}

// A funding with one channel and change is 272 bytes at most, each further
// channel 80 more.
func TestFundingSize(t *testing.T) {
	c, _, _ := testChannel(t)
	k := testKey(t, 7)
	coins, keys := testCoins(k, 100_000)
	outs := []Output{c.funding()}
	for n, want := range []int{272, 352} {
		tx, paid, err := BuildPayment(coins, keys, outs, Hash160{2}, 100)
		ok(t, err)
		checkBuilt(t, tx, coins, paid, 100)
		if worst := PaymentSize(1, tx.Outputs...); worst != want || len(c.Lock()) != 71 || ChannelOutputSize != 80 {
			t.Errorf("%d channels: %d bytes", n+1, worst)
		}
		outs = append(outs, c.funding())
	}
}

func TestBuildSweep(t *testing.T) {
	k := testKey(t, 7)
	values := make([]money.Satoshis, 200)
	for i := range values {
		values[i] = money.Satoshis(100 + i)
	}
	coins, keys := testCoins(k, values...)
	tx, paid, err := BuildSweep(coins, keys, Hash160{1}, 100)
	ok(t, err)
	checkBuilt(t, tx, coins, paid, 100)
	if P2PKHInputSize != 148 || len(tx.Outputs) != 1 {
		t.Errorf("%d bytes an input, %d outputs", P2PKHInputSize, len(tx.Outputs))
	}
	coins, keys = testCoins(k, 20)
	_, _, err = BuildSweep(coins, keys, Hash160{1}, 100)
	wantErr(t, err, ErrFunds)
	coins, keys = testCoins(k, 21)
	tx, paid, err = BuildSweep(coins, keys, Hash160{1}, 100)
	ok(t, err)
	checkBuilt(t, tx, coins, paid, 100)
}

func TestBuildRefuses(t *testing.T) {
	k := testKey(t, 7)
	coins, keys := testCoins(k, 1000, 1000)
	out := []Output{{Value: 10, Script: P2PKH(Hash160{1})}}
	change := Hash160{2}
	build := func(coins []Coin, keys []PrivateKey, outs []Output, change Hash160) error {
		_, _, err := BuildPayment(coins, keys, outs, change, 100)
		return err
	}
	wantErr(t, build(nil, nil, out, change), ErrFunds)
	wantErr(t, build(coins, keys[:1], out, change), ErrInputs)
	wantErr(t, build([]Coin{coins[0], coins[0]}, keys, out, change), ErrInputs)
	wantErr(t, build(coins, []PrivateKey{k, testKey(t, 8)}, out, change), ErrKey)
	wantErr(t, build(coins, []PrivateKey{k, {}}, out, change), ErrKey)
	wantErr(t, build(coins, keys, nil, change), ErrTemplate)
	wantErr(t, build(coins, keys, out, Hash160{}), ErrTemplate)
	wantErr(t, build(coins, keys, []Output{{Value: 10}}, change), ErrTemplate)
	wantErr(t, build(coins, keys, []Output{{Value: 0, Script: out[0].Script}}, change), ErrValue)
	wantErr(t, build(coins, keys, []Output{{Value: -1, Script: out[0].Script}}, change), ErrValue)
	wantErr(t, build(coins, keys, []Output{{Value: money.MaxSatoshis, Script: out[0].Script}, out[0]}, change), ErrValue)
	c, _, _ := testChannel(t)
	wantErr(t, build([]Coin{{Output: c.funding()}}, keys[:1], out, change), ErrTemplate)
	rich, keys := testCoins(k, money.MaxSatoshis, 1)
	wantErr(t, build(rich, keys, out, change), money.ErrRange)
	wantErr(t, SignP2PKH(&Tx{}, 0, coins[0].Output, k), ErrInputs)
	wantErr(t, SignP2PKH(&Tx{Inputs: make([]Input, 1)}, -1, coins[0].Output, k), ErrInputs)
}
