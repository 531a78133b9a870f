// Command bitcdnd is the box: it seeds titles over BitTorrent, takes payments
// for them, and pays the earnings out.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/bitcdn/bitcdn/appliance/ask"
	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/storage/db"
	"github.com/bitcdn/bitcdn/systemd"
	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2 // flags or settings
	exitBusy   = 3 // another bitcdnd, or a port in use
	exitUnseen = 4 // a recovery that is not at its end
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
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
	case errors.Is(err, errUnseen):
		return exitUnseen
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
	case errors.Is(err, errUnseen):
		return "run the same command again: it goes on where it stopped"
	case errors.Is(err, box.ErrUnfinished):
		return "run bitcdnd recover again with the same folder; it goes on where it stopped"
	case errors.Is(err, box.ErrNoChain):
		return "name a node or services under chain in the settings"
	case errors.Is(err, backup.ErrLedgerThere):
		return "start bitcdnd on this folder; to recover beside it, give an empty folder with --data"
	case errors.Is(err, backup.ErrOtherWallet):
		return "check the words, or take a backup of this wallet: its name begins with bitcdn- and the wallet's mark"
	case errors.Is(err, backup.ErrOtherNetwork):
		return "set network in the settings, and name them with --config"
	case errors.Is(err, backup.ErrNewer):
		return "install the version of bitcdnd that wrote it, or a later one"
	case errors.Is(err, backup.ErrDamaged), errors.Is(err, backup.ErrFormat):
		return "take another backup: the older ones beside it close most of the channels too"
	case errors.Is(err, db.ErrCorrupt):
		return "the disk has torn a file: check the disk. What the newest backup holds comes back with bitcdnd recover --backup FILE and an empty folder for --data"
	case errors.Is(err, db.ErrFull), errors.Is(err, syscall.ENOSPC):
		return "free some space on the disk with the data folder"
	case errors.Is(err, syscall.EROFS):
		return "the disk with the data folder cannot be written: check it, and mount it for writing"
	case errors.Is(err, ask.ErrNobody):
		return "name a file: bitcdnd --help and bitcdnd COMMAND --help say how"
	}
	return secretHint(err)
}

// version is set by the linker.
var version = "dev"

type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// asker asks the person at the terminal for secrets.
func (s stdio) asker(ctx context.Context) ask.Asker {
	return ask.Asker{Ctx: ctx, In: s.in, Out: s.err}
}

type command struct {
	name, about string
	run         func(context.Context, []string, stdio) error
}

func commands() []command {
	return []command{
		{"recover", "bring the money back on a new machine, from the recovery words", runRecover},
		{"check", "check the ledger of a box that does not run", runCheck},
		{"wallet", "compare the recovery words, lock them with a passphrase", runWallet},
	}
}

// flagSet is a command's flags, with a usage text.
func flagSet(io stdio, name, args, about string) *pflag.FlagSet {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SetOutput(io.err)
	flags.SortFlags = false
	flags.Usage = func() {
		fmt.Fprintf(io.out, "%s\n\nUsage: bitcdnd %s [flags]\n\n%s", about, strings.TrimSpace(name+" "+args), flags.FlagUsages())
	}
	return flags
}

// parse reads a command's flags; it wants this many arguments. done says that
// help was shown.
func parse(flags *pflag.FlagSet, args []string, wanted int) (done bool, err error) {
	err = flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("%w: %w", errUsage, err)
	case flags.NArg() < wanted:
		return false, fmt.Errorf("%w: bitcdnd %s wants an argument more", errUsage, flags.Name())
	case flags.NArg() > wanted:
		return false, fmt.Errorf("%w: bitcdnd %s does not know what to do with %q", errUsage, flags.Name(), flags.Arg(wanted))
	}
	return false, nil
}

// dataFlags are the flags that all commands have.
func dataFlags(flags *pflag.FlagSet) (config, data *string) {
	return flags.String("config", defaultConfig(), "settings `file`; all defaults where it is missing"),
		flags.String("data", defaultData(), "`folder` for the wallet, the ledger and the list of titles")
}

// loadSettings reads the settings. A file that is named must be there.
func loadSettings(config string, flags *pflag.FlagSet) (box.Settings, error) {
	if _, err := os.Stat(config); err != nil && flags.Changed("config") {
		return box.Settings{}, fmt.Errorf("%w: %w", box.ErrSettings, err)
	}
	return box.LoadSettings(config)
}

// printable is a text from elsewhere as one line for a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}

func run(ctx context.Context, args []string, io stdio) error {
	if len(args) > 0 {
		for _, c := range commands() {
			if c.name == args[0] {
				return c.run(ctx, args[1:], io)
			}
		}
		if args[0] == "help" {
			args = []string{"--help"}
		}
	}
	return runBox(ctx, args, io)
}

// runBox is bitcdnd without a command: the box itself.
func runBox(ctx context.Context, args []string, io stdio) error {
	stdout, stderr := io.out, io.err
	flags := pflag.NewFlagSet("bitcdnd", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stdout, "bitcdnd seeds titles over BitTorrent and is paid for it.\n\nUsage: bitcdnd [flags]\n       bitcdnd COMMAND [flags]\n\n")
		for _, c := range commands() {
			fmt.Fprintf(stdout, "  %-8s %s\n", c.name, c.about)
		}
		fmt.Fprintf(stdout, `
Titles are added to the running box with "bitcdn box add".
bitcdnd COMMAND --help shows a command's flags.

%s
Exit codes: 0 stopped or done, 1 failed, 2 wrong flags or settings, 3 already running or port in use,
4 a recovery that has to be run again.
`, flags.FlagUsages())
	}
	config, data := dataFlags(flags)
	passphrase := flags.String("passphrase-file", "", "`file` with the passphrase that the wallet is locked with")
	level := flags.String("log", "info", "what is logged: debug, info, warn or error")
	printConfig := flags.Bool("print-config", false, "print all settings with their defaults, and stop")
	printServices := flags.Bool("print-services", false, "print the chain services of the settings, or the public ones of their network, and stop")
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
	settings, err := loadSettings(*config, flags)
	if err != nil {
		return err
	}
	if *printServices {
		return toml.NewEncoder(stdout).Encode(map[string]any{"chain": map[string]any{"service": settings.ChainServices()}})
	}
	log, err := logger(stderr, *level)
	if err != nil {
		return err
	}
	words, _, err := systemd.Credential(systemd.WalletWords)
	if err != nil {
		return err
	}
	// Small heaps matter more than a little time in the collector here.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	return box.Run(ctx, box.Options{Settings: settings, DataDir: *data, Version: version, Clock: time.Now, Log: log,
		Words:       func(words string) error { return showWords(stdout, *data, words) },
		WalletWords: words, Passphrase: io.asker(ctx).Passphrase(*passphrase),
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
