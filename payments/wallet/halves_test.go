package wallet_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// What a power cut left of the wallet's file does not outlast its being locked.
func TestHalfWrittenWords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := wallet.Create(t.Context(), dir, bsv.Regtest, bytes.NewReader(make([]byte, 64))); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, wallet.FileName))
	if err != nil {
		t.Fatal(err)
	}
	half, other := filepath.Join(dir, ".wallet.toml.123.tmp"), filepath.Join(dir, ".money.db.123.tmp")
	for _, path := range []string{half, other} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := wallet.SetPassphrase(t.Context(), dir, "secret", nil, bytes.NewReader(make([]byte, 64))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the words are still there: %v", err)
	}
	if _, err := os.Lstat(other); err != nil {
		t.Error(err)
	}
}
