package backup_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// Who finds the backup only after a search with the words alone was begun and
// interrupted gives it to the next try.
func TestABackupThatIsFoundLater(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		s := m.sell(1000, 0)
		history := m.history()
		time.Sleep(time.Minute)
		later := m.sell(2000, 0)
		newer := m.history()
		m.destroy()
		r := recovered{dir: filepath.Join(m.TempDir(), "new")}
		for _, files := range [][]string{nil, {history}, {history, newer}} {
			ctx, cancel := context.WithCancel(m.ctx)
			cfg := m.recovery(r.dir, files...)
			cfg.Scanning = func(wallet.Scan) { cancel() }
			if result, err := backup.Recover(ctx, cfg); err == nil || result.Done {
				m.Fatalf("%+v, %v", result, err)
			}
		}
		r.result, r.err = backup.Recover(m.ctx, m.recovery(r.dir))
		m.must(r.err)
		for sale, want := range map[*sale]money.Satoshis{s: 1000, later: 2000} {
			if got := paid(sale.onChain(), sale.state.Terms.PayeeHash); got != want {
				m.Errorf("%v came back, want %v", got, want)
			}
		}
		m.reopen(r.dir, func(*ledger.Ledger, *wallet.Wallet) {})
		if left, err := filepath.Glob(filepath.Join(r.dir, "*.tmp")); err != nil || len(left) > 0 {
			m.Errorf("left behind: %v, %v", left, err)
		}
	})
}

// A backup was made after a payer had the refund's signature and before its
// funding left: the capacity comes back.
func TestRecoverAFundingThatLeftLater(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		bought, _, _ := m.buy(0)
		row, err := m.ledger.Channel(m.ctx, bought.ID())
		m.must(err)
		m.must(m.ledger.Close())
		m.must(os.RemoveAll(m.dir))
		_, err = wallet.Create(m.ctx, m.dir, bsv.Regtest, bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
		m.must(err)
		m.open()
		bought.Phase, row.State = channel.Signed, ledger.StateOpening
		row.Snapshot, err = bought.Snapshot()
		m.must(err)
		m.must(m.ledger.SaveChannel(m.ctx, row))
		file := m.backup()
		m.destroy()
		c.MineTo(refundHeight)
		r := m.recover(file)
		if l := lineOf(m, r, bought.ID()); l.State != "taken back" || l.Chain < capacity-100 {
			m.Errorf("%+v", l)
		}
	})
}

// SQLite takes a log that lies beside a database for its own, and one of another
// database would damage it.
func TestALogWithoutItsLedger(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		m.sell(1000, 0)
		history, state := m.history(), m.backup()
		log, err := os.ReadFile(filepath.Join(m.dir, "money.db-wal"))
		m.must(err)
		m.destroy()
		for _, files := range [][]string{{history}, {state}, nil} {
			dir := m.TempDir()
			left := filepath.Join(dir, "money.db-wal")
			m.must(os.WriteFile(left, log, 0o600))
			if _, err := backup.Recover(m.ctx, m.recovery(dir, files...)); !errors.Is(err, backup.ErrLedgerThere) {
				m.Errorf("%d files: %v", len(files), err)
			}
			if now, err := os.ReadFile(left); err != nil || string(now) != string(log) {
				m.Errorf("what was left of the ledger was changed: %v", err)
			}
		}
	})
}

// Coins that were paid out after the backup are not shown as still there.
func TestPaidOutAfterTheBackup(t *testing.T) {
	for name, buried := range map[string]int{"buried": 7, "not buried": 1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(m *machine, c *memory.Chain) {
				s := m.sell(4000, 0)
				tx := s.closing()
				m.step()
				c.Mine(buried)
				m.step()
				history, state := m.history(), m.backup()
				s.sweep(tx)
				c.Mine(1)
				m.destroy()
				for _, files := range [][]string{{history}, {state}, {history, state}} {
					r := m.recover(files...)
					if r.result.Confirmed != 0 || r.result.Unconfirmed != 0 || r.result.Coins != 0 {
						m.Errorf("%d files: %+v", len(files), r.result)
					}
				}
			})
		})
	}
}

// A disk on which the newest backup is not, because it is another one or
// somebody has tidied up, gets one also while nothing changes.
func TestBackupsThatDisappear(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		dir := m.TempDir()
		clock := &hands{now: made}
		var status backup.Status
		k := m.keeper(dir, clock.Now, func(s backup.Status) { status = s })
		s := m.sell(100, 0)
		m.must(k.Step(m.ctx))
		names := backups(m.T, dir, "state")
		if len(names) != 1 {
			m.Fatal(names)
		}
		m.must(os.Remove(filepath.Join(dir, names[0])))
		clock.move(time.Minute)
		m.must(k.Step(m.ctx))
		if names = backups(m.T, dir, "state"); len(names) != 1 || !status.Last.Equal(clock.Now()) {
			m.Fatalf("%v, %+v", names, status)
		}
		// Emptied by somebody, or cut short by the disk.
		m.must(os.Truncate(filepath.Join(dir, names[0]), 64))
		clock.move(time.Minute)
		m.must(k.Step(m.ctx))
		if names = backups(m.T, dir, "state"); len(names) != 2 {
			m.Fatal(names)
		}
		// Unplugged, while nothing is sold.
		m.must(os.Rename(dir, dir+"-elsewhere"))
		clock.move(time.Minute)
		if err := k.Step(m.ctx); !errors.Is(err, backup.ErrNoDisk) {
			m.Error(err)
		}
		m.must(os.Rename(dir+"-elsewhere", dir))
		if r := m.recoverNewest(dir); s.line(r).Chain != 100 {
			m.Errorf("%+v", s.line(r))
		}
	})
}

// A ticker that comes a little early does not make a minute of 65 seconds.
func TestAMinuteOfEarlyTicks(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		dir := m.TempDir()
		clock := &hands{now: made}
		k := m.keeper(dir, clock.Now, nil)
		s := m.sell(100, 0)
		m.must(k.Step(m.ctx))
		s.pay(200, 0)
		for range 12 {
			clock.move(5*time.Second - time.Millisecond)
			m.must(k.Step(m.ctx))
		}
		if names := backups(m.T, dir, "state"); len(names) != 2 {
			m.Errorf("after %v the payment is in none of %v", clock.Now().Sub(made), names)
		}
	})
}

// The copy of a large ledger must not take the room that payments need.
func TestRoomForACopy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size, free int64
		ok         bool
	}{{1 << 30, 1 << 30, false}, {1 << 30, 1<<30 + 64<<20, true}, {1 << 30, 1<<30 + 64<<20 - 1, false}, {4096, 0, false}} {
		if err := backup.RoomFor(c.size, c.free); (err == nil) != c.ok || err != nil && !errors.Is(err, backup.ErrNoRoom) {
			t.Errorf("%d of %d: %v", c.size, c.free, err)
		}
	}
}

// What a power cut left half written does not fill the disk.
func TestHalfWrittenBackups(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		dir := m.TempDir()
		clock := &hands{now: made}
		k := m.keeper(dir, clock.Now, nil)
		m.must(k.Step(m.ctx))
		m.must(k.StepHistory(m.ctx))
		var stay, gone []string
		for _, kind := range []string{"state", "history"} {
			name := "." + backups(m.T, dir, kind)[0] + ".123.tmp"
			gone = append(gone, name)
		}
		stay = append(stay, ".bitcdn-0102030405060708-00000001-20270115T080000Z-state.backup.1.tmp", ".photo.tmp")
		for _, name := range append(stay, gone...) {
			m.must(os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600))
		}
		m.sell(100, 0)
		clock.move(25 * time.Hour)
		m.must(k.Step(m.ctx))
		m.must(k.StepHistory(m.ctx))
		for _, name := range gone {
			if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
				m.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range stay {
			if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
				m.Error(err)
			}
		}
	})
}
