package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/spf13/pflag"
)

func runBox(ctx context.Context, args []string, io stdio) error {
	if len(args) > 0 && args[0] == "ledger" {
		return runBoxLedger(ctx, args[1:], io)
	}
	if len(args) > 0 && args[0] == "backup" {
		return runBoxBackup(ctx, args[1:], io)
	}
	flags := flagSet(io, "box", "VERB", `Manages a bitcdnd that runs on this machine.

  add TORRENT FOLDER   sell a title; FOLDER contains its file or folder
  remove INFOHASH      forget a title; its data stays
  price INFOHASH       set a title's price with --price, or the box's default
  status               titles, earnings, channels, health
  close [CHANNEL]      settle one channel, or all of them
  sweep                pay the earnings out now
  backup -o FILE       write a backup: bitcdn box backup --help
  ledger …             export, totals, check: bitcdn box ledger --help
  check                recompute the ledger's balances`)
	data := flags.String("data", environment("BITCDN_BOX", "/var/lib/bitcdn"), "the box's data `folder`; env BITCDN_BOX")
	price := rateFlag(flags, "price", 0, "with add and price; the box's default where it is not given")
	dryRun := flags.Bool("dry-run", false, "with sweep: only say what would be paid")
	if done, err := parse(flags, args, 1, 3); done || err != nil {
		return err
	}
	verb, rest := flags.Arg(0), flags.Args()[1:]
	wanted := map[string][2]int{"add": {2, 2}, "remove": {1, 1}, "price": {1, 1}, "status": {0, 0}, "close": {0, 1}, "sweep": {0, 0}, "check": {0, 0}}
	if n, ok := wanted[verb]; !ok || len(rest) < n[0] || len(rest) > n[1] {
		return fmt.Errorf("%w: bitcdn box %s", errUsage, verb)
	}
	b := &boxCommand{box: box.NewControl(*data), io: io, dryRun: *dryRun, price: priceIfGiven(flags, *price)}
	switch verb {
	case "add":
		return b.add(ctx, rest[0], rest[1])
	case "remove":
		return b.box.Remove(ctx, box.RemoveRequest{InfoHash: rest[0]})
	case "price":
		return b.box.SetPrice(ctx, box.PriceRequest{InfoHash: rest[0], Price: b.price})
	case "close":
		return b.close(ctx, rest)
	case "sweep":
		return b.sweep(ctx)
	case "check":
		if err := b.box.Check(ctx); err != nil {
			return err
		}
		fmt.Fprintln(io.out, "the ledger adds up")
		return nil
	}
	return b.status(ctx)
}

func priceIfGiven(flags *pflag.FlagSet, price money.Rate) *money.Rate {
	if !flags.Changed("price") {
		return nil
	}
	return &price
}

type boxCommand struct {
	box    *box.Control
	io     stdio
	dryRun bool
	price  *money.Rate
}

func (b *boxCommand) add(ctx context.Context, torrentFile, folder string) error {
	torrent, err := os.ReadFile(torrentFile)
	if err != nil {
		return err
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return err
	}
	title, err := b.box.Add(ctx, box.AddRequest{Torrent: torrent, DataDir: folder, Price: b.price})
	if err != nil {
		return err
	}
	fmt.Fprintf(b.io.out, "%s  %s, %v  %s\n%s\n", title.InfoHash, size(title.Length), title.Price, printable(title.Name), title.Magnet)
	return nil
}

func (b *boxCommand) close(ctx context.Context, rest []string) error {
	var request box.CloseRequest
	if len(rest) > 0 {
		request.Channel = rest[0]
	}
	closed, err := b.box.CloseChannels(ctx, request)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.io.out, "%d channels are being settled\n", closed.Channels)
	return nil
}

func (b *boxCommand) sweep(ctx context.Context) error {
	plan, err := b.box.Sweep(ctx, box.SweepRequest{DryRun: b.dryRun})
	if err != nil {
		return err
	}
	for i, tx := range plan.Transactions {
		if len(plan.Transactions) > 1 {
			fmt.Fprintf(b.io.out, "payout %d of %d\n", i+1, len(plan.Transactions))
		}
		b.transaction(tx)
		fmt.Fprintf(b.io.out, "payout %v to %s\n", tx.Payout, plan.To)
		if tx.Txid != "" {
			fmt.Fprintf(b.io.out, "txid   %s\n", tx.Txid)
		}
	}
	if len(plan.Transactions) > 1 {
		fmt.Fprintf(b.io.out, "in all %v of %d coins, %v fees\n", plan.Payout, plan.Inputs, plan.Fee)
	}
	for _, tx := range plan.Consolidations {
		fmt.Fprintln(b.io.out, "small coins joined for nothing, to be paid out later")
		b.transaction(tx)
		if tx.Txid != "" {
			fmt.Fprintf(b.io.out, "txid   %s\n", tx.Txid)
		}
	}
	if plan.Left > 0 {
		fmt.Fprintf(b.io.out, "left   %v, of which the fee would take too much\n", plan.Left)
	}
	if plan.Dust > 0 {
		fmt.Fprintf(b.io.out, "dust   %v in coins that cost more than they are worth\n", plan.Dust)
	}
	return nil
}

// transaction prints the inputs and the fee of one.
func (b *boxCommand) transaction(tx box.SweepTransaction) {
	if b.dryRun {
		w := tabwriter.NewWriter(b.io.out, 0, 0, 2, ' ', 0)
		for _, in := range tx.Inputs {
			fmt.Fprintf(w, "  %s\t%v\t%s\n", in.Coin, in.Value, printable(strings.Join(in.Titles, ", ")))
		}
		_ = w.Flush() // as with all that is printed, the end of a pipe is no error
	}
	fmt.Fprintf(b.io.out, "%d coins, %v\nfee    %v, %d.%d %% (%v)\n", len(tx.Inputs), tx.Total, tx.Fee, tx.FeeShare/10, tx.FeeShare%10, tx.FeeRate)
}

func (b *boxCommand) status(ctx context.Context) error {
	s, err := b.box.Status(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.io.out, "%s, %s, network %s, height %d\n", s.Name, s.Version, s.Chain.Network, s.Chain.Height)
	for _, c := range s.Health {
		fmt.Fprintf(b.io.out, "! %s %s\n", c.Title, c.Remedy)
	}
	e := s.Earnings
	fmt.Fprintf(b.io.out, "earned %v: %v not settled yet, %v on the chain, %v paid out, %v fees\n", e.Earned(), e.Unsettled, e.OnChain, e.Swept, e.Fees)
	fmt.Fprintf(b.io.out, "%d connections, %s/s, %s sent\n\n", s.Traffic.Connections, size(s.Traffic.UploadRate), size(s.Traffic.Uploaded))
	w := tabwriter.NewWriter(b.io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "INFO HASH\tSIZE\tPRICE\tROYALTY\tSOLD\tEARNED\tNAME")
	for _, t := range s.Titles {
		fmt.Fprintf(w, "%s\t%s\t%v\t%v\t%s\t%v\t%s\n", t.InfoHash, size(t.Size), t.Price, t.Royalty, size(t.Sold), t.Earned, printable(t.Name))
	}
	if len(s.Channels) > 0 {
		fmt.Fprintln(w, "\nCHANNEL\tSTATE\tPAID\tBYTES\tPEER\tTITLE")
		for _, c := range s.Channels {
			fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%s\t%s\n", c.ID, c.State, c.Paid, size(c.Bytes), c.Remote, printable(c.Title))
		}
	}
	return w.Flush()
}
