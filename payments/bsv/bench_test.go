package bsv

import (
	"testing"

	"github.com/bitcdn/bitcdn/payments/money"
)

// What a payer does for each payment.
func BenchmarkSignCommitment(b *testing.B) {
	c, payer, _ := testChannel(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.SignCommitment(payer, money.Satoshis(1000+i%10_000), royalty(50)); err != nil {
			b.Fatal(err)
		}
	}
}

// What a payee does for each payment.
func BenchmarkCheckCommitment(b *testing.B) {
	c, payer, _ := testChannel(b)
	sig, err := c.SignCommitment(payer, 1000, royalty(50))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.CheckCommitment(c.Payer, 1000, royalty(50), sig); err != nil {
			b.Fatal(err)
		}
	}
}

// The part of both that is not the curve's arithmetic.
func BenchmarkCommitmentDigest(b *testing.B) {
	c, _, _ := testChannel(b)
	b.ReportAllocs()
	for b.Loop() {
		t, err := c.Commitment(1000, royalty(50))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := t.SignatureHash(0, c.funding()); err != nil {
			b.Fatal(err)
		}
	}
}

// What a payer's peer can make a payee do with its largest funding.
func BenchmarkCheckFundingOfMaxInputs(b *testing.B) {
	c, _, _ := testChannel(b)
	k := testKey(b, 7)
	values := make([]money.Satoshis, MaxFundingInputs-1)
	for i := range values {
		values[i] = 1000
	}
	coins, keys := testCoins(k, values...)
	outs := []Output{c.funding()}
	for len(outs) < MaxFundingOutputs-1 {
		outs = append(outs, Output{Value: 1, Script: P2PKH(Hash160{1})})
	}
	tx, _, err := BuildPayment(coins, keys, outs, Hash160{1}, 100)
	if err != nil {
		b.Fatal(err)
	}
	c.Funding = Outpoint{Txid: tx.Txid()}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.CheckFunding(tx, outputsOf(coins), 100, 200); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseTx(b *testing.B) {
	raw := sampleTx().Bytes()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseTx(raw, 1000); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeriveKey(b *testing.B) {
	master, err := NewMaster(make([]byte, 64))
	if err != nil {
		b.Fatal(err)
	}
	branch, err := master.Branch("44'/236'/0'/0")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := branch.Derive("5"); err != nil {
			b.Fatal(err)
		}
	}
}
