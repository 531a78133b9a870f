package box

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/backup"
)

func TestBackupConditions(t *testing.T) {
	b := &Box{health: health.NewSet(time.Now)}
	missing := fmt.Errorf("no: %w", backup.ErrNoDisk)
	for _, step := range []struct {
		name   string
		status backup.Status
		want   string
	}{
		{"well", backup.Status{}, ""},
		{"unplugged", backup.Status{Err: missing}, "backup-missing"},
		{"unplugged for long", backup.Status{Err: missing, Late: true}, "backup-late backup-missing"},
		{"full for long", backup.Status{Err: errors.New("full"), Late: true}, "backup-late"},
		{"full", backup.Status{Err: errors.New("full")}, ""}, // one try that fails is no news
		{"well again", backup.Status{}, ""},
	} {
		b.backedUp(step.status)
		var codes []string
		for _, c := range b.health.List() {
			codes = append(codes, c.Code)
		}
		if got := strings.Join(codes, " "); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
}

func TestBackupSettings(t *testing.T) {
	s := DefaultSettings()
	for _, bad := range []BackupSettings{{Keep: 0}, {Keep: 2000}, {Keep: 3, Dir: "relative/folder"}} {
		s.Backup = bad
		if err := s.Check(); !errors.Is(err, ErrSettings) || !strings.Contains(err.Error(), "backup.") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	s.Backup = BackupSettings{Keep: 3, Dir: "/media/stick/bitcdn"}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

func TestUnfinishedRecoveryIsNotStarted(t *testing.T) {
	dir := t.TempDir()
	if err := checkRecovered(dir); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "recovery"), []byte("X\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkRecovered(dir); !errors.Is(err, ErrUnfinished) {
		t.Error(err)
	}
}
