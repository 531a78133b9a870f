package chain_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

func TestHash(t *testing.T) {
	const first = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
	h, err := chain.ParseHash(first)
	if err != nil || h.String() != first || h[31] != 0 || h[0] != 0x6f {
		t.Fatalf("%s, %v", h, err)
	}
	for _, text := range []string{"", first[1:], first + "0", strings.Repeat("x", 64)} {
		if _, err := chain.ParseHash(text); !errors.Is(err, chain.ErrHash) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestConfirmations(t *testing.T) {
	mined := chain.Status{State: chain.Mined, Height: 100}
	for tip, want := range map[uint32]uint32{99: 0, 100: 1, 243: 144} {
		if got := mined.Confirmations(tip); got != want {
			t.Errorf("tip %d: %d, want %d", tip, got, want)
		}
	}
	if got := (chain.Status{State: chain.Seen}).Confirmations(5); got != 0 {
		t.Errorf("seen: %d", got)
	}
	coinbase := chain.Coin{Coinbase: true, Height: 1}
	for tip, want := range map[uint32]bool{0: false, 99: false, 100: true} {
		if coinbase.Mature(tip) != want {
			t.Errorf("coinbase of block 1 at tip %d: want %v", tip, want)
		}
	}
	if !(chain.Coin{}).Mature(0) {
		t.Error("an ordinary coin is not mature")
	}
}

func TestCompare(t *testing.T) {
	at := func(height uint32, id byte, index uint32) chain.Coin {
		return chain.Coin{Coin: bsv.Coin{Outpoint: bsv.Outpoint{Txid: bsv.Txid{id}, Index: index}}, Height: height}
	}
	want := []chain.Coin{at(5, 9, 0), at(7, 1, 0), at(7, 1, 1), at(7, 2, 0), at(0, 0, 0), at(0, 1, 0)}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, chain.Compare)
	if !slices.EqualFunc(got, want, func(a, b chain.Coin) bool { return chain.Compare(a, b) == 0 }) {
		t.Errorf("%v", got)
	}
}

func TestRejected(t *testing.T) {
	err := chain.Reject(chain.LowFee, strings.Repeat("x", 1000))
	if len(err.Text) != chain.MaxRejectText || err.Reason.Final() || !chain.DoubleSpend.Final() {
		t.Error(err)
	}
}
