package wallet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/storage/durable"
	"github.com/pelletier/go-toml/v2"
)

// FileName is the name of the wallet's file in its directory.
const FileName = "wallet.toml"

const (
	fileVersion = 1
	maxFile     = 64 << 10 // bytes
	entropySize = 16       // bytes: 12 words
)

// file is what the wallet's file holds: all that its keys are derived from.
type file struct {
	Version int         `toml:"version" comment:"Whoever can read this file can spend the money. Keep a copy of the words on paper."`
	Network bsv.Network `toml:"network" comment:"main, test or regtest"`
	Words   string      `toml:"words"`
	// Restored is set where the words were used before, so that keys and coins
	// are to be looked for on the chain.
	Restored bool `toml:"restored"`
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
	if err := writeFile(ctx, dir, file{Version: fileVersion, Network: net, Words: words, Restored: true}); err != nil {
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
	if f.Version != fileVersion {
		return file{}, fmt.Errorf("%s: version %d: %w", path, f.Version, ErrFile)
	}
	if f.Words, err = bsv.CheckMnemonic(f.Words); err != nil {
		return file{}, fmt.Errorf("%s: %w", path, ErrFile)
	}
	return f, nil
}
