package box

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/paylink"
)

// desk is a box of which only the control socket and the ledger are there.
func desk(t *testing.T) (*Box, *Control) {
	t.Helper()
	dir := t.TempDir()
	l, err := ledger.OpenWith(t.Context(), filepath.Join(dir, "money.db"), time.Now, ledger.Options{Interval: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	b := &Box{ledger: l, chain: memory.New(time.Now), seller: new(paylink.Seller), opt: Options{DataDir: dir, Clock: time.Now}}
	socket, err := listenPrivate(t.Context(), filepath.Join(dir, controlSocket))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: b.control(), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(socket) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, NewControl(dir)
}

func TestLedgerThroughTheSocket(t *testing.T) {
	t.Parallel()
	b, control := desk(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.ledger.Claim(ctx, "wallet", "regtest 00")
	must(err)
	creator := bsv.Hash160{7}
	txid := [32]byte{1}
	c := ledger.Channel{ID: [32]byte{1}, Role: ledger.Payee, State: ledger.StateOpen, Title: [20]byte{9}, TitleName: "film", Capacity: 20_000,
		Seq: 1, Payee: 500, Creator: 50, Creators: []ledger.CreatorAmount{{Hash: creator, Amount: 50}}, Bytes: 1 << 20}
	must(b.ledger.SaveChannel(ctx, c))
	must(b.ledger.PutOutgoing(ctx, ledger.Outgoing{Txid: txid, Raw: []byte("close"), Purpose: ledger.Close, Channel: c.ID, State: ledger.Mined,
		Height: 5, Final: true}))

	var out bytes.Buffer
	must(control.Export(ctx, ExportRequest{Format: FormatCSV}, &out))
	rows, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(rows) != 2 || rows[1][2] != ledger.KindEarning || rows[1][9] != "500" {
		t.Errorf("rows %q, %v", rows, err)
	}
	out.Reset()
	past := ledger.Period{To: time.Now().AddDate(-1, 0, 0)}
	must(control.Export(ctx, ExportRequest{Period: past, Format: FormatJSON}, &out))
	var none []any
	if err := json.Unmarshal(out.Bytes(), &none); err != nil || len(none) != 0 {
		t.Errorf("records of a year ago: %s", out.Bytes())
	}
	for by, want := range map[string]ledger.Total{
		ByDay:     {Settled: 500, Royalty: 50, Bytes: 1 << 20},
		ByTitle:   {Title: c.Title, Name: "film", Channels: 1, Settled: 500, Royalty: 50, Bytes: 1 << 20},
		ByChannel: {Channel: c.ID, Title: c.Title, Name: "film", Channels: 1, Settled: 500, Royalty: 50, Bytes: 1 << 20},
		ByCreator: {Creator: creator.Address(bsv.Regtest), Channels: 1, Royalty: 50, RoyaltySettled: 50},
	} {
		var got []ledger.Total
		must(control.EachTotal(ctx, TotalsRequest{By: by}, func(t ledger.Total) error { got = append(got, t); return nil }))
		if len(got) == 1 {
			got[0].Day = want.Day
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("by %s: %+v, want %+v", by, got, want)
		}
	}
	if err := control.EachTotal(ctx, TotalsRequest{By: ByDay}, func(ledger.Total) error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Errorf("stopped: %v", err)
	}
	for _, bad := range []TotalsRequest{{By: "moon"}, {By: ByTitle, Period: past}} {
		if err := control.EachTotal(ctx, bad, func(ledger.Total) error { return nil }); err == nil ||
			!strings.Contains(err.Error(), ErrLedgerRequest.Error()) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := control.Export(ctx, ExportRequest{Format: "xls"}, io.Discard); err == nil || !strings.Contains(err.Error(), `"xls"`) {
		t.Errorf("unknown format: %v", err)
	}

	// The chain knows nothing of that close, and its bytes are none.
	report, err := control.CheckLedger(ctx)
	must(err)
	if len(report.Differences) != 3 || report.Offline || report.Transactions != 1 || report.Closes != 1 {
		t.Errorf("%+v", report)
	}
	b.chain.(*memory.Chain).SetDown(true)
	if report, err = control.CheckLedger(ctx); err != nil || report.ChainError == "" || len(report.Differences) == 0 {
		t.Errorf("without a chain: %+v, %v", report, err)
	}
	b.seller = nil
	if report, err = control.CheckLedger(ctx); err != nil || !report.Offline {
		t.Errorf("no service is set: %+v, %v", report, err)
	}
}

// An answer that breaks off is an error, and not a short answer.
func TestBrokenStream(t *testing.T) {
	t.Parallel()
	b, control := desk(t)
	for i := range 3000 {
		txid := [32]byte{byte(i), byte(i >> 8), 1}
		if err := b.ledger.PutCoins(t.Context(), ledger.Coin{Txid: txid, Value: 1, Origin: ledger.OriginReceive}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := 0
	err := control.Export(ctx, ExportRequest{Format: FormatCSV}, writer(func(p []byte) (int, error) {
		if lines += bytes.Count(p, []byte("\n")); lines > 1 {
			cancel()
		}
		return len(p), nil
	}))
	if err == nil && lines < 3001 {
		t.Errorf("%d lines, and no error", lines)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
