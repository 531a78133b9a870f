package whatsonchain_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain/woctest"
)

func TestDial(t *testing.T) {
	for _, c := range []struct {
		address string
		network bsv.Network
	}{
		{"", bsv.Main}, {"api.whatsonchain.com/v1/bsv/main", bsv.Main}, {"ftp://h/v1/bsv/main", bsv.Main},
		{"https:///v1/bsv/main", bsv.Main}, {"https://h/v1/bsv/main?x=1", bsv.Main}, {"https://h/v1/bsv/main#x", bsv.Main},
		{"https://user:secret@h/v1/bsv/main", bsv.Main}, {"https://h/v1/bsv/test", bsv.Main}, {"https://h/v1/bsv/main", bsv.Test},
		{"https://h", bsv.Main},
	} {
		if _, err := whatsonchain.Dial(c.address, c.network, whatsonchain.Options{}); !errors.Is(err, whatsonchain.ErrURL) {
			t.Errorf("%q for %s: %v", c.address, c.network, err)
		}
	}
	for _, key := range []string{"secret\n", "sécret", "secret\x7f"} {
		_, err := whatsonchain.Dial("https://h/v1/bsv/main", bsv.Main, whatsonchain.Options{Key: key})
		if !errors.Is(err, whatsonchain.ErrCredentials) || strings.Contains(err.Error(), "cret") {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, address := range []string{"https://api.whatsonchain.com/v1/bsv/main", "http://127.0.0.1:8080/main/"} {
		if _, err := whatsonchain.Dial(address, bsv.Main, whatsonchain.Options{}); err != nil {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// The documentation's own examples say in which order the bytes of the hash are.
func TestScriptHash(t *testing.T) {
	script, err := hex.DecodeString("76a91409e0e39164714f25254ac278fc939933b1fe21f888ac")
	if err != nil {
		t.Fatal(err)
	}
	if got := whatsonchain.ScriptHash(script); got != "b1654010d45195751fd392c13819834726edc87d6508f94cff4e41f643db2e49" {
		t.Fatal(got)
	}
}

// serve answers every request with h.
func serve(t testing.TB, opt whatsonchain.Options, h http.HandlerFunc) *whatsonchain.Backend {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	if opt.Rate == 0 {
		opt.Rate, opt.Burst = fast.Rate, fast.Burst
	}
	b, err := whatsonchain.Dial(server.URL+"/regtest", bsv.Regtest, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

var errAny = errors.New("any error that is not ErrUnavailable")

// What a service can answer instead of an answer.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"no key":          {401, "Unauthorized", whatsonchain.ErrCredentials},
		"forbidden":       {403, "<html>", whatsonchain.ErrCredentials},
		"internal":        {500, "Internal Server Error", chain.ErrUnavailable},
		"bad gateway":     {502, "<html>", chain.ErrUnavailable},
		"timed out":       {504, "", chain.ErrUnavailable},
		"request timeout": {408, "", chain.ErrUnavailable},
		"bad request":     {400, strings.Repeat("x", 10_000), whatsonchain.ErrProtocol},
		"not found":       {404, "", whatsonchain.ErrProtocol},
		"a redirect":      {302, "", whatsonchain.ErrProtocol},
		"empty":           {200, "", whatsonchain.ErrProtocol},
		"a web page":      {200, "<html>", whatsonchain.ErrProtocol},
		"an array":        {200, "[]", whatsonchain.ErrProtocol},
		"nothing in it":   {200, "{}", whatsonchain.ErrProtocol},
		"another network": {200, `{"chain":"main","blocks":1,"bestblockhash":"` + zeros + `"}`, whatsonchain.ErrProtocol},
		"negative":        {200, `{"chain":"regtest","blocks":-1,"bestblockhash":"` + zeros + `"}`, whatsonchain.ErrProtocol},
		"no hash":         {200, `{"chain":"regtest","blocks":1,"bestblockhash":"x"}`, whatsonchain.ErrProtocol},
		"cut off":         {200, `{"chain":"reg`, whatsonchain.ErrProtocol},
		"deep":            {200, strings.Repeat("[", 20_000), whatsonchain.ErrProtocol},
		"too large":       {200, strings.Repeat(" ", 5<<20), errAny},
		"too many":        {200, "[" + strings.Repeat("{},", 400_000) + "{}]", errAny},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, whatsonchain.Options{Key: "secret"}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/regtest/chain/info" {
					t.Errorf("asked for %s", r.URL)
				}
				if r.Header.Get("Authorization") != "secret" {
					t.Error("no key")
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := b.Tip(t.Context())
			if err == nil || c.want != errAny && !errors.Is(err, c.want) {
				t.Fatalf("%v; want %v", err, c.want)
			}
			if c.want != chain.ErrUnavailable && errors.Is(err, chain.ErrUnavailable) {
				t.Fatalf("%v; asking again will not help", err)
			}
			if strings.Contains(err.Error(), "secret") || len(err.Error()) > 1000 {
				t.Errorf("the error: %v", err)
			}
		})
	}
}

var zeros = strings.Repeat("0", 64)

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(nil)
	b, err := whatsonchain.Dial(server.URL+"/regtest", bsv.Regtest, fast)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := b.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	opt := fast
	opt.Timeout = time.Millisecond
	if _, err := serve(t, opt, hang).Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := serve(t, fast, hang).Tip(ctx); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	address := woctest.Serve(t, c, woctest.Options{Key: "mainnet_0123"})
	for key, want := range map[string]error{"mainnet_0123": nil, "": whatsonchain.ErrCredentials, "other": whatsonchain.ErrCredentials} {
		b, err := whatsonchain.Dial(address, bsv.Regtest, whatsonchain.Options{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, err := b.Tip(t.Context()); !errors.Is(err, want) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// instant is a service without a network, so that time stands still while it
// works. It answers Tip's first question.
type instant func(*http.Request) (status int, retryAfter string)

func (f instant) RoundTrip(r *http.Request) (*http.Response, error) {
	status, after := f(r)
	h := make(http.Header)
	if after != "" {
		h.Set("Retry-After", after)
	}
	body := io.NopCloser(strings.NewReader("it is not said"))
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: h, Body: body, Request: r}, nil
}

func pacing(t *testing.T, opt whatsonchain.Options, f instant) *whatsonchain.Backend {
	t.Helper()
	opt.HTTP = &http.Client{Transport: f}
	b, err := whatsonchain.Dial("https://host/v1/bsv/main", bsv.Main, opt)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ask asks one question, whatever comes of it.
func ask(ctx context.Context, b *whatsonchain.Backend) error {
	_, err := b.RawTx(ctx, bsv.Txid{})
	if errors.Is(err, chain.ErrNotFound) {
		return nil
	}
	return err
}

func TestRate(t *testing.T) {
	for name, c := range map[string]struct {
		opt      whatsonchain.Options
		atOnce   int
		interval time.Duration
	}{
		"without a key": {whatsonchain.Options{}, 1, time.Second / 3},
		"with a key":    {whatsonchain.Options{Key: "x"}, 1, time.Second / 10},
		"as it is set":  {whatsonchain.Options{Rate: 20, Burst: 5}, 5, time.Second / 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var times []time.Duration
				begin := time.Now()
				b := pacing(t, c.opt, func(*http.Request) (int, string) {
					times = append(times, time.Since(begin))
					return 404, ""
				})
				for range 30 {
					if err := ask(t.Context(), b); err != nil {
						t.Fatal(err)
					}
				}
				for i, at := range times {
					want := time.Duration(max(0, i-c.atOnce+1)) * c.interval
					if d := at - want; d < 0 || d > time.Microsecond {
						t.Fatalf("request %d after %s; want %s", i, at, want)
					}
				}
				time.Sleep(time.Hour) // a rest does not add up to more than a burst
				begin, times = time.Now(), nil
				for range c.atOnce + 1 {
					if err := ask(t.Context(), b); err != nil {
						t.Fatal(err)
					}
				}
				if times[c.atOnce-1] != 0 || times[c.atOnce] < c.interval-time.Microsecond {
					t.Fatalf("after a rest: %s", times)
				}
			})
		})
	}
}

// Those who wait are served in the order in which they came, and those who give
// up leave no gap.
func TestRateIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pacing(t, whatsonchain.Options{Rate: 1}, func(*http.Request) (int, string) { return 404, "" })
		if err := ask(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		impatient, giveUp := context.WithCancel(t.Context())
		served := make(chan int, 10)
		for i := range 1000 {
			go func() {
				if err := ask(impatient, b); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
			if i%100 == 0 {
				synctest.Wait()
				go func() {
					if err := ask(t.Context(), b); err != nil {
						t.Error(err)
					}
					served <- i / 100
				}()
				synctest.Wait()
			}
		}
		giveUp()
		for want := range 10 {
			if got := <-served; got != want {
				t.Fatalf("%d was served instead of %d", got, want)
			}
		}
		if d := time.Since(begin); d != 10*time.Second {
			t.Fatalf("10 requests took %s", d)
		}
	})
}

func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answers []string // Retry-After of refusals that are still to come
		requests := 0
		b := pacing(t, fast, func(*http.Request) (int, string) {
			requests++
			if len(answers) == 0 {
				return 404, ""
			}
			after := answers[0]
			answers = answers[1:]
			return 429, after
		})
		for _, c := range []struct {
			answers  []string
			takes    time.Duration
			requests int
			err      error
		}{
			{nil, 0, 1, nil},
			{[]string{"2"}, 2 * time.Second, 2, nil},
			{[]string{""}, time.Second, 2, nil},
			{[]string{"", ""}, 3 * time.Second, 3, nil}, // twice as long each time
			{[]string{"nonsense"}, time.Second, 2, nil},
			{[]string{time.Now().Add(2 + 20*time.Second).UTC().Format(http.TimeFormat)}, 0, 1, chain.ErrUnavailable},
			{[]string{"1", "1", "1"}, 2 * time.Second, 3, chain.ErrUnavailable},
			{[]string{"60"}, 0, 1, chain.ErrUnavailable},
			{[]string{"65535"}, 0, 1, chain.ErrUnavailable},
		} {
			begin := time.Now()
			answers, requests = slices.Clone(c.answers), 0
			err := ask(t.Context(), b)
			if takes := time.Since(begin).Round(time.Second); !errors.Is(err, c.err) || takes != c.takes || requests != c.requests {
				t.Fatalf("%q: %s, %d requests, %v", c.answers, takes, requests, err)
			}
			if c.err != nil {
				// Nobody asks before the pause is over, nor waits for one that is long.
				if err := ask(t.Context(), b); requests != c.requests && time.Since(begin) < time.Second || err != nil && !errors.Is(err, c.err) {
					t.Fatalf("%q: %d requests, %v", c.answers, requests, err)
				}
				time.Sleep(time.Hour)
				if err := ask(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
		}
		answers = []string{"4"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := ask(ctx, b); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	c.MineTo(2200)
	var requests atomic.Int64
	inHex := false
	b := dial(t, c, woctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
		requests.Add(1)
		if !inHex || !strings.HasSuffix(r.URL.Path, "/latest") {
			return false
		}
		h, err := c.Header(r.Context(), 2199)
		next, errNext := c.Header(r.Context(), 2200)
		if err := errors.Join(err, errNext); err != nil {
			t.Error(err)
		}
		_, _ = fmt.Fprintf(w, "%x%x", next.Bytes(), h.Bytes()) // backwards too
		return true
	}})
	check := func(from uint32, n, want int, asked int64) {
		t.Helper()
		requests.Store(0)
		headers, err := b.Headers(t.Context(), from, n)
		if err != nil || len(headers) != want {
			t.Fatalf("%d headers from %d, %v; want %d", len(headers), from, err, want)
		}
		for i, h := range headers {
			if real, err := c.Header(t.Context(), from+uint32(i)); err != nil || h != real {
				t.Fatalf("header %d: %v, %v", from+uint32(i), h, err)
			}
		}
		if got := requests.Load(); got != asked {
			t.Fatalf("headers from %d took %d requests", from, got)
		}
	}
	check(2200, 10, 1, 2)
	check(2199, 10, 2, 2)
	check(2190, 5, 5, 2)
	check(2101, 1000, 100, 2)
	check(300, 5000, 1901, 2)
	check(100, 5000, 10, 11) // older than what comes in one piece
	check(0, 3, 3, 4)
	check(5, 0, 0, 0)
	inHex = true
	check(2199, 10, 2, 2)
	if _, err := b.Headers(t.Context(), 2201, 1); !errors.Is(err, chain.ErrNotFound) {
		t.Fatal(err)
	}
}

// The list of the newest headers may be of another moment than the tip.
func TestHeadersOfAnotherMoment(t *testing.T) {
	t.Parallel()
	c, later := memory.New(clock), memory.New(clock)
	c.MineTo(10)
	later.MineTo(13)
	for name, front := range map[string]*memory.Chain{"older": c, "newer": later} {
		behind := map[*memory.Chain]*memory.Chain{c: later, later: c}[front]
		b := serve(t, whatsonchain.Options{}, split(t, front, behind))
		headers, err := b.Headers(t.Context(), 8, 100)
		if err != nil || len(headers) == 0 {
			t.Fatalf("%s: %v, %v", name, headers, err)
		}
		for i, h := range headers {
			if real, err := later.Header(t.Context(), 8+uint32(i)); err != nil || h != real {
				t.Fatalf("%s: header %d: %v, %v", name, 8+i, h, err)
			}
		}
	}
}

// split answers the list of the newest headers from one chain and all else from
// another.
func split(t *testing.T, newest, rest chain.Backend) http.HandlerFunc {
	a, b := woctest.Serve(t, newest, woctest.Options{}), woctest.Serve(t, rest, woctest.Options{})
	return func(w http.ResponseWriter, r *http.Request) {
		base := b
		if strings.HasSuffix(r.URL.Path, "/latest") {
			base = a
		}
		resp, err := http.Get(base + strings.TrimPrefix(r.URL.RequestURI(), "/regtest"))
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}
}

// A header that is not what it claims to be is not believed.
func TestFalseHeaders(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	c.MineTo(3)
	h, err := c.Header(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]any{
		"hash": h.Hash.String(), "height": 2, "version": h.Version, "merkleroot": h.MerkleRoot.String(), "time": h.Time.Unix(),
		"nonce": h.Nonce, "bits": fmt.Sprintf("%08x", h.Bits), "previousblockhash": h.Prev.String(), "confirmations": 2,
	}
	for name, c := range map[string]struct {
		field string
		value any
		want  error
	}{
		"good":             {"", nil, nil},
		"no confirmations": {"confirmations", nil, nil},
		"unsigned version": {"version", uint32(h.Version), nil},
		"another height":   {"height", 3, whatsonchain.ErrProtocol},
		"another hash":     {"hash", zeros, whatsonchain.ErrProtocol},
		"another root":     {"merkleroot", zeros, whatsonchain.ErrProtocol},
		"no root":          {"merkleroot", nil, whatsonchain.ErrProtocol},
		"another parent":   {"previousblockhash", nil, whatsonchain.ErrProtocol},
		"another nonce":    {"nonce", h.Nonce + 1, whatsonchain.ErrProtocol},
		"a large nonce":    {"nonce", int64(1) << 40, whatsonchain.ErrProtocol},
		"a large time":     {"time", int64(1) << 40, whatsonchain.ErrProtocol},
		"a large version":  {"version", int64(1) << 40, whatsonchain.ErrProtocol},
		"bits in decimal":  {"bits", h.Bits, whatsonchain.ErrProtocol},
		"replaced":         {"confirmations", -1, chain.ErrUnavailable},
	} {
		answer := make(map[string]any)
		for k, v := range good {
			answer[k] = v
		}
		if c.value != nil {
			answer[c.field] = c.value
		} else {
			delete(answer, c.field)
		}
		text, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		b := serve(t, whatsonchain.Options{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) })
		got, err := b.Header(t.Context(), 2)
		if !errors.Is(err, c.want) || c.want == nil && (err != nil || got != h) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func TestStatusAnswers(t *testing.T) {
	t.Parallel()
	id, hash := bsv.Txid{1}, strings.Repeat("ab", 32)
	tsc := `{"index":0,"txOrId":"` + id.String() + `","target":"` + hash + `","nodes":[]}`
	other := strings.Replace(tsc, hash, zeros[1:]+"1", 1)
	mined := `[{"txid":"` + id.String() + `","blockhash":"` + hash + `","blockheight":7,"confirmations":2}]`
	for name, c := range map[string]struct {
		status, proof string
		want          chain.State
		proven        bool
		err           error
	}{
		"unknown":           {`[{"txid":"` + id.String() + `","error":"unknown"}]`, "", chain.Unknown, false, nil},
		"another error":     {`[{"txid":"` + id.String() + `","error":"overload"}]`, "", 0, false, chain.ErrUnavailable},
		"seen":              {`[{"txid":"` + id.String() + `"}]`, "", chain.Seen, false, nil},
		"replaced":          {strings.Replace(mined, `s":2`, `s":-1`, 1), "", chain.Seen, false, nil},
		"mined":             {mined, "[" + tsc + "]", chain.Mined, true, nil},
		"mined twice":       {mined, "[" + other + "," + tsc + "]", chain.Mined, true, nil},
		"another block's":   {mined, "[" + other + "]", chain.Mined, false, nil},
		"no proof":          {mined, "null", chain.Mined, false, nil},
		"no proof, a 404":   {mined, "", chain.Mined, false, nil},
		"a wrong proof":     {mined, strings.Replace("["+tsc+"]", id.String(), hash, 1), 0, false, whatsonchain.ErrProtocol},
		"another's":         {strings.Replace(mined, id.String(), hash, 1), "", 0, false, whatsonchain.ErrProtocol},
		"none":              {"[]", "", 0, false, whatsonchain.ErrProtocol},
		"no block":          {strings.Replace(mined, hash, zeros, 1), "", 0, false, whatsonchain.ErrProtocol},
		"a negative height": {strings.Replace(mined, "7", "-7", 1), "", 0, false, whatsonchain.ErrProtocol},
	} {
		asked := 0
		b := serve(t, whatsonchain.Options{}, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/txs/status"):
				_, _ = io.WriteString(w, c.status)
			case c.proof == "":
				w.WriteHeader(404)
			default:
				asked++
				_, _ = io.WriteString(w, c.proof)
			}
		})
		for range 2 {
			got, err := b.Status(t.Context(), id)
			if !errors.Is(err, c.err) || c.err == nil && err != nil || got.State != c.want || (got.Proof != nil) != c.proven {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
		if c.proven && asked != 1 {
			t.Errorf("%s: asked %d times for the proof", name, asked)
		}
		p, err := b.Proof(t.Context(), id)
		if name == "another block's" { // a single one is not doubted here
			if err != nil || p == nil {
				t.Errorf("%s: proof %v, %v", name, p, err)
			}
			continue
		}
		if c.proven != (err == nil && p != nil) || !c.proven && c.err == nil && !errors.Is(err, chain.ErrNotFound) {
			t.Errorf("%s: proof %v, %v", name, p, err)
		}
	}
}

// An index says more of a coin than one wants to know, and less.
func TestUnspentAnswers(t *testing.T) {
	t.Parallel()
	script := bsv.P2PKH(bsv.Hash160{1})
	hash := whatsonchain.ScriptHash(script)
	id := strings.Repeat("ab", 32)
	list := func(items ...string) string {
		return `{"script":"` + hash + `","result":[` + strings.Join(items, ",") + `],"error":""}`
	}
	item := func(more string) string { return `{"tx_hash":"` + id + `","tx_pos":1,"value":10` + more + `}` }
	for name, c := range map[string]struct {
		answer string
		status int
		want   []uint32 // heights
		err    error
	}{
		"none":               {answer: list(), want: nil},
		"null":               {answer: strings.Replace(list(), "[]", "null", 1), want: nil},
		"never used":         {status: 404, want: nil},
		"confirmed":          {answer: list(item(`,"height":7`)), want: []uint32{7}},
		"unconfirmed":        {answer: list(item(`,"hex":"` + script.String() + `"`)), want: []uint32{0}},
		"unconfirmed, -1":    {answer: list(item(`,"height":-1`)), want: []uint32{0}},
		"listed twice":       {answer: list(item(""), item(`,"height":7`), item("")), want: []uint32{7}},
		"spent meanwhile":    {answer: list(item(`,"height":7,"isSpentInMempoolTx":true`)), want: nil},
		"another script's":   {answer: strings.Replace(list(), hash, id, 1), err: whatsonchain.ErrProtocol},
		"another script":     {answer: list(item(`,"hex":"51"`)), err: whatsonchain.ErrProtocol},
		"an error":           {answer: strings.Replace(list(), `r":""`, `r":"overload"`, 1), err: chain.ErrUnavailable},
		"no txid":            {answer: list(strings.Replace(item(""), id, "x", 1)), err: whatsonchain.ErrProtocol},
		"a negative index":   {answer: list(strings.Replace(item(""), "1,", "-1,", 1)), err: whatsonchain.ErrProtocol},
		"a negative value":   {answer: list(strings.Replace(item(""), "10", "-10", 1)), err: whatsonchain.ErrProtocol},
		"more than there is": {answer: list(strings.Replace(item(""), "10", "2100000000000001", 1)), err: whatsonchain.ErrProtocol},
		"a height of 2^40":   {answer: list(item(`,"height":1099511627776`)), err: whatsonchain.ErrProtocol},
		"in coins":           {answer: list(strings.Replace(item(""), "10", "0.1", 1)), err: whatsonchain.ErrProtocol},
	} {
		b := serve(t, whatsonchain.Options{}, func(w http.ResponseWriter, r *http.Request) {
			if c.status != 0 {
				w.WriteHeader(c.status)
			}
			_, _ = io.WriteString(w, c.answer)
		})
		coins, err := b.Unspent(t.Context(), script)
		var heights []uint32
		for _, c := range coins {
			heights = append(heights, c.Height)
		}
		if !errors.Is(err, c.err) || c.err == nil && err != nil || !slices.Equal(heights, c.want) {
			t.Errorf("%s: %v, %v", name, coins, err)
		}
	}
}

// Many scripts, most of them without coins, some with more than an answer holds.
func TestUnspentBulk(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	var requests atomic.Int64
	b := dial(t, c, woctest.Options{Page: 25, Before: func(http.ResponseWriter, *http.Request) bool {
		requests.Add(1)
		return false
	}})
	var scripts []bsv.Script
	for i := range byte(101) {
		script := bsv.P2PKH(bsv.Hash160{i})
		scripts = append(scripts, script)
		for range map[byte]int{3: 1, 4: 2, 50: 19, 70: 20, 71: 60, 100: 3}[i] {
			c.FundUnconfirmed(script, 1000)
		}
		if i == 60 {
			c.Mine(1)
		}
	}
	requests.Store(0)
	got, err := b.UnspentBulk(t.Context(), scripts)
	if err != nil || len(got) != len(scripts) {
		t.Fatal(len(got), err)
	}
	asked := requests.Load()
	used, err := b.UsedBulk(t.Context(), scripts)
	if err != nil || len(used) != len(scripts) {
		t.Fatal(used, err)
	}
	for i, script := range scripts {
		want, err := c.Unspent(t.Context(), script)
		if err != nil {
			t.Fatal(err)
		}
		same := slices.EqualFunc(got[i], want, func(a, b chain.Coin) bool { return chain.Compare(a, b) == 0 && a.Output.Value == b.Output.Value })
		if !same || used[i] != (len(want) > 0) {
			t.Errorf("script %d: %v, used %v; want %v", i, got[i], used[i], want)
		}
	}
	t.Logf("%d scripts took %d requests", len(scripts), asked)
	if asked > 30 {
		t.Errorf("%d scripts took %d requests", len(scripts), asked)
	}
	if got, err := b.UnspentBulk(t.Context(), nil); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
	c.SetDown(true)
	if _, err := b.UnspentBulk(t.Context(), scripts); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
}

// The words of refusals, and what the index says of the transaction then.
func TestBroadcastRefused(t *testing.T) {
	t.Parallel()
	tx := &bsv.Tx{
		Version: 1,
		Inputs:  []bsv.Input{{Prev: bsv.Outpoint{Txid: bsv.Txid{1}}, Sequence: bsv.FinalSequence}},
		Outputs: []bsv.Output{{Value: 1, Script: bsv.P2PKH(bsv.Hash160{1})}},
	}
	id := tx.Txid().String()
	seen, unknown := `[{"txid":"`+id+`"}]`, `[{"txid":"`+id+`","error":"unknown"}]`
	taken, dead := chain.Reason(100), chain.Reason(101)
	type answers struct {
		status      int
		text, known string
		spent       int // of its input
		want        chain.Reason
	}
	check := func(name string, c answers, bulk bool) {
		b := serve(t, whatsonchain.Options{}, func(w http.ResponseWriter, r *http.Request) {
			switch path := r.URL.Path; {
			case strings.HasSuffix(path, "/tx/raw"):
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.text)
			case strings.HasSuffix(path, "/txs/status") && c.known != "":
				_, _ = io.WriteString(w, c.known)
			case strings.HasSuffix(path, "/utxos/spent") && bulk && c.spent != 502:
				_, _ = io.WriteString(w, map[bool]string{
					true:  `[{"spentIn":{"txid":"` + strings.Repeat("cd", 32) + `"}}]`,
					false: `[{"spentIn":null,"error":"Not Found"}]`,
				}[c.spent == 200])
			case strings.HasSuffix(path, "/utxos/spent") && c.spent != 502:
				w.WriteHeader(404)
			case strings.HasSuffix(path, "/spent") && c.spent == 200:
				_, _ = io.WriteString(w, `{"txid":"`+strings.Repeat("cd", 32)+`"}`)
			case strings.HasSuffix(path, "/spent") && c.spent != 0:
				w.WriteHeader(c.spent)
			case strings.HasSuffix(path, "/hex"):
				w.WriteHeader(404)
			default:
				w.WriteHeader(503)
			}
		})
		err := b.Broadcast(t.Context(), tx, nil)
		rejected := new(chain.Rejected)
		switch c.want {
		case taken:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case dead:
			if !errors.Is(err, chain.ErrUnavailable) || errors.As(err, &rejected) {
				t.Errorf("%s: %v", name, err)
			}
		default:
			if !errors.As(err, &rejected) || rejected.Reason != c.want {
				t.Errorf("%s: %v; want %s", name, err, c.want)
			}
		}
	}
	for name, c := range map[string]answers{
		"taken":                {200, `"` + id + `"`, "", 0, taken},
		"taken, in text":       {200, id + "\n", "", 0, taken},
		"taken, in an object":  {200, `{"txid":"` + id + `"}`, "", 0, taken},
		"known":                {400, "unexpected response code 500: 257: txn-already-known", unknown, 0, taken},
		"in the mempool":       {400, "unexpected response code 500: Transaction already in the mempool", unknown, 0, taken},
		"missing inputs":       {400, "unexpected response code 500: Missing inputs", unknown, 404, chain.MissingInputs},
		"mined and spent":      {400, "unexpected response code 500: Missing inputs", seen, 0, taken},
		"a double spend":       {400, "unexpected response code 500: Missing inputs", unknown, 200, chain.DoubleSpend},
		"a conflict":           {400, "unexpected response code 500: 258: txn-mempool-conflict", unknown, 0, chain.DoubleSpend},
		"a conflict with self": {400, "unexpected response code 500: 258: txn-mempool-conflict", seen, 0, taken},
		"a low fee":            {400, "unexpected response code 500: 66: mempool min fee not met", "", 0, chain.LowFee},
		"not final":            {400, "unexpected response code 500: 64: non-final", "", 0, chain.NonFinal},
		"invalid":              {400, "unexpected response code 500: 16: mandatory-script-verify-flag-failed (x)", "", 0, chain.Invalid},
		"unknown words":        {400, "unexpected response code 500: 64: dust", unknown, 0, chain.Other},
		"words in a 500":       {500, "66: mempool min fee not met", "", 0, chain.LowFee},
		"bad gateway":          {502, "<html>", "", 0, dead},
		"no status":            {400, "unexpected response code 500: Missing inputs", "", 0, dead},
		"no spender":           {400, "unexpected response code 500: Missing inputs", unknown, 502, dead},
	} {
		check(name, c, true)
		check(name+", one by one", c, false)
	}
	b := serve(t, whatsonchain.Options{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `"`+zeros+`"`) })
	if err := b.Broadcast(t.Context(), tx, nil); !errors.Is(err, whatsonchain.ErrProtocol) {
		t.Errorf("took another one: %v", err)
	}
}

// A sweep that the index does not know yet is looked at after every block.
func TestStatusOfManyInputs(t *testing.T) {
	t.Parallel()
	tx := &bsv.Tx{Version: 1, Outputs: []bsv.Output{{Value: 1, Script: bsv.P2PKH(bsv.Hash160{1})}}}
	for i := range uint32(200) {
		tx.Inputs = append(tx.Inputs, bsv.Input{Prev: bsv.Outpoint{Txid: bsv.Txid{1}, Index: i}, Sequence: bsv.FinalSequence})
	}
	c := memory.New(clock)
	var requests atomic.Int64
	b := dial(t, c, woctest.Options{Before: func(http.ResponseWriter, *http.Request) bool {
		requests.Add(1)
		return false
	}})
	rejected := new(chain.Rejected)
	if err := b.Broadcast(t.Context(), tx, nil); !errors.As(err, &rejected) || rejected.Reason != chain.MissingInputs {
		t.Fatal(err)
	}
	requests.Store(0)
	if s, err := b.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Unknown {
		t.Fatal(s, err)
	}
	if n := requests.Load(); n != 11 {
		t.Fatalf("%d requests", n)
	}
}

// A payout of coins that come from transactions of our own, none of which the
// index knows any more, does not take its whole day.
func TestStatusOfManyParents(t *testing.T) {
	t.Parallel()
	payout := &bsv.Tx{Version: 1, Outputs: []bsv.Output{{Value: 1, Script: bsv.P2PKH(bsv.Hash160{1})}}}
	var sent []*bsv.Tx
	for i := range uint32(200) {
		parent := &bsv.Tx{Version: 1, Inputs: []bsv.Input{{Prev: bsv.Outpoint{Txid: bsv.Txid{1}, Index: i}}}, Outputs: payout.Outputs}
		sent = append(sent, parent)
		payout.Inputs = append(payout.Inputs, bsv.Input{Prev: bsv.Outpoint{Txid: parent.Txid()}})
	}
	var requests atomic.Int64
	b := dial(t, memory.New(clock), woctest.Options{Before: func(http.ResponseWriter, *http.Request) bool {
		requests.Add(1)
		return false
	}})
	for _, tx := range append(sent, payout) {
		_ = b.Broadcast(t.Context(), tx, nil) // is refused, and remembered
	}
	requests.Store(0)
	if s, err := b.Status(t.Context(), payout.Txid()); err != nil || s.State != chain.Unknown {
		t.Fatal(s, err)
	}
	if n := requests.Load(); n > 60 {
		t.Fatalf("%d requests", n)
	}
}

// The index of outputs may be behind that of transactions.
func TestSpentAnswers(t *testing.T) {
	t.Parallel()
	tx := &bsv.Tx{Version: 1, Inputs: make([]bsv.Input, 1), Outputs: []bsv.Output{{Value: 1, Script: bsv.P2PKH(bsv.Hash160{1})}}}
	other := strings.Repeat("cd", 32)
	for name, c := range map[string]struct {
		status  int
		text    string
		raw     bool
		index   uint32
		want    bool
		wantErr error
	}{
		"spent":                       {200, `{"txid":"` + other + `","vin":2,"status":"confirmed"}`, true, 0, true, nil},
		"unspent":                     {404, "", true, 0, false, nil},
		"no such output":              {400, "", true, 1, false, chain.ErrNotFound},
		"no such transaction":         {400, "", false, 0, false, chain.ErrNotFound},
		"no such transaction, a 404":  {404, "", false, 0, false, chain.ErrNotFound},
		"not in the index of outputs": {400, "", true, 0, false, chain.ErrUnavailable},
		"nonsense":                    {200, `{"txid":"x"}`, true, 0, false, whatsonchain.ErrProtocol},
		"down":                        {500, "", true, 0, false, chain.ErrUnavailable},
	} {
		b := serve(t, whatsonchain.Options{}, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/spent"):
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.text)
			case c.raw:
				_, _ = fmt.Fprintf(w, "%x\n", tx.Bytes())
			default:
				w.WriteHeader(404)
			}
		})
		got, err := b.Spent(t.Context(), bsv.Outpoint{Txid: tx.Txid(), Index: c.index})
		if got != c.want || !errors.Is(err, c.wantErr) || c.wantErr == nil && err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, text := range map[string]string{
		"another":   fmt.Sprintf("%x", (&bsv.Tx{Version: 2, Inputs: make([]bsv.Input, 1), Outputs: tx.Outputs}).Bytes()),
		"cut off":   fmt.Sprintf("%x", tx.Bytes()[:40]),
		"not hex":   "xyz",
		"too large": strings.Repeat("00", chain.MaxTxSize+1),
	} {
		b := serve(t, whatsonchain.Options{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
		if got, err := b.RawTx(t.Context(), tx.Txid()); !errors.Is(err, whatsonchain.ErrProtocol) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// An address on which somebody has left dust without end is read in parts.
func TestDust(t *testing.T) {
	t.Parallel()
	script := bsv.P2PKH(bsv.Hash160{1})
	hash := whatsonchain.ScriptHash(script)
	one := fmt.Sprintf(`{"tx_hash":"%064x","tx_pos":0,"value":7,"height":9}`, 5)
	b := serve(t, whatsonchain.Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/unspent/all"):
			fmt.Fprintf(w, `{"script":"%s","result":[%s%s]}`, hash, strings.Repeat(one+",", 50_000), one)
		case strings.HasSuffix(r.URL.Path, "/unconfirmed/unspent"):
			fmt.Fprintf(w, `{"script":"%s","result":[]}`, hash)
		default:
			fmt.Fprintf(w, `{"script":"%s","result":[%s]}`, hash, one)
		}
	})
	if coins, err := b.Unspent(t.Context(), script); err != nil || len(coins) != 1 || coins[0].Height != 9 {
		t.Fatal(coins, err)
	}
}
