package systemd_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/systemd"
)

func TestCredential(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if text, ok, err := systemd.Credential(systemd.WalletWords); text != "" || ok || err != nil {
		t.Error(text, ok, err)
	}
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if text, ok, err := systemd.Credential(systemd.WalletWords); text != "" || ok || err != nil {
		t.Error(text, ok, err)
	}
	for name, content := range map[string][]byte{
		systemd.WalletWords:      []byte("abandon ability\n"),
		systemd.WalletPassphrase: bytes.Repeat([]byte("x"), systemd.MaxCredential+1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if text, ok, err := systemd.Credential(systemd.WalletWords); text != "abandon ability\n" || !ok || err != nil {
		t.Error(text, ok, err)
	}
	if _, _, err := systemd.Credential(systemd.WalletPassphrase); !errors.Is(err, systemd.ErrCredential) {
		t.Error(err)
	}
}

// The unit shows how to give the credentials, and gives none by itself: systemd
// does not start a service whose credential is missing.
func TestCredentialsInUnit(t *testing.T) {
	text, err := systemd.Units.ReadFile("bitcdnd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{systemd.WalletWords, systemd.WalletPassphrase} {
		if !strings.Contains(string(text), "\n#LoadCredentialEncrypted="+name+":") {
			t.Errorf("no example for %s", name)
		}
	}
	if got := options(t, "bitcdnd.service")["LoadCredentialEncrypted"]; len(got) != 0 {
		t.Errorf("LoadCredentialEncrypted=%q", got)
	}
}
