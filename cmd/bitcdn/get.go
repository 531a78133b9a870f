package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/appliance/fetch"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"golang.org/x/term"
)

const (
	// finishTimeout is how long the seeders have for settling at the end.
	finishTimeout = time.Minute
	// stalledBudget is how long a download whose budget is used up goes on
	// without a byte from a free seeder.
	stalledBudget = 15 * time.Second
	// maxFeeRate and maxWindow bound what a seeder may ask of a channel: a fee
	// of ten times what miners usually take, and two weeks until the refund.
	maxFeeRate money.FeeRate = 1_000
	maxWindow  uint32        = 2_016
	// maintainEvery is how often the channels of earlier downloads are looked
	// after during a long one: a refund whose time has come does not wait for
	// its end.
	maintainEvery = 10 * time.Minute
	// maxLater is what a channel may bind for the titles after the one that it
	// is opened for.
	maxLater money.Satoshis = 50_000
	// maxTitles is how many titles one command downloads.
	maxTitles = 1_000
)

type getOptions struct {
	dir      string
	maxPrice money.Rate
	budget   money.Satoshis
	peers    []string
	dht      bool
	encrypt  bool
	idle     time.Duration
	receipt  string
	quiet    bool
	purse    purseFlags
}

func runGet(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "get", "MAGNET|TORRENT...", `Downloads titles, one after the other. Seeders that ask for money are paid as
verified data arrives, up to --max-price for a GiB and --budget in all; seeders
that do not are used as well. Seeders that have several of the titles are paid for
them through one channel. Run the same command again to go on after an
interruption.`)
	var o getOptions
	maxPrice := rateFlag(flags, "max-price", 0, "highest price, royalty included, that is paid; 0 pays nobody")
	budget := satoshisFlag(flags, "budget", 0, "most that all of it may cost, fees included")
	flags.StringVarP(&o.dir, "output", "o", ".", "`folder` to download into")
	flags.StringArrayVar(&o.peers, "peer", nil, "`host:port` of a seeder; may be repeated")
	flags.BoolVar(&o.dht, "dht", false, "ask the distributed hash table for peers")
	flags.BoolVar(&o.encrypt, "encrypt", false, "talk to peers that encrypt only")
	flags.DurationVar(&o.idle, "give-up-after", fetch.DefaultIdle, "`time` without a byte after which the download ends")
	flags.StringVar(&o.receipt, "receipt", "", "write the receipt as JSON to this `file`")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "no progress, the receipt only")
	o.purse = addPurseFlags(flags)
	if done, err := parse(flags, args, 1, maxTitles); done || err != nil {
		return err
	}
	o.maxPrice, o.budget = *maxPrice, *budget
	if o.maxPrice > 0 && o.budget == 0 {
		return fmt.Errorf("%w: --max-price without --budget: say how much may be spent in all", errUsage)
	}
	var sources []fetch.Source
	for _, arg := range flags.Args() {
		source, err := readSource(arg)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(sources, func(s fetch.Source) bool { return s.InfoHash == source.InfoHash }) {
			return fmt.Errorf("%w: the same title twice: %s", errUsage, arg)
		}
		sources = append(sources, source)
	}
	return get(ctx, sources, o, io)
}

// maxLinkFile is the longest file that is looked at for a magnet link.
const maxLinkFile = 64 << 10

// readSource takes a magnet link, a torrent file, or a file with a link in it.
func readSource(arg string) (fetch.Source, error) {
	if strings.HasPrefix(arg, "magnet:") {
		return fetch.MagnetSource(arg)
	}
	info, err := os.Stat(arg)
	if err != nil {
		return fetch.Source{}, fmt.Errorf("%w: neither a magnet link nor a torrent file: %w", errUsage, err)
	}
	if info.Size() > fetch.MaxTorrent {
		return fetch.Source{}, fmt.Errorf("%s has %s: %w", arg, size(info.Size()), fetch.ErrTorrent)
	}
	b, err := os.ReadFile(arg)
	if err != nil {
		return fetch.Source{}, err
	}
	if text := bytes.TrimSpace(b); len(b) <= maxLinkFile && bytes.HasPrefix(text, []byte("magnet:")) {
		return fetch.MagnetSource(string(text))
	}
	return fetch.TorrentSource(b)
}

// shopping is one get: titles that are downloaded one after the other under one
// budget.
type shopping struct {
	o      getOptions
	io     stdio
	peers  []netip.AddrPort
	purse  *purse          // nil where nobody is paid
	budget *paylink.Budget // nil where nobody is paid

	noticeMu sync.Mutex
	notices  map[string]string // the newest by seeder, so that nothing is said twice
	bar      *bar              // of the title that is being downloaded
}

// download is one title of a get.
type download struct {
	*shopping
	last  bool // title of the get
	buyer *paylink.Buyer

	stalled  atomic.Bool // ended because the budget is used up
	lastDone int64
	lastMove time.Time
}

// get downloads one title after the other. One that fails does not keep the
// others from coming, as long as there is money and nobody interrupts.
func get(ctx context.Context, sources []fetch.Source, o getOptions, io stdio) (err error) {
	s := &shopping{o: o, io: io, notices: make(map[string]string)}
	if s.peers, err = resolve(ctx, o.peers); err != nil {
		return err
	}
	if o.maxPrice > 0 {
		if err := s.openPurse(ctx, sources); err != nil {
			return err
		}
		defer s.purse.close()
	}
	var results []fetch.Result
	var errs []error
	for i, source := range sources {
		d := &download{shopping: s, last: i == len(sources)-1, lastMove: time.Now()}
		result, err := d.get(ctx, source)
		results, errs = append(results, result), append(errs, err)
		if ctx.Err() != nil || d.stalled.Load() {
			break
		}
	}
	return errors.Join(append(errs, s.tell(context.WithoutCancel(ctx), results, len(sources) > 1))...)
}

func (d *download) get(ctx context.Context, source fetch.Source) (result fetch.Result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := &d.o
	request := fetch.Request{Source: source, Dir: o.dir, State: filepath.Join(*o.purse.data, "downloads"), DHT: o.dht, Idle: o.idle, Peers: d.peers,
		Manifest: readManifest, Log: o.purse.log(d.io.err), FinishGrace: 20 * time.Second}
	if o.encrypt {
		request.Encryption = fetch.RequireRC4
	}
	if d.purse != nil {
		d.openBuyer(ctx)
		request.Payments = d.buyer
		request.Finish = func(finish context.Context) error { return d.finish(ctx, finish) }
		var looking sync.WaitGroup
		looking.Go(func() { d.maintain(ctx) })
		defer looking.Wait()
		defer cancel()
	}
	if !o.quiet {
		f, ok := d.io.err.(*os.File)
		d.noticeMu.Lock()
		d.bar = newBar(d.io.err, ok && term.IsTerminal(int(f.Fd())))
		d.noticeMu.Unlock()
	}
	request.Progress = func(p fetch.Progress) { d.progress(p, cancel) }
	result, err = fetch.Fetch(ctx, request)
	if d.bar != nil {
		d.bar.Done()
	}
	if d.purse != nil {
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		if suspended := d.buyer.Suspend(end); suspended != nil && err == nil {
			err = suspended
		}
		stop()
		d.purse.settle(context.WithoutCancel(ctx))
	}
	switch {
	case d.stalled.Load() && !result.Complete:
		return result, fmt.Errorf("%w: %v spent, %s of %s are here", errBudget, d.budget.Spent(), size(result.Have), size(result.Length))
	case errors.Is(err, context.Canceled):
		return result, fmt.Errorf("%w: %s of %s are here", errInterrupted, size(result.Have), size(result.Length))
	}
	return result, err
}

func (s *shopping) openPurse(ctx context.Context, sources []fetch.Source) error {
	p, err := openPurse(ctx, s.o.purse, s.io)
	if err != nil {
		return err
	}
	if err := p.wallet.Refresh(ctx); err != nil {
		p.close()
		return fmt.Errorf("look for the wallet's coins: %w", err)
	}
	var spent money.Satoshis
	for _, source := range sources {
		paid, fees, err := p.ledger.SpentOn(ctx, source.InfoHash)
		if err != nil {
			p.close()
			return err
		}
		spent += paid + fees
	}
	s.purse = p
	s.budget = paylink.NewBudget(s.o.budget, spent)
	return nil
}

// openBuyer begins to pay for a title. Channels of the titles before go on with
// it.
func (d *download) openBuyer(ctx context.Context) {
	p := d.purse
	var later money.Satoshis
	if !d.last {
		later = maxLater
	}
	d.buyer = paylink.NewBuyer(paylink.BuyerConfig{Ledger: p.ledger, Wallet: p.wallet, Chain: p.chain, Outbox: p.outbox,
		MaxPrice: d.o.maxPrice, Budget: d.budget, Later: later, MaxFeeRate: maxFeeRate, MaxWindow: maxWindow, Clock: time.Now,
		Log: d.o.purse.log(d.io.err), Notify: d.notify})
	if err := d.buyer.Maintain(ctx); err != nil {
		fmt.Fprintf(d.io.err, "bitcdn: channels of earlier downloads: %v\n", err)
	}
}

// maintain looks after the channels of earlier downloads until ctx ends.
func (d *download) maintain(ctx context.Context) {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := d.buyer.Maintain(ctx); err != nil && ctx.Err() == nil {
			d.o.purse.log(d.io.err).Warn("channels of earlier downloads", "error", err)
		}
	}
}

// finish settles when everything is here, and leaves the channels open for the
// next title, or for the next run where it was interrupted.
func (d *download) finish(ctx, finish context.Context) error {
	if ctx.Err() != nil || !d.last {
		return d.buyer.Suspend(finish)
	}
	finish, cancel := context.WithTimeout(finish, finishTimeout)
	defer cancel()
	return d.buyer.Finish(finish)
}

func (d *download) progress(p fetch.Progress, cancel func()) {
	var spent money.Satoshis
	if d.budget != nil {
		spent = d.budget.Spent()
	}
	if d.bar != nil {
		d.bar.Update(p, spent)
	}
	if p.Done != d.lastDone || p.State != fetch.Downloading && p.State != fetch.WaitingForPayment {
		d.lastDone, d.lastMove = p.Done, time.Now()
	}
	if d.buyer != nil && d.buyer.OverLimit() && time.Since(d.lastMove) > stalledBudget {
		d.stalled.Store(true)
		cancel()
	}
}

// notify tells what a seeder did, once.
func (d *shopping) notify(n paylink.Notice) {
	d.noticeMu.Lock()
	defer d.noticeMu.Unlock()
	if d.o.quiet || d.notices[n.Seeder] == n.Text {
		return
	}
	d.notices[n.Seeder] = n.Text
	clear := ""
	if d.bar != nil && d.bar.tty {
		clear = "\r\x1b[K"
	}
	fmt.Fprintf(d.io.err, "%s%s: %s\n", clear, n.Seeder, printable(n.Text))
}

func readManifest(info []byte) (*paylink.Royalty, string, error) {
	m, err := catalog.ReadManifest(info)
	if err != nil || m == nil {
		return nil, "", err
	}
	if m.Royalty == 0 {
		return nil, m.Title, nil
	}
	return &paylink.Royalty{Creator: m.Creator, Rate: m.Royalty, To: m.RoyaltyTo}, m.Title, nil
}

func resolve(ctx context.Context, peers []string) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, p := range peers {
		host, port, err := net.SplitHostPort(p)
		if err != nil {
			return nil, fmt.Errorf("%w: --peer: %w", errUsage, err)
		}
		number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
		if err != nil {
			return nil, fmt.Errorf("%w: --peer %s: %w", errUsage, p, err)
		}
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, fmt.Errorf("--peer %s: %w", p, err)
		}
		for _, a := range addresses {
			all = append(all, netip.AddrPortFrom(a.Unmap(), uint16(number)))
		}
	}
	return all, nil
}

// receiptFile is the receipt as JSON.
type receiptFile struct {
	InfoHash string         `json:"info_hash"`
	Name     string         `json:"name"`
	Path     string         `json:"path"`
	Length   int64          `json:"length"`
	Complete bool           `json:"complete"`
	Spent    money.Satoshis `json:"spent"` // in all, fees included
	Seconds  float64        `json:"seconds"`
	Channels []receiptLine  `json:"channels"`
	Peers    []receiptPeer  `json:"peers"` // of this run
}

type receiptLine struct {
	Seeder      string         `json:"seeder"`
	Channel     string         `json:"channel"`
	State       string         `json:"state"`
	Price       money.Rate     `json:"price"`
	Royalty     money.Rate     `json:"royalty_rate"`
	Bytes       int64          `json:"bytes"`
	Commitments uint64         `json:"commitments"`
	Payee       money.Satoshis `json:"payee"`
	Creator     money.Satoshis `json:"creator"`
	Fee         money.Satoshis `json:"fee"`
	Funding     string         `json:"funding_txid"`
	Close       string         `json:"close_txid,omitempty"`
}

type receiptPeer struct {
	Peer    string `json:"peer"`
	Paid    bool   `json:"paid"` // has a channel, of this run or an earlier one
	Wire    int64  `json:"wire"`
	Payable int64  `json:"payable"`
}

func (s *shopping) receipt(ctx context.Context, result fetch.Result) (receiptFile, error) {
	r := receiptFile{InfoHash: hex.EncodeToString(result.InfoHash[:]), Name: result.Name, Path: result.Path, Length: result.Length,
		Complete: result.Complete, Seconds: result.Elapsed.Seconds()}
	for _, p := range result.Peers {
		r.Peers = append(r.Peers, receiptPeer{Peer: p.Remote.String(), Wire: p.Wire, Payable: p.Payable})
	}
	if s.purse != nil {
		channels, err := paylink.Receipts(ctx, s.purse.ledger, result.InfoHash)
		if err != nil {
			return r, err
		}
		for _, c := range channels {
			line := receiptLine{Seeder: c.Seeder, Channel: hex.EncodeToString(c.Channel[:]), State: c.State, Price: c.Rate, Royalty: c.Royalty,
				Bytes: c.Bytes, Commitments: c.Commitments, Payee: c.Payee, Creator: c.Creator, Fee: c.Fee, Funding: c.Funding.String()}
			if c.Close != (bsv.Txid{}) {
				line.Close = c.Close.String()
			}
			r.Channels = append(r.Channels, line)
			for i := range r.Peers {
				r.Peers[i].Paid = r.Peers[i].Paid || r.Peers[i].Peer == c.Seeder
			}
			if c.State == ledger.StateRefunded {
				r.Spent += c.Fee
				continue
			}
			r.Spent += c.Total()
		}
	}
	return r, nil
}

// tell prints the receipts, one for each title, and writes them to the file: of
// several titles an array.
func (s *shopping) tell(ctx context.Context, results []fetch.Result, several bool) error {
	var receipts []receiptFile
	var spent money.Satoshis
	paid := 0
	for _, result := range results {
		r, err := s.receipt(ctx, result)
		if err != nil {
			return err
		}
		receipts = append(receipts, r)
		printReceipt(s.io.out, r)
		spent += r.Spent
		paid += len(r.Channels)
	}
	if paid > 0 {
		fmt.Fprintf(s.io.out, "spent %v in all\n", spent)
	}
	if several && s.purse != nil {
		if err := s.tellOpen(ctx, receipts); err != nil {
			return err
		}
	}
	if s.o.receipt == "" || len(receipts) == 0 {
		return nil
	}
	var v any = receipts
	if !several {
		v = receipts[0]
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.o.receipt, append(b, '\n'), 0o644)
}

// tellOpen says which channels stay open when everything is here: those with
// seeders that did not have the last title.
func (s *shopping) tellOpen(ctx context.Context, receipts []receiptFile) error {
	if slices.ContainsFunc(receipts, func(r receiptFile) bool { return !r.Complete }) {
		return nil
	}
	open := true
	rows, err := s.purse.ledger.Channels(ctx, ledger.Filter{Role: ledger.Payer, Open: &open})
	if err != nil {
		return err
	}
	for _, row := range rows {
		id := hex.EncodeToString(row.ID[:])
		if !slices.ContainsFunc(receipts, func(r receiptFile) bool {
			return slices.ContainsFunc(r.Channels, func(c receiptLine) bool { return c.Channel == id })
		}) {
			continue
		}
		fmt.Fprintf(s.io.out, "channel %.16s with %s stays open until the seeder settles it, as it does after some time without a payment\n", id, row.Remote)
	}
	return nil
}

func printReceipt(w io.Writer, r receiptFile) {
	state := "complete"
	if !r.Complete {
		state = "not complete"
	}
	if r.Path != "" {
		fmt.Fprintf(w, "%s, %s, %s: %s\n", printable(r.Name), size(r.Length), state, printable(r.Path))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range r.Peers {
		if !p.Paid && p.Wire > 0 {
			fmt.Fprintf(t, "%s\t%d bytes\tfree\n", p.Peer, p.Wire)
		}
	}
	for _, c := range r.Channels {
		fmt.Fprintf(t, "%s\t%d bytes\t%v + royalty %v + fees %v\tchannel %.16s %s\tclose %s\n", c.Seeder, c.Bytes, c.Payee, c.Creator, c.Fee, c.Channel, c.State, c.Close)
	}
	_ = t.Flush()
}
