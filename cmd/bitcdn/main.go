// Command bitcdn is the paying client and the creator's tools.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/appliance/fetch"
	"github.com/bitcdn/bitcdn/appliance/publish"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/spf13/pflag"
)

// Exit codes, as the help text tells them.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitIncomplete  = 3 // nobody sends the rest
	exitBudget      = 4
	exitInterrupted = 130
)

var (
	errUsage       = errors.New("wrong use")
	errBudget      = errors.New("the budget is used up")
	errInterrupted = errors.New("interrupted")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // a second Ctrl-C ends at once
		<-ctx.Done()
		stop()
	}()
	err := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	if err != nil {
		os.Exit(report(os.Stderr, err))
	}
}

// report says what went wrong and what can be done, and returns the exit code.
func report(w io.Writer, err error) int {
	fmt.Fprintf(w, "bitcdn: error: %v\n", err)
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(w, "bitcdn: hint: %s\n", hint)
	}
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errBudget):
		return exitBudget
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, fetch.ErrNoPeers):
		return exitIncomplete
	}
	return exitFailed
}

func hintFor(err error) string {
	switch {
	case errors.Is(err, errUsage):
		return "see bitcdn help"
	case errors.Is(err, errBudget):
		return "run the same command with a larger --budget; what is here already is kept"
	case errors.Is(err, errUnseen):
		return "do not send it again: it is stored, and goes out when bitcdn runs the next time, as with bitcdn wallet balance"
	case errors.Is(err, errDeclined):
		return ""
	case errors.Is(err, errInterrupted):
		return "run the same command again to go on where it stopped"
	case errors.Is(err, errOtherTorrent):
		return "name a new file with --output, or replace it with --force"
	case errors.Is(err, bsv.ErrFunds):
		return "pay some satoshis to the address that \"bitcdn wallet address\" prints"
	case errors.Is(err, bsv.ErrAddressNetwork):
		return "--network says which network is meant"
	case errors.Is(err, box.ErrNotRunning):
		return "start bitcdnd, or name its data folder with --data"
	case errors.Is(err, box.ErrRunning):
		return "wait for the other command to end"
	case errors.Is(err, chain.ErrUnavailable):
		return "name a node that answers with --node http://user:password@host:port, or services with --services FILE"
	case errors.Is(err, publish.ErrFileType), errors.Is(err, publish.ErrChanged), errors.Is(err, catalog.ErrManifestSyntax), errors.Is(err, wallet.ErrNetwork), errors.Is(err, money.ErrRange):
		return ""
	}
	if hint := restoreHint(err); hint != "" {
		return hint
	}
	return fetch.Hint(err)
}

// version is set by the linker.
var version = "dev"

type stdio struct {
	in       io.Reader
	out, err io.Writer
}

type command struct {
	name, args, about string
	run               func(context.Context, []string, stdio) error
}

func commands() []command {
	return []command{
		{"publish", "DIR|FILE", "make a torrent with your signed terms", runPublish},
		{"get", "MAGNET|TORRENT", "download, and pay the seeders that ask for it", runGet},
		{"wallet", "[address|balance|send|history|restore]", "the wallet that pays", runWallet},
		{"box", "add|status|close|sweep|ledger|backup|…", "manage a running bitcdnd", runBox},
	}
}

func run(ctx context.Context, args []string, io stdio) error {
	if len(args) == 0 {
		usage(io.err)
		return fmt.Errorf("%w: a command is wanted", errUsage)
	}
	switch args[0] {
	case "help", "--help", "-h":
		usage(io.out)
		return nil
	case "version", "--version":
		fmt.Fprintln(io.out, "bitcdn", version)
		return nil
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], io)
		}
	}
	return fmt.Errorf("%w: there is no command %q", errUsage, args[0])
}

func usage(w io.Writer) {
	fmt.Fprint(w, "bitcdn fetches, pays for, and publishes content over BitTorrent.\n\nUsage: bitcdn COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-8s %-42s %s\n", c.name, c.args, c.about)
	}
	fmt.Fprint(w, `  version                                             print the version

bitcdn COMMAND --help shows a command's flags.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 nobody sends the rest,
4 the budget is used up, 130 interrupted.
`)
}

// flagSet is a command's flags, with a usage text.
func flagSet(io stdio, name, args, about string) *pflag.FlagSet {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SetOutput(io.err)
	flags.SortFlags = false
	flags.Usage = func() {
		fmt.Fprintf(io.out, "%s\n\nUsage: bitcdn %s %s [flags]\n\n%s", about, name, args, flags.FlagUsages())
	}
	return flags
}

// parse reads a command's flags. done says that help was shown.
func parse(flags *pflag.FlagSet, args []string, least, most int) (done bool, err error) {
	err = flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("%w: %w", errUsage, err)
	case flags.NArg() < least:
		return false, fmt.Errorf("%w: bitcdn %s wants an argument more", errUsage, flags.Name())
	case flags.NArg() > most:
		return false, fmt.Errorf("%w: bitcdn %s does not know what to do with %q", errUsage, flags.Name(), flags.Arg(most))
	}
	return false, nil
}

// numberFlag is a flag whose value is an amount or a rate.
type numberFlag[T ~int64] struct {
	value *T
	read  func(string) (T, error)
	kind  string
}

func (f numberFlag[T]) String() string {
	if f.value == nil {
		return "0"
	}
	return fmt.Sprintf("%d", int64(*f.value))
}

func (f numberFlag[T]) Set(text string) error {
	v, err := f.read(text)
	if err == nil {
		*f.value = v
	}
	return err
}

func (f numberFlag[T]) Type() string { return f.kind }

func rateFlag(flags *pflag.FlagSet, name string, value money.Rate, about string) *money.Rate {
	flags.Var(numberFlag[money.Rate]{&value, money.ParseRate, "sat/GiB"}, name, about)
	return &value
}

func satoshisFlag(flags *pflag.FlagSet, name string, value money.Satoshis, about string) *money.Satoshis {
	flags.Var(numberFlag[money.Satoshis]{&value, money.ParseSatoshis, "sat"}, name, about)
	return &value
}
