// Command bitcdnd is the box: it seeds titles over BitTorrent, takes payments
// for them, and pays the earnings out.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2 // flags or settings
	exitBusy   = 3 // another bitcdnd, or a port in use
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "bitcdnd: error: %v\n", err)
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(os.Stderr, "bitcdnd: hint: %s\n", hint)
	}
	os.Exit(codeFor(err))
}

var errUsage = errors.New("unknown use")

func codeFor(err error) int {
	var opErr *net.OpError
	switch {
	case errors.Is(err, errUsage), errors.Is(err, box.ErrSettings):
		return exitUsage
	case errors.Is(err, box.ErrRunning), errors.As(err, &opErr) && opErr.Op == "listen":
		return exitBusy
	}
	return exitFailed
}

func hintFor(err error) string {
	var opErr *net.OpError
	switch {
	case errors.Is(err, errUsage):
		return "see bitcdnd --help"
	case errors.Is(err, box.ErrRunning):
		return "stop the other one, or give this one a folder of its own with --data"
	case errors.As(err, &opErr) && opErr.Op == "listen":
		return "another program uses this address; change listen.peers or listen.web in the settings"
	case errors.Is(err, box.ErrSettings):
		return "bitcdnd --print-config shows all settings with their defaults"
	}
	return ""
}

// version is set by the linker.
var version = "dev"

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := pflag.NewFlagSet("bitcdnd", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stdout, `bitcdnd seeds titles over BitTorrent and is paid for it.

Usage: bitcdnd [flags]

Titles are added to the running box with "bitcdn box add".

%s
Exit codes: 0 stopped, 1 failed, 2 wrong flags or settings, 3 already running or port in use.
`, flags.FlagUsages())
	}
	config := flags.String("config", defaultConfig(), "settings `file`; all defaults where it is missing")
	data := flags.String("data", defaultData(), "`folder` for the wallet, the ledger and the list of titles")
	level := flags.String("log", "info", "what is logged: debug, info, warn or error")
	printConfig := flags.Bool("print-config", false, "print all settings with their defaults, and stop")
	showVersion := flags.Bool("version", false, "print the version, and stop")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("%w: %q", errUsage, flags.Arg(0))
	case *showVersion:
		fmt.Fprintln(stdout, "bitcdnd", version)
		return nil
	case *printConfig:
		return toml.NewEncoder(stdout).Encode(box.DefaultSettings())
	}
	if _, err := os.Stat(*config); err != nil && flags.Changed("config") {
		return fmt.Errorf("%w: %w", box.ErrSettings, err)
	}
	settings, err := box.LoadSettings(*config)
	if err != nil {
		return err
	}
	var logLevel slog.Level
	if err := logLevel.UnmarshalText([]byte(*level)); err != nil {
		return fmt.Errorf("%w: --log: %w", errUsage, err)
	}
	// Small heaps matter more than a little time in the collector here.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: logLevel}))
	return box.Run(ctx, box.Options{Settings: settings, DataDir: *data, Version: version, Clock: time.Now, Log: log,
		Words: func(words string) error { return showWords(stdout, *data, words) },
		Started: func(a box.Addresses) {
			log.Info("started", "version", version, "network", settings.Network, "peers", a.Peers, "web", a.Web, "data", *data)
			if a.Web != nil {
				fmt.Fprintf(stdout, "The box is running. Its page: http://%s/\n", a.Web)
			}
		}})
}

func defaultConfig() string {
	if dir := os.Getenv("CONFIGURATION_DIRECTORY"); dir != "" {
		return filepath.Join(dir, "bitcdnd.toml")
	}
	return "/etc/bitcdn/bitcdnd.toml"
}

// defaultData is the service manager's folder, or one in the user's home.
func defaultData() string {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/bitcdn"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "bitcdn-data"
	}
	return filepath.Join(home, ".local", "share", "bitcdnd")
}

// showWords shows the recovery words to a person; where nobody watches they go
// into a file, and never into a log.
func showWords(stdout io.Writer, data, words string) error {
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, err := fmt.Fprintf(stdout, `
A new wallet was made. These twelve words are the wallet: write them down, in
this order, and keep them where nobody else looks. They are not shown again.

    %s

`, words)
		return err
	}
	path := filepath.Join(data, "recovery-words.txt")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, words); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "A new wallet was made. Its recovery words are in %s: write them down, then delete the file.\n", path)
	return err
}
