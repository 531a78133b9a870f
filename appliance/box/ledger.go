package box

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// ErrLedgerRequest says that a request about the ledger makes no sense.
var ErrLedgerRequest = errors.New("not a question that the ledger can answer")

// Formats of an ExportRequest.
const (
	FormatCSV  = "csv"
	FormatJSON = "json"
)

// ExportRequest asks for the ledger's records of a period.
type ExportRequest struct {
	ledger.Period
	Format string // FormatCSV or FormatJSON
}

// What a TotalsRequest may ask for.
const (
	ByDay     = "day"
	ByTitle   = "title"
	ByChannel = "channel"
	ByCreator = "creator" // royalties only
)

// TotalsRequest asks for totals.
type TotalsRequest struct {
	ledger.Period        // with ByDay; the others have no time
	By            string // one of the constants
}

// LedgerReport is what a check of the ledger has found.
type LedgerReport struct {
	Coins        int      `json:"coins"`
	Transactions int      `json:"transactions"`
	Closes       int      `json:"closes"`
	Settled      int64    `json:"settled"` // satoshis, by the ledger
	Paid         int64    `json:"paid"`    // satoshis, by the chain
	Offline      bool     `json:"offline"` // the chain was not asked
	Differences  []string `json:"differences"`
	Unasked      []string `json:"unasked"` // what the chain service cannot answer
	// ChainError is why the chain could not be asked to the end.
	ChainError string `json:"chain_error,omitempty"`
}

// WriteRecords writes the records that are asked for. Errors are
// ErrLedgerRequest and those of the ledger and of w.
func WriteRecords(ctx context.Context, l *ledger.Ledger, w io.Writer, r ExportRequest) error {
	switch r.Format {
	case FormatCSV:
		return l.WriteCSV(ctx, w, r.Period)
	case FormatJSON:
		return l.WriteJSON(ctx, w, r.Period)
	}
	return fmt.Errorf("format %q: %w", r.Format, ErrLedgerRequest)
}

// EachTotal calls fn with the totals that are asked for, until it returns an
// error. Errors are ErrLedgerRequest, those of the ledger, and fn's.
func EachTotal(ctx context.Context, l *ledger.Ledger, r TotalsRequest, fn func(ledger.Total) error) error {
	if r.By != ByDay && r.Period != (ledger.Period{}) {
		return fmt.Errorf("a period of totals by %s: %w", r.By, ErrLedgerRequest)
	}
	switch r.By {
	case ByDay:
		return l.TotalsByDay(ctx, r.Period, fn)
	case ByTitle:
		return l.TotalsByTitle(ctx, fn)
	case ByChannel:
		return l.TotalsByChannel(ctx, fn)
	case ByCreator:
		return eachCreator(ctx, l, fn)
	}
	return fmt.Errorf("totals by %q: %w", r.By, ErrLedgerRequest)
}

func eachCreator(ctx context.Context, l *ledger.Ledger, fn func(ledger.Total) error) error {
	network, err := networkOf(ctx, l)
	if err != nil {
		return err
	}
	all, err := l.RoyaltiesByCreator(ctx, ledger.Payee)
	if err != nil {
		return err
	}
	for _, c := range all {
		t := ledger.Total{Creator: "unknown", Channels: c.Channels, Royalty: int64(c.Settled + c.Unsettled), RoyaltySettled: int64(c.Settled)}
		if hash := bsv.Hash160(c.Hash); !hash.IsZero() {
			t.Creator = hash.Address(network)
		}
		if err := fn(t); err != nil {
			return err
		}
	}
	return nil
}

// networkOf is that of the wallet to which the ledger belongs.
func networkOf(ctx context.Context, l *ledger.Ledger) (bsv.Network, error) {
	owner, err := l.Claimed(ctx, "wallet")
	if err != nil {
		return 0, fmt.Errorf("network of the ledger: %w", err)
	}
	name, _, _ := strings.Cut(owner, " ")
	return bsv.ParseNetwork(name)
}

// CheckLedger recomputes the ledger's balances and compares it with its
// transactions and, unless c is nil, with the chain. What is wrong is in the
// report; an error says that it could not be looked at.
func CheckLedger(ctx context.Context, l *ledger.Ledger, c chain.Backend) (LedgerReport, error) {
	books := l.Check(ctx)
	if books != nil && !errors.Is(books, ledger.ErrBooks) && !errors.Is(books, ledger.ErrUnbalanced) {
		return LedgerReport{}, books
	}
	found, err := wallet.CheckChain(ctx, l, c)
	if err != nil && !errors.Is(err, chain.ErrUnavailable) || ctx.Err() != nil {
		return LedgerReport{}, errors.Join(err, ctx.Err())
	}
	report := LedgerReport{Coins: found.Coins, Transactions: found.Transactions, Closes: found.Closes, Settled: int64(found.Settled),
		Paid: int64(found.Paid), Offline: found.Offline, Differences: []string{}, Unasked: append([]string{}, found.Unasked...)}
	if books != nil {
		report.Differences = append(report.Differences, "The books do not add up: "+books.Error()+".")
	}
	report.Differences = append(report.Differences, found.Differences...)
	if err != nil {
		report.ChainError = err.Error()
	}
	return report, nil
}

// controlLedger adds the ledger's part of the control API.
func (b *Box) controlLedger(mux *http.ServeMux) {
	handleStream(mux, "/ledger/export", func(ctx context.Context, r ExportRequest, w io.Writer) error {
		return WriteRecords(ctx, b.ledger, w, r)
	})
	handleStream(mux, "/ledger/totals", func(ctx context.Context, r TotalsRequest, w io.Writer) error {
		lines := json.NewEncoder(w)
		return EachTotal(ctx, b.ledger, r, func(t ledger.Total) error { return lines.Encode(t) })
	})
	handle(mux, "/ledger/check", func(ctx context.Context, _ Empty) (LedgerReport, error) {
		var c chain.Backend
		if b.seller != nil { // else no service is set
			c = b.chain
		}
		return CheckLedger(ctx, b.ledger, c)
	})
}

// handleStream makes a function that writes a long answer a handler of POST. An
// error before the first byte is told; after it the connection is cut, so that
// nobody takes a part for the whole.
func handleStream[Request any](mux *http.ServeMux, path string, fn func(context.Context, Request, io.Writer) error) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var request Request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControl)).Decode(&request); err != nil {
			refuse(w, http.StatusBadRequest, "request: "+err.Error())
			return
		}
		out := &counted{w: w}
		if err := fn(r.Context(), request, out); err != nil {
			if out.n > 0 {
				panic(http.ErrAbortHandler)
			}
			refuse(w, http.StatusUnprocessableEntity, err.Error())
		}
	})
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(controlError{text}) // a caller that has gone is no error of ours
}

// counted counts what is written.
type counted struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// Export writes the records of the box's ledger to w.
func (c *Control) Export(ctx context.Context, r ExportRequest, w io.Writer) error {
	body, err := c.stream(ctx, "/ledger/export", r)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	return err
}

// EachTotal calls fn with totals of the box's ledger, until it returns an
// error.
func (c *Control) EachTotal(ctx context.Context, r TotalsRequest, fn func(ledger.Total) error) error {
	body, err := c.stream(ctx, "/ledger/totals", r)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := json.NewDecoder(body)
	for {
		var t ledger.Total
		err := lines.Decode(&t)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the box's answer: %w", err)
		}
		if err := fn(t); err != nil {
			return err
		}
	}
}

// CheckLedger has the box compare its ledger with itself and with the chain,
// which takes as long as the chain service does.
func (c *Control) CheckLedger(ctx context.Context) (report LedgerReport, err error) {
	body, err := c.stream(ctx, "/ledger/check", Empty{})
	if err != nil {
		return report, err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxControl)).Decode(&report); err != nil {
		return report, fmt.Errorf("the box's answer: %w", err)
	}
	return report, nil
}
