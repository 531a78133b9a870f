package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Client is a paying client and what it has in its pocket.
type Client struct {
	Data        string // folder
	Out         string // folder that it downloads into
	ReceiptFile string
	Pocket      money.Satoshis // what it was given
	Services    string         // file that names the chain services; the world's node where it is empty

	w    *World
	name string
	runs int
}

// Client makes a client and gives it a mined coin.
func (w *World) Client(pocket money.Satoshis) *Client {
	w.Helper()
	w.clients++
	name := fmt.Sprintf("client%d", w.clients)
	path := filepath.Join(w.Dir, name)
	c := &Client{w: w, name: name, Data: path, Out: path + ".bought", ReceiptFile: path + ".receipt.json", Pocket: pocket}
	p := c.Run("wallet", "address")
	w.WantExit(p, 0)
	to, err := bsv.ParseAddress(lastLine(p), regnode.Network)
	w.Must(err)
	_, err = w.Node.PayMined(w.Ctx, to, pocket)
	w.Must(err)
	return c
}

func lastLine(p *Process) string {
	text := strings.TrimSpace(p.Tail(4000))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// Run starts a command that wants the wallet.
func (c *Client) Run(args ...string) *Process {
	c.w.Helper()
	c.runs++
	chain := []string{"--node", c.w.URL}
	if c.Services != "" {
		chain = []string{"--services", c.Services}
	}
	return c.w.Start(c.w.Dir, filepath.Join(c.w.Dir, fmt.Sprintf("%s.%d.log", c.name, c.runs)), "bitcdn",
		append(append(args, "--data", c.Data, "--network", "regtest"), chain...)...)
}

// Get starts a download from all boxes.
func (c *Client) Get(maxPrice money.Rate, budget money.Satoshis, more ...string) *Process {
	c.w.Helper()
	c.w.Must(os.RemoveAll(c.ReceiptFile))
	args := []string{"get", c.w.Goods.Magnet, "-o", c.Out, "--receipt", c.ReceiptFile, "--give-up-after", "1m",
		"--max-price", fmt.Sprint(int64(maxPrice)), "--budget", fmt.Sprint(int64(budget))}
	for _, b := range c.w.Boxes {
		args = append(args, "--peer", b.Peers)
	}
	for _, peer := range c.w.Free {
		args = append(args, "--peer", peer)
	}
	return c.Run(append(args, more...)...)
}

var balanceWords = regexp.MustCompile(`(?m)^([0-9,]+) sat in blocks, ([0-9,]+) sat on the way`)

// Balance is what the wallet command says.
func (c *Client) Balance() (confirmed, unconfirmed money.Satoshis) {
	c.w.Helper()
	p := c.Run("wallet", "balance")
	c.w.WantExit(p, 0)
	m := balanceWords.FindStringSubmatch(p.Tail(4000))
	if m == nil {
		c.w.Fatalf("balance: %s", p.Tail(4000))
	}
	var sum [2]money.Satoshis
	for i := range sum {
		n, err := strconv.ParseInt(strings.ReplaceAll(m[i+1], ",", ""), 10, 64)
		c.w.Must(err)
		sum[i] = money.Satoshis(n)
	}
	return sum[0], sum[1]
}

// Receipt is what "bitcdn get --receipt" writes.
type Receipt struct {
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

// ReadReceipt is that of the newest Get, which has ended.
func (c *Client) ReadReceipt() Receipt {
	c.w.Helper()
	b, err := os.ReadFile(c.ReceiptFile)
	c.w.Must(err)
	var r Receipt
	c.w.Must(json.Unmarshal(b, &r))
	return r
}
