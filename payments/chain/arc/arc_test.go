package arc_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc"
	"github.com/bitcdn/bitcdn/payments/money"
)

const key = "mainnet_0123456789abcdef"

func arcService(t testing.TB) *fake {
	return newFake(t, map[string]reply{"GET /v1/policy": {code: 200, body: policy}})
}

func arcadeService(t testing.TB) *fake {
	return newFake(t, map[string]reply{"GET /policy": {code: 200, body: policy}})
}

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"", "host", "ftp://host", "https://", "https://user:secret@host", "https://host?x=secret", "https://host#secret",
		"https://ho st", "://", "https://host\x7fsecret",
	} {
		if _, err := arc.Dial(address, arc.Options{}); !errors.Is(err, arc.ErrURL) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", address, err)
		}
	}
	for _, key := range []string{"with space", "line\nbreak", "ü", "\x00"} {
		if _, err := arc.Dial("https://host", arc.Options{Key: key}); !errors.Is(err, arc.ErrCredentials) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, tail := range []string{"", "/", "/v1", "/v1/"} {
		f := arcService(t)
		if _, err := dial(t, f.URL+tail, arc.Options{}).FeeRate(t.Context()); err != nil {
			t.Errorf("%q: %v", tail, err)
		}
	}
	f := newFake(t, map[string]reply{"GET /deep/arc/v1/policy": {code: 200, body: policy}})
	for _, tail := range []string{"/deep/arc", "/deep//arc/", "/deep/arc/v1"} {
		if _, err := dial(t, f.URL+tail, arc.Options{}).FeeRate(t.Context()); err != nil {
			t.Errorf("%q: %v", tail, err)
		}
	}
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	b := dial(t, "http://127.0.0.1:1", arc.Options{})
	_, tip := b.Tip(t.Context())
	_, header := b.Header(t.Context(), 0)
	_, raw := b.RawTx(t.Context(), bsv.Txid{})
	_, unspent := b.Unspent(t.Context(), nil)
	_, spent := b.Spent(t.Context(), bsv.Outpoint{})
	for i, err := range []error{tip, header, raw, unspent, spent} {
		if !errors.Is(err, chain.ErrUnsupported) {
			t.Error(i, err)
		}
	}
}

func TestFeeRate(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		fee  string
		want money.FeeRate
	}{
		{`{"satoshis":1,"bytes":1000}`, 1},
		{`{"satoshis":50,"bytes":1000}`, 50},
		{`{"satoshis":1,"bytes":1}`, 1000},
		{`{"satoshis":5,"bytes":501}`, 10}, // 9.98
		{`{"satoshis":1,"bytes":1001}`, 1},
		{`{"satoshis":1,"bytes":4294967296}`, 1},
		{`{"satoshis":100000000,"bytes":1000}`, money.MaxFeeRate},
		{`{"satoshis":0,"bytes":1000}`, chain.DefaultFeeRate},
		{`{"satoshis":0,"bytes":0}`, chain.DefaultFeeRate},
		{`null`, chain.DefaultFeeRate},
	} {
		got, err := arc.ReadPolicy([]byte(`{"policy":{"miningFee":` + v.fee + `}}`))
		if err != nil || got != v.want {
			t.Errorf("%s: %d, %v; want %d", v.fee, got, err, v.want)
		}
	}
	for _, body := range []string{
		``, `null`, `[]`, `{}`, `"x"`, `{"policy":null}`, `{"policy":{"miningFee":{"satoshis":1,"bytes":0}}}`,
		`{"policy":{"miningFee":{"satoshis":-1,"bytes":1000}}}`, `{"policy":{"miningFee":{"satoshis":0.5,"bytes":1000}}}`,
		`{"policy":{"miningFee":{"satoshis":100000001,"bytes":1000}}}`, `{"policy":{"miningFee":{"satoshis":100001,"bytes":1}}}`,
		`{"policy":{"miningFee":{"satoshis":18446744073709551615,"bytes":1}}}`,
		`{"policy":{"miningFee":{"satoshis":1,"bytes":18446744073709551615}}}`,
	} {
		if got, err := arc.ReadPolicy([]byte(body)); !errors.Is(err, arc.ErrProtocol) {
			t.Errorf("%s: %d, %v", body, got, err)
		}
	}
}

func TestPolicyIsKept(t *testing.T) {
	t.Parallel()
	f, c := arcService(t), newClock()
	b := dial(t, f.URL, arc.Options{Clock: c.time})
	want := func(want money.FeeRate, asked int) {
		t.Helper()
		before := f.count("GET /v1/policy")
		got, err := b.FeeRate(t.Context())
		if err != nil || got != want || f.count("GET /v1/policy")-before != asked {
			t.Errorf("%d, %v, asked %d times; want %d, %d times", got, err, f.count("GET /v1/policy")-before, want, asked)
		}
	}
	want(1, 2) // what it is, and what it wants
	want(1, 0)
	f.set("GET /v1/policy", reply{code: 200, body: strings.Replace(policy, `"satoshis":1`, `"satoshis":7`, 1)})
	c.add(59 * time.Second)
	want(1, 0)
	c.add(time.Second)
	want(7, 1)
	f.set("GET /v1/policy", reply{code: 500})
	c.add(time.Hour)
	want(7, 1)
	c.add(22 * time.Hour)
	want(7, 1)
	c.add(time.Hour)
	if got, err := b.FeeRate(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
		t.Errorf("a policy of yesterday: %d, %v", got, err)
	}
	if got, err := dial(t, arcService(t).URL, arc.Options{FeeFloor: 30}).FeeRate(t.Context()); err != nil || got != 30 {
		t.Errorf("with a floor: %d, %v", got, err)
	}
	f.set("GET /v1/policy", reply{code: 200, body: strings.Replace(policy, `"satoshis":1`, `"satoshis":99000`, 1)})
	if got, err := dial(t, f.URL, arc.Options{FeeCeiling: 1000}).FeeRate(t.Context()); err != nil || got != 1000 {
		t.Errorf("with a ceiling: %d, %v", got, err)
	}
}

func TestDialects(t *testing.T) {
	t.Parallel()
	tx, prev := sample()
	txid := tx.Txid()
	seen := object(t, map[string]any{"txid": txid.String(), "txStatus": "SEEN_ON_NETWORK", "status": 200, "title": "OK"})
	for name, f := range map[string]*fake{
		"ARC": newFake(t, map[string]reply{
			"GET /v1/policy": {code: 200, body: policy}, "POST /v1/tx": {code: 200, body: seen},
			"GET /v1/tx/" + txid.String(): {code: 200, body: seen},
		}),
		"Arcade": newFake(t, map[string]reply{
			"GET /policy": {code: 200, body: policy}, "POST /tx": {code: 202, body: seen},
			"GET /tx/" + txid.String(): {code: 200, body: seen},
		}),
		"Arcade without a policy": newFake(t, map[string]reply{
			"GET /health": {code: 200, body: `{"status":"ok"}`}, "POST /tx": {code: 202, body: seen},
			"GET /tx/" + txid.String(): {code: 200, body: seen},
		}),
	} {
		b := dial(t, f.URL, arc.Options{Key: key})
		if err := b.Broadcast(t.Context(), tx, prev); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s, err := b.Status(t.Context(), txid); err != nil || s.State != chain.Seen {
			t.Errorf("%s: %v, %v", name, s, err)
		}
		if s, err := b.Status(t.Context(), bsv.Txid{5}); err != nil || s.State != chain.Unknown {
			t.Errorf("%s: %v, %v", name, s, err)
		}
		rate, err := b.FeeRate(t.Context())
		if want := map[bool]money.FeeRate{true: chain.DefaultFeeRate, false: 1}[f.replies["GET /health"] != nil]; err != nil || rate != want {
			t.Errorf("%s: %d, %v", name, rate, err)
		}
		for _, r := range f.requests {
			if r.Header.Get("Authorization") != "Bearer "+key {
				t.Errorf("%s %s: %q", r.Method, r.URL, r.Header["Authorization"])
			}
		}
	}
	for name, f := range map[string]*fake{
		"another service": newFake(t, nil),
		"a web page":      newFake(t, map[string]reply{"GET /v1/policy": {code: 200, body: "<html>"}}),
		"a login page":    newFake(t, map[string]reply{"GET /v1/policy": {code: 302, header: map[string]string{"Location": "/login"}}}),
	} {
		if _, err := dial(t, f.URL, arc.Options{}).Status(t.Context(), txid); !errors.Is(err, arc.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A service that is replaced by the other one behind the same address.
func TestDialectChanges(t *testing.T) {
	t.Parallel()
	tx, prev := sample()
	txid := tx.Txid()
	body := object(t, map[string]any{"txid": txid.String(), "txStatus": "SEEN_ON_NETWORK"})
	f := newFake(t, map[string]reply{"GET /v1/policy": {code: 200, body: policy}, "POST /v1/tx": {code: 200, body: body}})
	b := dial(t, f.URL, arc.Options{})
	if err := b.Broadcast(t.Context(), tx, prev); err != nil {
		t.Fatal(err)
	}
	f.set("GET /v1/policy")
	f.set("POST /v1/tx")
	f.set("GET /policy", reply{code: 200, body: policy})
	f.set("POST /tx", reply{code: 202, body: body})
	f.set("GET /tx/"+txid.String(), reply{code: 200, body: body})
	if err := b.Broadcast(t.Context(), tx, prev); err != nil || f.count("POST /tx") != 1 {
		t.Fatal(err, f.count("POST /tx"))
	}
	f.set("GET /policy")
	f.set("GET /tx/" + txid.String())
	f.set("GET /v1/policy", reply{code: 200, body: policy})
	f.set("GET /v1/tx/"+txid.String(), reply{code: 200, body: body})
	if s, err := b.Status(t.Context(), txid); err != nil || s.State != chain.Seen {
		t.Fatal(s, err)
	}
	// Gone altogether is no word on the transaction.
	f.set("GET /v1/policy")
	f.set("GET /v1/tx/" + txid.String())
	if s, err := b.Status(t.Context(), txid); !errors.Is(err, arc.ErrProtocol) {
		t.Fatal(s, err)
	}
	if err := b.Broadcast(t.Context(), tx, prev); !errors.Is(err, arc.ErrProtocol) || errors.As(err, new(*chain.Rejected)) {
		t.Fatal(err)
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	tx, prev := sample()
	f := arcService(t)
	f.set("POST /v1/tx", reply{code: 200, body: object(t, map[string]any{"txid": tx.Txid().String(), "txStatus": "SEEN_ON_NETWORK"})})
	b := dial(t, f.URL, arc.Options{Key: key, Timeout: 8 * time.Second})
	sent := func(prev []bsv.Output) []byte {
		t.Helper()
		if err := b.Broadcast(t.Context(), tx, prev); err != nil {
			t.Fatal(err)
		}
		r, body := f.last(t, "POST /v1/tx")
		for name, want := range map[string]string{
			"Content-Type": "application/json", "X-Waitfor": "SEEN_ON_NETWORK", "X-Maxtimeout": "4",
			"X-Callbacktoken": b.Token(), "Authorization": "Bearer " + key, "X-Fullstatusupdates": "true",
		} {
			if got := r.Header.Get(name); got != want || got == "" {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		var object struct{ RawTx string }
		if err := json.Unmarshal([]byte(body), &object); err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(object.RawTx)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if raw := sent(nil); !bytes.Equal(raw, tx.Bytes()) {
		t.Errorf("%x", raw)
	}
	got, spent, err := bsv.ParseExtended(sent(prev), chain.MaxTxSize)
	if err != nil || got.Txid() != tx.Txid() || len(spent) != 1 || spent[0].Value != prev[0].Value {
		t.Error(got, spent, err)
	}
	if other := dial(t, f.URL, arc.Options{}); other.Token() == b.Token() || len(b.Token()) < 16 {
		t.Error("tokens", b.Token(), other.Token())
	}
}

func TestBroadcastRefusesItself(t *testing.T) {
	t.Parallel()
	f := arcService(t)
	reason := func(b *arc.Backend, tx *bsv.Tx, prev []bsv.Output, want chain.Reason) {
		t.Helper()
		rejected := new(chain.Rejected)
		if err := b.Broadcast(t.Context(), tx, prev); !errors.As(err, &rejected) || rejected.Reason != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	tx, prev := sample()
	reason(dial(t, f.URL, arc.Options{}), tx, append(prev, prev...), chain.Invalid)
	tx.Inputs[0].Script = make(bsv.Script, chain.MaxTxSize)
	reason(dial(t, f.URL, arc.Options{}), tx, prev, chain.Invalid)

	tx, prev = sample()
	tx.LockTime, tx.Inputs[0].Sequence = 101, 0
	tip := func(height uint32, err error) arc.Options {
		return arc.Options{Tip: func(context.Context) (uint32, error) { return height, err }}
	}
	reason(dial(t, f.URL, arc.Options{}), tx, prev, chain.NonFinal)
	reason(dial(t, f.URL, tip(1000, chain.ErrUnavailable)), tx, prev, chain.NonFinal)
	reason(dial(t, f.URL, tip(100, nil)), tx, prev, chain.NonFinal)
	reason(dial(t, f.URL, tip(0, nil)), tx, prev, chain.NonFinal)
	if n := f.count("POST /v1/tx"); n != 0 {
		t.Errorf("%d transactions left the program", n)
	}
	f.set("POST /v1/tx", reply{code: 200, body: object(t, map[string]any{"txid": tx.Txid().String(), "txStatus": "SEEN_ON_NETWORK"})})
	for _, height := range []uint32{101, 102, 1<<32 - 2} {
		if err := dial(t, f.URL, tip(height, nil)).Broadcast(t.Context(), tx, prev); err != nil {
			t.Error(height, err)
		}
	}
	reason(dial(t, f.URL, tip(1<<32-1, nil)), tx, prev, chain.NonFinal) // there is no next block
	tx.Inputs[0].Sequence = bsv.FinalSequence                           // no lock time holds it back
	f.set("POST /v1/tx", reply{code: 200, body: object(t, map[string]any{"txid": tx.Txid().String(), "txStatus": "SEEN_ON_NETWORK"})})
	if err := dial(t, f.URL, arc.Options{}).Broadcast(t.Context(), tx, prev); err != nil {
		t.Error(err)
	}
	tx.Inputs[0].Sequence = 0
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dial(t, f.URL, tip(0, context.Canceled)).Broadcast(ctx, tx, prev); !errors.Is(err, chain.ErrUnavailable) {
		t.Error("a cancelled question for the tip:", err)
	}
}

// Every status, in the answer to a question and to a broadcast.
func TestStatuses(t *testing.T) {
	t.Parallel()
	tx, _ := sample()
	txid := tx.Txid()
	other := bsv.Txid{7}
	ids := []bsv.Txid{{9}, txid, {8}, {3}}
	proof, err := chain.NewProof(800, chain.Hash{}, ids, 1)
	if err != nil {
		t.Fatal(err)
	}
	block := chain.Hash{6}
	path := hex.EncodeToString(proof.BUMP(txid))
	mined := map[string]any{"blockHash": block.String(), "blockHeight": 800, "merklePath": path}
	wantMined := chain.Status{State: chain.Mined, Height: 800, Block: block}
	for _, v := range []struct {
		status string
		more   map[string]any
		want   chain.Status
		err    error        // of a broadcast
		reason chain.Reason // where err is a *chain.Rejected
	}{
		{status: "UNKNOWN", err: chain.ErrUnavailable},
		{status: "QUEUED", want: chain.Status{State: chain.Seen}},
		{status: "RECEIVED", want: chain.Status{State: chain.Seen}},
		{status: "STORED", want: chain.Status{State: chain.Seen}},
		{status: "ANNOUNCED_TO_NETWORK", want: chain.Status{State: chain.Seen}},
		{status: "REQUESTED_BY_NETWORK", want: chain.Status{State: chain.Seen}},
		{status: "SENT_TO_NETWORK", want: chain.Status{State: chain.Seen}},
		{status: "ACCEPTED_BY_NETWORK", want: chain.Status{State: chain.Seen}},
		{status: "SEEN_ON_NETWORK", want: chain.Status{State: chain.Seen}},
		{status: "SEEN_MULTIPLE_NODES", want: chain.Status{State: chain.Seen}},
		{status: "MINED_IN_STALE_BLOCK", want: chain.Status{State: chain.Seen}, more: mined},
		{status: "STUMP_PROCESSING", want: chain.Status{State: chain.Seen}},
		{status: "PENDING_RETRY"},
		{status: "SOMETHING_NEW"},
		{status: "SEEN_IN_ORPHAN_MEMPOOL", err: new(chain.Rejected), reason: chain.MissingInputs},
		{
			status: "DOUBLE_SPEND_ATTEMPTED", more: map[string]any{"competingTxs": []string{other.String(), txid.String(), other.String()}},
			want: chain.Status{State: chain.Seen, Competing: []bsv.Txid{other}},
		},
		{status: "DOUBLE_SPEND_ATTEMPTED", want: chain.Status{State: chain.Seen}},
		{status: "REJECTED", want: chain.Status{State: chain.Conflicted}, err: new(chain.Rejected), reason: chain.Other},
		{
			status: "REJECTED", more: map[string]any{"competingTxs": []string{other.String()}},
			want: chain.Status{State: chain.Conflicted, Competing: []bsv.Txid{other}},
			err:  new(chain.Rejected), reason: chain.DoubleSpend,
		},
		{
			status: "REJECTED", more: map[string]any{"extraInfo": "258: txn-mempool-conflict"},
			want: chain.Status{State: chain.Conflicted}, err: new(chain.Rejected), reason: chain.DoubleSpend,
		},
		{
			status: "REJECTED", more: map[string]any{"extraInfo": "mandatory-script-verify-flag-failed"},
			want: chain.Status{State: chain.Conflicted}, err: new(chain.Rejected), reason: chain.Invalid,
		},
		{
			status: "REJECTED", more: map[string]any{"extraInfo": "arc error 463: arc error 463: transaction is too small"},
			want: chain.Status{State: chain.Conflicted}, err: new(chain.Rejected), reason: chain.Invalid,
		},
		{status: "REJECTED", more: map[string]any{"status": 466}, want: chain.Status{State: chain.Conflicted}, err: new(chain.Rejected), reason: chain.DoubleSpend},
		// What time may heal is not lost.
		{status: "REJECTED", more: map[string]any{"extraInfo": "missing-inputs"}, err: new(chain.Rejected), reason: chain.MissingInputs},
		{status: "REJECTED", more: map[string]any{"extraInfo": "bad-txns-nonfinal: non-final"}, err: new(chain.Rejected), reason: chain.NonFinal},
		{status: "REJECTED", more: map[string]any{"extraInfo": "66: mempool min fee not met"}, err: new(chain.Rejected), reason: chain.LowFee},
		{status: "REJECTED", more: map[string]any{"status": 476}, err: new(chain.Rejected), reason: chain.NonFinal},
		{status: "REJECTED", more: map[string]any{"extraInfo": "txn-already-known"}, want: chain.Status{State: chain.Seen}},
		{status: "MINED", more: mined, want: wantMined},
		{status: "IMMUTABLE", more: mined, want: wantMined},
		{status: "MINED", more: map[string]any{"blockHash": block.String(), "blockHeight": 800}, want: wantMined},
		{status: "MINED", more: map[string]any{"blockHash": block.String(), "blockHeight": 800, "merklePath": ""}, want: wantMined},
		{status: "MINED", more: map[string]any{"merklePath": path}, want: chain.Status{State: chain.Mined, Height: 800}},
		{status: "MINED", more: map[string]any{"blockHash": nil, "merklePath": path}, want: chain.Status{State: chain.Mined, Height: 800}},
	} {
		fields := map[string]any{"txid": txid.String(), "txStatus": v.status, "timestamp": "2026-01-02T03:04:05Z"}
		maps.Copy(fields, v.more)
		body := []byte(object(t, fields))
		got, err := arc.ReadStatus(200, body, txid)
		if err != nil || got.State != v.want.State || got.Height != v.want.Height || got.Block != v.want.Block ||
			!slices.Equal(got.Competing, v.want.Competing) {
			t.Errorf("%s: %+v, %v; want %+v", body, got, err, v.want)
		}
		if wantProof := v.want.State == chain.Mined && v.more["merklePath"] == path; wantProof != (got.Proof != nil) {
			t.Errorf("%s: proof %v", body, got.Proof)
		} else if wantProof && (got.Proof.Height != 800 || got.Proof.Block != got.Block || got.Proof.Index != 1) {
			t.Errorf("%s: proof %+v", body, got.Proof)
		}
		err = arc.ReadSubmitted(200, body, txid)
		switch rejected := new(chain.Rejected); {
		case errors.As(v.err, &rejected):
			if !errors.As(err, &rejected) || rejected.Reason != v.reason {
				t.Errorf("%s: broadcast %v; want %v", body, err, v.reason)
			}
		case !errors.Is(err, v.err):
			t.Errorf("%s: broadcast %v; want %v", body, err, v.err)
		}
	}
	for name, more := range map[string]map[string]any{
		"no place":            {},
		"another height":      {"blockHash": block.String(), "blockHeight": 801, "merklePath": path},
		"height of 64 bits":   {"blockHeight": uint64(1) << 32, "blockHash": block.String()},
		"negative height":     {"blockHeight": -1, "blockHash": block.String()},
		"no hash":             {"blockHeight": 800, "blockHash": "00"},
		"another's path":      {"blockHeight": 800, "merklePath": hex.EncodeToString(proof.BUMP(other))},
		"half a path":         {"blockHeight": 800, "merklePath": path[:len(path)/2]},
		"a path of no digits": {"blockHeight": 800, "merklePath": "zz"},
		"a long path":         {"blockHeight": 800, "merklePath": strings.Repeat("00", chain.MaxBUMPSize+1)},
	} {
		fields := map[string]any{"txid": txid.String(), "txStatus": "MINED"}
		maps.Copy(fields, more)
		if got, err := arc.ReadStatus(200, []byte(object(t, fields)), txid); !errors.Is(err, arc.ErrProtocol) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, body := range map[string]string{
		"nothing": "", "no object": "[]", "no JSON": "<html>", "no txid": `{"txStatus":"MINED"}`,
		"another one": object(t, map[string]any{"txid": other.String(), "txStatus": "SEEN_ON_NETWORK"}),
		"wrong types": `{"txid":5}`,
		"a competing transaction without an id": object(t, map[string]any{
			"txid": txid.String(), "txStatus": "DOUBLE_SPEND_ATTEMPTED", "competingTxs": []string{"x"},
		}),
	} {
		if got, err := arc.ReadStatus(200, []byte(body), txid); !errors.Is(err, arc.ErrProtocol) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	many := make([]string, 10_000)
	for i := range many {
		many[i] = bsv.Txid{byte(i), byte(i >> 8), 1}.String()
	}
	got, err := arc.ReadStatus(200, []byte(object(t, map[string]any{
		"txid": txid.String(), "txStatus": "DOUBLE_SPEND_ATTEMPTED", "competingTxs": many,
	})), txid)
	if err != nil || len(got.Competing) != 100 {
		t.Error(len(got.Competing), err)
	}
}

// Every code that is a word on the transaction, as ARC and Arcade give it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tx, _ := sample()
	txid := tx.Txid()
	problem := func(code int, extra string) string {
		return object(t, map[string]any{
			"type": "https://bitcoin-sv.github.io/arc/#/errors?id=_" + fmt.Sprint(code), "title": "title", "status": code,
			"detail": "detail", "instance": nil, "txid": nil, "extraInfo": extra,
		})
	}
	check := func(code int, body string, want chain.Reason) {
		t.Helper()
		err := arc.ReadSubmitted(code, []byte(body), txid)
		rejected := new(chain.Rejected)
		if !errors.As(err, &rejected) || rejected.Reason != want || len(rejected.Text) > chain.MaxRejectText {
			t.Errorf("%d %s: %v; want %v", code, body, err, want)
		}
	}
	for code, want := range map[int]chain.Reason{
		400: chain.Other, 413: chain.Other, 422: chain.Other,
		460: chain.MissingInputs, 461: chain.Invalid, 462: chain.MissingInputs, 463: chain.Invalid, 464: chain.Invalid,
		465: chain.LowFee, 466: chain.DoubleSpend, 467: chain.Other, 468: chain.Other, 469: chain.Other, 470: chain.Other,
		471: chain.Other, 472: chain.Other, 473: chain.LowFee, 474: chain.Invalid, 475: chain.Other, 476: chain.NonFinal,
		499: chain.Other,
	} {
		check(code, problem(code, ""), want)
		check(code, "", want) // the code is enough
		check(code, "<html>", want)
		check(code, `{"status":"x"}`, want)
		if code >= 460 {
			check(400, problem(code, ""), want) // Arcade's way
			check(422, problem(code, ""), want)
			check(200, problem(code, ""), want) // as ARC's description shows it
		}
	}
	check(200, problem(409, "Verify failed: txn-mempool-conflict"), chain.DoubleSpend)
	check(462, problem(462, "258: txn-mempool-conflict"), chain.DoubleSpend)
	check(462, problem(462, "missing inputs"), chain.MissingInputs)
	check(400, object(t, map[string]any{"error": "transaction failed validation", "reason": "non-final until block 7"}), chain.NonFinal)
	check(400, object(t, map[string]any{"error": "transaction failed validation", "reason": "arc error 465: x"}), chain.LowFee)
	check(400, object(t, map[string]any{"error": "failed to parse transaction"}), chain.Other)
	check(400, object(t, map[string]any{"error": strings.Repeat("x", 10_000)}), chain.Other)

	for _, body := range []string{problem(409, "txn-already-known"), problem(409, "Transaction already in the mempool"),
		problem(409, "transaction already in block chain")} {
		for _, code := range []int{200, 400, 409, 463} {
			if err := arc.ReadSubmitted(code, []byte(body), txid); err != nil {
				t.Errorf("known already, %d: %v", code, err)
			}
		}
	}
	for _, code := range []int{200, 409} {
		if err := arc.ReadSubmitted(code, []byte(problem(409, "no block seen yet")), txid); !errors.Is(err, chain.ErrUnavailable) {
			t.Errorf("not ready, %d: %v", code, err)
		}
	}
	for _, code := range []int{402, 406, 410, 415, 418, 451, 459} {
		err := arc.ReadSubmitted(code, []byte(`{}`), txid)
		if !errors.Is(err, arc.ErrProtocol) || errors.As(err, new(*chain.Rejected)) {
			t.Errorf("%d says nothing of the transaction: %v", code, err)
		}
	}
	for _, body := range []string{"", "[]", "<html>", `{"txStatus":"SEEN_ON_NETWORK"}`, object(t, map[string]any{
		"txid": bsv.Txid{9}.String(), "txStatus": "SEEN_ON_NETWORK",
	})} {
		if err := arc.ReadSubmitted(200, []byte(body), txid); !errors.Is(err, arc.ErrProtocol) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// Codes that mean the same whatever was asked.
func TestCodes(t *testing.T) {
	t.Parallel()
	tx, prev := sample()
	txid := tx.Txid()
	for code, want := range map[int]error{
		401: arc.ErrCredentials, 403: arc.ErrCredentials,
		408: chain.ErrUnavailable, 409: chain.ErrUnavailable, 425: chain.ErrUnavailable, 429: chain.ErrUnavailable,
		500: chain.ErrUnavailable, 502: chain.ErrUnavailable, 503: chain.ErrUnavailable, 504: chain.ErrUnavailable,
		599: chain.ErrUnavailable,
		301: arc.ErrProtocol, 302: arc.ErrProtocol, 307: arc.ErrProtocol, 308: arc.ErrProtocol,
	} {
		f := arcService(t)
		target := newFake(t, nil)
		r := reply{code: code, body: "words with " + key, header: map[string]string{"Location": target.URL + "/" + key}}
		f.set("POST /v1/tx", r)
		f.set("GET /v1/tx/"+txid.String(), r)
		c := newClock()
		b := dial(t, f.URL, arc.Options{Key: key, Clock: c.time})
		check := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, want) || errors.As(err, new(*chain.Rejected)) || strings.Contains(err.Error(), key) {
				t.Errorf("%d, %s: %v; want %v", code, what, err, want)
			}
		}
		check("broadcast", b.Broadcast(t.Context(), tx, prev))
		c.add(time.Hour)
		_, err := b.Status(t.Context(), txid)
		check("status", err)
		_, err = b.Proof(t.Context(), txid)
		check("proof", err)
		f.set("GET /v1/policy", r)
		c.add(time.Hour)
		_, err = b.FeeRate(t.Context())
		if code != 409 {
			check("fee", err)
		} else if !errors.Is(err, arc.ErrProtocol) {
			t.Error(err)
		}
		if len(target.requests) > 0 {
			t.Errorf("%d: a redirect was followed", code)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	tx, prev := sample()
	start := newClock().time()
	for _, v := range []struct {
		code  int
		after string
		want  time.Duration
	}{
		{429, "", 5 * time.Second},
		{429, "nonsense", 5 * time.Second},
		{429, "-3", 5 * time.Second},
		{429, "7", 7 * time.Second},
		{429, "0", 0},
		{429, start.Add(90 * time.Second).Format(http.TimeFormat), 90 * time.Second},
		{429, start.Add(-time.Hour).Format(http.TimeFormat), 0},
		{429, "86400", 10 * time.Minute},
		{429, "99999999999999999999", 5 * time.Second},
		{503, "2", 2 * time.Second},
		{503, "", 0},
		{500, "", 0},
	} {
		f, c := arcService(t), newClock()
		f.set("POST /v1/tx",
			reply{code: v.code, header: map[string]string{"Retry-After": v.after}},
			reply{code: 200, body: object(t, map[string]any{"txid": tx.Txid().String(), "txStatus": "SEEN_ON_NETWORK"})})
		b := dial(t, f.URL, arc.Options{Clock: c.time})
		if err := b.Broadcast(t.Context(), tx, prev); !errors.Is(err, chain.ErrUnavailable) {
			t.Errorf("%d %q: %v", v.code, v.after, err)
		}
		if v.want > 0 {
			asked := len(f.requests)
			c.add(v.want - time.Nanosecond)
			if err := b.Broadcast(t.Context(), tx, prev); !errors.Is(err, chain.ErrUnavailable) {
				t.Errorf("%d %q: %v", v.code, v.after, err)
			}
			if _, err := b.Status(t.Context(), tx.Txid()); !errors.Is(err, chain.ErrUnavailable) {
				t.Errorf("%d %q: %v", v.code, v.after, err)
			}
			if len(f.requests) != asked {
				t.Errorf("%d %q: asked before %s were over", v.code, v.after, v.want)
			}
			c.add(time.Nanosecond)
		}
		if err := b.Broadcast(t.Context(), tx, prev); err != nil {
			t.Errorf("%d %q: after %s: %v", v.code, v.after, v.want, err)
		}
	}
}

// Arcade's word comes after its answer.
func TestSettle(t *testing.T) {
	t.Parallel()
	tx, prev := sample()
	txid := tx.Txid()
	status := func(status string, more map[string]any) reply {
		fields := map[string]any{"txid": txid.String(), "txStatus": status}
		maps.Copy(fields, more)
		return reply{code: 200, body: object(t, fields)}
	}
	get := "GET /tx/" + txid.String()
	received := reply{code: 202, body: status("RECEIVED", nil).body}
	for _, v := range []struct {
		name  string
		first string // RECEIVED where it is empty
		then  []reply
		want  chain.Reason
		asked int
		taken bool
	}{
		{name: "seen", then: []reply{status("RECEIVED", nil), status("SENT_TO_NETWORK", nil), status("SEEN_ON_NETWORK", nil)}, asked: 3, taken: true},
		{name: "refused", then: []reply{status("RECEIVED", nil), status("REJECTED", map[string]any{"status": 461})}, asked: 2, want: chain.Invalid},
		{name: "refused before", first: "REJECTED", then: []reply{status("REJECTED", map[string]any{"status": 465})}, asked: 1, want: chain.LowFee},
		{name: "refused before, no reason", first: "REJECTED", then: []reply{status("REJECTED", nil)}, asked: 1, want: chain.Other},
		{name: "refused before, out of order", first: "REJECTED", then: []reply{{code: 500}}, asked: 1, want: chain.Other},
		{name: "refused before, sent again", first: "REJECTED", then: []reply{status("SENT_TO_NETWORK", nil), status("SEEN_ON_NETWORK", nil)}, asked: 2, taken: true},
		{name: "contested", then: []reply{status("DOUBLE_SPEND_ATTEMPTED", nil)}, asked: 1, taken: true},
		{name: "no word", then: []reply{status("RECEIVED", nil)}, asked: 7, taken: true},
		{name: "out of order", then: []reply{{code: 500}}, asked: 1, taken: true},
		{name: "nonsense", then: []reply{{code: 200, body: "x"}}, asked: 1, taken: true},
	} {
		f := arcadeService(t)
		f.set("POST /tx", received)
		if v.first != "" {
			f.set("POST /tx", reply{code: 202, body: status(v.first, map[string]any{"status": 202}).body})
		}
		f.set(get, v.then...)
		b := dial(t, f.URL, arc.Options{})
		err := b.Broadcast(t.Context(), tx, prev)
		rejected := new(chain.Rejected)
		if v.taken && err != nil || !v.taken && (!errors.As(err, &rejected) || rejected.Reason != v.want) || f.count(get) != v.asked {
			t.Errorf("%s: %v, asked %d times", v.name, err, f.count(get))
		}
	}
	f := arcadeService(t)
	f.set("POST /tx", received)
	b := dial(t, f.URL, arc.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	b.SetPause(func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() })
	if err := b.Broadcast(ctx, tx, prev); err != nil {
		t.Error("cancelled after the service took it:", err)
	}
}

func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	tx, _ := sample()
	f := arcService(t)
	f.set("GET /v1/tx/"+tx.Txid().String(), reply{code: 200, body: strings.Repeat(" ", arc.MaxAnswer) + "{}"})
	if _, err := dial(t, f.URL, arc.Options{}).Status(t.Context(), tx.Txid()); !errors.Is(err, arc.ErrProtocol) {
		t.Error(err)
	}
}

// Whatever a service repeats, the key does not show.
func TestSecrets(t *testing.T) {
	t.Parallel()
	tx, prev := sample()
	txid := tx.Txid()
	f := arcService(t)
	b := dial(t, f.URL, arc.Options{Key: key})
	for _, r := range []reply{
		{code: 400, body: object(t, map[string]any{"error": "no " + key, "reason": "nor " + b.Token()})},
		{code: 409, body: object(t, map[string]any{"detail": key, "extraInfo": b.Token()})},
		{code: 463, body: object(t, map[string]any{"detail": key + b.Token()})},
		{code: 200, body: object(t, map[string]any{"txid": key})},
		{code: 200, body: object(t, map[string]any{"txid": txid.String(), "txStatus": "REJECTED", "extraInfo": key + b.Token()})},
		{code: 200, body: object(t, map[string]any{"txid": txid.String(), "txStatus": "SEEN_IN_ORPHAN_MEMPOOL", "extraInfo": key})},
		{code: 200, body: key},
		{code: 302, header: map[string]string{"Location": "http://" + key + ".invalid/" + b.Token()}},
		{code: 502, body: key},
	} {
		f.set("POST /v1/tx", r)
		f.set("GET /v1/tx/"+txid.String(), r)
		err := b.Broadcast(t.Context(), tx, prev)
		if err == nil || strings.Contains(err.Error(), key) || strings.Contains(err.Error(), b.Token()) {
			t.Errorf("%+v: %v", r, err)
		}
		if _, err := b.Status(t.Context(), txid); err != nil && (strings.Contains(err.Error(), key) || strings.Contains(err.Error(), b.Token())) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	f.Close()
	if err := b.Broadcast(t.Context(), tx, prev); !errors.Is(err, chain.ErrUnavailable) || strings.Contains(err.Error(), key) {
		t.Error(err)
	}
}
