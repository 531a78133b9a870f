package webui

import (
	"context"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Source tells what the pages show. Status is called for every request and at
// the same time from several; it must return soon, at the latest when ctx ends.
type Source interface {
	Status(ctx context.Context) (Status, error)
}

// Status is a box at one moment. Amounts are satoshis, sizes bytes, rates of
// data bytes per second, prices satoshis per GiB.
type Status struct {
	Name    string    `json:"name"`    // of the box
	Version string    `json:"version"` // of the program
	Now     time.Time `json:"now"`
	Started time.Time `json:"started"`

	Chain    Chain              `json:"chain"`
	Earnings Earnings           `json:"earnings"`
	Titles   []Title            `json:"titles"`
	Channels []Channel          `json:"channels"` // open ones
	Traffic  Traffic            `json:"traffic"`
	Health   []health.Condition `json:"health"`
}

// Chain is the box's view of the block chain.
type Chain struct {
	Network string    `json:"network"` // "main", "test" or "regtest"
	Height  uint32    `json:"height"`  // of the tip
	Hash    string    `json:"hash"`    // of the tip; empty where it is not known
	Time    time.Time `json:"time"`    // of the tip
	// Services are asked in this order.
	Services []ChainService `json:"services"`
}

// ChainService is a service through which the box sees the chain.
type ChainService struct {
	Name       string    `json:"name"`
	Down       bool      `json:"down"`        // others are asked in its place
	LastAnswer time.Time `json:"last_answer"` // zero where it never has
	Error      string    `json:"error"`       // why it failed last; empty when it has answered since
}

// Earnings are totals over all titles. Unsettled, OnChain, Swept and Fees add
// up to what was earned.
type Earnings struct {
	Unsettled money.Satoshis `json:"unsettled"` // in open channels
	OnChain   money.Satoshis `json:"on_chain"`  // settled and not yet paid out
	Swept     money.Satoshis `json:"swept"`     // paid out
	Fees      money.Satoshis `json:"fees"`      // miners' fees of the payouts
	Royalties money.Satoshis `json:"royalties"` // paid to creators beside it
	Sweeps    []Sweep        `json:"sweeps"`    // newest first
}

// Sweep is one payout to the owner's address.
type Sweep struct {
	Txid   string         `json:"txid"`
	Amount money.Satoshis `json:"amount"`
	Fee    money.Satoshis `json:"fee"`
	At     time.Time      `json:"at"`
	Height uint32         `json:"height"` // 0: not mined yet
}

// Title is a title and what it brought.
type Title struct {
	InfoHash string         `json:"info_hash"` // hex
	Name     string         `json:"name"`
	Size     int64          `json:"size"`
	Price    money.Rate     `json:"price"`
	Royalty  money.Rate     `json:"royalty"` // on top of the price
	Sold     int64          `json:"sold"`    // bytes paid for
	Earned   money.Satoshis `json:"earned"`
}

// Channel is an open payment channel of a downloader.
type Channel struct {
	ID       string         `json:"id"`
	Title    string         `json:"title"` // the title's name
	Remote   string         `json:"remote"`
	State    string         `json:"state"`
	Capacity money.Satoshis `json:"capacity"`
	Paid     money.Satoshis `json:"paid"` // to the box
	Royalty  money.Satoshis `json:"royalty"`
	Bytes    int64          `json:"bytes"` // paid for
	Refund   uint32         `json:"refund_height"`
}

// Traffic is what the upload side is doing.
type Traffic struct {
	Connections int   `json:"connections"`
	UploadRate  int64 `json:"upload_rate"`
	Uploaded    int64 `json:"uploaded"` // since the program started
}
