package systemd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Names of the credentials that the daemon knows (LoadCredential=).
const (
	WalletWords      = "wallet-words"      // the recovery words; then none lie in the data folder
	WalletPassphrase = "wallet-passphrase" // what the words in the data folder are locked with
)

// MaxCredential is the longest credential in bytes that is taken.
const MaxCredential = 4096

// ErrCredential says that a credential is too long to be one of ours.
var ErrCredential = errors.New("unusable credential from the service manager")

// Credential returns what the service manager has been given to keep for the
// daemon under a name (systemd.exec(5), Credentials), and whether it was given
// anything. It is not to be logged.
func Credential(name string) (text string, ok bool, err error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", false, nil
	}
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read credential: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxCredential+1))
	if err != nil {
		return "", false, fmt.Errorf("read credential: %w", err)
	}
	if len(b) > MaxCredential {
		return "", false, fmt.Errorf("%w: %s has more than %d bytes", ErrCredential, name, MaxCredential)
	}
	return string(b), true, nil
}
