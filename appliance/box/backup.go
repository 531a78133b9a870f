package box

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/payments/chain/services"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// BackupSettings say where copies go of what the words do not hold.
type BackupSettings struct {
	Dir  string `toml:"dir" comment:"folder on another disk for encrypted backups of the open channels, at most a minute old;\nit must be there, and is not created; empty makes none"`
	Keep int    `toml:"keep" comment:"how many of the newest are kept, besides the last one of each day of a week"`
}

// WalletSettings say how the wallet is restored.
type WalletSettings struct {
	Gap uint32 `toml:"gap" comment:"how many unused channels in a row a search of the chain for the words' coins crosses; 0 is the program's default"`
}

func (s *BackupSettings) check() (name, why string) {
	switch {
	case s.Keep < 1 || s.Keep > 1000:
		return "backup.keep", "not between 1 and 1000"
	case s.Dir != "" && !filepath.IsAbs(s.Dir):
		return "backup.dir", "not an absolute path"
	}
	return "", ""
}

var (
	// ErrUnfinished says that a recovery into the data folder is not complete.
	ErrUnfinished = errors.New("a recovery into this data folder has not come to its end")
	// ErrNoBackups says that no folder for backups is set.
	ErrNoBackups = errors.New("no folder for backups is set")
	// ErrNoChain says that no chain service is set.
	ErrNoChain = errors.New("no block chain service is set")
)

// checkRecovered refuses a data folder whose money is still on its way back: its
// key counters are not known yet.
func checkRecovered(dataDir string) error {
	unfinished, err := backup.Unfinished(dataDir)
	if err == nil && unfinished {
		err = fmt.Errorf("%s: %w", dataDir, ErrUnfinished)
	}
	return err
}

// OpenChain opens the view of the chain that settings name, for a command that
// works on the data folder of a box that does not run. ErrNoChain where they
// name none.
func OpenChain(ctx context.Context, opt Options) (*services.View, error) {
	s := &opt.Settings
	list := s.ChainServices()
	if len(list) == 0 {
		return nil, ErrNoChain
	}
	view, err := services.Open(ctx, services.Config{Network: s.Network, Services: list, Checkpoint: s.Chain.Checkpoint,
		Headers: filepath.Join(opt.DataDir, headersFile), Clock: opt.Clock, Log: opt.Log})
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	return view, nil
}

// backupKey is the key of the wallet's backups.
func (b *Box) backupKey() (*backup.Key, error) {
	return backup.NewKey(b.wallet.Network(), b.wallet.Secret)
}

// backups copies the ledger out as it changes, until ctx ends.
func (b *Box) backups(ctx context.Context) error {
	s := &b.opt.Settings
	if s.Backup.Dir == "" {
		b.health.Raise(health.Condition{Code: "backup-none", Severity: health.Notice,
			Title:  "No backups are made: if this box is lost, what open channels have earned is lost with it.",
			Remedy: "Plug in a second disk or a memory stick, and set backup.dir in the settings to a folder on it."})
		return nil
	}
	key, err := b.backupKey()
	if err != nil {
		return err
	}
	keeper := backup.NewKeeper(backup.KeeperConfig{Ledger: b.ledger, Key: key, Dir: s.Backup.Dir, Scratch: b.opt.DataDir, Payout: s.Payout.Address,
		Keep: s.Backup.Keep, Clock: b.opt.Clock, Random: rand.Reader, Log: b.opt.Log, Changed: b.backedUp})
	err = keeper.Run(ctx)
	if err != nil {
		b.opt.Log.Error("the last backup was not made", "error", err)
	}
	return nil
}

// backedUp keeps the conditions of the backups.
func (b *Box) backedUp(s backup.Status) {
	const missing, failed = "backup-missing", "backup-late"
	if errors.Is(s.Err, backup.ErrNoDisk) {
		b.health.Raise(health.Condition{Code: missing, Severity: health.Warning,
			Title:  "The disk for backups is missing.",
			Remedy: "Plug it in again. If it is a new disk, say so with: bitcdn box backup --new-disk",
			Detail: s.Err.Error()})
	} else {
		b.health.Clear(missing)
	}
	if !s.Late {
		b.health.Clear(failed)
		return
	}
	c := health.Condition{Code: failed, Severity: health.Failure,
		Title:  "The newest backup is more than five minutes behind: what was earned since would be lost with this box.",
		Remedy: "Check that the disk for backups is plugged in, has room, and can be written to."}
	if s.Err != nil {
		c.Detail = s.Err.Error()
	}
	b.health.Raise(c)
}

// scanRetry is how long a search of the chain that failed waits.
const scanRetry = time.Minute

// scan compares a wallet whose words were used before with the chain. Until
// that is done it gives out no keys, so nothing is sold.
func (b *Box) scan(ctx context.Context) error {
	const code = "wallet-scanning"
	for {
		err := b.wallet.Scanned(ctx)
		if !errors.Is(err, wallet.ErrNotScanned) {
			b.health.Clear(code)
			return untilStopped(ctx, err)
		}
		c := health.Condition{Code: code, Severity: health.Warning,
			Title:  "The wallet was used before, and is being compared with the block chain. Nothing is sold until that is done.",
			Remedy: "This may take from minutes to an hour."}
		b.health.Raise(c)
		if err := b.wallet.Refresh(ctx); err == nil {
			continue
		} else if ctx.Err() != nil {
			return nil
		} else {
			b.opt.Log.Warn("comparing the wallet with the chain", "error", err)
			c.Detail = err.Error()
			b.health.Raise(c)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(scanRetry):
		}
	}
}

// BackupRequest asks for a backup.
type BackupRequest struct {
	Whole bool `json:"whole"` // the ledger with its history
}

// controlBackup answers the command line about backups.
func (b *Box) controlBackup(mux *http.ServeMux) {
	handleStream(mux, "/backup", func(ctx context.Context, r BackupRequest, w io.Writer) error {
		key, err := b.backupKey()
		if err != nil {
			return err
		}
		now := b.opt.Clock()
		if r.Whole {
			return backup.WriteHistory(ctx, w, key, b.ledger, b.opt.DataDir, now, rand.Reader)
		}
		return backup.Write(ctx, w, key, b.ledger, b.opt.Settings.Payout.Address, now, rand.Reader)
	})
	handle(mux, "/backup/disk", func(context.Context, Empty) (Empty, error) {
		if b.opt.Settings.Backup.Dir == "" {
			return Empty{}, ErrNoBackups
		}
		_, err := backup.Accept(b.opt.Settings.Backup.Dir, rand.Reader)
		return Empty{}, err
	})
}

// Backup writes an encrypted backup to w, of the open channels or of the whole
// ledger. Where it returns an error, w has no backup.
func (c *Control) Backup(ctx context.Context, r BackupRequest, w io.Writer) error {
	body, err := c.stream(ctx, "/backup", r)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("the box's answer: %w", err)
	}
	return nil
}

// NewBackupDisk has the box take the folder for backups, as it is now, for the
// owner's disk.
func (c *Control) NewBackupDisk(ctx context.Context) error {
	_, err := call[Empty](ctx, c, "/backup/disk", Empty{})
	return err
}
