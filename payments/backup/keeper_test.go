package backup_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/storage/volume"
)

// hands is a clock that a test moves.
type hands struct {
	mu  sync.Mutex
	now time.Time
}

func (h *hands) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hands) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (m *machine) keeper(dir string, clock func() time.Time, changed func(backup.Status)) *backup.Keeper {
	return backup.NewKeeper(backup.KeeperConfig{Ledger: m.ledger, Key: m.key, Dir: dir, Scratch: m.dir, Payout: "address", Clock: clock,
		Random: seeded(1), Log: slog.New(slog.DiscardHandler), Changed: changed})
}

func backups(t *testing.T, dir, kind string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "-"+kind+".backup") {
			names = append(names, e.Name())
		}
	}
	return names
}

// In the middle of a sale the box is destroyed: what is lost is at most the
// commitments of the last minute.
func TestMinuteIsLost(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) { testMinute(m) })
}

func TestMinuteIsLostOnANode(t *testing.T) {
	t.Parallel()
	testMinute(newMachine(t, onNode{regnode.ForTest(t)}, time.Now, filepath.Join(t.TempDir(), "old")))
}

func testMinute(m *machine) {
	m.Helper()
	dir := m.TempDir()
	clock := &hands{now: made}
	k := m.keeper(dir, clock.Now, nil)
	s := m.sell(100, 0)
	// A payment of 10 every second, and a look every five, for 5 minutes and
	// some seconds.
	const seconds = 5*60 + 48
	paid := map[int]money.Satoshis{}
	files := 0
	for second := range seconds {
		amount := money.Satoshis(100 + 10*second)
		if second > 0 {
			s.pay(amount, 0)
		}
		paid[second] = amount
		if second%5 == 0 {
			m.must(k.Step(m.ctx))
		}
		if second%60 == 3 { // right after a backup is the worst moment but one
			files++
		}
		clock.move(time.Second)
	}
	state, _, err := backup.Newest(dir, m.key.Fingerprint())
	m.must(err)
	m.destroy()
	r := m.recover(state)
	l := s.line(r)
	if least := paid[seconds-1-60]; l.Chain < least || l.Chain > paid[seconds-1] || l.State != "closed" {
		m.Errorf("%+v, at least %v was to be recovered", l, least)
	}
	m.Logf("paid %v, recovered %v, %d files kept after %d minutes", paid[seconds-1], l.Chain, len(backups(m.T, dir, "state")), files)
	if n := len(backups(m.T, dir, "state")); n != backup.DefaultKeep {
		m.Errorf("%d backups are kept", n)
	}
}

// A disk is not written without need, and not more often than once a minute.
func TestKeeperWritesWhatIsNew(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		dir := m.TempDir()
		clock := &hands{now: made}
		var status backup.Status
		k := m.keeper(dir, clock.Now, func(s backup.Status) { status = s })
		newest := func() string {
			state, _, err := backup.Newest(dir, m.key.Fingerprint())
			m.must(err)
			return filepath.Base(state)
		}
		m.must(k.Step(m.ctx))
		first := newest()
		if !strings.Contains(first, "-00000001-20270115T080000Z-state") || !status.Last.Equal(made) {
			m.Errorf("%s, %+v", first, status)
		}
		for range 100 { // nothing happens
			clock.move(time.Minute)
			m.must(k.Step(m.ctx))
		}
		if newest() != first || status.Late {
			m.Errorf("%s was written for nothing; %+v", newest(), status)
		}
		s := m.sell(100, 0)
		m.must(k.Step(m.ctx)) // at once, after a pause
		second := newest()
		if second == first {
			m.Error("a change was not backed up")
		}
		s.pay(200, 0)
		for range 11 {
			clock.move(5 * time.Second)
			m.must(k.Step(m.ctx))
		}
		if newest() != second {
			m.Error("a second backup within a minute")
		}
		clock.move(5 * time.Second)
		m.must(k.Step(m.ctx))
		third := newest()
		if third == second {
			m.Error("no backup after a minute")
		}
		// What does not belong to the state is no reason.
		if _, err := m.ledger.Claim(m.ctx, "something", "else"); err != nil {
			m.Error(err)
		}
		clock.move(2 * time.Minute)
		m.must(k.Step(m.ctx))
		if newest() != third {
			m.Error("a backup of nothing new")
		}
		// A clock that is put back stops nothing.
		clock.move(-26 * time.Hour)
		s.pay(300, 0)
		m.must(k.Step(m.ctx))
		if newest() == third {
			m.Error("no backup after the clock was put back")
		}
		s.pay(400, 0)
		m.must(k.Flush(m.ctx))
		if r := m.recoverNewest(dir); s.line(r).Chain != 400 {
			m.Errorf("%+v", s.line(r))
		}
	})
}

func (m *machine) recoverNewest(dir string) recovered {
	m.Helper()
	state, history, err := backup.Newest(dir, m.key.Fingerprint())
	m.must(err)
	m.destroy()
	files := []string{state}
	if history != "" {
		files = append(files, history)
	}
	return m.recover(files...)
}

func TestRetention(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		dir := m.TempDir()
		clock := &hands{now: made}
		k := m.keeper(dir, clock.Now, nil)
		foreign := []string{"bitcdn-0102030405060708-00000001-20200101T000000Z-state.backup", "notes.txt", "bitcdn-x-y-z.backup"}
		for _, name := range foreign {
			m.must(os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		}
		s := m.sell(100, 0)
		for n := range 12 * 10 { // ten days, every two hours
			s.pay(money.Satoshis(101+n), 0)
			m.must(k.Step(m.ctx))
			m.must(k.StepHistory(m.ctx))
			clock.move(2 * time.Hour)
		}
		names := backups(m.T, dir, "state")
		days := map[string]int{}
		for _, name := range names {
			if !strings.Contains(name, "-00000001-2020") {
				days[strings.Split(name, "-")[3][:8]]++
			}
		}
		last := made.Add(119 * 2 * time.Hour)
		for i := range 7 {
			day := last.AddDate(0, 0, -i).Format("20060102")
			if want := map[int]int{0: 3}[i]; days[day] < max(want, 1) {
				m.Errorf("%d backups of %s: %v", days[day], day, names)
			}
		}
		if len(days) != 7 || len(names) > 7+2+1 {
			m.Errorf("kept are %v", names)
		}
		if whole := backups(m.T, dir, "history"); len(whole) != 2 || !strings.Contains(whole[1], "20270124") {
			m.Errorf("kept are %v", whole)
		}
		for _, name := range foreign {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				m.Error(err)
			}
		}
		if r := m.recoverNewest(dir); s.line(r).Chain != 220 {
			m.Errorf("%+v", s.line(r))
		}
	})
}

// A disk that is not plugged in is missed, and never written to where it is not.
func TestMissingDisk(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		mount := m.TempDir()
		dir := filepath.Join(mount, "disk")
		clock := &hands{now: made}
		var status backup.Status
		k := m.keeper(dir, clock.Now, func(s backup.Status) { status = s })
		missing := func(what string) {
			m.Helper()
			clock.move(time.Minute)
			if err := k.Step(m.ctx); !errors.Is(err, backup.ErrNoDisk) || !errors.Is(status.Err, backup.ErrNoDisk) {
				m.Errorf("%s: %v, %+v", what, err, status)
			}
		}
		missing("no folder")
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			m.Error("the folder was made")
		}
		m.must(os.Mkdir(dir, 0o700))
		clock.move(time.Minute)
		m.must(k.Step(m.ctx)) // first use
		if status.Err != nil || len(backups(m.T, dir, "state")) != 1 {
			m.Errorf("%+v", status)
		}
		// Unplugged: an empty mount point is left.
		plugged := filepath.Join(mount, "elsewhere")
		m.must(os.Rename(dir, plugged))
		m.must(os.Mkdir(dir, 0o700))
		s := m.sell(100, 0)
		missing("an empty mount point")
		if err := k.StepHistory(m.ctx); !errors.Is(err, backup.ErrNoDisk) {
			m.Error(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			m.Errorf("something was written beside the disk: %v, %v", entries, err)
		}
		if status.Late {
			m.Errorf("%+v", status)
		}
		for range 6 {
			missing("an empty mount point")
		}
		if !status.Late {
			m.Errorf("%+v", status)
		}
		// Plugged in again.
		m.must(os.Remove(dir))
		m.must(os.Rename(plugged, dir))
		clock.move(time.Minute)
		m.must(k.Step(m.ctx))
		if status.Late || status.Err != nil || !status.Last.Equal(clock.Now()) {
			m.Errorf("%+v", status)
		}
		// A new disk is taken when the owner says so.
		m.must(os.Rename(dir, plugged))
		m.must(os.Mkdir(dir, 0o700))
		s.pay(200, 0)
		missing("another disk")
		if _, err := backup.Accept(filepath.Join(mount, "nowhere"), seeded(3)); !errors.Is(err, backup.ErrNoDisk) {
			m.Error(err)
		}
		v, err := backup.Accept(dir, seeded(3))
		if err != nil || v.Dir() != dir {
			m.Fatal(v, err)
		}
		clock.move(time.Minute)
		m.must(k.Step(m.ctx))
		if _, err := volume.Open(dir); err != nil || len(backups(m.T, dir, "state")) != 1 {
			m.Error(err)
		}
	})
}

// Run makes backups by itself, and the last one when it ends.
func TestKeeperRuns(t *testing.T) {
	bubble(t, func(m *machine, c *memory.Chain) {
		dir := m.TempDir()
		k := m.keeper(dir, time.Now, nil)
		m.must(os.Mkdir(filepath.Join(m.dir, "backup-123.tmp"), 0o700)) // of a box that was killed
		ctx, cancel := context.WithCancel(m.ctx)
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		synctest.Wait()
		s := m.sell(100, 0)
		time.Sleep(70 * time.Second)
		s.pay(200, 0)
		time.Sleep(10 * time.Second)
		cancel()
		m.must(<-done)
		if n := len(backups(m.T, dir, "history")); n != 1 {
			m.Errorf("%d backups of the whole ledger", n)
		}
		if left, err := filepath.Glob(filepath.Join(m.dir, "backup-*")); len(left) != 0 || err != nil {
			m.Error(left, err)
		}
		if r := m.recoverNewest(dir); s.line(r).Chain != 200 {
			m.Errorf("%+v", s.line(r))
		}
	})
}
