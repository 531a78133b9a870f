// Command bitcdn-demo shows a whole sale on one machine, with real programs
// and a real node: two boxes sell a folder at different prices, a client buys
// it from both, the channels are closed and the earnings swept, and the node
// says what of it is mined. Everything stays on loopback.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "bitcdn-demo: stopped")
			os.Exit(130)
		}
		fmt.Fprintf(os.Stderr, "bitcdn-demo: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := pflag.NewFlagSet("bitcdn-demo", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	d := demo{out: stdout, err: stderr}
	flags.StringVar(&d.bin, "bin", ".build/bin", "`folder` with the programs bitcdn and bitcdnd")
	flags.StringVar(&d.folder, "folder", "", "`folder` to sell; the Go toolchain's src where it is not given")
	flags.StringVar(&d.work, "work", "", "`folder` for everything the demo writes; a temporary one where it is not given")
	flags.StringVar(&d.web, "web", "127.0.0.1:8080", "where the first box's status page is")
	flags.BoolVar(&d.once, "once", false, "stop when everything is shown")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return err
	}
	if d.work == "" {
		dir, err := os.MkdirTemp("", "bitcdn-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		d.work = dir
	}
	var err error
	if d.bin, err = filepath.Abs(d.bin); err != nil {
		return err
	}
	defer d.stop()
	return d.show(ctx)
}
