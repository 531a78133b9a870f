package e2etest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/webui"
)

// world is one test's chain, boxes and clients.
type world struct {
	*testing.T
	ctx   context.Context
	dir   string
	node  *regnode.Node
	url   string // of the node, for the programs
	boxes []*seller
	free  []string // host:port of stock seeders
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	w := &world{T: t, ctx: ctx, dir: t.TempDir(), node: regnode.ForTest(t)}
	w.url = w.dearer()
	return w
}

// dearer stands before the node and makes it ask for the fee that miners
// usually take, 100 sat/kB: at the 1 sat/kB of its own, all fees are one
// satoshi.
func (w *world) dearer() string {
	w.Helper()
	node, err := url.Parse(w.node.URL())
	w.must(err)
	user := node.User
	node.User = nil
	proxy := httputil.NewSingleHostReverseProxy(node)
	proxy.ModifyResponse = func(r *http.Response) error {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		b = bytes.Replace(b, []byte(`"relayfee":1e-8`), []byte(`"relayfee":1e-6`), 1)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		r.Header.Set("Content-Length", fmt.Sprint(len(b)))
		return nil
	}
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	server := httptest.NewServer(proxy)
	w.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	w.must(err)
	address.User = user
	return address.String()
}

// seedStock seeds one file of the title with the stock client, or the whole
// title where none is named, for nothing.
func (w *world) seedStock(file string) {
	w.Helper()
	dir := shared.folder
	if file != "" {
		dir = w.TempDir()
		b, err := os.ReadFile(filepath.Join(shared.folder, contentsName, file))
		w.must(err)
		w.must(os.Mkdir(filepath.Join(dir, contentsName), 0o755))
		w.must(os.WriteFile(filepath.Join(dir, contentsName, file), b, 0o644))
	}
	cfg := torrent.NewDefaultClientConfig()
	cfg.ListenHost, cfg.ListenPort = torrent.LoopbackListenHost, 0
	cfg.DisableIPv6, cfg.DisableUTP, cfg.NoDHT, cfg.DisableTrackers, cfg.NoDefaultPortForwarding = true, true, true, true, true
	cfg.Seed = true
	cfg.Slogger = slog.New(slog.DiscardHandler)
	files := storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: dir, PieceCompletion: storage.NewMapPieceCompletion()})
	cfg.DefaultStorage = files
	cl, err := torrent.NewClient(cfg)
	w.must(err)
	w.Cleanup(func() {
		cl.Close()
		_ = files.Close() // its data is not its own
	})
	mi, err := metainfo.LoadFromFile(shared.torrent)
	w.must(err)
	t, err := cl.AddTorrent(mi)
	w.must(err)
	w.must(t.VerifyDataContext(w.ctx))
	w.free = append(w.free, fmt.Sprintf("127.0.0.1:%d", cl.LocalPort()))
}

// must ends the test on an error.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// await repeats a look at another process until it finds nothing to say.
func (w *world) await(what string, check func() error) {
	w.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if errors.Is(err, errEnded) {
			w.Fatalf("%s: %v", what, err)
		}
		select {
		case <-w.ctx.Done():
			w.Fatalf("%s: %v; last seen: %v", what, w.ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// exit returns a process's exit code.
func (w *world) exit(p *process) int {
	w.Helper()
	select {
	case <-p.done:
	case <-w.ctx.Done():
		w.Fatalf("%v does not end:\n%s", p.cmd.Args, p.tail(3000))
	}
	return p.cmd.ProcessState.ExitCode()
}

func (w *world) wantExit(p *process, code int) {
	w.Helper()
	if got := w.exit(p); got != code {
		w.Fatalf("exit code %d, want %d:\n%s", got, code, p.tail(3000))
	}
}

// seller is a box and its owner.
type seller struct {
	w       *world
	data    string
	config  string
	peers   string // host:port
	owner   bsv.PrivateKey
	control *box.Control
	process *process
}

// hosts counts the boxes. Each has an address of its own in 127.0.0.0/8, so
// that nobody takes its port while it is down.
var hosts atomic.Uint32

func address(t *testing.T) string {
	t.Helper()
	n := hosts.Add(1)
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.1:0", 1+os.Getpid()%200, n))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// settings are those of a box that sells at a price and waits for no block.
func (w *world) settings(price money.Rate) box.Settings {
	s := box.DefaultSettings()
	s.Network = regnode.Network
	s.Listen = box.ListenSettings{Peers: address(w.T)}
	s.Chain = box.ChainSettings{Node: w.url, Poll: box.Duration(200 * time.Millisecond)}
	s.Price.Default = price
	s.Channels.UnconfirmedLimit = 1_000_000
	s.Payout.Threshold, s.Payout.MaxFeeShare = 10, 1000
	return s
}

// box starts a box that sells the title.
func (w *world) box(s box.Settings) *seller {
	w.Helper()
	n := byte(len(w.boxes) + 1)
	b := &seller{w: w, data: filepath.Join(w.dir, fmt.Sprintf("box%d", n)), peers: s.Listen.Peers}
	b.config = filepath.Join(b.data, "bitcdnd.toml")
	b.control = box.NewControl(b.data)
	w.must(os.Mkdir(b.data, 0o700))
	var err error
	b.owner, err = bsv.NewPrivateKey(bytes.Repeat([]byte{n}, bsv.PrivateKeySize))
	w.must(err)
	s.Payout.Address = b.owner.Public().Hash().Address(regnode.Network)
	w.must(box.WriteSettings(b.config, s))
	b.start()
	torrent, err := os.ReadFile(shared.torrent)
	w.must(err)
	_, err = b.control.Add(w.ctx, box.AddRequest{Torrent: torrent, DataDir: shared.folder})
	w.must(err)
	w.boxes = append(w.boxes, b)
	return b
}

// start runs the box until it knows the chain.
func (b *seller) start() {
	b.w.Helper()
	b.process = start(b.w.T, b.data, filepath.Join(b.data, "log"), "bitcdnd", "--config", b.config, "--data", b.data)
	b.w.await("start of a box", func() error {
		if err := b.process.running(); err != nil {
			return fmt.Errorf("%w:\n%s", err, b.process.tail(2000))
		}
		status, err := b.control.Status(b.w.ctx)
		if err == nil && status.Chain.Height == 0 {
			err = errors.New("no height yet")
		}
		return err
	})
}

// stop asks the box to end, in good order.
func (b *seller) stop() {
	b.w.Helper()
	if b.process.running() != nil {
		return
	}
	b.process.signal(syscall.SIGTERM)
	b.w.wantExit(b.process, 0)
}

func (b *seller) status() webui.Status {
	b.w.Helper()
	s, err := b.control.Status(b.w.ctx)
	b.w.must(err)
	return s
}

// channels are the box's channels. It must not be running.
func (b *seller) channels() map[string]ledger.Channel {
	b.w.Helper()
	rows := make(map[string]ledger.Channel)
	b.w.ledger(b.data, func(l *ledger.Ledger) {
		all, err := l.Channels(b.w.ctx, ledger.Filter{Role: ledger.Payee})
		b.w.must(err)
		for _, c := range all {
			rows[fmt.Sprintf("%x", c.ID)] = c
		}
	})
	return rows
}

// ledger shows the ledger of a program that is not running, and checks it.
func (w *world) ledger(data string, look func(*ledger.Ledger)) {
	w.Helper()
	l, err := ledger.Open(w.ctx, filepath.Join(data, "money.db"), time.Now)
	w.must(err)
	defer func() { w.must(l.Close()) }()
	if err := l.Check(w.ctx); err != nil {
		w.Errorf("ledger of %s: %v", filepath.Base(data), err)
	}
	if look != nil {
		look(l)
	}
}

// sold is how many bytes a box has been paid for.
func (b *seller) sold() (n int64) {
	b.w.Helper()
	for _, t := range b.status().Titles {
		n += t.Sold
	}
	return n
}

// awaitSold waits until a box has been paid for n bytes in all, while the
// client runs.
func (b *seller) awaitSold(client *process, n int64) {
	b.w.Helper()
	b.w.await(fmt.Sprintf("%d bytes sold", n), func() error {
		sold := b.sold()
		if sold >= n {
			return nil
		}
		if err := client.running(); err != nil {
			return fmt.Errorf("%w with %d bytes sold", err, sold)
		}
		return fmt.Errorf("%d bytes sold", sold)
	})
}

// client is a paying client and what it has in its pocket.
type client struct {
	w       *world
	data    string
	out     string
	receipt string
	pocket  money.Satoshis
	runs    int
}

func (w *world) client(pocket money.Satoshis) *client {
	w.Helper()
	c := &client{w: w, data: filepath.Join(w.dir, "client"), out: filepath.Join(w.dir, "bought"), receipt: filepath.Join(w.dir, "receipt.json"), pocket: pocket}
	p := c.run("wallet", "address")
	w.wantExit(p, 0)
	to, err := bsv.ParseAddress(lastLine(p), regnode.Network)
	w.must(err)
	_, err = w.node.PayMined(w.ctx, to, pocket)
	w.must(err)
	return c
}

func lastLine(p *process) string {
	text := strings.TrimSpace(p.tail(4000))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// run starts a command that wants the wallet.
func (c *client) run(args ...string) *process {
	c.w.Helper()
	c.runs++
	return start(c.w.T, c.w.dir, filepath.Join(c.w.dir, fmt.Sprintf("client%d.log", c.runs)), "bitcdn",
		append(args, "--data", c.data, "--network", "regtest", "--node", c.w.url)...)
}

// get starts a download from all boxes.
func (c *client) get(maxPrice money.Rate, budget money.Satoshis, more ...string) *process {
	c.w.Helper()
	c.w.must(os.RemoveAll(c.receipt))
	args := []string{"get", shared.magnet, "-o", c.out, "--receipt", c.receipt, "--give-up-after", "1m",
		"--max-price", fmt.Sprint(int64(maxPrice)), "--budget", fmt.Sprint(int64(budget))}
	for _, b := range c.w.boxes {
		args = append(args, "--peer", b.peers)
	}
	for _, peer := range c.w.free {
		args = append(args, "--peer", peer)
	}
	return c.run(append(args, more...)...)
}

var balanceWords = regexp.MustCompile(`(?m)^([0-9,]+) sat in blocks, ([0-9,]+) sat on the way`)

// balance is what the wallet command says.
func (c *client) balance() (confirmed, unconfirmed money.Satoshis) {
	c.w.Helper()
	p := c.run("wallet", "balance")
	c.w.wantExit(p, 0)
	m := balanceWords.FindStringSubmatch(p.tail(4000))
	if m == nil {
		c.w.Fatalf("balance: %s", p.tail(4000))
	}
	var sum [2]money.Satoshis
	for i := range sum {
		n, err := strconv.ParseInt(strings.ReplaceAll(m[i+1], ",", ""), 10, 64)
		c.w.must(err)
		sum[i] = money.Satoshis(n)
	}
	return sum[0], sum[1]
}

// receipt is what "bitcdn get --receipt" writes.
type receipt struct {
	Path     string         `json:"path"`
	Length   int64          `json:"length"`
	Complete bool           `json:"complete"`
	Spent    money.Satoshis `json:"spent"`
	Channels []struct {
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
		Close       string         `json:"close_txid"`
	} `json:"channels"`
	Peers []struct {
		Peer    string `json:"peer"`
		Paid    bool   `json:"paid"`
		Wire    int64  `json:"wire"`
		Payable int64  `json:"payable"`
	} `json:"peers"`
}

func (c *client) readReceipt() receipt {
	c.w.Helper()
	b, err := os.ReadFile(c.receipt)
	c.w.must(err)
	var r receipt
	c.w.must(json.Unmarshal(b, &r))
	return r
}

// transaction is one that the node has, in its mempool or in a block.
func (w *world) transaction(txid string) *bsv.Tx {
	w.Helper()
	id, err := bsv.ParseTxid(txid)
	w.must(err)
	var tx *bsv.Tx
	w.await("transaction "+txid, func() error {
		tx, err = w.node.Backend().RawTx(w.ctx, id)
		return err
	})
	return tx
}

// mined mines blocks until the node says that a transaction is in one.
func (w *world) mined(txid string) *bsv.Tx {
	w.Helper()
	tx := w.transaction(txid)
	w.await("block with "+txid, func() error {
		status, err := w.node.Backend().Status(w.ctx, tx.Txid())
		switch {
		case err != nil:
			return err
		case status.State == chain.Mined:
			return nil
		case status.State == chain.Seen:
			if err := w.node.Mine(w.ctx, 1); err != nil {
				return err
			}
		}
		return fmt.Errorf("state %v", status.State)
	})
	return tx
}

// fee is what a transaction pays to the miner.
func (w *world) fee(tx *bsv.Tx) money.Satoshis {
	w.Helper()
	var fee money.Satoshis
	for _, in := range tx.Inputs {
		fee += w.transaction(in.Prev.Txid.String()).Outputs[in.Prev.Index].Value
	}
	for _, out := range tx.Outputs {
		fee -= out.Value
	}
	return fee
}

// compareFiles checks the download byte for byte.
func (w *world) compareFiles(r receipt) {
	w.Helper()
	if !r.Complete || r.Length != titleLength {
		w.Fatalf("complete %v, %d bytes", r.Complete, r.Length)
	}
	original := filepath.Join(shared.folder, contentsName)
	w.must(filepath.WalkDir(original, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(original, path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(r.Path, rel))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s differs", rel)
		}
		return nil
	}))
}

// books mines all closes and then compares, to the satoshi, the client's
// receipt, the boxes' ledgers, what the node has, and the client's wallet. It
// stops the boxes.
func (w *world) books(c *client, r receipt) {
	w.Helper()
	var spent money.Satoshis
	earned := make(map[string]money.Satoshis)
	creators := make(map[string]money.Satoshis)
	sold := make(map[string]int64)
	for _, ch := range r.Channels {
		if ch.Close == "" || ch.State != ledger.StateClosed {
			w.Fatalf("channel %s is %s, close %q", ch.Channel, ch.State, ch.Close)
		}
		tx := w.mined(ch.Close)
		funding := w.transaction(ch.Funding)
		if len(tx.Inputs) != 1 || tx.Inputs[0].Prev.Txid != funding.Txid() {
			w.Errorf("close %s does not spend funding %s alone", ch.Close, ch.Funding)
		}
		if ch.Payee > 0 && tx.Outputs[0].Value != ch.Payee {
			w.Errorf("close %s pays %v to the seeder, receipt %v", ch.Close, tx.Outputs[0].Value, ch.Payee)
		}
		if got := paidTo(tx, shared.creator); got != ch.Creator {
			w.Errorf("close %s pays %v to the creator, receipt %v", ch.Close, got, ch.Creator)
		}
		if fee := w.fee(funding) + w.fee(tx); fee != ch.Fee {
			w.Errorf("channel %s cost %v in fees, receipt %v", ch.Channel, fee, ch.Fee)
		}
		payee, err := ch.Price.Due(ch.Bytes)
		w.must(err)
		creator, err := ch.Royalty.Due(ch.Bytes)
		w.must(err)
		if payee != ch.Payee || creator != ch.Creator {
			w.Errorf("%d bytes cost %v and %v, paid %v and %v", ch.Bytes, payee, creator, ch.Payee, ch.Creator)
		}
		earned[ch.Seeder] += ch.Payee
		creators[ch.Seeder] += ch.Creator
		sold[ch.Seeder] += ch.Bytes
		spent += ch.Payee + ch.Creator + ch.Fee
	}
	if spent != r.Spent {
		w.Errorf("receipt: %v spent, its lines say %v", r.Spent, spent)
	}
	for _, b := range w.boxes {
		w.await("settled earnings", func() error {
			if s := b.status(); s.Earnings.Unsettled != 0 {
				return fmt.Errorf("%v are not settled", s.Earnings.Unsettled)
			}
			return nil
		})
		b.stop()
		rows := b.channels()
		for _, ch := range r.Channels {
			if ch.Seeder != b.peers {
				continue
			}
			row, ok := rows[ch.Channel]
			if !ok || row.Payee != ch.Payee || row.Creator != ch.Creator || row.Bytes != ch.Bytes || row.Seq != ch.Commitments ||
				bsv.Txid(row.CloseTxid).String() != ch.Close {
				w.Errorf("receipt %+v, box: %v %v, %d bytes, %d commitments, close %v", ch, row.Payee, row.Creator, row.Bytes, row.Seq, bsv.Txid(row.CloseTxid))
			}
		}
		w.ledger(b.data, func(l *ledger.Ledger) {
			totals, err := l.Totals(w.ctx)
			w.must(err)
			if totals.Earned != earned[b.peers] || totals.Settled != earned[b.peers] || totals.Royalty != creators[b.peers] {
				w.Errorf("box %s: earned %v (settled %v) and royalty %v, receipt %v and %v", b.peers, totals.Earned, totals.Settled, totals.Royalty, earned[b.peers], creators[b.peers])
			}
			titles, err := l.EarningsByTitle(w.ctx)
			w.must(err)
			for _, t := range titles {
				if t.Bytes != sold[b.peers] {
					w.Errorf("box %s sold %d bytes, receipt %d", b.peers, t.Bytes, sold[b.peers])
				}
			}
		})
	}
	confirmed, unconfirmed := c.balance()
	if unconfirmed != 0 || confirmed != c.pocket-r.Spent {
		w.Errorf("wallet: %v and %v on the way; had %v, spent %v", confirmed, unconfirmed, c.pocket, r.Spent)
	}
	w.ledger(c.data, nil)
}

func paidTo(tx *bsv.Tx, to bsv.Hash160) (sum money.Satoshis) {
	for _, o := range tx.Outputs {
		if h, ok := o.Script.P2PKHHash(); ok && h == to {
			sum += o.Value
		}
	}
	return sum
}
