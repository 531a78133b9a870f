package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/wallet"
)

const walletAbout = `The words of the box's wallet, while the box does not run.

  words        compare the words on your paper with the wallet's
  passphrase   lock the words in the data folder with a passphrase, or change it;
               with --remove, unlock them

A locked wallet asks for its passphrase when the box starts: on the terminal,
from --passphrase-file, or from the credential wallet-passphrase of systemd.
Backups open with the words alone.`

func runWallet(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "wallet", "words|passphrase", walletAbout)
	_, data := dataFlags(flags)
	remove := flags.Bool("remove", false, "with passphrase: unlock the words")
	present := flags.String("passphrase-file", "", "`file` with the present passphrase")
	next := flags.String("new-passphrase-file", "", "with passphrase: `file` with the new one")
	wordsFile := flags.String("words-file", "", "with words: `file` with the words on your paper; - is the standard input")
	if done, err := parse(flags, args, 1); done || err != nil {
		return err
	}
	verb := flags.Arg(0)
	if verb != "words" && verb != "passphrase" {
		return fmt.Errorf("%w: bitcdnd wallet words or passphrase", errUsage)
	}
	ask := io.asker(ctx)
	return locked(*data, func() error {
		if verb == "words" {
			words, _, err := ask.Words(*wordsFile)
			if err == nil {
				err = wallet.CheckWords(*data, words, ask.Passphrase(*present))
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(io.out, "These are the wallet's words.")
			return nil
		}
		if _, err := wallet.Locked(*data); err != nil {
			return err
		}
		var passphrase string
		if !*remove {
			var err error
			if passphrase, err = ask.NewPassphrase(*next); err != nil {
				return err
			}
			if passphrase == "" {
				return fmt.Errorf("%w; bitcdnd wallet passphrase --remove unlocks the words", wallet.ErrPassphraseLength)
			}
		}
		if err := wallet.SetPassphrase(ctx, *data, passphrase, ask.Passphrase(*present), rand.Reader); err != nil {
			return err
		}
		if *remove {
			fmt.Fprintln(io.out, "The words are no longer locked.")
			return nil
		}
		fmt.Fprintln(io.out, "The words are locked. Without the passphrase the box does not start; the words on paper bring the money back all the same.")
		return nil
	})
}

// secretHint says what can be done about words and passphrases.
func secretHint(err error) string {
	switch {
	case errors.Is(err, wallet.ErrLocked), errors.Is(err, wallet.ErrWrongPassphrase):
		return "give the passphrase on the terminal, with --passphrase-file, or as the systemd credential wallet-passphrase; the words on paper and bitcdnd recover need none"
	case errors.Is(err, wallet.ErrOtherWords):
		return "name the data folder of the wallet with these words, with --data"
	}
	return ""
}
