package chain_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
)

// The first block of the main network.
const genesisHex = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"

func blockHash(t *testing.T, text string) chain.Hash {
	t.Helper()
	h, err := chain.ParseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// block100000 is the block of that height of the main network.
func block100000(t *testing.T) chain.Header {
	return chain.Header{
		Height:     100_000,
		Hash:       blockHash(t, "000000000003ba27aa200b1cecaad478d2b00432346c3f1f3986da1afd33e506"),
		Prev:       blockHash(t, "000000000002d01c1fccc21636b607dfd930d31d01c3a62104612a1719011250"),
		MerkleRoot: blockHash(t, "f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766"),
		Time:       time.Unix(1293623863, 0).UTC(),
		Version:    1,
		Bits:       0x1b04864c,
		Nonce:      274148111,
	}
}

func TestHeader(t *testing.T) {
	raw, err := hex.DecodeString(genesisHex)
	if err != nil {
		t.Fatal(err)
	}
	h, err := chain.ParseHeader(raw, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := chain.Header{
		Hash:       blockHash(t, "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
		MerkleRoot: blockHash(t, "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"),
		Time:       time.Date(2009, 1, 3, 18, 15, 5, 0, time.UTC),
		Version:    1, Bits: 0x1d00ffff, Nonce: 2083236893,
	}
	if h != want || h.CheckHash() != nil || !bytes.Equal(h.Bytes(), raw) {
		t.Fatalf("%v; want %v", h, want)
	}
	if err := block100000(t).CheckHash(); err != nil {
		t.Error(err)
	}
	if h, err = chain.ParseHeader(block100000(t).Bytes(), 100_000); err != nil || h != block100000(t) {
		t.Error(h, err)
	}
	// Every bit of it counts.
	for i := range 8 * len(raw) {
		other := bytes.Clone(raw)
		other[i/8] ^= 1 << (i % 8)
		h, err := chain.ParseHeader(other, 0)
		if err != nil || h.CheckHash() != nil || !bytes.Equal(h.Bytes(), other) || h.Hash == want.Hash {
			t.Fatalf("bit %d: %v, %v", i, h, err)
		}
		h.Hash = want.Hash
		if err := h.CheckHash(); !errors.Is(err, chain.ErrHeader) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
	for _, wrong := range []time.Time{want.Time.Add(1 << 32 * time.Second), want.Time.Add(time.Millisecond), want.Time.Add(-1 << 32 * time.Second)} {
		h := want
		h.Time = wrong
		if err := h.CheckHash(); !errors.Is(err, chain.ErrHeader) {
			t.Errorf("time %s: %v", wrong, err)
		}
	}
	for _, n := range []int{0, 79, 81} {
		if _, err := chain.ParseHeader(make([]byte, n), 0); !errors.Is(err, chain.ErrHeader) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
