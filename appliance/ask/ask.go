// Package ask gets secrets from people and from files: recovery words and
// passphrases. On a terminal they are typed without echo. They are never
// arguments of a command, which every user of the machine can read.
package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bitcdn/bitcdn/systemd"
	"golang.org/x/term"
)

// maxSecret is the longest secret in bytes.
const maxSecret = systemd.MaxCredential

var (
	// ErrNobody says that there is no terminal to ask at.
	ErrNobody = errors.New("there is no terminal to ask at")
	// ErrLong says that a file is too long for a secret.
	ErrLong = errors.New("too long for a secret")
	// ErrDiffer says that two entries of a new passphrase differ.
	ErrDiffer = errors.New("the two passphrases differ")
)

// Asker asks at a program's terminal.
type Asker struct {
	Ctx context.Context // ends a wait for a person
	In  io.Reader
	Out io.Writer // prompts; not the program's output
}

// terminal returns the terminal that In is.
func (a Asker) terminal() (*os.File, bool) {
	f, ok := a.In.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// secret asks for a line without echo. ErrNobody.
func (a Asker) secret(prompt string) (string, error) {
	f, ok := a.terminal()
	if !ok {
		return "", ErrNobody
	}
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask at the terminal: %w", err)
	}
	fmt.Fprint(a.Out, prompt)
	type answer struct {
		line []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() { // nothing ends a read of a terminal; the program ends first
		line, err := term.ReadPassword(fd)
		got <- answer{line, err}
	}()
	select {
	case <-a.Ctx.Done():
		fmt.Fprintln(a.Out)
		return "", errors.Join(a.Ctx.Err(), term.Restore(fd, before))
	case g := <-got:
		fmt.Fprintln(a.Out)
		if g.err != nil {
			return "", fmt.Errorf("ask at the terminal: %w", g.err)
		}
		return string(g.line), nil
	}
}

// Words returns recovery words: from the file, "-" for In; without a file from
// the service manager's credential, else from the terminal, else from In.
// given says that they came as a credential, so that nothing need write them
// down.
func (a Asker) Words(file string) (words string, given bool, err error) {
	if file != "" {
		words, err = a.read(file)
		return words, false, err
	}
	if words, given, err = systemd.Credential(systemd.WalletWords); given || err != nil {
		return words, given, err
	}
	words, err = a.secret("Recovery words: ")
	if errors.Is(err, ErrNobody) {
		words, err = a.read("-")
	}
	return words, false, err
}

// Passphrase returns a function for wallet.Options: the passphrase comes from
// the file, without one from the service manager's credential, else from the
// terminal. ErrNobody where there is none of these.
func (a Asker) Passphrase(file string) func() (string, error) {
	return func() (string, error) {
		if file != "" {
			text, err := a.read(file)
			return line(text), err
		}
		if text, ok, err := systemd.Credential(systemd.WalletPassphrase); ok || err != nil {
			return line(text), err
		}
		return a.secret("Passphrase of the wallet: ")
	}
}

// NewPassphrase returns one from a file, or asks for it twice. Errors are ErrNobody and
// ErrDiffer.
func (a Asker) NewPassphrase(file string) (string, error) {
	if file != "" {
		text, err := a.read(file)
		return line(text), err
	}
	first, err := a.secret("New passphrase: ")
	if err != nil {
		return "", err
	}
	second, err := a.secret("Once more: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", ErrDiffer
	}
	return first, nil
}

// line is a text without the line break that editors put after it.
func line(text string) string { return strings.TrimRight(text, "\r\n") }

// read reads a file, or In where it is "-".
func (a Asker) read(file string) (string, error) {
	from := a.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxSecret+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("%s: %w", file, ErrLong)
	}
	return string(b), nil
}
