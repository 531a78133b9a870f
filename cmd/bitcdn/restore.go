package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/bitcdn/bitcdn/appliance/ask"
	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/cmd/internal/scanline"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/storage/durable"
)

// errLedgerThere says that a wallet cannot be restored over another one's books.
var errLedgerThere = errors.New("the folder has a ledger and no wallet")

const secretAbout = `The recovery words of the wallet that pays for downloads.

  restore      make the wallet from its words on a new machine, and look for its
               coins on the block chain; again on the same folder, it looks once more
  words        compare the words on your paper with the wallet's
  passphrase   lock the words on this machine with a passphrase, or change it;
               with --remove, unlock them

Words and passphrases are asked for on the terminal, or read from files. What
sellers hold in channels that are open comes back when they close them, within
the time of the refund: run restore again then.`

// isSecretVerb says whether a verb of bitcdn wallet is about the words.
func isSecretVerb(verb string) bool {
	return slices.Contains([]string{"restore", "words", "passphrase"}, verb)
}

// secretCommand are the flags of these verbs.
type secretCommand struct {
	io        stdio
	purse     purseFlags
	words     *string
	gap       *uint32
	remove    *bool
	next      *string
	asker     ask.Asker
	firstTime bool
}

func runWalletSecrets(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "wallet", "restore|words|passphrase", secretAbout)
	c := &secretCommand{io: io, purse: addPurseFlags(flags), asker: asker(ctx, io)}
	c.words = flags.String("words-file", "", "with restore and words: `file` with the words; - is the standard input")
	c.gap = flags.Uint32("gap", 0, "with restore: how many unused channels in a row the search crosses; 0 is 5,000")
	c.remove = flags.Bool("remove", false, "with passphrase: unlock the words")
	c.next = flags.String("new-passphrase-file", "", "with passphrase: `file` with the new one")
	if done, err := parse(flags, args, 1, 1); done || err != nil {
		return err
	}
	switch verb := flags.Arg(0); {
	case !isSecretVerb(verb):
		return fmt.Errorf("%w: bitcdn wallet %s", errUsage, verb)
	case verb == "restore":
		return c.restore(ctx)
	}
	return c.locked(func() error {
		if flags.Arg(0) == "words" {
			return c.check()
		}
		return c.passphrase(ctx)
	})
}

func asker(ctx context.Context, io stdio) ask.Asker {
	return ask.Asker{Ctx: ctx, In: io.in, Out: io.err}
}

// locked works on the wallet's folder while no other command does.
func (c *secretCommand) locked(work func() error) error {
	if err := os.MkdirAll(*c.purse.data, 0o700); err != nil {
		return err
	}
	lock, err := box.Lock(*c.purse.data)
	if err != nil {
		return err
	}
	defer lock.Close()
	return work()
}

func (c *secretCommand) check() error {
	words, _, err := c.asker.Words(*c.words)
	if err == nil {
		err = wallet.CheckWords(*c.purse.data, words, c.asker.Passphrase(*c.purse.passphrase))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(c.io.out, "These are the wallet's words.")
	return nil
}

func (c *secretCommand) passphrase(ctx context.Context) error {
	if _, err := wallet.Locked(*c.purse.data); err != nil {
		return err
	}
	var next string
	if !*c.remove {
		var err error
		if next, err = c.asker.NewPassphrase(*c.next); err != nil {
			return err
		}
		if next == "" {
			return fmt.Errorf("%w; with --remove the words are unlocked", wallet.ErrPassphraseLength)
		}
	}
	if err := wallet.SetPassphrase(ctx, *c.purse.data, next, c.asker.Passphrase(*c.purse.passphrase), rand.Reader); err != nil {
		return err
	}
	if *c.remove {
		fmt.Fprintln(c.io.out, "The words are no longer locked.")
	} else {
		fmt.Fprintln(c.io.out, "The words are locked. The words on paper bring the money back without the passphrase.")
	}
	return nil
}

// restore makes the wallet where there is none, and looks for its coins.
func (c *secretCommand) restore(ctx context.Context) error {
	network, err := c.purse.parseNetwork()
	if err != nil {
		return err
	}
	if _, err := c.purse.chainServices(network); err != nil {
		return err // before anybody types twelve words
	}
	words, _, err := c.asker.Words(*c.words)
	if err != nil {
		return fmt.Errorf("recovery words: %w", err)
	}
	if err := c.locked(func() error { return c.make(ctx, words) }); err != nil {
		return err
	}
	line := scanline.New(c.io.err)
	c.purse.scanning, c.purse.gap = line.Scanning, *c.gap
	p, err := openPurse(ctx, c.purse, c.io)
	if err != nil {
		return err
	}
	defer p.close()
	if p.wallet.Scanned(ctx) == nil {
		err = p.wallet.Rescan(ctx)
	}
	if err == nil {
		err = p.refresh(ctx)
	}
	line.End()
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", errInterrupted, err)
		}
		return err
	}
	confirmed, unconfirmed, err := p.wallet.Balance(ctx)
	if err != nil {
		return err
	}
	if c.firstTime {
		fmt.Fprintln(c.io.out, "The wallet is restored.")
	}
	fmt.Fprintf(c.io.out, "%v in blocks, %v on the way\n", confirmed, unconfirmed)
	return nil
}

// make puts the words into the folder, unless they are there.
func (c *secretCommand) make(ctx context.Context, words string) error {
	network, err := c.purse.parseNetwork()
	if err != nil {
		return err
	}
	err = wallet.CheckWords(*c.purse.data, words, c.asker.Passphrase(*c.purse.passphrase))
	if !errors.Is(err, wallet.ErrNoWallet) {
		return err
	}
	if _, err := os.Stat(filepath.Join(*c.purse.data, "money.db")); err == nil {
		return fmt.Errorf("%s: %w", *c.purse.data, errLedgerThere)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.firstTime = true
	return wallet.Restore(ctx, *c.purse.data, words, network)
}

const boxBackupAbout = `Writes an encrypted backup of a running box to a file: what its open channels
have earned, which the recovery words alone do not bring back. With the words
and this file, "bitcdnd recover" closes every channel in it.

With backup.dir in its settings the box does so by itself, every minute.`

func runBoxBackup(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "box backup", "", boxBackupAbout)
	data := flags.String("data", environment("BITCDN_BOX", "/var/lib/bitcdn"), "the box's data `folder`; env BITCDN_BOX")
	output := flags.StringP("output", "o", "", "write to this `file`")
	whole := flags.Bool("whole", false, "the whole ledger, with its history")
	disk := flags.Bool("new-disk", false, "write nothing; the folder backup.dir is on another disk from now on")
	if done, err := parse(flags, args, 0, 0); done || err != nil {
		return err
	}
	control := box.NewControl(*data)
	switch {
	case *disk && *output == "":
		return control.NewBackupDisk(ctx)
	case *disk || *output == "":
		return fmt.Errorf("%w: bitcdn box backup -o FILE, or --new-disk", errUsage)
	}
	return durable.ReplaceWith(*output, 0o600, func(w writer) error {
		return control.Backup(ctx, box.BackupRequest{Whole: *whole}, w)
	})
}

// restoreHint says what can be done about words, passphrases and restores.
func restoreHint(err error) string {
	switch {
	case errors.Is(err, wallet.ErrLocked), errors.Is(err, wallet.ErrWrongPassphrase):
		return "give the passphrase on the terminal or with --passphrase-file; the words on paper and bitcdn wallet restore need none"
	case errors.Is(err, ask.ErrNobody):
		return "name a file: bitcdn wallet passphrase --help says how"
	case errors.Is(err, wallet.ErrOtherWords), errors.Is(err, errLedgerThere):
		return "give the restored wallet a folder of its own with --data"
	case errors.Is(err, wallet.ErrNotScanned):
		return "run bitcdn wallet restore again: it goes on where it stopped"
	}
	return ""
}
