package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"bitcdn": main}) }

// TestScripts runs every command as a person would. A script's own command
//
//	fails CODE PROGRAM ARGS...
//
// wants the exit code, and an error in our form on the standard error.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("BITCDN_NETWORK", "regtest")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"fails": fails, "books": makeBooks},
	})
}

// makeBooks is the script command "books FOLDER": it makes a box's folder with a ledger: a channel that served two titles,
// settled on New Year's Day of 2026, and a payout that is not mined yet.
func makeBooks(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: books FOLDER")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o700))
	ctx := context.Background()
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	l, err := ledger.OpenWith(ctx, filepath.Join(dir, "money.db"), func() time.Time { return now }, ledger.Options{Interval: time.Nanosecond})
	ts.Check(err)
	defer func() { ts.Check(l.Close()) }()
	_, err = l.Claim(ctx, "wallet", "regtest 00")
	ts.Check(err)
	c := ledger.Channel{ID: [32]byte{0xc1}, Role: ledger.Payee, State: ledger.StateOpen, PeerKey: [33]byte{2}, Capacity: 20_000,
		Title: [20]byte{1}, TitleName: "=film()", Seq: 1, Bytes: 1000, Payee: 700, Creator: 70,
		Creators: []ledger.CreatorAmount{{Hash: [20]byte{7}, Amount: 70}}}
	ts.Check(l.SaveChannel(ctx, c))
	c.Title, c.TitleName, c.Seq, c.Bytes, c.Payee = [20]byte{2}, "song", 2, 1500, 1000
	ts.Check(l.SaveChannel(ctx, c))
	closing, payout := [32]byte{0x7f}, [32]byte{0x55}
	ts.Check(l.PutOutgoing(ctx, ledger.Outgoing{Txid: closing, Raw: []byte("close"), Purpose: ledger.Close, Channel: c.ID, State: ledger.Mined,
		Height: 100, Outputs: []ledger.Coin{{Txid: closing, Value: 1000, Branch: 3, Origin: ledger.OriginEarning}}}))
	now = now.AddDate(0, 0, 1)
	ts.Check(l.Apply(ctx, ledger.Batch{
		Reserve: []ledger.Reservation{{Coins: []ledger.Outpoint{{Txid: closing}}, By: payout}},
		Outbox:  []ledger.Outgoing{{Txid: payout, Raw: []byte("sweep"), Purpose: ledger.Sweep, Fee: 20, State: ledger.Seen}},
	}))
	ts.Check(l.Check(ctx))
}

func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails CODE PROGRAM ARGS...")
	}
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("%s: %v, an exit code of %d was wanted", args[1], err, code)
	}
	if exit.ExitCode() != code {
		ts.Fatalf("exit code %d, want %d", exit.ExitCode(), code)
	}
	if said := ts.ReadFile("stderr"); !strings.Contains("\n"+said, "\nbitcdn: error: ") {
		ts.Fatalf("no error in our form: %q", said)
	}
}
