package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

const walletAbout = `The wallet that pays for downloads. Without more it shows an address to pay
satoshis to, and the balance.

  address                   the address only
  balance                   what the wallet can spend; takes back what seeders that are gone hold
  send ADDRESS AMOUNT|all   pay AMOUNT satoshis, or all there is, to ADDRESS
  history                   everything that was paid and got, one on a line
  restore|words|passphrase  the recovery words: bitcdn wallet restore --help`

var (
	// errUnseen says that the network has not taken a payment that is stored.
	errUnseen = errors.New("the network has not taken the payment yet")
	// errDeclined says that the owner did not want a payment.
	errDeclined = errors.New("nothing was sent")
)

// seenWithin is how long send waits for the network.
const seenWithin = 2 * time.Minute

// walletCommand are the flags of bitcdn wallet.
type walletCommand struct {
	io      stdio
	purse   purseFlags
	asks    bool // there is a person to ask
	noQR    *bool
	yes     *bool
	feeRate *int64
	export  exportFlags
}

func runWallet(ctx context.Context, args []string, io stdio) error {
	if len(args) > 0 && isSecretVerb(args[0]) {
		return runWalletSecrets(ctx, args, io)
	}
	flags := flagSet(io, "wallet", "[address|balance|send ADDRESS AMOUNT|all|history]", walletAbout)
	c := &walletCommand{io: io, purse: addPurseFlags(flags)}
	_, c.asks = terminalOf(io.in)
	c.noQR = flags.Bool("no-qr", false, "show no QR code")
	c.feeRate = flags.Int64("fee-rate", 0, "with send: satoshis per 1,000 bytes; what the miners want where it is not given")
	c.yes = flags.BoolP("yes", "y", false, "with send: do not ask")
	c.export = addExportFlags(flags)
	if done, err := parse(flags, args, 0, 3); done || err != nil {
		return err
	}
	verb := flags.Arg(0)
	wanted := map[string]int{"": 0, "address": 1, "balance": 1, "send": 3, "history": 1}
	if n, ok := wanted[verb]; !ok || n != flags.NArg() {
		return fmt.Errorf("%w: bitcdn wallet, or wallet address, balance, send ADDRESS AMOUNT|all, history", errUsage)
	}
	switch verb {
	case "history":
		return c.history(ctx)
	case "send":
		return c.send(ctx, flags.Arg(1), flags.Arg(2))
	}
	p, err := openPurse(ctx, c.purse, io)
	if err != nil {
		return err
	}
	defer p.close()
	if verb == "balance" {
		return c.balance(ctx, p)
	}
	if err := c.address(ctx, p); err != nil || verb == "address" {
		return err
	}
	return c.balance(ctx, p)
}

// address prints one, with a QR code on a terminal.
func (c *walletCommand) address(ctx context.Context, p *purse) error {
	address, err := p.wallet.ReceiveAddress(ctx)
	if err != nil {
		return err
	}
	if !*c.noQR {
		if err := showQR(c.io.out, address); err != nil {
			return err
		}
	}
	fmt.Fprintln(c.io.out, address)
	return nil
}

// balance prints what there is after a look at the chain; where that does not
// answer, what there was at the last look, and the error.
func (c *walletCommand) balance(ctx context.Context, p *purse) error {
	looked := p.refresh(ctx)
	if looked != nil {
		if ctx.Err() != nil {
			return looked
		}
		fmt.Fprintln(c.io.out, "when the chain was last seen:")
	}
	confirmed, unconfirmed, err := p.wallet.Balance(ctx)
	if err != nil {
		return errors.Join(looked, err)
	}
	fmt.Fprintf(c.io.out, "%v in blocks, %v on the way\n", confirmed, unconfirmed)
	return errors.Join(looked, c.bound(ctx, p))
}

// bound prints what channels hold, and when that comes back at the latest.
func (c *walletCommand) bound(ctx context.Context, p *purse) error {
	bound, last, err := p.bound(ctx)
	if err != nil || bound == 0 {
		return err
	}
	fmt.Fprintf(c.io.out, "%v in channels that are not settled; what they do not cost comes back", bound)
	if tip, err := p.chain.Tip(ctx); err == nil {
		fmt.Fprintf(c.io.out, ", at the latest %s", backAt(last, tip.Height, time.Now()))
	} else {
		fmt.Fprintf(c.io.out, ", at the latest from block %d on", last)
	}
	fmt.Fprintln(c.io.out)
	return nil
}

// blockTime is how long a block takes on average.
const blockTime = 10 * time.Minute

// backAt says when a refund of this height can be had.
func backAt(height, tip uint32, now time.Time) string {
	if height <= tip {
		return fmt.Sprintf("now (from block %d on)", height)
	}
	left, unit := height-tip, "blocks"
	if left == 1 {
		unit = "block"
	}
	return fmt.Sprintf("at block %d, in %d %s, about %s", height, left, unit, now.Add(time.Duration(left)*blockTime).Format("2 January 2006"))
}

// history writes the records of the wallet's ledger; the chain is not asked.
func (c *walletCommand) history(ctx context.Context) error {
	request, err := c.export.request()
	if err != nil {
		return err
	}
	l, unlock, err := openLedger(ctx, *c.purse.data)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", *c.purse.data, wallet.ErrNoWallet)
	}
	if err != nil {
		return err
	}
	defer unlock()
	return c.export.write(c.io, func(w writer) error { return box.WriteRecords(ctx, l, w, request) })
}

// send pays: it shows what it will do, asks on a terminal, and waits until the
// network has it.
func (c *walletCommand) send(ctx context.Context, address, text string) error {
	network, err := c.purse.parseNetwork()
	if err != nil {
		return err
	}
	to, err := bsv.ParseAddress(address, network)
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	rate := money.FeeRate(*c.feeRate)
	if rate < 0 || rate > money.MaxFeeRate {
		return fmt.Errorf("%w: --fee-rate: %d is not between 1 and %d", errUsage, *c.feeRate, int64(money.MaxFeeRate))
	}
	var amount money.Satoshis
	if text != "all" {
		if amount, err = money.ParseSatoshis(text); err != nil {
			return fmt.Errorf("%w: amount: %w", errUsage, err)
		}
		if amount == 0 {
			return fmt.Errorf("%w: amount: at least 1 sat can be sent", errUsage)
		}
	}
	p, err := openPurse(ctx, c.purse, c.io)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.refresh(ctx); err != nil {
		return err
	}
	if text == "all" {
		f, err := p.wallet.PrepareAll(ctx, to, rate)
		return c.pay(ctx, p, f, address, err)
	}
	f, err := p.wallet.Prepare(ctx, to, amount, rate)
	return c.pay(ctx, p, f, address, err)
}

// pay makes a payment that is prepared, unless that failed or the owner does not
// want it.
func (c *walletCommand) pay(ctx context.Context, p *purse, f *wallet.Funding, address string, err error) error {
	if err != nil {
		return err
	}
	if err = c.show(ctx, p, f, address); err == nil {
		err = c.confirm(ctx)
	}
	if err != nil {
		return errors.Join(err, p.wallet.Release(context.WithoutCancel(ctx), f))
	}
	txid, err := p.wallet.Pay(ctx, f)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.io.out, txid)
	return c.await(ctx, p, txid)
}

// show says what a payment will do.
func (c *walletCommand) show(ctx context.Context, p *purse, f *wallet.Funding, address string) error {
	confirmed, unconfirmed, err := p.wallet.Balance(ctx)
	if err != nil {
		return err
	}
	left, err := money.Sum(confirmed, unconfirmed)
	if err == nil && f.Change != nil {
		left, err = left.Add(f.Change.Value)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.io.err, "pays   %v to %s\nfee    %v for %d bytes\nspends %d coins\nleaves %v in the wallet\n",
		f.Tx.Outputs[0].Value, address, f.Fee, f.Tx.Size(), len(f.Coins), left)
	return nil
}

// confirm asks on a terminal; who writes a script has made up his mind.
func (c *walletCommand) confirm(ctx context.Context) error {
	if !c.asks || *c.yes {
		return nil
	}
	fmt.Fprint(c.io.err, "Send it? [y/N] ")
	answer := make(chan string, 1)
	go func() { // nothing can end a read of a terminal; the program ends first
		line, _ := bufio.NewReader(c.io.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errInterrupted, errDeclined)
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
		return errDeclined
	}
}

// await waits until the network has a payment. It is stored: whatever ends the
// wait, it goes out the next time.
func (c *walletCommand) await(ctx context.Context, p *purse, txid bsv.Txid) error {
	limit, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		o, err := p.ledger.Outgoing(context.WithoutCancel(ctx), txid)
		if err != nil {
			return err
		}
		switch o.State {
		case ledger.Seen, ledger.Mined:
			return nil
		case ledger.Conflicted:
			return fmt.Errorf("%s was refused, and its coins are free again: %s", txid, printable(o.LastError))
		}
		select {
		case <-tick.C:
			continue
		case <-limit.Done():
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", errInterrupted, errUnseen)
		case o.LastError != "":
			return fmt.Errorf("%w: %s", errUnseen, printable(o.LastError))
		}
		return errUnseen
	}
}
