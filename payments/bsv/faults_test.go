package bsv

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/libsv/go-bk/bec"
	"github.com/libsv/go-bk/bip32"
	"github.com/libsv/go-bk/bip39"
	"github.com/libsv/go-bk/chaincfg"
	"github.com/libsv/go-bt/v2"
	"github.com/libsv/go-bt/v2/bscript"
	"github.com/libsv/go-bt/v2/bscript/interpreter"
	"github.com/libsv/go-bt/v2/bscript/interpreter/scriptflag"
	"github.com/libsv/go-bt/v2/sighash"
)

// Each test here first shows a fault of the libraries as they are pinned, so
// that an upgrade that mends it is noticed, and then that nothing of it is
// left behind this package.

// hostileTx is a transaction's beginning, up to the length of its first
// unlocking script, and that length; nothing follows.
func hostileTx(length ...byte) []byte {
	b := append([]byte{1, 0, 0, 0, 1}, make([]byte, OutpointSize)...)
	return append(b, length...)
}

func TestFaultClaimedLengths(t *testing.T) {
	half := hostileTx(0xfe, 0, 0, 0, 0x20) // 512 MiB
	if n := allocated(func() { _, _ = bt.NewTxFromBytes(half) }); n < 512<<20 {
		t.Errorf("the library allocates %d bytes for a claim of 512 MiB", n)
	}
	all := hostileTx(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	if !panics(func() { _, _ = bt.NewTxFromBytes(all) }) {
		t.Error("the library no longer panics at a length of 2^64-1")
	}
	huge := hostileTx(0xff, 0, 0, 0, 0, 0, 1, 0, 0) // see TestFaultOutOfMemory
	for _, b := range [][]byte{half, huge, all} {
		n := allocated(func() {
			_, err := ParseTx(b, 1<<20)
			wantErr(t, err, ErrTxSyntax)
		})
		if n > 1<<16 {
			t.Errorf("%d bytes allocated for a transaction of %d", n, len(b))
		}
	}
	// Counts are claims too.
	for _, count := range [][]byte{
		{0xfd, 0xff, 0xff}, {0xfe, 0xff, 0xff, 0xff, 0x7f}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		b := append(append([]byte{1, 0, 0, 0}, count...), make([]byte, 60)...)
		n := allocated(func() {
			_, err := ParseTx(b, 1<<20)
			wantErr(t, err, ErrTxSyntax)
		})
		if n > 1<<16 {
			t.Errorf("%d bytes allocated for a count of %x", n, count)
		}
	}
}

func TestFaultScriptTypePanics(t *testing.T) {
	for _, text := range []string{"01014c00", "4c0051ae"} {
		script := fromHex(t, text)
		if !panics(func() { bscript.NewFromBytes(script).ScriptType() }) {
			t.Errorf("the library no longer panics at %s", text)
		}
		notTemplate(t, script)
	}
}

// notTemplate looks at a hostile script in every way that there is.
func notTemplate(t *testing.T, script Script) {
	t.Helper()
	if _, ok := script.P2PKHHash(); ok {
		t.Errorf("%s taken for P2PKH", script)
	}
	if _, _, ok := script.MultisigKeys(); ok {
		t.Errorf("%s taken for a 2-of-2", script)
	}
	tx := &Tx{Version: 1, Inputs: []Input{{Script: script}}, Outputs: []Output{{Value: 1, Script: script}}}
	for _, prev := range []Script{script, P2PKH(Hash160{1}), Multisig(PublicKey{2}, PublicKey{3})} {
		if err := VerifyInput(tx, 0, Output{Value: 1, Script: prev}); err == nil {
			t.Errorf("%s unlocks %s", script, prev)
		}
	}
}

// On 32 bits a push that claims 0xf0000000 bytes makes the library panic. A
// machine that can run programs for 386 shows it; on 32 bits the test shows it
// itself; elsewhere only the second half can be shown.
func TestFaultPushOn32Bits(t *testing.T) {
	push := Script{0x4e, 0x00, 0x00, 0x00, 0xf0}
	notTemplate(t, push)
	const want = "DecodeParts panics\nToASM panics\nScriptType panics\n"
	switch runtime.GOARCH {
	case "386", "arm":
		for name, call := range map[string]func(){
			"DecodeParts": func() { _, _ = bscript.DecodeParts(push) },
			"ToASM":       func() { _, _ = bscript.NewFromBytes(push).ToASM() },
			"ScriptType":  func() { _ = bscript.NewFromBytes(push).ScriptType() },
		} {
			if !panics(call) {
				t.Errorf("the library's %s no longer panics", name)
			}
		}
	case "amd64":
		program := filepath.Join(t.TempDir(), "script32")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/script32")
		build.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build for 386: %v\n%s", err, out)
		}
		out, err := exec.CommandContext(t.Context(), program).Output()
		if err != nil {
			t.Logf("this machine does not run programs for 386: %v", err)
			return
		}
		if string(out) != want {
			t.Errorf("the library on 32 bits: %q, want %q", out, want)
		}
	}
}

func TestFaultAddressChecksum(t *testing.T) {
	hash := testKey(t, 7).Public().Hash()
	good := hash.Address(Main)
	mistyped := good[:len(good)-1] + "2"
	if mistyped == good {
		t.Fatal("not mistyped")
	}
	if _, err := bscript.NewAddressFromString(mistyped); err != nil {
		t.Errorf("the library now checks: %v", err)
	}
	if _, err := bscript.NewP2PKHFromAddress(mistyped); err != nil {
		t.Errorf("the library now checks: %v", err)
	}
	_, err := ParseAddress(mistyped, Main)
	wantErr(t, err, ErrAddressChecksum)

	// Its work grows with the square of the length: bytes allocated show it
	// without a clock.
	short, long := strings.Repeat("z", 5_000), strings.Repeat("z", 20_000)
	few := allocated(func() { _, _ = bscript.NewP2PKHFromAddress(short) })
	many := allocated(func() { _, _ = bscript.NewP2PKHFromAddress(long) })
	if many < 10*few {
		t.Errorf("the library: %d bytes for 5,000 characters, %d for 20,000", few, many)
	}
	n := allocated(func() {
		_, err := ParseAddress(long, Main)
		wantErr(t, err, ErrAddressSyntax)
	})
	if n > 1<<16 {
		t.Errorf("%d bytes allocated for a long address", n)
	}
}

func TestFaultValidateAddress(t *testing.T) {
	hash := testKey(t, 7).Public().Hash()
	for _, text := range []string{"111" + hash.Address(Main), hash.Address(Test)} {
		if valid, err := bscript.ValidateAddress(text); !valid {
			t.Errorf("the library now refuses %s: %v", text, err)
		}
	}
	_, err := ParseAddress("111"+hash.Address(Main), Main)
	wantErr(t, err, ErrAddressSyntax)
	_, err = ParseAddress(hash.Address(Test), Main)
	wantErr(t, err, ErrAddressNetwork)
	_, err = ParseAddress(hash.Address(Main), Regtest)
	wantErr(t, err, ErrAddressNetwork)
}

func TestFaultBIP32LeadingZeros(t *testing.T) {
	const path = "44'/236'/0'/0/0"
	wrong := 0
	for n := range uint32(400) {
		first := sha256.Sum256(binary.BigEndian.AppendUint32(nil, n))
		seed := first[:]
		library, err := bip32.NewMaster(seed, &chaincfg.MainNet)
		ok(t, err)
		child, err := library.DeriveChildFromPath(path)
		ok(t, err)
		priv, err := child.ECPrivKey()
		ok(t, err)
		want := bip32Reference(seed, 44|1<<31, 236|1<<31, 1<<31, 0, 0)
		master, err := NewMaster(seed)
		ok(t, err)
		k, err := master.Derive(path)
		ok(t, err)
		if !bytes.Equal(k.key.Serialise(), want) {
			t.Fatalf("seed %x: a wrong key", seed)
		}
		if !bytes.Equal(priv.Serialise(), want) {
			wrong++
		}
		if wrong > 0 && n > 50 {
			break
		}
	}
	if wrong == 0 {
		t.Error("the library derives right keys now")
	}
	// Vector 4 of BIP 32 was made for this fault.
	seed := fromHex(t, "3ddd5602285899a946114506157c7997e5444528f3003f6134712147db19b678")
	library, err := bip32.NewMaster(seed, &chaincfg.MainNet)
	ok(t, err)
	child, err := library.DeriveChildFromPath("0'/1'")
	ok(t, err)
	master, err := NewMaster(seed)
	ok(t, err)
	k, err := master.Branch("0'/1'")
	ok(t, err)
	if child.String() == k.key.String() {
		t.Error("the library passes vector 4 now")
	}
}

// bip32Reference is private derivation as BIP 32 words it.
func bip32Reference(seed []byte, path ...uint32) []byte {
	mac := func(key, data []byte) []byte {
		h := hmac.New(sha512.New, key)
		h.Write(data)
		return h.Sum(nil)
	}
	i := mac([]byte("Bitcoin seed"), seed)
	key, chain := i[:32], i[32:]
	for _, n := range path {
		data := append([]byte{0}, key...)
		if n < 1<<31 {
			_, pub := bec.PrivKeyFromBytes(bec.S256(), key)
			data = pub.SerialiseCompressed()
		}
		i = mac(chain, binary.BigEndian.AppendUint32(data, n))
		sum := new(big.Int).Add(new(big.Int).SetBytes(i[:32]), new(big.Int).SetBytes(key))
		key = sum.Mod(sum, bec.S256().N).FillBytes(make([]byte, 32))
		chain = i[32:]
	}
	return key
}

// A hardened index that is written out of range wraps to one that is not
// hardened.
func TestFaultBIP32Index(t *testing.T) {
	seed := bytes.Repeat([]byte{9}, 32)
	library, err := bip32.NewMaster(seed, &chaincfg.MainNet)
	ok(t, err)
	wrapped, err := library.DeriveChildFromPath("2147483648'")
	ok(t, err)
	plain, err := library.DeriveChildFromPath("0")
	ok(t, err)
	if wrapped.String() != plain.String() {
		t.Error("the library no longer wraps an index")
	}
	master, err := NewMaster(seed)
	ok(t, err)
	for _, path := range []string{"2147483648'", "2147483648", "m/0", "0//1", "/", "0/", "-1", "+1", "01", "0''", "'", " 0", "0x1",
		strings.Repeat("0/", 70) + "0"} {
		_, err := master.Derive(path)
		wantErr(t, err, ErrPath)
	}
}

func TestFaultMnemonics(t *testing.T) {
	unchecked := strings.TrimSpace(strings.Repeat("abandon ", 12))
	if _, err := bip39.MnemonicToSeed(unchecked, ""); err != nil {
		t.Errorf("the library now checks: %v", err)
	}
	_, err := SeedOf(unchecked, "")
	wantErr(t, err, ErrWordsChecksum)

	zzz := strings.TrimSpace(strings.Repeat("zzz ", 12))
	if !panics(func() { _, _ = bip39.MnemonicToSeed(zzz, "") }) {
		t.Error("the library no longer panics at a word behind the last")
	}
	_, err = SeedOf(zzz, "")
	wantErr(t, err, ErrWord)
	if !strings.Contains(err.Error(), "zzz") {
		t.Errorf("%q does not name the word", err)
	}

	spaced, err := bip39.MnemonicToSeed(strings.Replace(abandon, " ", "  ", 1), "")
	ok(t, err)
	single, err := bip39.MnemonicToSeed(abandon, "")
	ok(t, err)
	if bytes.Equal(spaced, single) {
		t.Error("the library now ignores double spaces")
	}
	seed, err := SeedOf(" "+strings.ToUpper(strings.ReplaceAll(abandon, " ", "\n ")), "")
	ok(t, err)
	if !bytes.Equal(seed, single) {
		t.Error("case or space changes the seed")
	}

	buffer := bytes.Repeat([]byte{0x55}, 32)
	_, _, err = bip39.Mnemonic(buffer[:16], "")
	ok(t, err)
	if buffer[16] == 0x55 {
		t.Error("the library no longer writes behind the caller's entropy")
	}
	buffer = bytes.Repeat([]byte{0x55}, 32)
	_, err = NewMnemonic(buffer[:16])
	ok(t, err)
	if !bytes.Equal(buffer, bytes.Repeat([]byte{0x55}, 32)) {
		t.Error("the caller's buffer was written")
	}
}

// libraryInput signs input 0 of a fresh transaction in the library's way.
func libraryInput(t *testing.T, k PrivateKey, flag sighash.Flag, change func(*bec.Signature) []byte) (*Tx, Output) {
	t.Helper()
	prev := Output{Value: 1000, Script: P2PKH(k.Public().Hash())}
	tx := &Tx{
		Version: 1,
		Inputs:  []Input{{Prev: Outpoint{Txid: Txid{1}}, Sequence: FinalSequence}},
		Outputs: []Output{{Value: 900, Script: prev.Script}},
	}
	lib := tx.library()
	lib.Inputs[0].PreviousTxScript = bscript.NewFromBytes(prev.Script)
	lib.Inputs[0].PreviousTxSatoshis = uint64(prev.Value)
	h, err := lib.CalcInputSignatureHash(0, flag)
	ok(t, err)
	sig, err := k.key.Sign(h)
	ok(t, err)
	tx.Inputs[0].Script = unlockP2PKH(append(change(sig), byte(flag)), k.Public())
	return tx, prev
}

// libraryRun runs the interpreter alone, without the checks before it.
func libraryRun(tx *Tx, prev Output, flags scriptflag.Flag) error {
	lib := tx.library()
	lib.Inputs[0].UnlockingScript = bscript.NewFromBytes(tx.Inputs[0].Script)
	return interpreter.NewEngine().Execute(
		interpreter.WithTx(lib, 0, &bt.Output{Satoshis: uint64(prev.Value), LockingScript: bscript.NewFromBytes(prev.Script)}),
		interpreter.WithFlags(flags))
}

func TestFaultDefaultFlags(t *testing.T) {
	// What WithAfterGenesis and WithForkID set.
	const usual = scriptflag.UTXOAfterGenesis | scriptflag.EnableSighashForkID
	k := testKey(t, 7)
	canonical := func(s *bec.Signature) []byte { return s.Serialise() }
	tx, prev := libraryInput(t, k, sighash.AllForkID, canonical)
	ok(t, libraryRun(tx, prev, usual))
	ok(t, libraryRun(tx, prev, strict))
	ok(t, VerifyInput(tx, 0, prev))
	for _, flag := range []sighash.Flag{
		sighash.All, // the library takes it, nodes do not
		sighash.AllForkID | sighash.AnyOneCanPay, sighash.NoneForkID, sighash.SingleForkID,
	} {
		tx, prev := libraryInput(t, k, flag, canonical)
		if err := libraryRun(tx, prev, usual); err != nil {
			t.Errorf("the library's defaults now refuse hash type %02x: %v", uint8(flag), err)
		}
		if flag == sighash.All && libraryRun(tx, prev, strict) == nil {
			t.Error("the strict flags take hash type 01")
		}
		wantErr(t, VerifyInput(tx, 0, prev), ErrSignature)
	}
	tx, prev = libraryInput(t, k, sighash.AllForkID, highS)
	if err := libraryRun(tx, prev, usual); err != nil {
		t.Errorf("the library's defaults now refuse a high S: %v", err)
	}
	if libraryRun(tx, prev, strict) == nil {
		t.Error("the strict flags take a high S")
	}
	wantErr(t, VerifyInput(tx, 0, prev), ErrSignature)
}

// highS writes the other signature of the same message, N-s.
func highS(s *bec.Signature) []byte {
	return der(s.R, new(big.Int).Sub(bec.S256().N, s.S))
}

func der(r, s *big.Int) []byte {
	number := func(n *big.Int) []byte {
		b := n.Bytes()
		if len(b) == 0 || b[0] >= 0x80 {
			b = append([]byte{0}, b...)
		}
		return append([]byte{2, byte(len(b))}, b...)
	}
	body := append(number(r), number(s)...)
	return append([]byte{0x30, byte(len(body))}, body...)
}

func TestFaultSignatureEncoding(t *testing.T) {
	k := testKey(t, 7)
	d := sha256.Sum256([]byte("digest"))
	sig, err := k.SignDigest(d)
	ok(t, err)
	ok(t, VerifyDigest(k.Public(), d, sig))
	trailing := append(slices.Clone(sig), 1)
	parsed, err := bec.ParseDERSignature(trailing, bec.S256())
	if err != nil || !parsed.Verify(d[:], k.key.PubKey()) {
		t.Errorf("the library now refuses trailing bytes: %v", err)
	}
	wantErr(t, VerifyDigest(k.Public(), d, trailing), ErrSignature)
	high := highS(parsed)
	if parsed, err = bec.ParseDERSignature(high, bec.S256()); err != nil || !parsed.Verify(d[:], k.key.PubKey()) {
		t.Errorf("the library now refuses a high S: %v", err)
	}
	wantErr(t, VerifyDigest(k.Public(), d, high), ErrSignature)
}

func TestFaultPrivateKeyRange(t *testing.T) {
	n := bec.S256().N
	for _, number := range []*big.Int{big.NewInt(0), n, new(big.Int).Add(n, big.NewInt(1))} {
		b := number.FillBytes(make([]byte, 32))
		key, _ := bec.PrivKeyFromBytes(bec.S256(), b)
		if _, err := key.Sign(bytes.Repeat([]byte{1}, 32)); err != nil {
			t.Errorf("the library no longer signs with %x: %v", b, err)
		}
		_, err := NewPrivateKey(b)
		wantErr(t, err, ErrPrivateKey)
	}
	_, err := NewPrivateKey(new(big.Int).Sub(n, big.NewInt(1)).FillBytes(make([]byte, 32)))
	ok(t, err)
	_, err = PrivateKey{}.SignDigest([32]byte{})
	wantErr(t, err, ErrPrivateKey)
	if !bytes.Equal(groupOrder[:], n.Bytes()) || !bytes.Equal(fieldPrime[:], bec.S256().P.Bytes()) {
		t.Error("wrong order or prime")
	}
}

func TestFaultPublicKeyForms(t *testing.T) {
	k := testKey(t, 7).key.PubKey()
	hybrid := k.SerialiseHybrid()
	if _, err := bec.ParsePubKey(hybrid, bec.S256()); err != nil {
		t.Errorf("the library now refuses hybrid keys: %v", err)
	}
	_, err := ParsePublicKey(hybrid)
	wantErr(t, err, ErrPublicKey)

	// The coordinate 1 is on the curve, and so, for the library, is P+1.
	second := append([]byte{2}, new(big.Int).Add(bec.S256().P, big.NewInt(1)).Bytes()...)
	if _, err := bec.ParsePubKey(second, bec.S256()); err != nil {
		t.Errorf("the library now refuses coordinates above the prime: %v", err)
	}
	_, err = ParsePublicKey(second)
	wantErr(t, err, ErrPublicKey)
	first := append([]byte{2}, big.NewInt(1).FillBytes(make([]byte, 32))...)
	_, err = ParsePublicKey(first)
	ok(t, err)
}

func TestFaultFees(t *testing.T) {
	k := testKey(t, 7)
	coins, keys := testCoins(k, 1000)
	quote := bt.NewFeeQuote()
	for _, kind := range []bt.FeeType{bt.FeeTypeStandard, bt.FeeTypeData} {
		quote.AddQuote(kind, &bt.Fee{FeeType: kind, MiningFee: bt.FeeUnit{Satoshis: 1, Bytes: 1000}})
	}
	lib := bt.NewTx()
	ok(t, lib.From(strings.Repeat("11", 32), 0, coins[0].Output.Script.String(), 1000))
	ok(t, lib.Change(bscript.NewFromBytes(P2PKH(k.Public().Hash())), quote))
	if fee := lib.TotalInputSatoshis() - lib.TotalOutputSatoshis(); fee != 0 {
		t.Errorf("the library now pays %d for 192 bytes at 1 sat/kB", fee)
	}
	tx, fee, err := BuildSweep(coins, keys, k.Public().Hash(), 1)
	ok(t, err)
	if fee != 1 || tx.Outputs[0].Value != 999 {
		t.Errorf("fee %d for %d bytes at 1 sat/kB", fee, tx.Size())
	}

	c, _, _ := testChannel(t)
	lib = bt.NewTx()
	ok(t, lib.From(strings.Repeat("11", 32), 0, c.Lock().String(), 1000))
	if _, err := lib.EstimateSize(); err == nil {
		t.Error("the library now knows the size of a 2-of-2 input")
	}
}

func TestFaultInterpreterAllocates(t *testing.T) {
	lock, unlock := Script{0x80}, Script{0x51, 0x03, 0, 0, 0x40} // OP_NUM2BIN of 1, to 4 MiB
	n := allocated(func() {
		_ = interpreter.NewEngine().Execute(
			interpreter.WithScripts(bscript.NewFromBytes(lock), bscript.NewFromBytes(unlock)),
			interpreter.WithAfterGenesis(), interpreter.WithForkID())
	})
	if n < 4<<20 {
		t.Errorf("the library allocates %d bytes for OP_NUM2BIN", n)
	}
	tx := &Tx{Version: 1, Inputs: []Input{{Script: unlock}}, Outputs: []Output{{Value: 1, Script: lock}}}
	n = allocated(func() { wantErr(t, VerifyInput(tx, 0, Output{Value: 1, Script: lock}), ErrTemplate) })
	if n > 1<<16 {
		t.Errorf("%d bytes allocated", n)
	}
}

func TestFaultInterpreterChangesTransaction(t *testing.T) {
	k := testKey(t, 7)
	tx, prev := libraryInput(t, k, sighash.AllForkID, func(s *bec.Signature) []byte { return s.Serialise() })
	lib := tx.library()
	lib.Inputs[0].PreviousTxScript = nil
	lib.Inputs[0].UnlockingScript = bscript.NewFromBytes(tx.Inputs[0].Script)
	ok(t, interpreter.NewEngine().Execute(
		interpreter.WithTx(lib, 0, &bt.Output{Satoshis: 1000, LockingScript: bscript.NewFromBytes(prev.Script)}),
		interpreter.WithFlags(strict)))
	if lib.Inputs[0].PreviousTxScript == nil || lib.Inputs[0].PreviousTxSatoshis != 1000 {
		t.Error("the library no longer writes into the transaction")
	}
	want, err := ParseTx(tx.Bytes(), 1000)
	ok(t, err)
	before := prev.Script.String()
	ok(t, VerifyInput(tx, 0, prev))
	if !reflect.DeepEqual(tx, want) || prev.Script.String() != before {
		t.Error("verifying changed the transaction")
	}
}

// What is signed here passes the library's own parser unchanged.
func TestLibraryReadsWhatWeWrite(t *testing.T) {
	k := testKey(t, 7)
	coins, keys := testCoins(k, 5000, 70_000, 1)
	tx, _, err := BuildPayment(coins, keys, []Output{{Value: 60_000, Script: P2PKH(Hash160{1})}}, Hash160{2}, 100)
	ok(t, err)
	lib, err := bt.NewTxFromBytes(tx.Bytes())
	ok(t, err)
	if lib.TxID() != tx.Txid().String() || !bytes.Equal(lib.Bytes(), tx.Bytes()) {
		t.Errorf("the library reads %s, want %s", lib.TxID(), tx.Txid())
	}
}

func TestNoPrintingShowsAKey(t *testing.T) {
	secret := fromHex(t, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	k, err := NewPrivateKey(secret)
	ok(t, err)
	master, err := NewMaster(secret)
	ok(t, err)
	number := new(big.Int).SetBytes(secret).String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{k, &k, master, []PrivateKey{k}, struct{ K PrivateKey }{k}} {
			text := strings.ToLower(fmt.Sprintf(verb, v))
			for _, leak := range []string{hex.EncodeToString(secret), number, strings.ToLower(master.key.String())} {
				if strings.Contains(text, leak) {
					t.Errorf("%s of %T shows the key", verb, v)
				}
			}
		}
	}
}
