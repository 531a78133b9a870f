package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// bubble runs a test on a chain in memory, where pauses take no time.
func bubble(t *testing.T, test func(*machine, *memory.Chain)) {
	t.Helper()
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "old")
	synctest.Test(t, func(t *testing.T) {
		c := memory.New(time.Now)
		c.Mine(100)
		m := newMachine(t, inMemory{c}, time.Now, dir)
		defer func() { _ = m.ledger.Close() }() // most have destroyed it
		test(m, c)
	})
}

// Words and a backup are a box again: what is open is closed, what is on the
// chain is found, what was on its way gets there.
func TestRecover(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) { testRecover(m) })
}

func TestRecoverOnANode(t *testing.T) {
	t.Parallel()
	testRecover(newMachine(t, onNode{regnode.ForTest(t)}, time.Now, filepath.Join(t.TempDir(), "old")))
}

func testRecover(m *machine) {
	m.Helper()
	address, err := m.wallet.ReceiveAddress(m.ctx)
	m.must(err)
	receive, err := bsv.ParseAddress(address, bsv.Regtest)
	m.must(err)
	m.world.fund(m.T, bsv.P2PKH(receive), 50_000)
	m.must(m.wallet.Refresh(m.ctx))
	sent, err := m.wallet.Send(m.ctx, key(m, 0x70).Public().Hash(), 10_000) // leaves change
	m.must(err)
	m.step()
	// Earnings that were settled, paid out and not.
	for i := range 4 {
		s := m.sell(money.Satoshis(3000+i), 0)
		tx := s.close()
		if i < 2 {
			s.sweep(tx)
		}
		s.m.must(m.ledger.Apply(m.ctx, ledger.Batch{Moves: []ledger.Move{{Channel: s.id(), State: ledger.StateClosed, CloseTxid: tx.Txid()}}}))
	}
	m.world.mine(m.T, 1)
	m.step()
	open := []*sale{m.sell(5000, 0), m.sell(0, 0), m.sell(6000, 700)}
	closing := m.sell(800, 0)
	closing.closing()
	purchase, _, _ := m.buy(1000)
	// A payment that has not left the house.
	pending, err := m.wallet.Send(m.ctx, key(m, 0x71).Public().Hash(), 7_000)
	m.must(err)
	var fees money.Satoshis
	for _, txid := range []bsv.Txid{sent, pending} {
		o, err := m.ledger.Outgoing(m.ctx, txid)
		m.must(err)
		fees += o.Fee
	}
	var last uint32
	for range 5 { // offers that somebody is looking at now
		last, _, _ = m.keys()
	}
	file := m.backup()
	first, err := m.ledger.Outgoing(m.ctx, sent)
	m.must(err)
	m.destroy()

	// The words alone: what is on the chain, to the satoshi.
	alone := m.recover()
	if want := 50_000 - 10_000 - first.Fee + 3002 + 3003; alone.result.Confirmed+alone.result.Unconfirmed != want || len(alone.result.Lines) != 0 {
		m.Errorf("%+v, want %v", alone.result, want)
	}

	r := m.recover(file)
	m.Log(describe(r.result.Lines))
	open[0].wantClosed(r, "closed", 5000, 0)
	open[1].wantClosed(r, "closed", 0, 0)
	open[2].wantClosed(r, "closed", 6000, 700)
	closing.wantClosed(r, "closed", 800, 0)
	if l := lineOf(m, r, purchase.ID()); !strings.Contains(l.State, "height 400") || !l.Done || l.Backup != capacity-1000 {
		m.Errorf("%+v", l)
	}
	if _, err := m.world.backend().RawTx(m.ctx, pending); err != nil {
		m.Errorf("the payment that was on its way: %v", err)
	}
	if r.result.Payout != "the owner's address" || r.result.Made.IsZero() {
		m.Errorf("%+v", r.result)
	}
	m.world.mine(m.T, 1)
	m.reopen(r.dir, func(l *ledger.Ledger, w *wallet.Wallet) {
		outbox := wallet.NewOutbox(l, m.world.backend(), m.clock, m.recovery("").Log)
		outbox.Kick()
		_, err := outbox.Step(m.ctx)
		m.must(err)
		m.must(w.Refresh(m.ctx))
		if o, err := l.Outgoing(m.ctx, pending); err != nil || o.State != ledger.Mined {
			m.Errorf("the payment is %s, %v", o.State, err)
		}
		want := 50_000 - 10_000 - 7_000 - fees + 3002 + 3003 + 5000 + 6000 + 800
		if confirmed, unconfirmed, err := w.Balance(m.ctx); confirmed+unconfirmed != want || err != nil {
			m.Errorf("%v and %v, %v; want %v", confirmed, unconfirmed, err, want)
		}
		index, err := w.NextIndex(m.ctx, wallet.BranchChannel)
		if err != nil || index <= last {
			m.Errorf("key index %d, %v; %d was used", index, err, last)
		}
		m.must(l.Check(m.ctx))
	})
	if unfinished, err := backup.Unfinished(r.dir); unfinished || err != nil {
		m.Error(unfinished, err)
	}
	// The folder is a box's now, and newer than the backup.
	if _, err := backup.Recover(m.ctx, m.recovery(r.dir, file)); !errors.Is(err, backup.ErrLedgerThere) {
		m.Errorf("a second recovery: %v", err)
	}
}

// A backup that is older than what the chain has takes nothing back.
func TestStaleBackup(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) { testStale(m) })
}

func TestStaleBackupOnANode(t *testing.T) {
	t.Parallel()
	testStale(newMachine(t, onNode{regnode.ForTest(t)}, time.Now, filepath.Join(t.TempDir(), "old")))
}

func testStale(m *machine) {
	m.Helper()
	newer, same, swept, gone, open, older := m.sell(1000, 0), m.sell(2000, 0), m.sell(3000, 0), m.sell(4000, 0), m.sell(5000, 0), m.sell(100, 0)
	stale := m.backup()
	older.pay(6500, 0)
	bought, c, seller := m.buy(900)
	first := m.backup()
	newer.pay(1500, 70)
	newer.close()
	same.close()
	swept.pay(3300, 0)
	tx := swept.close()
	swept.sweep(tx)
	change, _, err := bsv.BuildSweep([]bsv.Coin{{Outpoint: bsv.Outpoint{Txid: tx.Txid(), Index: 1}, Output: tx.Outputs[1]}},
		[]bsv.PrivateKey{swept.payer}, creator, 100)
	m.must(err)
	m.must(m.world.backend().Broadcast(m.ctx, change, nil))
	open.pay(5500, 0) // and lost
	// Another recovery, with the stale backup, has closed one.
	tx, err = func() (*bsv.Tx, error) {
		s := *older
		sig, err := s.c.SignCommitment(s.payer, 100, nil)
		if err != nil {
			return nil, err
		}
		s.state.Last.Payee, s.state.Last.Signature = 100, sig
		return s.state.CloseTx()
	}()
	m.must(err)
	m.must(m.world.backend().Broadcast(m.ctx, tx, nil))
	// Our own seller has settled, and the payer of another one has taken all back.
	mine, err := c.SignCommitment(bought.Key, 900, nil)
	m.must(err)
	theirs, err := c.SignCommitment(seller, 900, nil)
	m.must(err)
	settled, err := c.CompleteCommitment(900, nil, mine, theirs)
	m.must(err)
	m.must(m.world.backend().Broadcast(m.ctx, settled, nil))
	tip, err := m.world.backend().Tip(m.ctx)
	m.must(err)
	m.world.mine(m.T, refundHeight-int(tip.Height))
	m.must(m.world.backend().Broadcast(m.ctx, gone.refund, nil))
	m.destroy()

	clever := m.world
	for _, w := range []world{clever, limited{clever}} {
		m.world = w
		for _, files := range [][]string{{first}, {first, stale}} {
			r := m.recover(files...)
			m.Log(describe(r.result.Lines))
			newer.wantClosed(r, "closed, with a newer payment than the backup's", 1500, 70)
			same.wantClosed(r, "closed", 2000, 0)
			open.wantClosed(r, "closed", 5000, 0)
			older.wantClosed(r, "closed, with an older payment than the backup's", 100, 0)
			if l := gone.line(r); l.State != "the payer took it back" || l.Chain != 0 {
				m.Errorf("%+v", l)
			}
			if l := lineOf(m, r, bought.ID()); l.State != "closed" || l.Txid != settled.Txid() || l.Chain != settled.Outputs[1].Value {
				m.Errorf("%+v", l)
			}
			// Where the service names no spender the new amount is not known.
			if l := swept.line(r); w == clever && (l.Chain != 3300 || l.State != "closed, with a newer payment than the backup's") ||
				w != clever && l.State != "closed" {
				m.Errorf("%+v", l)
			}
			if want := 1500 + 2000 + 5000 + 100 + settled.Outputs[1].Value; r.result.Confirmed+r.result.Unconfirmed != want {
				m.Errorf("%v and %v, want %v", r.result.Confirmed, r.result.Unconfirmed, want)
			}
			m.reopen(r.dir, func(l *ledger.Ledger, w *wallet.Wallet) {
				row, err := l.Channel(m.ctx, newer.id())
				m.must(err)
				if row.Payee != 1500 || row.Creator != 70 || len(row.Creators) != 1 || row.State != ledger.StateClosed {
					m.Errorf("%+v", row)
				}
			})
		}
	}
}

// A payer's channel whose seller is gone comes back when its time has come.
func TestRecoverRefund(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		bought, _, _ := m.buy(900)
		file := m.backup()
		m.destroy()
		r := m.recover(file)
		if l := lineOf(m, r, bought.ID()); !l.Done || !l.Txid.IsZero() {
			m.Errorf("%+v", l)
		}
		c.MineTo(refundHeight)
		r = m.recover(file)
		l := lineOf(m, r, bought.ID())
		if l.State != "taken back" || l.Chain < capacity-100 || r.result.Unconfirmed != l.Chain {
			m.Errorf("%+v; %+v", l, r.result)
		}
	})
}

// A recovery that is interrupted goes on, and may be interrupted again.
func TestRecoverInterrupted(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		sales := []*sale{m.sell(1000, 0), m.sell(2000, 0)}
		file := m.backup()
		m.destroy()
		dir := filepath.Join(m.TempDir(), "new")
		c.SetDown(true)
		if _, err := backup.Recover(m.ctx, m.recovery(dir, file)); err == nil {
			m.Error("recovered without a chain")
		}
		c.SetDown(false)
		for _, stop := range []func(cfg *backup.Recovery, cancel func()){
			func(cfg *backup.Recovery, cancel func()) { cfg.Scanning = func(wallet.Scan) { cancel() } },
			func(cfg *backup.Recovery, cancel func()) { cfg.Changed = func([]backup.Line) { cancel() } },
		} {
			ctx, cancel := context.WithCancel(m.ctx)
			cfg := m.recovery(dir, file)
			stop(&cfg, cancel)
			if r, err := backup.Recover(ctx, cfg); err == nil || r.Done {
				m.Errorf("%+v, %v", r, err)
			}
			if unfinished, err := backup.Unfinished(dir); !unfinished || err != nil {
				m.Error(unfinished, err)
			}
		}
		r := recovered{dir: dir}
		r.result, r.err = backup.Recover(m.ctx, m.recovery(dir, file))
		m.must(r.err)
		sales[0].wantClosed(r, "closed", 1000, 0)
		sales[1].wantClosed(r, "closed", 2000, 0)
	})
}

// A backup of the whole ledger brings the books back, the state what came after
// it.
func TestRecoverHistory(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		old := m.sell(4000, 0)
		tx := old.close()
		m.must(m.ledger.Apply(m.ctx, ledger.Batch{Moves: []ledger.Move{{Channel: old.id(), State: ledger.StateClosed, CloseTxid: tx.Txid()}}}))
		one := m.sell(1000, 0)
		history := m.history()
		one.pay(1100, 0)
		two := m.sell(2000, 0)
		last, _, _ := m.keys()
		state := m.backup()
		m.destroy()
		for _, files := range [][]string{{history, state}, {state, history}} {
			r := m.recover(files...)
			one.wantClosed(r, "closed", 1100, 0)
			two.wantClosed(r, "closed", 2000, 0)
			m.reopen(r.dir, func(l *ledger.Ledger, w *wallet.Wallet) {
				if _, err := l.Channel(m.ctx, old.id()); err != nil {
					m.Error(err)
				}
				if index, err := w.NextIndex(m.ctx, wallet.BranchChannel); err != nil || index <= last {
					m.Errorf("key index %d, %v; %d was used", index, err, last)
				}
			})
		}
	})
}

// Words that stay with the service manager are not written down.
func TestRecoverWordsElsewhere(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		s := m.sell(1000, 0)
		history := m.history()
		m.destroy()
		dir := filepath.Join(m.TempDir(), "new")
		cfg := m.recovery(dir, history)
		cfg.WordsElsewhere = true
		r := recovered{dir: dir}
		r.result, r.err = backup.Recover(m.ctx, cfg)
		m.must(r.err)
		s.wantClosed(r, "closed", 1000, 0)
		if _, err := os.Stat(filepath.Join(dir, wallet.FileName)); !errors.Is(err, fs.ErrNotExist) {
			m.Errorf("the words were written: %v", err)
		}
		l, err := ledger.Open(m.ctx, filepath.Join(dir, "money.db"), time.Now)
		m.must(err)
		defer l.Close()
		w, err := wallet.OpenWords(m.ctx, m.words, bsv.Regtest, l, c, wallet.Options{})
		m.must(err)
		if index, err := w.NextIndex(m.ctx, wallet.BranchChannel); err != nil || index <= s.index {
			m.Errorf("key index %d, %v", index, err)
		}
	})
}

// What cannot be used is refused in words, and changes nothing.
func TestRecoverRefuses(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		m.sell(1000, 0)
		state, history := m.backup(), m.history()
		good, err := os.ReadFile(state)
		m.must(err)
		whole, err := os.ReadFile(history)
		m.must(err)
		file := func(b []byte) string {
			path := filepath.Join(m.TempDir(), "file")
			m.must(os.WriteFile(path, b, 0o600))
			return path
		}
		changed := func(b []byte, at int, to byte) string {
			b = bytes.Clone(b)
			b[at] = to
			return file(b)
		}
		otherWords, err := bsv.NewMnemonic(make([]byte, 16))
		m.must(err)
		dir := filepath.Join(m.TempDir(), "new")
		for name, try := range map[string]struct {
			path string
			set  func(*backup.Recovery)
			want error
		}{
			"no file":           {path: filepath.Join(dir, "nothing"), want: fs.ErrNotExist},
			"empty":             {path: file(nil), want: backup.ErrFormat},
			"something else":    {path: file(bytes.Repeat([]byte("TOML"), 100)), want: backup.ErrFormat},
			"later version":     {path: changed(good, 9, 2), want: backup.ErrNewer},
			"later kind":        {path: changed(good, 10, 7), want: backup.ErrFormat},
			"cut in the header": {path: file(good[:40]), want: backup.ErrFormat},
			"cut":               {path: file(good[:len(good)-1]), want: backup.ErrDamaged},
			"longer":            {path: file(append(bytes.Clone(good), 0)), want: backup.ErrDamaged},
			"no chunks":         {path: file(good[:64]), want: backup.ErrDamaged},
			"changed date":      {path: changed(good, 27, good[27]^1), want: backup.ErrDamaged},
			"changed":           {path: changed(good, 100, good[100]^1), want: backup.ErrDamaged},
			"other words":       {path: state, set: func(r *backup.Recovery) { r.Words = otherWords }, want: backup.ErrOtherWallet},
			"no words":          {path: state, set: func(r *backup.Recovery) { r.Words = "oh no" }, want: bsv.ErrWordsCount},
			"other network":     {path: state, set: func(r *backup.Recovery) { r.Network = bsv.Main }, want: backup.ErrOtherNetwork},
			"cut ledger":        {path: file(whole[:len(whole)/2]), want: backup.ErrDamaged},
			"changed ledger":    {path: changed(whole, len(whole)/2, whole[len(whole)/2]^1), want: backup.ErrDamaged},
			"kinds exchanged":   {path: changed(good, 10, 2), want: backup.ErrDamaged},
		} {
			cfg := m.recovery(dir, try.path)
			if try.set != nil {
				try.set(&cfg)
			}
			if _, err := backup.Recover(m.ctx, cfg); !errors.Is(err, try.want) {
				m.Errorf("%s: %v, want %v", name, err, try.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				m.Errorf("%s: the folder was made", name)
			}
		}
		// A folder with a ledger of its own, or a wallet of its own.
		before, err := os.ReadFile(filepath.Join(m.dir, wallet.FileName))
		m.must(err)
		if _, err := backup.Recover(m.ctx, m.recovery(m.dir, state)); !errors.Is(err, backup.ErrLedgerThere) {
			m.Errorf("over a ledger: %v", err)
		}
		if after, err := os.ReadFile(filepath.Join(m.dir, wallet.FileName)); err != nil || !bytes.Equal(before, after) {
			m.Error("the wallet was changed")
		}
		other := m.TempDir()
		_, err = wallet.Create(m.ctx, other, bsv.Regtest, bytes.NewReader(bytes.Repeat([]byte{8}, 64)))
		m.must(err)
		if _, err := backup.Recover(m.ctx, m.recovery(other, state)); !errors.Is(err, wallet.ErrOtherWords) {
			m.Errorf("over another wallet: %v", err)
		}
		if entries, err := os.ReadDir(other); err != nil || len(entries) != 1 {
			m.Errorf("the folder was changed: %v, %v", entries, err)
		}
		m.destroy()
	})
}

// Without a backup the coins come back that are on the chain.
func TestRecoverWordsAlone(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		s := m.sell(4000, 0)
		s.close()
		m.sell(5000, 0)
		m.destroy()
		r := m.recover()
		if r.result.Coins != 1 || r.result.Unconfirmed != 4000 || len(r.result.Lines) != 0 {
			m.Errorf("%+v", r.result)
		}
	})
}
