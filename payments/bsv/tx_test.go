package bsv

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/money"
)

func sampleTx() *Tx {
	return &Tx{
		Version: 1,
		Inputs: []Input{
			{Prev: Outpoint{Txid: Txid{1}, Index: 7}, Script: Script{1, 2, 3}, Sequence: FinalSequence},
			{Prev: Outpoint{Txid: Txid{2}, Index: math.MaxUint32}, Sequence: 0},
		},
		Outputs:  []Output{{Value: money.MaxSatoshis - 1, Script: P2PKH(Hash160{9})}, {Value: 1}},
		LockTime: 1109,
	}
}

func TestTxRoundTrip(t *testing.T) {
	for _, script := range []int{0, 1, 0xfc, 0xfd, 0xffff, 0x10000} {
		tx := sampleTx()
		tx.Inputs[1].Script = make(Script, script)
		b := tx.Bytes()
		if len(b) != tx.Size() {
			t.Errorf("script of %d: %d bytes, Size says %d", script, len(b), tx.Size())
		}
		got, err := ParseTx(b, len(b))
		ok(t, err)
		if !bytes.Equal(got.Bytes(), b) || got.Txid() != tx.Txid() {
			t.Errorf("script of %d: changed by being read", script)
		}
		_, err = ParseTx(b, len(b)-1)
		wantErr(t, err, ErrTxSize)
	}
}

// Writing behind a script of a parsed transaction leaves the rest alone, and so
// does writing into the bytes that it was parsed from.
func TestParsedScriptsAreApart(t *testing.T) {
	b := sampleTx().Bytes()
	want := bytes.Clone(b)
	tx, err := ParseTx(b, len(b))
	ok(t, err)
	clear(b)
	_ = append(tx.Inputs[0].Script, 0xff, 0xff, 0xff, 0xff)
	if !bytes.Equal(tx.Bytes(), want) {
		t.Error("the transaction shares its bytes")
	}
}

func TestParseTxRefuses(t *testing.T) {
	good := sampleTx().Bytes()
	for n := range good {
		_, err := ParseTx(good[:n], 1000)
		wantErr(t, err, ErrTxSyntax)
	}
	_, err := ParseTx(append(bytes.Clone(good), 0), 1000)
	wantErr(t, err, ErrTxSyntax)

	for name, change := range map[string]func(*Tx){
		"no inputs":       func(tx *Tx) { tx.Inputs = nil },
		"no outputs":      func(tx *Tx) { tx.Outputs = nil },
		"negative amount": func(tx *Tx) { tx.Outputs[0].Value = -1 },
		"amount too high": func(tx *Tx) { tx.Outputs[0].Value = money.MaxSatoshis + 1 },
		"sum too high":    func(tx *Tx) { tx.Outputs[1].Value = 2 },
	} {
		tx := sampleTx()
		change(tx)
		if _, err := ParseTx(tx.Bytes(), 1000); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			wantErr(t, err, ErrTxSyntax)
		}
	}
	// The same transaction with the number of inputs in a longer form.
	for _, count := range [][]byte{{0xfd, 2, 0}, {0xfe, 2, 0, 0, 0}, {0xff, 2, 0, 0, 0, 0, 0, 0, 0}} {
		b := append(append(bytes.Clone(good[:4]), count...), good[5:]...)
		_, err := ParseTx(b, 1000)
		wantErr(t, err, ErrTxSyntax)
	}
}

func TestFinalAt(t *testing.T) {
	for _, v := range []struct {
		lockTime, sequence, next uint32
		want                     bool
	}{
		{0, 0, 1, true},
		{100, 0, 100, false},
		{100, 0, 101, true},
		{100, FinalSequence, 1, true},
		{lockTimeThreshold - 1, 0, math.MaxUint32, true},
		{lockTimeThreshold, 0, math.MaxUint32, false}, // seconds
		{math.MaxUint32, FinalSequence, 1, true},
	} {
		tx := &Tx{LockTime: v.lockTime, Inputs: []Input{{Sequence: FinalSequence}, {Sequence: v.sequence}}}
		if got := tx.FinalAt(v.next); got != v.want {
			t.Errorf("lock time %d, sequence %x, next block %d: %v", v.lockTime, v.sequence, v.next, got)
		}
	}
}

func TestTexts(t *testing.T) {
	const id = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
	txid, err := ParseTxid(id)
	ok(t, err)
	if txid[0] != 0x3b || txid.String() != id || txid.IsZero() {
		t.Errorf("%x is %s", txid[:], txid)
	}
	o, err := ParseOutpoint(id + ":7")
	ok(t, err)
	if o != (Outpoint{Txid: txid, Index: 7}) || o.String() != id+":7" || OutpointFromBytes(o.Bytes()) != o {
		t.Errorf("outpoint %v", o)
	}
	if b := o.Bytes(); b[0] != 0x3b || b[32] != 7 || b[35] != 0 {
		t.Errorf("outpoint as %x", b)
	}
	type record struct {
		T Txid
		O Outpoint
		N Network
	}
	text, err := json.Marshal(record{txid, o, Regtest})
	ok(t, err)
	var back record
	ok(t, json.Unmarshal(text, &back))
	if back != (record{txid, o, Regtest}) {
		t.Errorf("%s became %+v", text, back)
	}
	for _, bad := range []string{"", id[1:], id + "0", "x" + id[1:]} {
		_, err := ParseTxid(bad)
		wantErr(t, err, ErrTxid)
		_, err = ParseOutpoint(bad + ":0")
		wantErr(t, err, ErrOutpoint)
	}
	for _, bad := range []string{"", ":", id, id + ":", id + ":-1", id + ":+1", id + ":01", id + ":4294967296", id + ":99999999999", id + ":0:0"} {
		_, err := ParseOutpoint(bad)
		wantErr(t, err, ErrOutpoint)
	}
	for _, n := range []Network{Main, Test, Regtest} {
		got, err := ParseNetwork(n.String())
		ok(t, err)
		if got != n {
			t.Errorf("%s is %s", n, got)
		}
	}
	for _, bad := range []string{"", "MAIN", "mainnet", strings.Repeat("x", 1000)} {
		_, err := ParseNetwork(bad)
		wantErr(t, err, ErrNetwork)
	}
}

func TestParseAddressSaysWhy(t *testing.T) {
	hash := testKey(t, 7).Public().Hash()
	good := hash.Address(Regtest)
	for _, v := range []struct {
		text string
		want error
		says string
	}{
		{"", ErrAddressSyntax, "empty"},
		{"  ", ErrAddressSyntax, "empty"},
		{good[:10] + "0" + good[11:], ErrAddressSyntax, "character 11"},
		{good[:10] + "é" + good[11:], ErrAddressSyntax, "character 11"},
		{good[4:], ErrAddressSyntax, "long or too short"},
		{good + "111", ErrAddressSyntax, "long or too short"},
		{strings.Repeat("1", 41), ErrAddressSyntax, "41 characters"},
		{hash.Address(Main), ErrAddressNetwork, "it is for main, not regtest"},
		{"3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", ErrAddressKind, "P2SH"},
		{"somebody@example.com", ErrAddressKind, "paymail"},
		{"bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a", ErrAddressKind, "prefix"},
	} {
		_, err := ParseAddress(v.text, Regtest)
		wantErr(t, err, v.want)
		if !strings.Contains(err.Error(), v.says) {
			t.Errorf("%q: %q does not say %q", v.text, err, v.says)
		}
	}
	_, err := ParseAddress(good, Main)
	wantErr(t, err, ErrAddressNetwork)
	if !strings.Contains(err.Error(), "test or regtest, not main") {
		t.Errorf("%q", err)
	}
	// A private key in the wrong field stays out of the message.
	const wif = "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn"
	if _, err = ParseAddress(wif, Main); err == nil || strings.Contains(err.Error(), wif[:8]) {
		t.Errorf("%v", err)
	}
	for _, n := range []Network{Test, Regtest} {
		got, err := ParseAddress(" "+good+"\n", n)
		ok(t, err)
		if got != hash {
			t.Errorf("%s on %s is %s", good, n, got)
		}
	}
}

// Any single mistyped character is noticed.
func TestEveryMistypedAddressIsRefused(t *testing.T) {
	good := testKey(t, 7).Public().Hash().Address(Main)
	const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	for i := range good {
		for _, c := range []byte(alphabet) {
			bad := []byte(good)
			bad[i] = c
			if _, err := ParseAddress(string(bad), Main); err == nil && string(bad) != good {
				t.Errorf("%s taken for %s", bad, good)
			}
		}
	}
}
