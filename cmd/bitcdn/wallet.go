package main

import (
	"context"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
)

func runWallet(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "wallet", "address|balance|send ADDRESS AMOUNT", `The wallet that pays for downloads.

  address   an address to pay satoshis to
  balance   what the wallet can spend; takes back what seeders that are gone hold
  send      pay AMOUNT satoshis to ADDRESS`)
	purseOptions := addPurseFlags(flags)
	if done, err := parse(flags, args, 1, 3); done || err != nil {
		return err
	}
	verb := flags.Arg(0)
	wanted := map[string]int{"address": 1, "balance": 1, "send": 3}[verb]
	if wanted != flags.NArg() {
		return fmt.Errorf("%w: bitcdn wallet address, balance, or send ADDRESS AMOUNT", errUsage)
	}
	var amount money.Satoshis
	var to bsv.Hash160
	if verb == "send" {
		network, err := purseOptions.parseNetwork()
		if err != nil {
			return err
		}
		if to, err = bsv.ParseAddress(flags.Arg(1), network); err != nil {
			return fmt.Errorf("address: %w", err)
		}
		if amount, err = money.ParseSatoshis(flags.Arg(2)); err != nil {
			return fmt.Errorf("%w: amount: %w", errUsage, err)
		}
		if amount == 0 {
			return fmt.Errorf("%w: amount: at least 1 sat can be sent", errUsage)
		}
	}
	p, err := openPurse(ctx, purseOptions, io)
	if err != nil {
		return err
	}
	defer p.close()
	if verb == "address" {
		address, err := p.wallet.ReceiveAddress(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(io.out, address)
		return nil
	}
	if err := p.refresh(ctx); err != nil {
		return err
	}
	if verb == "send" {
		txid, err := p.wallet.Send(ctx, to, amount)
		if err != nil {
			return err
		}
		p.settle(ctx)
		fmt.Fprintln(io.out, txid)
		return nil
	}
	confirmed, unconfirmed, err := p.wallet.Balance(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(io.out, "%v in blocks, %v on the way\n", confirmed, unconfirmed)
	bound, err := p.bound(ctx)
	if err == nil && bound > 0 {
		fmt.Fprintf(io.out, "%v in channels that are not settled; what they do not cost comes back\n", bound)
	}
	return err
}
