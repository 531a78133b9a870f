// Package systemd is what a box shares with the service manager: the unit
// files, sockets handed over at the start, and the messages by which the
// manager knows that the daemon is ready, alive or ending (sd_listen_fds(3),
// sd_notify(3), sd_watchdog_enabled(3)).
//
// Without a service manager nothing here does anything, and nothing fails: the
// environment says whether there is one.
package systemd

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Units holds the files to install: bitcdnd.service and bitcdnd.socket for
// systemd's unit folder, bitcdnd.sysusers as sysusers.d/bitcdnd.conf.
//
//go:embed bitcdnd.service bitcdnd.socket bitcdnd.sysusers
var Units embed.FS

// Names of the sockets that the daemon knows (FileDescriptorName=).
const (
	Web  = "web"  // the box's pages
	Peer = "peer" // incoming BitTorrent connections
)

// ErrSocket says that the service manager handed over a socket that the daemon
// cannot use: it is no stream listener, or its name is unknown.
var ErrSocket = errors.New("unusable socket from the service manager")

// Listeners takes over the listening sockets handed over at the start, by
// name. There may be several of a name, and there are none where the daemon
// was started otherwise. It is called once: it clears the environment, so that
// child processes do not take the sockets for theirs. On an error none is left
// open.
func Listeners() (map[string][]net.Listener, error) {
	out := map[string][]net.Listener{}
	var failed error
	for _, f := range activation.Files(true) {
		// The listener works on a copy of the descriptor.
		l, err := net.FileListener(f)
		name := f.Name()
		f.Close()
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("%w: %q: %w", ErrSocket, name, err))
		case name != Web && name != Peer:
			l.Close()
			failed = errors.Join(failed, fmt.Errorf("%w: unknown name %q", ErrSocket, name))
		default:
			out[name] = append(out[name], l)
		}
	}
	if failed != nil {
		for _, list := range out {
			for _, l := range list {
				l.Close()
			}
		}
		return nil, failed
	}
	return out, nil
}

// Ready says that the start is over and the daemon serves.
func Ready() error { return notify(daemon.SdNotifyReady) }

// Stopping says that the daemon is about to end.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// Status is the line that "systemctl status" shows. Line breaks become spaces:
// each line would be a message of its own.
func Status(text string) error {
	return notify("STATUS=" + strings.NewReplacer("\n", " ", "\r", " ", "\x00", " ").Replace(text))
}

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Ticker makes a channel that receives at an interval, until stop is called.
type Ticker func(interval time.Duration) (ticks <-chan time.Time, stop func())

// WallTicker ticks in real time.
func WallTicker(interval time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(interval)
	return t.C, t.Stop
}

// Watchdog tells the service manager that the daemon is alive, twice in each
// interval that the manager allows (WATCHDOG_USEC), as long as check returns
// nil, until ctx ends. A check that fails is logged and not told; a check that
// hangs tells nothing either: in both cases the manager restarts the daemon
// when the interval is over. Where no watchdog is asked for, Watchdog returns
// nil at once. Errors are those of the environment and of the manager's socket.
func Watchdog(ctx context.Context, ticker Ticker, log *slog.Logger, check func() error) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read watchdog interval: %w", err)
	}
	if interval <= 0 {
		return nil
	}
	ticks, stop := ticker(interval / 2)
	defer stop()
	for {
		if err := check(); err != nil {
			log.ErrorContext(ctx, "watchdog check failed", "err", err)
		} else if err := notify(daemon.SdNotifyWatchdog); err != nil {
			return err
		}
		select {
		case <-ticks:
		case <-ctx.Done():
			return nil
		}
	}
}
