package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/money"
)

func serve(t *testing.T, opt node.Options, h http.HandlerFunc) *node.Backend {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	b, err := node.Dial(strings.Replace(server.URL, "http://", "http://user:secret@", 1), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestDial(t *testing.T) {
	for _, address := range []string{
		"", "127.0.0.1:8332", "ftp://127.0.0.1", "http://", "http://user:secret@", "http://user:secret@h/?x=1",
		"http://user:secret@h:port", "http://user:secret@h/#x", "http://user:secret@[::1", "https://user:sec ret@h\x7f",
	} {
		_, err := node.Dial(address, node.Options{})
		if !errors.Is(err, node.ErrURL) {
			t.Errorf("%q: %v; want ErrURL", address, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", address, err)
		}
	}
	for _, address := range []string{"http://u:p@127.0.0.1:8332", "https://u:p@[::1]:8334/", "http://h"} {
		if _, err := node.Dial(address, node.Options{}); err != nil {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// What a service can answer instead of an answer.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"no credentials":     {401, "401 Unauthorized.", node.ErrCredentials},
		"forbidden":          {403, "", node.ErrCredentials},
		"busy":               {503, "503 Too busy. Try again later.", chain.ErrUnavailable},
		"work queue":         {503, "Work queue depth exceeded", chain.ErrUnavailable},
		"bad gateway":        {502, "<html>", chain.ErrUnavailable},
		"warming up":         {500, `{"result":null,"error":{"code":-28,"message":"Loading block index..."},"id":1}`, chain.ErrUnavailable},
		"downloading":        {200, `{"result":null,"error":{"code":-10,"message":"x"},"id":1}`, chain.ErrUnavailable},
		"empty":              {200, "", chain.ErrUnavailable},
		"cut off":            {200, `{"result":"00`, chain.ErrUnavailable},
		"a web page":         {200, "<html>", node.ErrProtocol},
		"not found":          {404, "<html>", node.ErrProtocol},
		"an array":           {200, "[]", node.ErrProtocol},
		"a string":           {200, `"x"`, node.ErrProtocol},
		"no result":          {200, "{}", node.ErrProtocol},
		"wrong type":         {200, `{"result":{"a":1},"error":null}`, node.ErrProtocol},
		"wrong error":        {200, `{"result":null,"error":"x"}`, node.ErrProtocol},
		"a redirect":         {307, "", node.ErrProtocol},
		"failure, no error":  {500, `{"result":"x","error":null}`, node.ErrProtocol},
		"deep":               {200, `{"result":` + strings.Repeat("[", 20_000), node.ErrProtocol},
		"not a hash":         {200, `{"result":"xyz","error":null}`, node.ErrProtocol},
		"too large":          {200, `{"result":"` + strings.Repeat("0", 2<<20), errAny},
		"too large, trailer": {200, `{"error":null,"x":"` + strings.Repeat("0", 2<<20) + `"}`, errAny},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, node.Options{MaxResponse: 1 << 20}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/" {
					t.Error("the redirect was followed")
				}
				if user, password, ok := r.BasicAuth(); !ok || user != "user" || password != "secret" {
					t.Error("no credentials")
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := b.Tip(t.Context())
			if err == nil || c.want != errAny && !errors.Is(err, c.want) {
				t.Fatalf("%v; want %v", err, c.want)
			}
			if c.want == errAny && errors.Is(err, chain.ErrUnavailable) {
				t.Fatalf("%v; asking again will not help", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the password: %v", err)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

var errAny = errors.New("any error")

func TestNobodyThere(t *testing.T) {
	server := httptest.NewServer(nil)
	b, err := node.Dial(server.URL, node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := b.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestTimeout(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not see the client go
		<-r.Context().Done()
	}
	b := serve(t, node.Options{Timeout: time.Millisecond}, hang)
	if _, err := b.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	b = serve(t, node.Options{}, hang)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := b.Tip(ctx); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	const limit, callers = 3, 12
	var now, most atomic.Int32
	entered, leave := make(chan struct{}), make(chan struct{})
	b := serve(t, node.Options{Concurrency: limit}, func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		entered <- struct{}{}
		<-leave
		now.Add(-1)
		_, _ = io.WriteString(w, `{"result":null,"error":null}`)
	})
	done := make(chan error)
	for range callers {
		go func() { done <- b.Call(t.Context(), nil, "ping") }()
	}
	for range limit {
		<-entered
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Call(ctx, nil, "ping"); !errors.Is(err, context.Canceled) { // waits for a place, and gives up
		t.Error(err)
	}
	close(leave)
	for range callers - limit {
		<-entered
	}
	for range callers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if most.Load() != limit {
		t.Errorf("%d requests at once; want %d", most.Load(), limit)
	}
}

// answers serves a fixed result by method; a method that is not there is
// refused.
func answers(t *testing.T, results map[string]string) *node.Backend {
	t.Helper()
	return serve(t, node.Options{}, func(w http.ResponseWriter, r *http.Request) {
		call := request(t, r)
		if result, ok := results[call.Method]; ok {
			_, _ = fmt.Fprintf(w, `{"result":%s,"error":null,"id":1}`, result)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":1}`)
	})
}

func TestFeeRate(t *testing.T) {
	for name, c := range map[string]struct {
		results map[string]string
		want    money.FeeRate
	}{
		"bsvd":               {map[string]string{"version": "{}", "getinfo": `{"relayfee":1e-8}`}, 1},
		"bsvd, a fraction":   {map[string]string{"version": "{}", "getinfo": `{"relayfee":1.1e-8}`}, 2},
		"bsvd, silent":       {map[string]string{"version": "{}", "getinfo": `{}`}, 100},
		"bsvd, free":         {map[string]string{"version": "{}", "getinfo": `{"relayfee":0}`}, 100},
		"bitcoin-sv":         {map[string]string{"getnetworkinfo": "{}", "getsettings": `{"minminingtxfee":0.00000500}`}, 500},
		"bitcoin-sv, silent": {map[string]string{"getnetworkinfo": "{}", "getsettings": `{"relayfee":1}`}, 100},
		"neither":            {nil, -1},
		"a coin and more":    {map[string]string{"version": "{}", "getinfo": `{"relayfee":1.00000001}`}, -1},
		"negative":           {map[string]string{"version": "{}", "getinfo": `{"relayfee":-1}`}, -1},
	} {
		got, err := answers(t, c.results).FeeRate(t.Context())
		if c.want < 0 && !errors.Is(err, node.ErrProtocol) || c.want >= 0 && (err != nil || got != c.want) {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
	b := serve(t, node.Options{FeeFloor: 50}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"result":{"minminingtxfee":1e-8},"error":null}`)
	})
	if got, err := b.FeeRate(t.Context()); err != nil || got != 50 {
		t.Errorf("floor: %d, %v", got, err)
	}
}

func TestNetwork(t *testing.T) {
	for text, want := range map[string]bsv.Network{
		"main": bsv.Main, "test": bsv.Test, "testnet3": bsv.Test, "regtest": bsv.Regtest,
	} {
		b := answers(t, map[string]string{"getblockchaininfo": fmt.Sprintf(`{"chain":%q}`, text)})
		if got, err := b.Network(t.Context()); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	b := answers(t, map[string]string{"getblockchaininfo": `{"chain":"stn"}`})
	if _, err := b.Network(t.Context()); !errors.Is(err, chain.ErrUnsupported) {
		t.Error(err)
	}
}

// A node that answers with something else than was asked for is not believed.
func TestContradictions(t *testing.T) {
	tx := &bsv.Tx{
		Version: 1,
		Inputs:  []bsv.Input{{Prev: bsv.Outpoint{Txid: bsv.Txid{1}}, Sequence: bsv.FinalSequence}},
		Outputs: []bsv.Output{{Value: 1, Script: bsv.P2PKH(bsv.Hash160{1})}},
	}
	raw := fmt.Sprintf(`"%x"`, tx.Bytes())
	other := tx.Txid()
	other[0]++
	zero := fmt.Sprintf(`"%064d"`, 0)
	// The first block of the regression test network.
	const first = `"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"`
	header := func(height, time, nonce int64, bits string) string {
		return fmt.Sprintf(`{"height":%d,"merkleroot":"4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",`+
			`"time":%d,"nonce":%d,"bits":%q,"version":1,"confirmations":1}`, height, time, nonce, bits)
	}
	for name, c := range map[string]struct {
		results map[string]string
		call    func(*node.Backend) error
		want    error
	}{
		"another transaction": {
			map[string]string{"version": "{}", "getrawtransaction": raw},
			func(b *node.Backend) error { _, err := b.RawTx(t.Context(), other); return err }, node.ErrProtocol,
		},
		"not hexadecimal": {
			map[string]string{"version": "{}", "getrawtransaction": `"xy"`},
			func(b *node.Backend) error { _, err := b.RawTx(t.Context(), other); return err }, node.ErrProtocol,
		},
		"no transaction": {
			map[string]string{"version": "{}", "getrawtransaction": `"00"`},
			func(b *node.Backend) error { _, err := b.RawTx(t.Context(), other); return err }, bsv.ErrTxSyntax,
		},
		"another txid": {
			map[string]string{"version": "{}", "sendrawtransaction": zero},
			func(b *node.Backend) error { return b.Broadcast(t.Context(), tx, nil) }, node.ErrProtocol,
		},
		"another header": {
			map[string]string{"getbestblockhash": zero, "getblockheader": header(0, 1296688602, 2, "207fffff")},
			func(b *node.Backend) error { _, err := b.Tip(t.Context()); return err }, node.ErrProtocol,
		},
		"height below zero": {
			map[string]string{"getbestblockhash": first, "getblockheader": header(-1, 1296688602, 2, "207fffff")},
			func(b *node.Backend) error { _, err := b.Tip(t.Context()); return err }, node.ErrProtocol,
		},
		"a field beyond its range": {
			map[string]string{"getbestblockhash": first, "getblockheader": header(0, 1296688602, 1<<32+2, "207fffff")},
			func(b *node.Backend) error { _, err := b.Tip(t.Context()); return err }, node.ErrProtocol,
		},
		"bits that are none": {
			map[string]string{"getbestblockhash": first, "getblockheader": header(0, 1296688602, 2, "0x207fffff")},
			func(b *node.Backend) error { _, err := b.Tip(t.Context()); return err }, node.ErrProtocol,
		},
		"fields of another hash": {
			map[string]string{"getbestblockhash": first, "getblockheader": header(0, 1296688603, 2, "207fffff")},
			func(b *node.Backend) error { _, err := b.Tip(t.Context()); return err }, node.ErrProtocol,
		},
		"another height": {
			map[string]string{"getblockhash": first, "getblockheader": header(5, 1296688602, 2, "207fffff")},
			func(b *node.Backend) error { _, err := b.Header(t.Context(), 6); return err }, chain.ErrUnavailable,
		},
		"more than a page": {
			map[string]string{
				"version": "{}", "decodescript": `{"addresses":["x"]}`, "getbestblock": `{"hash":"","height":1}`,
				"searchrawtransactions": "[" + strings.Repeat(`{"hex":""},`, 50) + `{"hex":""}]`,
			},
			func(b *node.Backend) error { _, err := b.Unspent(t.Context(), tx.Outputs[0].Script); return err }, node.ErrProtocol,
		},
		"no address": {
			map[string]string{"version": "{}", "decodescript": `{"addresses":[]}`},
			func(b *node.Backend) error { _, err := b.Unspent(t.Context(), tx.Outputs[0].Script); return err }, node.ErrProtocol,
		},
		"a script of no known form": {
			map[string]string{"version": "{}"},
			func(b *node.Backend) error { _, err := b.Unspent(t.Context(), bsv.Script{0x51}); return err }, chain.ErrUnsupported,
		},
	} {
		if err := c.call(answers(t, c.results)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
	}
	if err := answers(t, nil).Broadcast(t.Context(), tx, []bsv.Output{{}, {}}); err == nil {
		t.Error("two previous outputs for one input are taken")
	}
}

// What is remembered of past broadcasts stays bounded.
func TestMemoryIsBounded(t *testing.T) {
	var txid atomic.Value
	b := serve(t, node.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"result":"%s","error":null}`, txid.Load())
	})
	tx := &bsv.Tx{Version: 1, Inputs: []bsv.Input{{Sequence: bsv.FinalSequence}}, Outputs: []bsv.Output{{}}}
	for i := range chain.MaxSent + 10 {
		tx.Inputs[0].Prev.Index = uint32(i)
		txid.Store(tx.Txid().String())
		for range 1 + i%2 {
			if err := b.Broadcast(t.Context(), tx, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := b.Remembered(); n != chain.MaxSent {
		t.Errorf("%d remembered", n)
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		code   int
		text   string
		reason chain.Reason
		known  bool
	}{
		// bsvd
		{-22, "TX rejected: already have transaction 00", chain.Other, true},
		{-22, "TX rejected: transaction already exists", chain.Other, true},
		{-22, "TX rejected: orphan transaction 00 references outputs of unknown or fully-spent transaction 11", chain.MissingInputs, false},
		{-22, "TX rejected: output 00:1 already spent by transaction 11 in the memory pool", chain.DoubleSpend, false},
		{-22, "TX rejected: transaction 00 is not standard: transaction is not finalized", chain.NonFinal, false},
		{-22, "TX rejected: transaction's sequence locks on inputs not met", chain.NonFinal, false},
		{-22, "TX rejected: transaction 00 has insufficient priority (0 <= 5e+07)", chain.LowFee, false},
		{-22, "TX rejected: transaction 00 has 0 fees which is under the required amount of 60", chain.LowFee, false},
		{-22, "TX rejected: transaction 00 has been rejected by the rate limiter due to low fees", chain.LowFee, false},
		{-22, "TX rejected: failed to validate input 00:0 which references output 11:0", chain.Invalid, false},
		{-22, "TX decode failed: unexpected EOF", chain.Invalid, false},
		{-22, "TX rejected: transaction 00 is not standard: transaction output 0: payment of 0 is dust", chain.Other, false},
		{-22, "TX rejected: tried to spend coinbase transaction output 00:0 from height 5 at height 6 before required maturity of 100 blocks", chain.Other, false},
		// bitcoin-sv
		{-22, "TX decode failed", chain.Invalid, false},
		{-25, "Missing inputs", chain.MissingInputs, false},
		{-26, "258: txn-mempool-conflict", chain.DoubleSpend, false},
		{-26, "18: txn-double-spend-detected", chain.DoubleSpend, false},
		{-26, "64: bad-txns-nonfinal", chain.NonFinal, false},
		{-26, "64: non-BIP68-final", chain.NonFinal, false},
		{-26, "66: mempool min fee not met", chain.LowFee, false},
		{-26, "66: insufficient priority", chain.LowFee, false},
		{-26, "16: mandatory-script-verify-flag-failed (Script evaluated without error but finished with a false/empty top stack element)", chain.Invalid, false},
		{-26, "16: bad-txns-in-belowout", chain.Invalid, false},
		{-26, "16: bad-txns-inputs-missingorspent", chain.MissingInputs, false},
		{-26, "64: bad-txns-premature-spend-of-coinbase", chain.Other, false},
		{-26, "257: txn-already-known", chain.Other, true},
		{-27, "transaction already in block chain", chain.Other, true},
		{-27, "Transaction already in the mempool", chain.Other, true},
		{-26, "64: too-long-mempool-chain", chain.Other, false},
		{-1, "what?", chain.Other, false},
	} {
		reason, known := node.Classify(&node.Error{Code: c.code, Message: c.text})
		if reason != c.reason || known != c.known {
			t.Errorf("%q: %s, %v; want %s, %v", c.text, reason, known, c.reason, c.known)
		}
	}
}
