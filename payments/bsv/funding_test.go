package bsv

import (
	"slices"
	"testing"

	"github.com/bitcdn/bitcdn/payments/money"
)

// funded is a channel with its funding from two coins.
func funded(t *testing.T) (c Channel, tx *Tx, prev []Output) {
	t.Helper()
	c, _, _ = testChannel(t)
	k := testKey(t, 7)
	coins, keys := testCoins(k, 15_000, 9_000)
	tx, _, err := BuildPayment(coins, keys, []Output{c.funding()}, k.Public().Hash(), 100)
	ok(t, err)
	c.Funding = Outpoint{Txid: tx.Txid(), Index: 0}
	return c, tx, outputsOf(coins)
}

func TestCheckFunding(t *testing.T) {
	c, tx, prev := funded(t)
	ok(t, c.CheckFunding(tx, prev, 100, 200))
	again, err := ParseTx(tx.Bytes(), MaxFundingSize)
	ok(t, err)
	ok(t, c.CheckFunding(again, prev, 100, 200))

	k := testKey(t, 7)
	for name, v := range map[string]struct {
		change func(c *Channel, tx *Tx, prev *[]Output)
		want   error
	}{
		"version 2":        {func(_ *Channel, tx *Tx, _ *[]Output) { tx.Version = 2 }, ErrVersion},
		"version -1":       {func(_ *Channel, tx *Tx, _ *[]Output) { tx.Version = 0xffffffff }, ErrVersion},
		"not final":        {func(_ *Channel, tx *Tx, _ *[]Output) { tx.LockTime, tx.Inputs[1].Sequence = 200, 0 }, ErrNotFinal},
		"in seconds":       {func(_ *Channel, tx *Tx, _ *[]Output) { tx.LockTime, tx.Inputs[1].Sequence = lockTimeThreshold, 0 }, ErrNotFinal},
		"index":            {func(c *Channel, _ *Tx, _ *[]Output) { c.Funding.Index = 2 }, ErrFunding},
		"huge index":       {func(c *Channel, _ *Tx, _ *[]Output) { c.Funding.Index = 0xffffffff }, ErrFunding},
		"the change":       {func(c *Channel, _ *Tx, _ *[]Output) { c.Funding.Index = 1 }, ErrTemplate},
		"swapped keys":     {func(c *Channel, _ *Tx, _ *[]Output) { c.Payer, c.Payee = c.Payee, c.Payer }, ErrTemplate},
		"capacity":         {func(c *Channel, _ *Tx, _ *[]Output) { c.Capacity-- }, ErrValue},
		"previous missing": {func(_ *Channel, _ *Tx, prev *[]Output) { *prev = (*prev)[:1] }, ErrInputs},
		"previous 2-of-2":  {func(c *Channel, _ *Tx, prev *[]Output) { (*prev)[0].Script = c.Lock() }, ErrTemplate},
		"previous value":   {func(_ *Channel, _ *Tx, prev *[]Output) { (*prev)[0].Value++ }, ErrSignature},
		"previous absurd":  {func(_ *Channel, _ *Tx, prev *[]Output) { (*prev)[0].Value = money.MaxSatoshis }, ErrValue},
		"previous less":    {func(_ *Channel, _ *Tx, prev *[]Output) { (*prev)[0].Value = 1 }, ErrValue},
		"fee":              {func(_ *Channel, _ *Tx, prev *[]Output) { (*prev)[0].Value -= 10 }, ErrFee},
		"another's coin":   {func(_ *Channel, _ *Tx, prev *[]Output) { (*prev)[0].Script = P2PKH(Hash160{1}) }, ErrSignature},
	} {
		c, tx, prev := funded(t)
		v.change(&c, tx, &prev)
		if c.Funding.Txid != tx.Txid() {
			c.Funding.Txid = tx.Txid()
		}
		if err := c.CheckFunding(tx, prev, 100, 200); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			wantErr(t, err, v.want)
		}
	}

	other := c
	other.Funding.Txid[0] ^= 1
	wantErr(t, other.CheckFunding(tx, prev, 100, 200), ErrFunding)
	wantErr(t, c.CheckFunding(tx, prev, 101, 200), ErrFee)

	// One coin twice.
	twice := &Tx{Version: 1, Inputs: []Input{tx.Inputs[0], tx.Inputs[0]}, Outputs: tx.Outputs}
	other.Funding.Txid = twice.Txid()
	wantErr(t, other.CheckFunding(twice, prev, 100, 200), ErrInputs)
	none := &Tx{Version: 1, Outputs: tx.Outputs}
	other.Funding.Txid = none.Txid()
	wantErr(t, other.CheckFunding(none, nil, 100, 200), ErrInputs)

	// Unsigned.
	bare := &Tx{Version: 1, Inputs: slices.Clone(tx.Inputs), Outputs: tx.Outputs}
	bare.Inputs[1].Script = nil
	other.Funding.Txid = bare.Txid()
	wantErr(t, other.CheckFunding(bare, prev, 1, 200), ErrTemplate)

	// A signed lock time in the past is fine.
	late := &Tx{Version: 1, Inputs: slices.Clone(tx.Inputs), Outputs: tx.Outputs, LockTime: 199}
	for i := range late.Inputs {
		late.Inputs[i].Sequence = 0
		ok(t, SignP2PKH(late, i, prev[i], k))
	}
	for i := range late.Inputs { // the sequence of each is signed by all
		ok(t, SignP2PKH(late, i, prev[i], k))
	}
	other.Funding.Txid = late.Txid()
	ok(t, other.CheckFunding(late, prev, 100, 200))
}

// What checking costs is bounded before anything is checked.
func TestCheckFundingIsBounded(t *testing.T) {
	c, tx, prev := funded(t)
	for name, change := range map[string]func(*Tx){
		"inputs":  func(tx *Tx) { tx.Inputs = make([]Input, MaxFundingInputs+1) },
		"outputs": func(tx *Tx) { tx.Outputs = make([]Output, MaxFundingOutputs+1) },
		"bytes":   func(tx *Tx) { tx.Inputs[0].Script = make(Script, MaxFundingSize) },
	} {
		big := &Tx{Version: 1, Inputs: slices.Clone(tx.Inputs), Outputs: tx.Outputs}
		change(big)
		if err := c.CheckFunding(big, prev, 100, 200); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			wantErr(t, err, ErrTxSize)
		}
	}
}
