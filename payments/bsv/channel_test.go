package bsv

import (
	"bytes"
	"math/big"
	"slices"
	"testing"

	"github.com/libsv/go-bk/bec"
	"pgregory.net/rapid"

	"github.com/bitcdn/bitcdn/payments/money"
)

// Whatever the numbers: a commitment pays exactly what it says, the rest is
// change and fee, the fee is enough, and beyond MaxSpend nothing is made.
func TestCommitmentKeepsTheMoneyTogether(t *testing.T) {
	base, _, _ := testChannel(t)
	rapid.Check(t, func(t *rapid.T) {
		c := base
		c.Capacity = money.Satoshis(rapid.Int64Range(0, 30_000).Draw(t, "capacity"))
		c.FeeRate = money.FeeRate(rapid.Int64Range(0, 2000).Draw(t, "fee rate"))
		payee := money.Satoshis(rapid.Int64Range(0, 31_000).Draw(t, "payee"))
		creators, sum, full := []Royalty(nil), payee, payee > 0
		for i := range rapid.IntRange(0, MaxCreators).Draw(t, "creators") {
			amount := money.Satoshis(rapid.Int64Range(0, 3000).Draw(t, "creator"))
			creators = append(creators, Royalty{To: Hash160{byte(i + 1)}, Amount: amount})
			sum += amount
			full = full && amount > 0
		}
		tx, err := c.Commitment(payee, creators)
		if full && (err == nil) != (sum <= c.MaxSpend(len(creators))) {
			t.Fatalf("%d of at most %d: %v", sum, c.MaxSpend(len(creators)), err)
		}
		if err != nil {
			wantErr(t, err, ErrCapacity)
			return
		}
		paid, err := tx.Paid()
		ok(t, err)
		size := CommitmentSize(len(tx.Outputs))
		if fee := c.Capacity - paid; fee < c.FeeRate.Fee(size) || fee > c.FeeRate.Fee(size+P2PKHOutputSize) {
			t.Fatalf("fee of %d for %d bytes at %s", fee, size, c.FeeRate)
		}
		got := map[string]money.Satoshis{}
		for _, out := range tx.Outputs {
			if out.Value < 1 {
				t.Fatalf("output of %d", out.Value)
			}
			got[out.Script.String()] += out.Value
		}
		if got[P2PKH(c.PayeeHash).String()] != payee {
			t.Fatalf("pays %v", got)
		}
		for _, r := range creators {
			if got[P2PKH(r.To).String()] != r.Amount {
				t.Fatalf("pays %v", got)
			}
		}
		if tx.Version != 1 || len(tx.Inputs) != 1 || tx.Inputs[0].Sequence != FinalSequence || tx.LockTime != 0 {
			t.Fatalf("not a close: %+v", tx)
		}
	})
}

func TestCommitmentOrder(t *testing.T) {
	c, _, _ := testChannel(t)
	tx, err := c.Commitment(1000, []Royalty{{Hash160{9}, 50}, {Hash160{8}, 0}, {Hash160{7}, 60}})
	ok(t, err)
	want := []Output{
		{1000, P2PKH(c.PayeeHash)}, {50, P2PKH(Hash160{9})}, {60, P2PKH(Hash160{7})}, {20_000 - 1110 - 34, P2PKH(c.PayerHash)},
	}
	if !slices.EqualFunc(tx.Outputs, want, func(a, b Output) bool { return a.Value == b.Value && a.Script.Equal(b.Script) }) {
		t.Errorf("%v", tx.Outputs)
	}
	if c.MaxSpend(0) != 20_000-27 || c.MaxSpend(1) != 20_000-30 || c.MaxSpend(MaxCreators) != 20_000-54 {
		t.Errorf("at most %s, %s and %s", c.MaxSpend(0), c.MaxSpend(1), c.MaxSpend(MaxCreators))
	}
	tx, err = c.Commitment(c.MaxSpend(1)-1, royalty(1))
	ok(t, err)
	if len(tx.Outputs) != 2 {
		t.Errorf("%d outputs without change", len(tx.Outputs))
	}
	_, err = c.Commitment(c.MaxSpend(1), royalty(1))
	wantErr(t, err, ErrCapacity)
	_, err = c.Commitment(money.MaxSatoshis, royalty(money.MaxSatoshis))
	wantErr(t, err, money.ErrRange)
	_, err = c.Commitment(-1, nil)
	wantErr(t, err, money.ErrRange)
	_, err = c.Commitment(1, royalty(-1))
	wantErr(t, err, money.ErrRange)
}

func TestCreatorsOfACommitment(t *testing.T) {
	c, payer, _ := testChannel(t)
	var many []Royalty
	for i := range MaxCreators {
		many = append(many, Royalty{Hash160{byte(i + 1)}, 10})
	}
	tx, err := c.Commitment(100, many)
	ok(t, err)
	if len(tx.Outputs) != MaxCreators+2 {
		t.Errorf("%d outputs", len(tx.Outputs))
	}
	for name, creators := range map[string][]Royalty{
		"a ninth":         append(slices.Clone(many), Royalty{Hash160{99}, 10}),
		"one twice":       append(slices.Clone(many[:7]), many[0]),
		"twice with zero": append(slices.Clone(many[:7]), Royalty{many[0].To, 0}),
		"no address":      {{Hash160{}, 10}},
	} {
		_, err := c.Commitment(100, creators)
		wantErr(t, err, ErrRoyalty)
		if _, err := c.SignCommitment(payer, 100, creators); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	// The order is part of what is signed.
	sig, err := c.SignCommitment(payer, 100, many)
	ok(t, err)
	slices.Reverse(many)
	wantErr(t, c.CheckCommitment(c.Payer, 100, many, sig), ErrSignature)
}

func TestChannelLife(t *testing.T) {
	c, payer, payee := testChannel(t)
	ok(t, c.Validate())

	payeeRefund, err := c.SignRefund(payee)
	ok(t, err)
	ok(t, c.CheckRefund(c.Payee, payeeRefund))
	payerRefund, err := c.SignRefund(payer)
	ok(t, err)
	refund, err := c.CompleteRefund(payerRefund, payeeRefund)
	ok(t, err)
	if refund.FinalAt(c.RefundHeight) || !refund.FinalAt(c.RefundHeight+1) || refund.Version != 1 || refund.Inputs[0].Sequence != 0 {
		t.Errorf("refund: %+v", refund)
	}
	if _, err := c.CompleteRefund(payeeRefund, payerRefund); err == nil {
		t.Error("signatures in the wrong order were taken")
	}

	payerSig, err := c.SignCommitment(payer, 1000, royalty(50))
	ok(t, err)
	ok(t, c.CheckCommitment(c.Payer, 1000, royalty(50), payerSig))
	wantErr(t, c.CheckCommitment(c.Payee, 1000, royalty(50), payerSig), ErrSignature)
	wantErr(t, c.CheckCommitment(c.Payer, 1001, royalty(50), payerSig), ErrSignature)
	wantErr(t, c.CheckCommitment(c.Payer, 1000, royalty(49), payerSig), ErrSignature)
	wantErr(t, c.CheckCommitment(testKey(t, 9).Public(), 1000, royalty(50), payerSig), ErrKey)
	wantErr(t, c.CheckRefund(c.Payer, payerSig), ErrSignature)
	payeeSig, err := c.SignCommitment(payee, 1000, royalty(50))
	ok(t, err)
	tx, err := c.CompleteCommitment(1000, royalty(50), payerSig, payeeSig)
	ok(t, err)
	if !tx.FinalAt(1) {
		t.Error("the close is not final")
	}
	_, err = c.CompleteCommitment(1000, royalty(51), payerSig, payeeSig)
	wantErr(t, err, ErrSignature)
	for _, sig := range []Signature{nil, payerSig[:len(payerSig)-1], make(Signature, 9), make(Signature, 10_000)} {
		if _, err := c.CompleteCommitment(1000, royalty(50), sig, payeeSig); err == nil {
			t.Errorf("signature of %d bytes taken", len(sig))
		}
	}
	_, err = c.SignCommitment(testKey(t, 9), 1000, royalty(50))
	wantErr(t, err, ErrKey)
	_, err = c.SignRefund(PrivateKey{})
	wantErr(t, err, ErrKey)

	// A signature is bound to its channel.
	other := c
	other.Funding.Index++
	wantErr(t, other.CheckCommitment(c.Payer, 1000, royalty(50), payerSig), ErrSignature)
	other = c
	other.Capacity++
	wantErr(t, other.CheckCommitment(c.Payer, 1000, royalty(50), payerSig), ErrSignature)
}

// The sizes that fees are computed from are the largest, and the usual ones are
// one byte less.
func TestChannelSizes(t *testing.T) {
	c, payer, payee := testChannel(t)
	seen := map[int]int{}
	for height := range uint32(24) {
		c.RefundHeight = 2000 + height
		a, err := c.SignRefund(payer)
		ok(t, err)
		b, err := c.SignRefund(payee)
		ok(t, err)
		refund, err := c.CompleteRefund(a, b)
		ok(t, err)
		amount := money.Satoshis(100 + height)
		a, err = c.SignCommitment(payer, amount, royalty(5))
		ok(t, err)
		b, err = c.SignCommitment(payee, amount, royalty(5))
		ok(t, err)
		tx, err := c.CompleteCommitment(amount, royalty(5), a, b)
		ok(t, err)
		seen[refund.Size()]++
		seen[tx.Size()]++
		for _, tx := range []*Tx{refund, tx} {
			if worst := CommitmentSize(len(tx.Outputs)); tx.Size() > worst {
				t.Errorf("%d bytes, at most %d expected", tx.Size(), worst)
			}
			paid, err := tx.Paid()
			ok(t, err)
			if c.Capacity-paid < c.FeeRate.Fee(tx.Size()) {
				t.Errorf("fee of %d for %d bytes", c.Capacity-paid, tx.Size())
			}
		}
	}
	if seen[231] == 0 || seen[299] == 0 || CommitmentSize(1) != 232 || CommitmentSize(3) != 300 || len(c.Lock()) != 71 {
		t.Errorf("sizes %v, expected at most %d and %d", seen, CommitmentSize(1), CommitmentSize(3))
	}
}

func TestChannelValidate(t *testing.T) {
	good, _, _ := testChannel(t)
	for name, v := range map[string]struct {
		change func(*Channel)
		want   error
	}{
		"payer off the curve": {func(c *Channel) { c.Payer = PublicKey(append([]byte{2}, bytes.Repeat([]byte{5}, 32)...)) }, ErrPublicKey},
		"no payee":            {func(c *Channel) { c.Payee = PublicKey{} }, ErrPublicKey},
		"one key":             {func(c *Channel) { c.Payee = c.Payer }, ErrChannel},
		"no payer hash":       {func(c *Channel) { c.PayerHash = Hash160{} }, ErrChannel},
		"no payee hash":       {func(c *Channel) { c.PayeeHash = Hash160{} }, ErrChannel},
		"no funding":          {func(c *Channel) { c.Funding = Outpoint{} }, ErrChannel},
		"no height":           {func(c *Channel) { c.RefundHeight = 0 }, ErrChannel},
		"height in seconds":   {func(c *Channel) { c.RefundHeight = lockTimeThreshold }, ErrChannel},
		"negative rate":       {func(c *Channel) { c.FeeRate = -1 }, ErrChannel},
		"absurd rate":         {func(c *Channel) { c.FeeRate = money.MaxFeeRate + 1 }, ErrChannel},
		"negative capacity":   {func(c *Channel) { c.Capacity = -1 }, ErrChannel},
		"absurd capacity":     {func(c *Channel) { c.Capacity = money.MaxSatoshis + 1 }, ErrChannel},
		"no capacity":         {func(c *Channel) { c.Capacity = 0 }, ErrCapacity},
		"only a refund's fee": {func(c *Channel) { c.Capacity = 24 }, ErrCapacity},
		"only a close's fee":  {func(c *Channel) { c.Capacity = 27 }, ErrCapacity},
	} {
		c := good
		v.change(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			wantErr(t, err, v.want)
		}
	}
	c := good
	c.Capacity = 28
	ok(t, c.Validate())
	if c.MaxSpend(0) != 1 {
		t.Errorf("at most %s", c.MaxSpend(0))
	}
	c.Capacity = -1
	if c.MaxSpend(0) != 0 {
		t.Errorf("at most %s", c.MaxSpend(0))
	}
}

// No change of a single bit leaves a signature valid, and no encoding but the
// one is taken.
func TestSignatureHasOneForm(t *testing.T) {
	c, payer, _ := testChannel(t)
	sig, err := c.SignCommitment(payer, 1000, royalty(50))
	ok(t, err)
	for i := range len(sig) * 8 {
		bad := slices.Clone(sig)
		bad[i/8] ^= 1 << (i % 8)
		wantErr(t, c.CheckCommitment(c.Payer, 1000, royalty(50), bad), ErrSignature)
	}
	n, zero, one := bec.S256().N, big.NewInt(0), big.NewInt(1)
	above := new(big.Int).Add(n, one)
	for _, pair := range [][2]*big.Int{{zero, one}, {one, zero}, {n, one}, {one, n}, {above, one}, {one, above}, {zero, zero}} {
		bad := append(der(pair[0], pair[1]), SigHashAllForkID)
		wantErr(t, c.CheckCommitment(c.Payer, 1000, royalty(50), bad), ErrSignature)
	}
	d := [32]byte{1}
	plain, err := payer.SignDigest(d)
	ok(t, err)
	padded := append([]byte{0x30, plain[1] + 1, 2, plain[3] + 1, 0}, plain[4:]...)
	long := append([]byte{0x30, 0x81}, plain[1:]...)
	for _, bad := range []Signature{nil, {}, padded, long, append(Signature{0}, plain...), append(plain[:len(plain):len(plain)], 0x41), make(Signature, 80)} {
		wantErr(t, VerifyDigest(payer.Public(), d, bad), ErrSignature)
	}
	wantErr(t, VerifyDigest(PublicKey{}, d, plain), ErrPublicKey)
	again, err := payer.SignDigest(d)
	ok(t, err)
	if !bytes.Equal(plain, again) {
		t.Error("signing is not deterministic")
	}
}

func TestScriptTemplates(t *testing.T) {
	a, b := testKey(t, 1).Public(), testKey(t, 2).Public()
	lock := Multisig(a, b)
	x, y, is := lock.MultisigKeys()
	if !is || x != a || y != b || len(lock) != MultisigSize {
		t.Errorf("keys %s and %s", x, y)
	}
	pay := P2PKH(a.Hash())
	if h, is := pay.P2PKHHash(); !is || h != a.Hash() || len(pay) != P2PKHSize {
		t.Errorf("hash %s", h)
	}
	for _, script := range []Script{lock, pay} {
		for i := range script {
			bad := slices.Clone(script)
			bad[i] ^= 0xff
			h, isPay := bad.P2PKHHash()
			x, y, isLock := bad.MultisigKeys()
			if isPay && h == a.Hash() || isLock && x == a && y == b {
				t.Errorf("byte %d of %s does not matter", i, script)
			}
		}
		for n := range script {
			notTemplate(t, script[:n])
		}
		notTemplate(t, append(slices.Clone(script), 0))
	}
}

// Unlocking scripts of other forms than the templates' are refused before
// anything is run, also those that nodes would take.
func TestVerifyInputTakesOneForm(t *testing.T) {
	c, payer, payee := testChannel(t)
	a, err := c.SignCommitment(payer, 1000, royalty(50))
	ok(t, err)
	b, err := c.SignCommitment(payee, 1000, royalty(50))
	ok(t, err)
	tx, err := c.CompleteCommitment(1000, royalty(50), a, b)
	ok(t, err)
	good := tx.Inputs[0].Script
	k := testKey(t, 7)
	for name, bad := range map[string]Script{
		"empty":              {},
		"nothing but zero":   {op0},
		"an opcode in front": append(Script{0x51}, good...),
		"one zero more":      append(Script{op0}, good...),
		"no zero":            good[1:],
		"one for zero":       append(Script{0x51}, good[1:]...),
		"something behind":   append(slices.Clone(good), 0x51),
		"cut":                good[:len(good)-1],
		"pushdata":           append(append(Script{op0, 0x4c, byte(len(a))}, a...), good[2+len(a):]...),
		"one signature":      append(Script{op0, byte(len(a))}, a...),
		"P2PKH's":            unlockP2PKH(a, k.Public()),
	} {
		tx.Inputs[0].Script = bad
		if err := VerifyInput(tx, 0, c.funding()); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			wantErr(t, err, ErrTemplate)
		}
	}
	coins, keys := testCoins(k, 1000)
	pay, _, err := BuildSweep(coins, keys, Hash160{1}, 100)
	ok(t, err)
	good = pay.Inputs[0].Script
	for name, bad := range map[string]Script{
		"empty":            {},
		"no key":           good[:len(good)-34],
		"something behind": append(slices.Clone(good), 0x51),
		"key as pushdata":  slices.Insert(slices.Clone(good), len(good)-34, 0x4c),
		"the 2-of-2's":     unlockMultisig(a, b),
	} {
		pay.Inputs[0].Script = bad
		if err := VerifyInput(pay, 0, coins[0].Output); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			wantErr(t, err, ErrTemplate)
		}
	}
	// Another key with its own good signature.
	ok(t, signOther(pay, coins[0].Output, testKey(t, 8)))
	wantErr(t, VerifyInput(pay, 0, coins[0].Output), ErrSignature)
	pay.Inputs[0].Script = append(slices.Clone(good[:len(good)-33]), append([]byte{2}, bytes.Repeat([]byte{5}, 32)...)...)
	wantErr(t, VerifyInput(pay, 0, coins[0].Output), ErrPublicKey)
	pay.Inputs[0].Script = good
	ok(t, VerifyInput(pay, 0, coins[0].Output))
	wantErr(t, VerifyInput(pay, 0, Output{Value: 1001, Script: coins[0].Output.Script}), ErrSignature)
	wantErr(t, VerifyInput(pay, 1, coins[0].Output), ErrInputs)
	wantErr(t, VerifyInput(pay, -1, coins[0].Output), ErrInputs)
}

// signOther signs with a key that prev does not pay to.
func signOther(tx *Tx, prev Output, k PrivateKey) error {
	d, err := tx.SignatureHash(0, prev)
	if err != nil {
		return err
	}
	sig, err := k.signInput(d)
	if err != nil {
		return err
	}
	tx.Inputs[0].Script = unlockP2PKH(sig, k.Public())
	return nil
}
