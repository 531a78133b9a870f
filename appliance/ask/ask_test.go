package ask_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/appliance/ask"
	"github.com/bitcdn/bitcdn/systemd"
)

func asker(in string) ask.Asker {
	return ask.Asker{Ctx: context.Background(), In: strings.NewReader(in), Out: new(strings.Builder)}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWords(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	file := write(t, t.TempDir(), "words", "from a file\n")
	check := func(what, in, file, want string, wantGiven bool) {
		t.Helper()
		if words, given, err := asker(in).Words(file); strings.TrimSpace(words) != want || given != wantGiven || err != nil {
			t.Errorf("%s: %q, %v, %v", what, words, given, err)
		}
	}
	check("a pipe", "from a pipe\n", "", "from a pipe", false)
	check("a pipe by name", "from a pipe\n", "-", "from a pipe", false)
	check("a file", "from a pipe\n", file, "from a file", false)
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write(t, dir, systemd.WalletWords, "from systemd")
	check("a credential", "from a pipe\n", "", "from systemd", true)
	check("a file before a credential", "", file, "from a file", false)
	if _, _, err := asker("").Words(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, _, err := asker(strings.Repeat("x", 5000)).Words("-"); !errors.Is(err, ask.ErrLong) {
		t.Error(err)
	}
}

func TestPassphrase(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	file := write(t, t.TempDir(), "passphrase", " two words \r\n")
	if p, err := asker("").Passphrase(file)(); p != " two words " || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	if p, err := asker("").NewPassphrase(file); p != " two words " || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	// What comes through a pipe is not meant for this unless it is said so.
	if _, err := asker("something\n").Passphrase("")(); !errors.Is(err, ask.ErrNobody) {
		t.Error(err)
	}
	if _, err := asker("something\n").NewPassphrase(""); !errors.Is(err, ask.ErrNobody) {
		t.Error(err)
	}
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write(t, dir, systemd.WalletPassphrase, "from systemd\n")
	if p, err := asker("").Passphrase("")(); p != "from systemd" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
}
