package e2etest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/ledger"
)

// TestBoxDestroyed takes a box's disk away in the middle of a sale, and brings
// the earnings back from the second disk and the words on paper.
func TestBoxDestroyed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.Settings(ask)
	s.Upload.Rate = uploadRate
	s.Backup.Dir = filepath.Join(w.TempDir(), "second disk")
	w.Must(os.Mkdir(s.Backup.Dir, 0o700))
	b := w.Box(s)
	words, err := os.ReadFile(filepath.Join(b.Data, "recovery-words.txt"))
	w.Must(err)
	paper := filepath.Join(w.TempDir(), "paper")
	w.Must(os.WriteFile(paper, words, 0o600))
	c := w.Client(200_000)
	p := c.Get(generous, bigBudget)

	// A download of the backup, of a known moment; the second disk has its own.
	b.AwaitSold(p, titleLength/3)
	file := filepath.Join(w.TempDir(), "box.backup")
	w.WantExit(w.Start(w.TempDir(), filepath.Join(w.TempDir(), "log"), "bitcdn", "box", "backup", "--data", b.Data, "-o", file), 0)
	history := filepath.Join(w.TempDir(), "history.backup")
	w.WantExit(w.Start(w.TempDir(), filepath.Join(w.TempDir(), "log"), "bitcdn", "box", "backup", "--data", b.Data, "--whole", "-o", history), 0)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	w.Await("a backup on the second disk", func() error {
		found, err := filepath.Glob(filepath.Join(s.Backup.Dir, "bitcdn-*-state.backup"))
		if err == nil && len(found) == 0 {
			err = errors.New("none yet")
		}
		return err
	})
	b.AwaitSold(p, titleLength/2)
	b.Process.Kill()
	p.Kill()
	row := openRow(w, b.Channels())
	w.Must(os.RemoveAll(b.Data))

	// Somebody else's words open nothing.
	elsewhere := filepath.Join(w.TempDir(), "new box")
	config := filepath.Join(w.TempDir(), "bitcdnd.toml")
	s.Payout.Address = ""
	w.Must(box.WriteSettings(config, s))
	recover := func(wordsFile string) *e2e.Process {
		return w.Start(w.TempDir(), filepath.Join(w.TempDir(), "log"), "bitcdnd", "recover", "--data", elsewhere, "--config", config,
			"--words-file", wordsFile, "--backup", file, "--backup", history, "--gap", "200")
	}
	other := filepath.Join(w.TempDir(), "other")
	w.Must(os.WriteFile(other, []byte(strings.Repeat("abandon ", 11)+"about"), 0o600))
	bad := recover(other)
	w.WantExit(bad, 1)
	bad.WantWords("the backup belongs to another wallet", "bitcdnd: hint: check the words")

	good := recover(paper)
	w.WantExit(good, 0)
	good.WantWords("All of it has reached the network.", "set payout.address in the settings")
	w.Ledger(elsewhere, func(l *ledger.Ledger) {
		got, err := l.Channel(w.Ctx, row.ID)
		w.Must(err)
		tx := w.Mined(bsv.Txid(got.CloseTxid).String())
		if tx.Outputs[0].Value != got.Payee || got.State != ledger.StateClosed {
			t.Errorf("closed with %v, the backup has %v", tx.Outputs[0].Value, got)
		}
		// A third of the title had been sold when the backup was made.
		if least, err := ask.Due(titleLength / 3); err != nil || got.Payee < least || got.Payee > row.Payee {
			t.Errorf("%v came back, of %v; at least %v were backed up", got.Payee, row.Payee, least)
		}
		t.Logf("%v of %v came back", got.Payee, row.Payee)
	})

	// And it is a box again, which pays the earnings out.
	s.Payout.Address = b.Owner.Public().Hash().Address(regnode.Network)
	w.Must(box.WriteSettings(config, s))
	again := w.Start(w.TempDir(), filepath.Join(w.TempDir(), "log"), "bitcdnd", "--config", config, "--data", elsewhere)
	control := box.NewControl(elsewhere)
	w.Await("payout of the recovered earnings", func() error {
		if err := again.Running(); err != nil {
			return err
		}
		status, err := control.Status(w.Ctx)
		if err != nil {
			return err
		}
		if len(status.Earnings.Sweeps) == 0 {
			_, err = control.Sweep(w.Ctx, box.SweepRequest{})
			return errors.Join(errors.New("not yet"), err)
		}
		t.Logf("paid out by %s", status.Earnings.Sweeps[0].Txid)
		return nil
	})
}
