package wallet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/storage/durable"
	"github.com/pelletier/go-toml/v2"
)

// FileName is the name of the wallet's file in its directory.
const FileName = "wallet.toml"

const (
	fileVersion   = 1        // with the words
	lockedVersion = 2        // with the words locked, which the first programs did not know
	maxFile       = 64 << 10 // bytes
	entropySize   = 16       // bytes: 12 words
)

// file is what the wallet's file holds: all that its keys are derived from.
type file struct {
	Version int         `toml:"version" comment:"Whoever can read this file can spend the money. Keep a copy of the words on paper."`
	Network bsv.Network `toml:"network" comment:"main, test or regtest"`
	Words   string      `toml:"words,omitempty"`
	// Restored is set where the words were used before, so that keys and coins
	// are to be looked for on the chain. RestoreID names that occasion: a ledger
	// may know of an earlier one.
	Restored  bool         `toml:"restored"`
	RestoreID string       `toml:"restore_id,omitempty"`
	Used      bool         `toml:"used,omitempty" comment:"there has been a ledger for this wallet"`
	Locked    *lockedWords `toml:"locked,omitempty" comment:"the words, locked with a passphrase"`
}

// Create makes a new wallet in dir, which it creates with mode 0700 where it is
// missing, and returns the recovery words, to be shown once. entropy is the
// source of randomness. The words are on the disk when it returns nil.
// ErrExists where there is a wallet already.
func Create(ctx context.Context, dir string, net bsv.Network, entropy io.Reader) (words string, err error) {
	random := make([]byte, entropySize)
	if _, err := io.ReadFull(entropy, random); err != nil {
		return "", fmt.Errorf("create wallet: read randomness: %w", err)
	}
	if words, err = bsv.NewMnemonic(random); err != nil {
		return "", fmt.Errorf("create wallet: %w", err)
	}
	if err := writeFile(ctx, dir, file{Version: fileVersion, Network: net, Words: words}); err != nil {
		return "", fmt.Errorf("create wallet: %w", err)
	}
	return words, nil
}

// Restore makes a wallet in dir from recovery words. Errors are those of
// bsv.CheckMnemonic, and ErrExists where there is a wallet already. The wallet
// gives out no keys until its first Refresh has looked for what the words were
// used for.
func Restore(ctx context.Context, dir, words string, net bsv.Network) error {
	words, err := bsv.CheckMnemonic(words)
	if err != nil {
		return fmt.Errorf("restore wallet: %w", err)
	}
	f := file{Version: fileVersion, Network: net, Words: words, Restored: true, RestoreID: rand.Text()}
	if err := writeFile(ctx, dir, f); err != nil {
		return fmt.Errorf("restore wallet: %w", err)
	}
	return nil
}

// writeFile puts the file into dir at once and for good, and never over
// another.
func writeFile(ctx context.Context, dir string, f file) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text, err := toml.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, FileName)
	err = durable.Create(path, text, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	return err
}

func readFile(dir string) (file, error) {
	path := filepath.Join(dir, FileName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, fmt.Errorf("%s: %w", path, ErrNoWallet)
	}
	if err != nil {
		return file{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return file{}, fmt.Errorf("%s has mode %04o: %w", path, info.Mode().Perm(), ErrExposed)
	}
	if info.Size() > maxFile {
		return file{}, fmt.Errorf("%s: %d bytes: %w", path, info.Size(), ErrFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return file{}, err
	}
	var f file
	if err := toml.Unmarshal(text, &f); err != nil {
		// The decoder's words may quote the file, which holds the secret.
		return file{}, fmt.Errorf("%s: %w", path, ErrFile)
	}
	switch {
	case f.Version == lockedVersion && f.Locked != nil && f.Words == "":
		return f, nil
	case f.Version != fileVersion || f.Locked != nil:
		return file{}, fmt.Errorf("%s: version %d: %w", path, f.Version, ErrFile)
	}
	if f.Words, err = bsv.CheckMnemonic(f.Words); err != nil {
		return file{}, fmt.Errorf("%s: %w", path, ErrFile)
	}
	return f, nil
}

// unlock sees to it that the words of f can be read. ask is called where they
// are locked; nil answers ErrLocked.
func (f *file) unlock(ask func() (string, error)) error {
	if f.Locked == nil {
		return nil
	}
	if ask == nil {
		return ErrLocked
	}
	passphrase, err := ask()
	if err != nil {
		return err
	}
	words, err := f.Locked.open(passphrase, f.context())
	if err != nil {
		return err
	}
	if f.Words, err = bsv.CheckMnemonic(words); err != nil {
		return ErrFile
	}
	return nil
}

// context is bound to locked words: those of one network are no other's.
func (f *file) context() string { return "BitCDN wallet 2 " + f.Network.String() }

// Locked reports whether the words of the wallet in dir are locked with a
// passphrase. Errors are ErrNoWallet, ErrFile and ErrExposed.
func Locked(dir string) (bool, error) {
	f, err := readFile(dir)
	if err != nil {
		return false, fmt.Errorf("read wallet: %w", err)
	}
	return f.Locked != nil, nil
}

// SetPassphrase locks the words of the wallet in dir with a passphrase, or
// unlocks them for good where it is empty. present is asked for the one that
// they are locked with; nil where they are not. entropy is the source of
// randomness. Errors are those of Open and ErrPassphraseLength; on an error the
// file is as it was.
//
// The words lay on the disk before, and what was there may be found by who has
// the disk: those of a new wallet are safer than those that are locked later.
func SetPassphrase(ctx context.Context, dir, passphrase string, present func() (string, error), entropy io.Reader) error {
	if err := setPassphrase(ctx, dir, passphrase, present, entropy); err != nil {
		return fmt.Errorf("set passphrase: %w", err)
	}
	return nil
}

func setPassphrase(ctx context.Context, dir, passphrase string, present func() (string, error), entropy io.Reader) error {
	f, err := readFile(dir)
	if err != nil {
		return err
	}
	if err := f.unlock(present); err != nil {
		return err
	}
	f.Version, f.Locked = fileVersion, nil
	if passphrase != "" {
		if f.Locked, err = lockWords(f.Words, passphrase, f.context(), entropy); err != nil {
			return err
		}
		f.Version, f.Words = lockedVersion, ""
	}
	return replaceFile(ctx, dir, f)
}

// markUsed notes in the wallet's file that there is a ledger for it.
func markUsed(ctx context.Context, dir string) error {
	f, err := readFile(dir)
	if err != nil {
		return err
	}
	f.Used = true
	return replaceFile(ctx, dir, f)
}

func replaceFile(ctx context.Context, dir string, f file) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text, err := toml.Marshal(f)
	if err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(dir, FileName), text, 0o600); err != nil {
		return err
	}
	return removeHalves(dir)
}

// removeHalves removes what a power cut has left of a file being written: the
// words would lie there unlocked for good.
func removeHalves(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	removed := false
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "."+FileName+".") && strings.HasSuffix(name, ".tmp") {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
			removed = true
		}
	}
	if !removed {
		return nil
	}
	return durable.SyncDir(dir)
}

// CheckWords compares words that a person has on paper with those of the wallet
// in dir: nil where they are the same, ErrOtherWords where they are others, and
// the errors of bsv.CheckMnemonic where they are none. passphrase is asked for
// where the wallet is locked.
func CheckWords(dir, words string, passphrase func() (string, error)) error {
	words, err := bsv.CheckMnemonic(words)
	if err != nil {
		return fmt.Errorf("check words: %w", err)
	}
	f, err := readFile(dir)
	if err == nil {
		err = f.unlock(passphrase)
	}
	if err == nil && f.Words != words {
		err = ErrOtherWords
	}
	if err != nil {
		return fmt.Errorf("check words: %w", err)
	}
	return nil
}
