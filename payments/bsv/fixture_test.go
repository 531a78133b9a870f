package bsv

import (
	"bytes"
	"testing"
)

func testKey(t testing.TB, fill byte) PrivateKey {
	t.Helper()
	k, err := NewPrivateKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testChannel is a channel of 20,000 satoshis with a creator.
func testChannel(t testing.TB) (c Channel, payer, payee PrivateKey) {
	t.Helper()
	payer, payee = testKey(t, 0x22), testKey(t, 0x33)
	return Channel{
		Payer: payer.Public(), Payee: payee.Public(),
		Funding:   Outpoint{Txid: Txid(bytes.Repeat([]byte{0xab}, 32)), Index: 1},
		Capacity:  20_000,
		PayerHash: testKey(t, 0x44).Public().Hash(), PayeeHash: testKey(t, 0x55).Public().Hash(),
		CreatorHash:  testKey(t, 0x66).Public().Hash(),
		RefundHeight: 1109, FeeRate: 100,
	}, payer, payee
}
