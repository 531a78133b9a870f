package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/cmd/internal/scanline"
	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/spf13/pflag"
)

// errUnseen says that a recovery ended before the network had every close.
var errUnseen = errors.New("not everything has reached the network yet")

const recoverAbout = `Brings a box's money back on a new machine, from its recovery words.

Without --backup the coins come back that are on the block chain. What open
channels have earned is only in backups: with one of them, every channel in it
is closed. Where the chain has more than the backup, that is kept.

Make sure that the old box is off and stays off: two boxes with one wallet close
the same channels and spend the same coins, and what the old one is still paid
may be lost.

The words are asked for on the terminal, or read from --words-file or the
standard input. Interrupt it at any time: run it again with the same folder and
it goes on. It ends by itself when the network has every close.`

func runRecover(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "recover", "", recoverAbout)
	config, data := dataFlags(flags)
	files := flags.StringArray("backup", nil, "backup `file`, of the state or of the whole ledger; may be given several times")
	wordsFile := flags.String("words-file", "", "`file` with the recovery words; - is the standard input")
	gap := flags.Uint32("gap", 0, "how many unused channels in a row the search crosses; 0 is wallet.gap of the settings")
	level := flags.String("log", "error", "what is logged: debug, info, warn or error")
	if done, err := parse(flags, args, 0); done || err != nil {
		return err
	}
	opt, err := offlineOptions(*config, *data, *level, flags, io)
	if err != nil {
		return err
	}
	if *gap == 0 {
		*gap = opt.Settings.Wallet.Gap
	}
	words, given, err := io.asker(ctx).Words(*wordsFile)
	if err != nil {
		return fmt.Errorf("recovery words: %w", err)
	}
	// Before the folder is made: a backup that cannot be used changes nothing.
	if err := backup.Check(ctx, words, opt.Settings.Network, *files); err != nil {
		return err
	}
	return locked(*data, func() error {
		view, err := box.OpenChain(ctx, opt)
		if err != nil {
			return err
		}
		defer func() { _ = view.Close() }() // what it keeps can be had again
		progress := scanline.New(io.err)
		result, err := backup.Recover(ctx, backup.Recovery{Words: words, Network: opt.Settings.Network, Dir: *data, Files: *files,
			WordsElsewhere: given, Passphrase: io.asker(ctx).Passphrase(""), Chain: view, Gap: *gap, Poll: time.Duration(opt.Settings.Chain.Poll),
			Clock: opt.Clock, Random: rand.Reader, Log: opt.Log, Scanning: progress.Scanning,
			Changed: func(lines []backup.Line) {
				if len(lines) > 0 {
					progress.Set(settled(lines))
				}
			}})
		progress.End()
		printRecovered(io.out, result, opt.Settings.Payout.Address)
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("%w: interrupted", errUnseen)
		case err != nil:
			return err
		}
		return nil
	})
}

// offlineOptions are those of a box that does not run.
func offlineOptions(config, data, level string, flags *pflag.FlagSet, io stdio) (box.Options, error) {
	settings, err := loadSettings(config, flags)
	if err != nil {
		return box.Options{}, err
	}
	log, err := logger(io.err, level)
	return box.Options{Settings: settings, DataDir: data, Version: version, Clock: time.Now, Log: log}, err
}

func logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("%w: --log: %w", errUsage, err)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// locked works on a data folder that no daemon uses, and makes it where there
// is none.
func locked(data string, work func() error) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	lock, err := box.Lock(data)
	if err != nil {
		return err
	}
	defer lock.Close()
	return work()
}

// settled says how many channels are.
func settled(lines []backup.Line) string {
	done := 0
	for _, l := range lines {
		if l.Done {
			done++
		}
	}
	return fmt.Sprintf("%d of %d channels are settled", done, len(lines))
}

// printRecovered is the table of what came back.
func printRecovered(w io.Writer, r backup.Result, payout string) {
	if !r.Made.IsZero() {
		fmt.Fprintf(w, "backup of %s; what was paid after it is in no backup, and came back only where the chain has it\n\n",
			r.Made.Local().Format("2 January 2006 15:04:05"))
	}
	if len(r.Lines) > 0 {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "CHANNEL\tROLE\tBACKUP\tON THE CHAIN\tTRANSACTION\tSTATE\tTITLE")
		for _, l := range r.Lines {
			txid := "-"
			if !l.Txid.IsZero() {
				txid = l.Txid.String()
			}
			fmt.Fprintf(t, "%s\t%s\t%v\t%v\t%s\t%s\t%s\n", hex.EncodeToString(l.Channel[:8]), roleName(l.Role), l.Backup, l.Chain, txid, l.State, printable(l.Title))
		}
		_ = t.Flush() // the end of a pipe is no error of ours
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%d coins: %v in blocks, %v on the way\n", r.Coins, r.Confirmed, r.Unconfirmed)
	if r.Payout != "" && r.Payout != payout {
		fmt.Fprintf(w, "The backup's payout address is %s; set payout.address in the settings.\n", r.Payout)
	}
	if r.Done {
		fmt.Fprintln(w, "All of it has reached the network. bitcdnd can be started on this folder.")
	}
}

func roleName(r ledger.Role) string {
	if r == ledger.Payer {
		return "bought"
	}
	return "sold"
}
