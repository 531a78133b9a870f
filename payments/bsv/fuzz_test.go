package bsv

import (
	"bytes"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"github.com/libsv/go-bk/bec"
	"github.com/libsv/go-bt/v2"
)

// What ParseTx takes it gives back to the byte, within bounded memory, and the
// library then reads the same.
func FuzzParseTx(f *testing.F) {
	add := func(text string) {
		b, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(genesisTx)
	add(bip143Tx)
	f.Add(sampleTx().Bytes())
	f.Add([]byte{})
	f.Add(hostileTx(0xfe, 0, 0, 0, 0x20))
	f.Add(hostileTx(0xff, 0, 0, 0, 0, 0, 1, 0, 0))
	f.Add(hostileTx(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	f.Add((&Tx{LockTime: 0xef000000}).Bytes())
	k := testKey(f, 7)
	coins, keys := testCoins(k, 5000, 70_000)
	tx, _, err := BuildSweep(coins, keys, Hash160{1}, 100)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tx.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 12
		tx, err := ParseTx(b, limit)
		if err != nil {
			return
		}
		if len(b) > limit || !bytes.Equal(tx.Bytes(), b) || tx.Size() != len(b) {
			t.Fatalf("%x became %x", b, tx.Bytes())
		}
		lib, err := bt.NewTxFromBytes(b)
		if err != nil || lib.TxID() != tx.Txid().String() {
			t.Fatalf("the library reads %v, %v; want %s", lib, err, tx.Txid())
		}
		tx.FinalAt(1)
		prev := make([]Output, len(tx.Inputs))
		for i := range prev {
			prev[i] = Output{Value: 1, Script: P2PKH(Hash160{1})}
		}
		if err := VerifyInputs(tx, prev); err == nil {
			t.Fatalf("%x unlocks a hash without a key", b)
		}
		for _, out := range tx.Outputs {
			notTemplateOrExact(t, out.Script)
		}
	})
}

// notTemplateOrExact checks that what is taken for a template is rebuilt to the
// byte from what was read from it.
func notTemplateOrExact(t *testing.T, s Script) {
	if h, is := s.P2PKHHash(); is && !P2PKH(h).Equal(s) {
		t.Fatalf("%s taken for P2PKH", s)
	}
	if a, b, is := s.MultisigKeys(); is && !Multisig(a, b).Equal(s) {
		t.Fatalf("%s taken for a 2-of-2", s)
	}
}

// What ParseAddress takes is the one address of its hash.
func FuzzParseAddress(f *testing.F) {
	for _, text := range []string{
		"1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH", "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r", "1111111111111111111114oLvT2",
		"11111BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "", " ", "\x00", "é", "a@b", "bitcoin-script:",
		strings.Repeat("z", 40), strings.Repeat("1", 25),
	} {
		f.Add(text, uint8(Main))
		f.Add(text, uint8(Regtest))
	}
	f.Fuzz(func(t *testing.T, text string, n uint8) {
		net := Network(n % 3)
		h, err := ParseAddress(text, net)
		if err == nil && h.Address(net) != strings.TrimSpace(text) {
			t.Fatalf("%q taken for %s", text, h.Address(net))
		}
	})
}

// What CheckMnemonic takes it takes again unchanged, and the words come from an
// entropy that gives them.
func FuzzCheckMnemonic(f *testing.F) {
	for _, words := range []string{
		abandon, strings.ToUpper(abandon), strings.TrimSpace(strings.Repeat("abandon ", 12)), strings.Repeat("zzz ", 12),
		"legal winner thank year wave sausage worth useful legal winner thank yellow", strings.Repeat("zoo ", 23) + "vote",
		"", " ", "\xff", strings.Repeat("\u3000", 50), strings.Repeat("ſ ", 12),
	} {
		f.Add(words)
	}
	f.Fuzz(func(t *testing.T, words string) {
		once, err := CheckMnemonic(words)
		if err != nil {
			return
		}
		twice, err := CheckMnemonic(once)
		if err != nil || twice != once {
			t.Fatalf("%q became %q, %v", once, twice, err)
		}
		if n := len(strings.Fields(once)); n%3 != 0 || n < 12 || n > 24 {
			t.Fatalf("%d words", n)
		}
	})
}

// What VerifyDigest takes for a key is the one signature that the key makes, or
// at least one in the one form; with the wrong key nothing is taken.
func FuzzSignature(f *testing.F) {
	k := testKey(f, 7)
	d := [32]byte{1}
	sig, err := k.SignDigest(d)
	if err != nil {
		f.Fatal(err)
	}
	parsed, err := bec.ParseDERSignature(sig, bec.S256())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(sig))
	f.Add(append(bytes.Clone(sig), 0x41))
	f.Add(highS(parsed))
	f.Add(der(big.NewInt(1), big.NewInt(1)))
	f.Add(der(big.NewInt(0), bec.S256().N))
	f.Add([]byte{0x30, 0xfe, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, _ := testChannel(t)
		if err := c.CheckCommitment(c.Payer, 1, royalty(1), b); err == nil {
			t.Fatalf("%x signs a commitment", b)
		}
		if err := VerifyDigest(testKey(t, 8).Public(), d, b); err == nil {
			t.Fatalf("%x is a signature of another key", b)
		}
		if err := VerifyDigest(k.Public(), d, b); err == nil && !bytes.Equal(b, sig) {
			t.Fatalf("%x is taken beside %x", b, sig)
		}
		if s, err := parseDER(b); err == nil && !bytes.Equal(der(s.R, s.S), b) {
			t.Fatalf("%x is not strict", b)
		}
	})
}

// What ParsePublicKey takes is a point, in its one compressed form.
func FuzzParsePublicKey(f *testing.F) {
	k := testKey(f, 7)
	public := k.Public()
	f.Add(public[:])
	f.Add(k.key.PubKey().SerialiseHybrid())
	f.Add(k.key.PubKey().SerialiseUncompressed())
	f.Add(append([]byte{2}, new(big.Int).Add(bec.S256().P, big.NewInt(1)).Bytes()...))
	f.Add(append([]byte{3}, bytes.Repeat([]byte{5}, 32)...))
	f.Add(append([]byte{2}, bytes.Repeat([]byte{0}, 32)...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePublicKey(b)
		if err != nil {
			return
		}
		point, err := p.point()
		if err != nil || !bytes.Equal(p[:], b) {
			t.Fatalf("%x became %s, %v", b, p, err)
		}
		if !bec.S256().IsOnCurve(point.X, point.Y) || !bytes.Equal(point.SerialiseCompressed(), b) {
			t.Fatalf("%x is no point or has another form", b)
		}
	})
}
