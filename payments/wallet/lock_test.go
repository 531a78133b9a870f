package wallet_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

func say(passphrase string) func() (string, error) {
	return func() (string, error) { return passphrase, nil }
}

func TestPassphrase(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, wallet.FileName)
	words, err := wallet.Create(ctx, dir, bsv.Regtest, entropy(1))
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := ledger.Open(ctx, filepath.Join(dir, "money.db"), time.Now)
	must(err)
	defer l.Close()
	open := func(passphrase func() (string, error)) error {
		_, err := wallet.Open(ctx, dir, l, memory.New(time.Now), wallet.Options{Passphrase: passphrase})
		return err
	}
	locked := func(want bool) {
		t.Helper()
		if got, err := wallet.Locked(dir); got != want || err != nil {
			t.Errorf("locked %v, %v", got, err)
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), strings.Fields(words)[3]) == want || err != nil {
			t.Errorf("the file holds the words: %v, %v", !want, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	must(open(nil))
	locked(false)
	must(wallet.SetPassphrase(ctx, dir, "correct horse", nil, entropy(2)))
	locked(true)
	must(open(say("correct horse")))
	before, err := os.ReadFile(path)
	must(err)
	no := errors.New("nobody there")
	for name, c := range map[string]struct {
		err, want error
	}{
		"nothing asked":             {open(nil), wallet.ErrLocked},
		"wrong":                     {open(say("correct hors")), wallet.ErrWrongPassphrase},
		"empty":                     {open(say("")), wallet.ErrWrongPassphrase},
		"long":                      {open(say(strings.Repeat("x", 2000))), wallet.ErrWrongPassphrase},
		"nobody":                    {open(func() (string, error) { return "", no }), no},
		"changed with a wrong one":  {wallet.SetPassphrase(ctx, dir, "another", say("wrong"), entropy(3)), wallet.ErrWrongPassphrase},
		"removed without the right": {wallet.SetPassphrase(ctx, dir, "", nil, entropy(3)), wallet.ErrLocked},
		"too long a new one":        {wallet.SetPassphrase(ctx, dir, strings.Repeat("x", 2000), say("correct horse"), entropy(3)), wallet.ErrPassphraseLength},
		"no randomness":             {wallet.SetPassphrase(ctx, dir, "x", say("correct horse"), strings.NewReader("")), nil},
		"check with a wrong one":    {wallet.CheckWords(dir, words, say("wrong")), wallet.ErrWrongPassphrase},
	} {
		if c.err == nil || c.want != nil && !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	if after, err := os.ReadFile(path); !bytes.Equal(before, after) || err != nil {
		t.Errorf("the file was changed, %v", err)
	}
	must(wallet.CheckWords(dir, strings.ToUpper(words), say("correct horse")))
	must(wallet.SetPassphrase(ctx, dir, "another", say("correct horse"), entropy(4)))
	must(open(say("another")))
	if err := open(say("correct horse")); !errors.Is(err, wallet.ErrWrongPassphrase) {
		t.Errorf("the former one: %v", err)
	}
	// A wallet of one network is not opened as that of another.
	text, err := os.ReadFile(path)
	must(err)
	must(os.WriteFile(path, bytes.Replace(text, []byte("regtest'"), []byte("main'"), 1), 0o600))
	if err := open(say("another")); !errors.Is(err, wallet.ErrWrongPassphrase) {
		t.Errorf("another network: %v", err)
	}
	must(os.WriteFile(path, text, 0o600))
	must(wallet.SetPassphrase(ctx, dir, "", say("another"), entropy(5)))
	locked(false)
	must(open(nil))
}

// A damaged file takes neither the machine's memory nor its time.
func TestLockedFileIsChecked(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, wallet.FileName)
	if _, err := wallet.Create(ctx, dir, bsv.Regtest, entropy(1)); err != nil {
		t.Fatal(err)
	}
	if err := wallet.SetPassphrase(ctx, dir, "x", nil, entropy(2)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"memory = 65536", "memory = 4000000000"}, {"memory = 65536", "memory = 1"}, {"passes = 3", "passes = 0"},
		{"passes = 3", "passes = 100000"}, {"threads = 4", "threads = 0"}, {"argon2id", "argon3"}, {"version = 2", "version = 1"},
		{"version = 2", "version = 3"},
	} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
		if changed == string(text) {
			t.Fatalf("%q is not in the file:\n%s", change[0], text)
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := wallet.CheckWords(dir, strings.Repeat("abandon ", 11)+"about", say("x")); !errors.Is(err, wallet.ErrFile) {
			t.Errorf("%s: %v", change[1], err)
		}
	}
}

func TestCheckWords(t *testing.T) {
	dir := t.TempDir()
	words, err := wallet.Create(context.Background(), dir, bsv.Regtest, entropy(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := wallet.CheckWords(dir, " "+words+"\n", nil); err != nil {
		t.Error(err)
	}
	if err := wallet.CheckWords(dir, strings.Repeat("abandon ", 11)+"about", nil); !errors.Is(err, wallet.ErrOtherWords) {
		t.Error(err)
	}
	if err := wallet.CheckWords(dir, words+" zoo", nil); !errors.Is(err, bsv.ErrWordsCount) {
		t.Error(err)
	}
	if err := wallet.CheckWords(t.TempDir(), words, nil); !errors.Is(err, wallet.ErrNoWallet) {
		t.Error(err)
	}
}

// Secrets depend on the words and the purpose, and on nothing else.
func TestSecret(t *testing.T) {
	bubble(t, func(r *rig) {
		a, err := r.wallet.Secret("backups")
		r.must(err)
		b, err := wallet.Secret(r.words, "backups")
		r.must(err)
		other, err := r.wallet.Secret("something else")
		r.must(err)
		if a != b || a == other {
			r.Errorf("%x, %x, %x", a, b, other)
		}
		if _, err := wallet.Secret("no words", "backups"); !errors.Is(err, bsv.ErrWordsCount) {
			r.Error(err)
		}
	})
}
