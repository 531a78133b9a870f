package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/services"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/spf13/pflag"
)

// purseFlags say which wallet pays, and where the chain is seen.
type purseFlags struct {
	data     *string
	network  *string
	node     *string
	services *string
	verbose  *bool

	passphrase *string
	// Of a wallet that is being restored.
	gap      uint32
	scanning func(wallet.Scan)
}

func addPurseFlags(flags *pflag.FlagSet) purseFlags {
	return purseFlags{
		data:       flags.String("data", defaultData(), "`folder` with the wallet and unfinished downloads; env BITCDN_DATA"),
		network:    flags.String("network", environment("BITCDN_NETWORK", "main"), "main, test or regtest; env BITCDN_NETWORK"),
		node:       flags.String("node", os.Getenv("BITCDN_NODE"), "`URL` of a node's JSON-RPC, http://user:password@host:port, instead of the network's public services; env BITCDN_NODE"),
		services:   flags.String("services", os.Getenv("BITCDN_SERVICES"), "`file` that names the chain services: [[service]] tables of kind (arc, whatsonchain, node), url and key; env BITCDN_SERVICES"),
		verbose:    flags.BoolP("verbose", "v", false, "log what happens"),
		passphrase: flags.String("passphrase-file", os.Getenv("BITCDN_PASSPHRASE_FILE"), "`file` with the passphrase that the wallet is locked with; env BITCDN_PASSPHRASE_FILE"),
	}
}

func (f purseFlags) parseNetwork() (bsv.Network, error) {
	network, err := bsv.ParseNetwork(*f.network)
	if err != nil {
		return 0, fmt.Errorf("%w: --network: %w", errUsage, err)
	}
	return network, nil
}

func environment(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func defaultData() string {
	if dir := os.Getenv("BITCDN_DATA"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "bitcdn-client"
	}
	return filepath.Join(home, ".local", "share", "bitcdn")
}

func (f purseFlags) log(w io.Writer) *slog.Logger {
	level := slog.LevelError
	if *f.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// purse is the client's money: a ledger, a wallet, a view of the chain, and an
// outbox that works until close.
type purse struct {
	network bsv.Network
	chain   chain.Backend
	view    *services.View // closed with the purse
	ledger  *ledger.Ledger
	wallet  *wallet.Wallet
	outbox  *wallet.Outbox
	lock    *os.File
	stop    func()
}

var errNoNode = fmt.Errorf("no node is named, so the chain cannot be asked: %w", chain.ErrUnavailable)

// chainServices are the services that the flags name, or the network's public
// ones, of which there are none on regtest.
func (f purseFlags) chainServices(network bsv.Network) (list []services.Service, err error) {
	switch {
	case *f.node != "" && *f.services != "":
		return nil, fmt.Errorf("%w: --node and --services say different things", errUsage)
	case *f.node != "":
		list = []services.Service{{Kind: services.Node, URL: *f.node}}
		if err := list[0].Check(); err != nil {
			return nil, fmt.Errorf("%w: --node: %w", errUsage, err)
		}
	case *f.services != "":
		if list, err = services.Load(*f.services); err != nil {
			return nil, fmt.Errorf("%w: --services: %w", errUsage, err)
		}
	default:
		if list = services.Defaults(network); len(list) == 0 {
			return nil, errNoNode
		}
	}
	return list, nil
}

// openPurse opens the money in a folder; a new wallet is made where there is
// none, and its words are shown.
func openPurse(ctx context.Context, f purseFlags, io stdio) (_ *purse, err error) {
	network, err := f.parseNetwork()
	if err != nil {
		return nil, err
	}
	list, err := f.chainServices(network)
	if err != nil {
		return nil, err
	}
	p := &purse{network: network, stop: func() {}}
	if err := os.MkdirAll(*f.data, 0o700); err != nil {
		return nil, err
	}
	if p.lock, err = box.Lock(*f.data); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	log := f.log(io.err)
	p.view, err = services.Open(ctx, services.Config{Network: network, Services: list, Headers: filepath.Join(*f.data, "headers.dat"), Clock: time.Now, Log: log})
	if err != nil {
		return nil, err
	}
	p.chain = p.view
	if p.ledger, err = ledger.Open(ctx, filepath.Join(*f.data, "money.db"), time.Now); err != nil {
		return nil, err
	}
	p.outbox = wallet.NewOutbox(p.ledger, p.chain, time.Now, log)
	p.wallet, err = box.OpenWallet(ctx, *f.data, network, p.ledger, p.chain, wallet.Options{Clock: time.Now, Log: log, Stored: p.outbox.Kick,
		Passphrase: asker(ctx, io).Passphrase(*f.passphrase), Gap: f.gap, Scanning: f.scanning},
		func(words string) error { return showWords(io.err, words) })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.outbox.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			log.Error("outbox", "error", err)
		}
	})
	p.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	return p, nil
}

// refresh looks for the wallet's coins and brings the channels of earlier
// downloads in order: refunds whose time has come are on their way when it
// returns.
func (p *purse) refresh(ctx context.Context) error {
	if err := p.wallet.Refresh(ctx); err != nil {
		return fmt.Errorf("look for the wallet's coins: %w", err)
	}
	buyer := paylink.NewBuyer(paylink.BuyerConfig{Ledger: p.ledger, Wallet: p.wallet, Chain: p.chain, Outbox: p.outbox, Clock: time.Now})
	if err := buyer.Maintain(ctx); err != nil {
		return fmt.Errorf("channels of earlier downloads: %w", err)
	}
	p.settle(ctx)
	return nil
}

// bound is what the channels hold that are not settled, and the last height
// from which on that can be taken back.
func (p *purse) bound(ctx context.Context) (sum money.Satoshis, last uint32, err error) {
	open := true
	rows, err := p.ledger.Channels(ctx, ledger.Filter{Role: ledger.Payer, Open: &open})
	for _, row := range rows {
		if sum, err = sum.Add(row.Capacity); err != nil {
			return 0, 0, err
		}
		last = max(last, row.RefundHeight)
	}
	return sum, last, err
}

// settle gives the outbox a little time to bring what waits to the network.
func (p *purse) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	p.outbox.Kick()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		waiting, err := p.ledger.OutgoingUnsettled(ctx)
		if err != nil {
			return
		}
		pending := false
		for _, o := range waiting {
			pending = pending || o.State == ledger.Pending
		}
		if !pending {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (p *purse) close() {
	p.stop()
	if p.ledger != nil {
		_ = p.ledger.Close() // everything that matters was durable before
	}
	if p.view != nil {
		_ = p.view.Close() // headers can be fetched again
	}
	if p.lock != nil {
		_ = p.lock.Close()
	}
}

func showWords(w io.Writer, words string) error {
	_, err := fmt.Fprintf(w, `A new wallet was made. These twelve words are the wallet: write them down, in
this order, and keep them where nobody else looks. They are not shown again.

    %s

`, words)
	return err
}
