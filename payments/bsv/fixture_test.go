package bsv

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"testing"

	"github.com/bitcdn/bitcdn/payments/money"
)

// testKey is the private key whose 32 bytes are all fill.
func testKey(t testing.TB, fill byte) PrivateKey {
	t.Helper()
	k, err := NewPrivateKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testChannel is a channel of 20,000 satoshis.
func testChannel(t testing.TB) (c Channel, payer, payee PrivateKey) {
	t.Helper()
	payer, payee = testKey(t, 0x22), testKey(t, 0x33)
	return Channel{
		Payer: payer.Public(), Payee: payee.Public(),
		Funding:      Outpoint{Txid: Txid(bytes.Repeat([]byte{0xab}, 32)), Index: 1},
		Capacity:     20_000,
		PayerHash:    testKey(t, 0x44).Public().Hash(),
		PayeeHash:    testKey(t, 0x55).Public().Hash(),
		RefundHeight: 1109, FeeRate: 100,
	}, payer, payee
}

// royalty pays one creator.
func royalty(amount money.Satoshis) []Royalty { return []Royalty{{To: Hash160{0x66}, Amount: amount}} }

// testCoins are coins of one key, of the given values.
func testCoins(k PrivateKey, values ...money.Satoshis) (coins []Coin, keys []PrivateKey) {
	for i, v := range values {
		coins = append(coins, Coin{
			Outpoint: Outpoint{Txid: Txid(bytes.Repeat([]byte{byte(i + 1)}, 32)), Index: uint32(i)},
			Output:   Output{Value: v, Script: P2PKH(k.Public().Hash())},
		})
		keys = append(keys, k)
	}
	return coins, keys
}

func outputsOf(coins []Coin) []Output {
	outs := make([]Output, len(coins))
	for i := range coins {
		outs[i] = coins[i].Output
	}
	return outs
}

func fromHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// failer is what a test and a property have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func ok(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t failer, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// allocated is how many bytes call allocates in all, whether kept or not.
func allocated(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// panics reports whether call panics in a way that can be recovered from.
func panics(call func()) (did bool) {
	defer func() { did = recover() != nil }()
	call()
	return false
}
