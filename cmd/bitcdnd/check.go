package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
)

// errDiffers says that a check has found something.
var errDiffers = errors.New("the ledger is not what it should be")

const checkAbout = `Checks the ledger of a box that does not run: the file, the books, and the
transactions in it; and compares it with the block chain, where the settings
name a service. Of a box that runs, "bitcdn box ledger check" does so.`

func runCheck(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "check", "", checkAbout)
	config, data := dataFlags(flags)
	offline := flags.Bool("offline", false, "do not compare with the chain")
	if done, err := parse(flags, args, 0); done || err != nil {
		return err
	}
	opt, err := offlineOptions(*config, *data, "error", flags, io)
	if err != nil {
		return err
	}
	path := filepath.Join(*data, "money.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: there is no ledger here", *data)
	}
	return locked(*data, func() error {
		l, err := ledger.Open(ctx, path, opt.Clock)
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }() // nothing was written
		var view chain.Backend
		if !*offline {
			v, err := box.OpenChain(ctx, opt)
			switch {
			case err == nil:
				defer func() { _ = v.Close() }()
				view = v
			case !errors.Is(err, box.ErrNoChain):
				return err
			}
		}
		report, err := box.CheckLedger(ctx, l, view)
		if err != nil {
			return err
		}
		fmt.Fprintf(io.out, "%d coins, %d transactions, %d closes looked at\n", report.Coins, report.Transactions, report.Closes)
		switch {
		case report.Offline:
			fmt.Fprintln(io.out, "not compared with the chain")
		case report.ChainError != "":
			fmt.Fprintf(io.out, "the comparison with the chain is not complete: %s\n", printable(report.ChainError))
		}
		for _, question := range report.Unasked {
			fmt.Fprintf(io.out, "the chain service cannot say: %s\n", printable(question))
		}
		for _, difference := range report.Differences {
			fmt.Fprintf(io.out, "! %s\n", printable(difference))
		}
		if n := len(report.Differences); n > 0 {
			return fmt.Errorf("%d differences: %w", n, errDiffers)
		}
		if report.ChainError != "" {
			return fmt.Errorf("%w: %s", chain.ErrUnavailable, printable(report.ChainError))
		}
		fmt.Fprintln(io.out, "the ledger adds up")
		return nil
	})
}
