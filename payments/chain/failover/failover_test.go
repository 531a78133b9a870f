package failover_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/failover"
	"github.com/bitcdn/bitcdn/payments/chain/faulty"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/money"
)

// said is a service that gives the same answers always, and counts the
// questions.
type said struct {
	tip       chain.Header
	fee       money.FeeRate
	status    map[bsv.Txid]chain.Status
	err       error // of everything but Broadcast
	broadcast error
	asked     []string
}

func (s *said) ask(what string) error { s.asked = append(s.asked, what); return s.err }

func (s *said) Tip(context.Context) (chain.Header, error) { return s.tip, s.ask("Tip") }
func (s *said) Header(_ context.Context, height uint32) (chain.Header, error) {
	return chain.Header{Height: height}, s.ask("Header")
}
func (s *said) FeeRate(context.Context) (money.FeeRate, error) { return s.fee, s.ask("FeeRate") }
func (s *said) Broadcast(context.Context, *bsv.Tx, []bsv.Output) error {
	s.asked = append(s.asked, "Broadcast")
	return s.broadcast
}
func (s *said) Status(_ context.Context, txid bsv.Txid) (chain.Status, error) {
	return s.status[txid], s.ask("Status")
}
func (s *said) RawTx(context.Context, bsv.Txid) (*bsv.Tx, error) { return &bsv.Tx{}, s.ask("RawTx") }
func (s *said) Unspent(_ context.Context, script bsv.Script) ([]chain.Coin, error) {
	return []chain.Coin{{Coin: bsv.Coin{Output: bsv.Output{Script: script}}}}, s.ask("Unspent")
}
func (s *said) Spent(context.Context, bsv.Outpoint) (bool, error) { return true, s.ask("Spent") }

func combine(t testing.TB, opt failover.Options, backends ...chain.Backend) *failover.Backend {
	t.Helper()
	var services []failover.Service
	for i, b := range backends {
		services = append(services, failover.Service{Name: fmt.Sprintf("service-%d", i), Backend: b})
	}
	f, err := failover.New(services, opt)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNew(t *testing.T) {
	s := &said{}
	for name, services := range map[string][]failover.Service{
		"none":       nil,
		"no backend": {{Name: "a"}},
		"no name":    {{Backend: s}},
		"two alike":  {{Name: "a", Backend: s}, {Name: "a", Backend: s}},
	} {
		if _, err := failover.New(services, failover.Options{}); !errors.Is(err, failover.ErrServices) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A service that fails is skipped for a while that doubles with every failure,
// and is asked again in its place after that.
func TestSkipping(t *testing.T) {
	t.Parallel()
	now := noon
	first, second := &said{tip: chain.Header{Height: 1}}, &said{tip: chain.Header{Height: 2}}
	b := combine(t, failover.Options{Clock: func() time.Time { return now }}, first, second)
	tip := func(want uint32, asked int) {
		t.Helper()
		first.asked = nil
		got, err := b.Tip(t.Context())
		if err != nil || got.Height != want || len(first.asked) != asked {
			t.Fatalf("tip %d, %v; the first was asked %d times", got.Height, err, len(first.asked))
		}
	}
	tip(1, 1)
	first.err = fmt.Errorf("gone away: %w", chain.ErrUnavailable)
	skip := 2 * time.Second
	for range 20 {
		tip(2, 1)
		tip(2, 0)
		states := b.Services()
		if !states[0].Down || !errors.Is(states[0].LastError, first.err) || !states[0].LastAnswer.Equal(noon) ||
			states[1].Down || states[1].LastError != nil || !states[1].LastAnswer.Equal(now) {
			t.Fatalf("%+v", states)
		}
		now = now.Add(skip - 1)
		tip(2, 0)
		now = now.Add(1)
		if b.Services()[0].Down {
			t.Fatalf("still down after %s", skip)
		}
		skip = min(2*skip, 5*time.Minute)
	}
	first.err = nil
	tip(1, 1)
	if s := b.Services()[0]; s.Down || s.LastError != nil || s.Name != "service-0" || !s.LastAnswer.Equal(now) {
		t.Fatalf("%+v", s)
	}
	first.err = chain.ErrUnavailable
	tip(2, 1)
	now = now.Add(2 * time.Second) // it begins anew
	first.err = nil
	tip(1, 1)
}

// When all are down, all are asked: nobody is left out for what is past.
func TestAllDown(t *testing.T) {
	t.Parallel()
	first, second := &said{err: chain.ErrUnavailable}, &said{err: errors.New("broken")}
	b := combine(t, failover.Options{Clock: clock}, first, second)
	for range 2 {
		_, err := b.Tip(t.Context())
		if !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, second.err) ||
			!strings.Contains(err.Error(), "service-0") || !strings.Contains(err.Error(), "service-1") {
			t.Fatal(err)
		}
	}
	second.err = nil
	if _, err := b.Tip(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The kind of an error does not depend on who else was asked.
func TestKindOfError(t *testing.T) {
	t.Parallel()
	unavailable, unsupported, notFound := chain.ErrUnavailable, chain.ErrUnsupported, chain.ErrNotFound
	other := errors.New("refused credentials")
	for _, c := range []struct {
		said []error
		want error
	}{
		{[]error{unsupported, unsupported}, unsupported},
		{[]error{unsupported, unavailable}, unavailable},
		{[]error{unavailable, unsupported}, unavailable},
		{[]error{unsupported, other}, unavailable},
		{[]error{notFound, unavailable}, notFound},
		{[]error{unavailable, notFound}, notFound},
		{[]error{unsupported, notFound}, notFound},
		{[]error{notFound, unsupported, notFound}, notFound},
		{[]error{unavailable, unsupported, nil}, nil},
		{[]error{notFound, nil}, nil},
	} {
		var backends []chain.Backend
		for _, err := range c.said {
			backends = append(backends, &said{err: err})
		}
		_, err := combine(t, failover.Options{}, backends...).Spent(t.Context(), bsv.Outpoint{})
		for _, kind := range []error{unavailable, unsupported, notFound} {
			if errors.Is(err, kind) != (kind == c.want) {
				t.Errorf("%v: %v; want only %v", c.said, err, c.want)
			}
		}
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	bad := faulty.New(c, 1, faulty.Plan{Script: []faulty.Fault{faulty.Timeout}})
	b := combine(t, failover.Options{Timeout: 50 * time.Millisecond, Clock: clock}, bad, c)
	if _, err := b.Tip(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := b.Services()[0]; !s.Down || errors.Is(s.LastError, context.DeadlineExceeded) || !errors.Is(s.LastError, chain.ErrUnavailable) {
		t.Fatalf("%+v", s)
	}

	// The end of the caller's context is nobody's fault.
	bad.Do(faulty.Timeout)
	b = combine(t, failover.Options{Clock: clock}, bad, c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := b.Status(ctx, bsv.Txid{}); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if s := b.Services()[0]; s.Down || s.LastError != nil {
		t.Fatalf("%+v", s)
	}
}

func TestFeeRate(t *testing.T) {
	t.Parallel()
	silent, dead := &said{err: chain.ErrUnsupported}, &said{err: chain.ErrUnavailable}
	for name, c := range map[string]struct {
		services []chain.Backend
		want     money.FeeRate
	}{
		"the first":     {[]chain.Backend{&said{fee: 5}, &said{fee: 7}}, 5},
		"the next":      {[]chain.Backend{silent, dead, &said{fee: 7}}, 7},
		"nonsense":      {[]chain.Backend{&said{fee: 0}, &said{fee: money.MaxFeeRate + 1}, &said{fee: 7}}, 7},
		"nobody tells":  {[]chain.Backend{silent, silent}, chain.DefaultFeeRate},
		"one is silent": {[]chain.Backend{dead, silent}, chain.DefaultFeeRate},
	} {
		if got, err := combine(t, failover.Options{}, c.services...).FeeRate(t.Context()); err != nil || got != c.want {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	if got, err := combine(t, failover.Options{}, dead, dead).FeeRate(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
		t.Errorf("all down: %d, %v", got, err)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	tx, winner, rival := bsv.Txid{1}, bsv.Txid{2}, bsv.Txid{3}
	block := chain.Hash{9}
	proven := chain.Status{State: chain.Mined, Height: 7, Block: block, Proof: &chain.Proof{Block: block}}
	mined := chain.Status{State: chain.Mined, Height: 7, Block: block}
	seen, unknown := chain.Status{State: chain.Seen}, chain.Status{}
	lost := chain.Status{State: chain.Conflicted, Competing: []bsv.Txid{winner}}
	doubted := chain.Status{State: chain.Seen, Competing: []bsv.Txid{rival}}
	falseProof := proven
	falseProof.Proof = &chain.Proof{Block: chain.Hash{8}}
	falseHeight := proven
	falseHeight.Proof = &chain.Proof{Height: 8}
	const dead = chain.State(100)
	for name, c := range map[string]struct {
		said      []chain.Status // of tx
		winner    chain.Status   // of winner, by all
		want      chain.State
		proof     bool
		competing []bsv.Txid
		asked     int // how many of them
	}{
		"a proof is enough":          {said: []chain.Status{proven, unknown}, want: chain.Mined, proof: true, asked: 1},
		"a proof beats a word":       {said: []chain.Status{mined, proven}, want: chain.Mined, proof: true, asked: 2},
		"mined beats seen":           {said: []chain.Status{seen, mined, seen}, want: chain.Mined, asked: 3},
		"seen beats unknown":         {said: []chain.Status{unknown, seen}, want: chain.Seen, asked: 2},
		"nobody knows":               {said: []chain.Status{unknown, unknown}, want: chain.Unknown, asked: 2},
		"one is down":                {said: []chain.Status{{State: dead}, unknown}, want: chain.Unknown, asked: 2},
		"conflicted":                 {said: []chain.Status{unknown, lost}, want: chain.Conflicted, competing: lost.Competing, asked: 2},
		"conflicted, but proven":     {said: []chain.Status{lost, proven}, want: chain.Mined, proof: true, competing: lost.Competing, asked: 2},
		"doubted by one":             {said: []chain.Status{doubted, seen}, want: chain.Seen, competing: doubted.Competing, asked: 2},
		"competing of all":           {said: []chain.Status{doubted, lost, doubted}, want: chain.Seen, competing: []bsv.Txid{winner, rival}, asked: 3},
		"seen, the winner seen too":  {said: []chain.Status{seen, lost}, winner: seen, want: chain.Seen, competing: lost.Competing, asked: 2},
		"seen, the winner is mined":  {said: []chain.Status{seen, lost}, winner: mined, want: chain.Conflicted, competing: lost.Competing, asked: 2},
		"both are mined":             {said: []chain.Status{mined, lost}, winner: mined, want: chain.Mined, competing: lost.Competing, asked: 2},
		"both are, one with a proof": {said: []chain.Status{mined, lost}, winner: proven, want: chain.Conflicted, competing: lost.Competing, asked: 2},
		"a proof for another block":  {said: []chain.Status{falseProof, seen}, want: chain.Seen, asked: 2},
		"a proof for another height": {said: []chain.Status{falseHeight, seen}, want: chain.Seen, asked: 2},
		"mined nowhere":              {said: []chain.Status{{State: chain.Mined}, seen}, want: chain.Seen, asked: 2},
		"a proof of what is not":     {said: []chain.Status{{State: chain.Seen, Proof: proven.Proof}, unknown}, want: chain.Unknown, asked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			var all []*said
			var backends []chain.Backend
			for _, s := range c.said {
				one := &said{status: map[bsv.Txid]chain.Status{tx: s, winner: c.winner}}
				if s.State == dead {
					one.err = chain.ErrUnavailable
				}
				all, backends = append(all, one), append(backends, one)
			}
			got, err := combine(t, failover.Options{}, backends...).Status(t.Context(), tx)
			if err != nil || got.State != c.want || (got.Proof != nil) != c.proof || !slices.Equal(got.Competing, c.competing) {
				t.Fatalf("%v, %v", got, err)
			}
			if (got.State == chain.Mined) == got.Block.IsZero() {
				t.Fatalf("%s in block %s", got.State, got.Block)
			}
			asked := 0
			for _, one := range all {
				asked += min(len(one.asked), 1)
			}
			if asked != c.asked {
				t.Fatalf("%d were asked, not %d", asked, c.asked)
			}
		})
	}
}

// What a service does not know that knows only its own tells nothing.
func TestOwnOnly(t *testing.T) {
	t.Parallel()
	own, other := &said{}, &said{err: chain.ErrUnavailable}
	service := failover.Service{Name: "own", Backend: own, OwnOnly: true}
	b, err := failover.New([]failover.Service{service, {Name: "other", Backend: other}}, failover.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := b.Status(t.Context(), bsv.Txid{}); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(s, err)
	}
	own.err = chain.ErrNotFound
	if _, err := b.Spent(t.Context(), bsv.Outpoint{}); !errors.Is(err, chain.ErrUnavailable) || errors.Is(err, chain.ErrNotFound) {
		t.Fatal(err)
	}
	// Unless it is the only one there will ever be.
	if b, err = failover.New([]failover.Service{service}, failover.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Spent(t.Context(), bsv.Outpoint{}); !errors.Is(err, chain.ErrNotFound) {
		t.Fatal(err)
	}
	own.err = nil
	if s, err := b.Status(t.Context(), bsv.Txid{}); err != nil || s.State != chain.Unknown {
		t.Fatal(s, err)
	}
}

// A service that is down is not waited for where another has answered, be it
// with less than one would like.
func TestDownIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	bad, good := &said{err: chain.ErrUnavailable}, &said{}
	b := combine(t, failover.Options{Clock: clock}, bad, good)
	if _, err := b.Tip(t.Context()); err != nil {
		t.Fatal(err)
	}
	bad.asked = nil
	if s, err := b.Status(t.Context(), bsv.Txid{}); err != nil || s.State != chain.Unknown {
		t.Fatal(s, err)
	}
	good.err = chain.ErrNotFound
	if _, err := b.Spent(t.Context(), bsv.Outpoint{}); !errors.Is(err, chain.ErrNotFound) {
		t.Fatal(err)
	}
	if len(bad.asked) > 0 {
		t.Fatal(bad.asked)
	}
}

func key(t testing.TB, n byte) bsv.PrivateKey {
	t.Helper()
	k, err := bsv.NewPrivateKey(append(make([]byte, 31), n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sweep is a good transaction, and the output that it spends.
func sweep(t testing.TB, c *memory.Chain) (*bsv.Tx, bsv.Coin) {
	t.Helper()
	coin := c.Fund(bsv.P2PKH(key(t, 2).Public().Hash()), 10_000)
	tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{key(t, 2)}, key(t, 3).Public().Hash(), chain.DefaultFeeRate)
	if err != nil {
		t.Fatal(err)
	}
	return tx, coin
}

func TestBroadcast(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	good, coin := sweep(t, c)
	badly := *good
	badly.Outputs = []bsv.Output{{Value: good.Outputs[0].Value - 1, Script: good.Outputs[0].Script}}
	prev := []bsv.Output{coin.Output}
	reject := func(r chain.Reason) error { return chain.Reject(r, r.String()) }
	dead := chain.ErrUnavailable
	for name, c := range map[string]struct {
		tx    *bsv.Tx // good where it is nil
		prev  []bsv.Output
		said  []error
		want  error // nil, ErrUnavailable, or a *Rejected with this reason
		asked int
	}{
		"taken":                        {said: []error{nil, nil}, asked: 1},
		"the next takes it":            {said: []error{dead, nil}, asked: 2},
		"one cannot":                   {said: []error{chain.ErrUnsupported, nil}, asked: 2},
		"one cannot, nor the other":    {said: []error{chain.ErrUnsupported, dead}, want: dead, asked: 2},
		"one word loses nothing":       {said: []error{reject(chain.DoubleSpend), nil}, asked: 2},
		"not even invalid":             {said: []error{reject(chain.Invalid), nil}, prev: prev, asked: 2},
		"nor not final":                {said: []error{reject(chain.NonFinal), reject(chain.LowFee), nil}, asked: 3},
		"all refuse":                   {said: []error{reject(chain.LowFee), reject(chain.DoubleSpend)}, want: reject(chain.LowFee), asked: 2},
		"the milder word counts":       {said: []error{reject(chain.DoubleSpend), reject(chain.LowFee), reject(chain.Other)}, want: reject(chain.LowFee), asked: 3},
		"who knows more counts":        {said: []error{reject(chain.MissingInputs), reject(chain.DoubleSpend)}, want: reject(chain.DoubleSpend), asked: 2},
		"also when it comes first":     {said: []error{reject(chain.DoubleSpend), reject(chain.MissingInputs)}, want: reject(chain.DoubleSpend), asked: 2},
		"invalid, or not known yet":    {said: []error{reject(chain.Invalid), reject(chain.MissingInputs)}, want: reject(chain.MissingInputs), asked: 2},
		"one refuses, one is silent":   {said: []error{dead, reject(chain.MissingInputs)}, want: reject(chain.MissingInputs), asked: 2},
		"one refuses, the last silent": {said: []error{reject(chain.MissingInputs), dead}, want: reject(chain.MissingInputs), asked: 2},
		"none answers":                 {said: []error{dead, dead}, want: dead, asked: 2},
		"invalid, as we can see":       {tx: &badly, prev: prev, said: []error{reject(chain.Invalid), nil}, want: reject(chain.Invalid), asked: 1},
		"invalid, for all we know":     {tx: &badly, said: []error{reject(chain.Invalid), nil}, asked: 2},
		"empty":                        {tx: &bsv.Tx{}, said: []error{nil}, want: reject(chain.Invalid)},
		"previous outputs missing":     {prev: []bsv.Output{}, said: []error{nil}, want: reject(chain.Invalid)},
		"more than there is":           {prev: []bsv.Output{{Value: 1}}, said: []error{nil}, want: reject(chain.Invalid)},
		"not money":                    {prev: []bsv.Output{{Value: -1}}, said: []error{nil}, want: reject(chain.Invalid)},
	} {
		t.Run(name, func(t *testing.T) {
			var all []*said
			var backends []chain.Backend
			for _, err := range c.said {
				one := &said{broadcast: err}
				all, backends = append(all, one), append(backends, one)
			}
			tx := c.tx
			if tx == nil {
				tx = good
			}
			err := combine(t, failover.Options{}, backends...).Broadcast(t.Context(), tx, c.prev)
			want, got := new(chain.Rejected), new(chain.Rejected)
			if errors.As(c.want, &want) {
				if !errors.As(err, &got) || got.Reason != want.Reason || errors.Is(err, chain.ErrUnavailable) {
					t.Fatalf("%v; want %v", err, c.want)
				}
			} else if !errors.Is(err, c.want) || errors.As(err, &got) {
				t.Fatalf("%v; want %v", err, c.want)
			}
			asked := 0
			for _, one := range all {
				asked += len(one.asked)
			}
			if asked != c.asked {
				t.Fatalf("%d were asked, not %d", asked, c.asked)
			}
		})
	}
}

// A transaction that is early does not reach a service that does not look at
// the lock time.
func TestBroadcastNotFinal(t *testing.T) {
	t.Parallel()
	careless := &said{tip: chain.Header{Height: 99}}
	b := combine(t, failover.Options{}, careless)
	tx := &bsv.Tx{Version: 1, LockTime: 100, Inputs: make([]bsv.Input, 1), Outputs: make([]bsv.Output, 1)}
	rejected := new(chain.Rejected)
	if err := b.Broadcast(t.Context(), tx, nil); !errors.As(err, &rejected) || rejected.Reason != chain.NonFinal {
		t.Fatal(err)
	}
	if slices.Contains(careless.asked, "Broadcast") {
		t.Fatal(careless.asked)
	}
	careless.tip.Height = 100
	if err := b.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	careless.err = chain.ErrUnavailable
	if err := b.Broadcast(t.Context(), tx, nil); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestBroadcastAll(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	tx, _ := sweep(t, c)
	all := []*said{{broadcast: chain.ErrUnavailable}, {}, {broadcast: chain.Reject(chain.Invalid, "")}, {}}
	b := combine(t, failover.Options{BroadcastAll: true}, all[0], all[1], all[2], all[3])
	if err := b.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	for i, s := range all {
		if len(s.asked) != 1 {
			t.Errorf("service %d: %v", i, s.asked)
		}
	}
}

// many is a service with all that some services have.
type many struct {
	*memory.Chain
	bulk int
	news []bsv.Txid
}

func (m *many) UnspentBulk(ctx context.Context, scripts []bsv.Script) ([][]chain.Coin, error) {
	m.bulk++
	return chain.UnspentOf(ctx, m.Chain, scripts)
}

func (m *many) Headers(ctx context.Context, from uint32, n int) ([]chain.Header, error) {
	var headers []chain.Header
	for i := range uint32(n) {
		h, err := m.Header(ctx, from+i)
		if errors.Is(err, chain.ErrNotFound) && i > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		headers = append(headers, h)
	}
	return headers, nil
}

func (m *many) Consolidation(context.Context) (chain.Consolidation, error) {
	return chain.Consolidation{Factor: 20}, nil
}

func (m *many) Watch(ctx context.Context, changed func(bsv.Txid)) error {
	for _, id := range m.news {
		changed(id)
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestOptional(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	c.MineTo(20)
	plain := faulty.New(c, 1, faulty.Plan{}) // has no headers in bulk, but says so
	full := &many{Chain: c, news: []bsv.Txid{{1}, {2}}}
	b := combine(t, failover.Options{}, &said{err: chain.ErrUnsupported}, plain, full)

	var scripts []bsv.Script
	for i := range byte(250) {
		scripts = append(scripts, bsv.P2PKH(bsv.Hash160{i}))
	}
	coin := c.Fund(scripts[249], 1000)
	coins, err := b.UnspentBulk(t.Context(), scripts)
	if err != nil || len(coins) != len(scripts) || len(coins[249]) != 1 || coins[249][0].Outpoint != coin.Outpoint || len(coins[0]) != 0 {
		t.Fatal(len(coins), err)
	}
	used, err := b.UsedBulk(t.Context(), scripts)
	if err != nil || len(used) != len(scripts) || !used[249] || used[0] {
		t.Fatal(used, err)
	}
	if _, spent, err := b.SpentBy(t.Context(), coin.Outpoint); err != nil || spent {
		t.Fatal(spent, err)
	}
	if c, err := b.Consolidation(t.Context()); err != nil || c.Factor != 20 {
		t.Fatal(c, err)
	}
	if c, err := combine(t, failover.Options{}, plain).Consolidation(t.Context()); !errors.Is(err, chain.ErrUnsupported) {
		t.Fatal(c, err)
	}
	headers, err := combine(t, failover.Options{}, &said{err: chain.ErrUnavailable}, full).Headers(t.Context(), 15, 100)
	if err != nil || len(headers) != 7 || headers[0].Height != 15 {
		t.Fatal(headers, err)
	}
	if headers, err := combine(t, failover.Options{}, plain).Headers(t.Context(), 15, 100); err != nil || len(headers) != 1 || headers[0].Height != 15 {
		t.Fatal(headers, err)
	}
	if headers, err := b.Headers(t.Context(), 0, 0); err != nil || len(headers) != 0 {
		t.Fatal(headers, err)
	}
	if _, err := b.Headers(t.Context(), 100, 1); !errors.Is(err, chain.ErrNotFound) {
		t.Fatal(err)
	}
	p, err := b.Proof(t.Context(), coin.Outpoint.Txid)
	if err != nil {
		t.Fatal(err)
	}
	tip, err := b.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(coin.Outpoint.Txid, tip); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	other := &many{Chain: c, news: []bsv.Txid{{3}}}
	b = combine(t, failover.Options{}, plain, full, other)
	var news []bsv.Txid
	err = b.Watch(ctx, func(id bsv.Txid) {
		if news = append(news, id); len(news) == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(news) != 3 {
		t.Fatal(news, err)
	}
	if err := combine(t, failover.Options{}, plain).Watch(t.Context(), nil); !errors.Is(err, chain.ErrUnsupported) {
		t.Fatal(err)
	}
}

// What becomes of each lie of the first service, with an honest one behind it.
// Those that show by themselves are found out; the others are passed on, and it
// is for package spv to ask for proof.
func TestLies(t *testing.T) {
	t.Parallel()
	type world struct {
		c           *memory.Chain
		b           *failover.Backend
		mined, seen bsv.Txid
		coin        bsv.Coin
		good        *bsv.Tx
	}
	ask := map[string]func(*testing.T, world) (truth bool){
		"Tip": func(t *testing.T, w world) bool {
			got, errGot := w.b.Tip(t.Context())
			want, errWant := w.c.Tip(t.Context())
			return noError(t, errGot, errWant) && got == want
		},
		"Header": func(t *testing.T, w world) bool {
			got, errGot := w.b.Header(t.Context(), 5)
			want, errWant := w.c.Header(t.Context(), 5)
			return noError(t, errGot, errWant) && got == want
		},
		"RawTx": func(t *testing.T, w world) bool {
			got, err := w.b.RawTx(t.Context(), w.mined)
			return noError(t, err) && got.Txid() == w.mined
		},
		"Status": func(t *testing.T, w world) bool {
			got, err := w.b.Status(t.Context(), w.mined)
			if !noError(t, err) || got.State != chain.Mined || got.Proof == nil {
				return false
			}
			h, err := w.c.Header(t.Context(), got.Height)
			return noError(t, err) && got.Proof.Check(w.mined, h) == nil
		},
		"Status while seen": func(t *testing.T, w world) bool {
			got, err := w.b.Status(t.Context(), w.seen)
			return noError(t, err) && got.State == chain.Seen
		},
		"Unspent": func(t *testing.T, w world) bool {
			got, err := w.b.Unspent(t.Context(), w.coin.Output.Script)
			return noError(t, err) && len(got) == 1 && got[0].Outpoint == w.coin.Outpoint
		},
		"Spent": func(t *testing.T, w world) bool {
			got, err := w.b.Spent(t.Context(), w.coin.Outpoint)
			return noError(t, err) && !got
		},
		"Broadcast": func(t *testing.T, w world) bool {
			return noError(t, w.b.Broadcast(t.Context(), w.good, nil)) && slices.ContainsFunc(w.c.Mempool(), func(tx *bsv.Tx) bool {
				return tx.Txid() == w.good.Txid()
			})
		},
	}
	for _, c := range []struct {
		fault    faulty.Fault
		question string
		truth    bool
		blamed   bool // the service is skipped for it
	}{
		{faulty.OtherTx, "RawTx", true, true},
		{faulty.OffByOne, "Header", true, true},
		{faulty.OffByOne, "Status", true, true}, // it contradicts its own proof
		{faulty.NoProof, "Status", true, false}, // the other has one
		{faulty.FalseReject, "Broadcast", true, false},
		{faulty.FalseConflict, "Status while seen", true, false},

		{faulty.StaleTip, "Tip", false, false},
		{faulty.OffByOne, "Tip", false, false},
		{faulty.OtherProof, "Status", false, false},
		{faulty.FalseMined, "Status while seen", false, false},
		{faulty.FalseCoin, "Unspent", false, false},
		{faulty.HiddenCoin, "Unspent", false, false},
		{faulty.FalseSpent, "Spent", false, false},
		{faulty.FalseAccept, "Broadcast", false, false},
	} {
		t.Run(fmt.Sprintf("%s, %s", c.fault, c.question), func(t *testing.T) {
			m := memory.New(clock)
			m.MineTo(10)
			w := world{c: m}
			w.good, w.coin = sweep(t, m)
			w.mined = w.coin.Outpoint.Txid
			w.seen = m.FundUnconfirmed(bsv.P2PKH(bsv.Hash160{7}), 1000).Outpoint.Txid
			bad := faulty.New(m, 1, faulty.Plan{Script: []faulty.Fault{c.fault}})
			w.b = combine(t, failover.Options{Clock: clock}, bad, m)
			if got := ask[c.question](t, w); got != c.truth {
				t.Errorf("the truth came out: %v", got)
			}
			if bad.Count(c.fault) != 1 {
				t.Errorf("the lie was told %d times", bad.Count(c.fault))
			}
			if s := w.b.Services()[0]; s.Down != c.blamed {
				t.Errorf("%+v", s)
			}
		})
	}
}

func noError(t *testing.T, errs ...error) bool {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return true
}

func TestReorganisationUnderTheQuestions(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	c.MineTo(10)
	coin := c.Fund(bsv.P2PKH(bsv.Hash160{7}), 1000)
	bad := faulty.New(c, 1, faulty.Plan{
		Script: []faulty.Fault{faulty.None, faulty.Reorganisation}, Reorganise: func() { c.Reorganise(2) },
	})
	b := combine(t, failover.Options{}, bad, c)
	if s, err := b.Status(t.Context(), coin.Outpoint.Txid); err != nil || s.State != chain.Mined {
		t.Fatal(s, err)
	}
	if s, err := b.Status(t.Context(), coin.Outpoint.Txid); err != nil || s.State != chain.Seen {
		t.Fatal(s, err)
	}
}

// Many callers, services that fail, and somebody who looks how they do.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	c.MineTo(10)
	chance := map[faulty.Fault]float64{faulty.Timeout: 0.02, faulty.Unavailable: 0.3, faulty.Lost: 0.2}
	b := combine(t, failover.Options{Clock: fleeting(), Timeout: 100 * time.Millisecond},
		faulty.New(c, 1, faulty.Plan{Chance: chance}), faulty.New(c, 2, faulty.Plan{Chance: chance}), c)
	var wg sync.WaitGroup
	for i := range byte(8) {
		wg.Go(func() {
			k, err := bsv.NewPrivateKey(append(make([]byte, 31), 10+i))
			if err != nil {
				t.Error(err)
				return
			}
			coin := c.Fund(bsv.P2PKH(k.Public().Hash()), 10_000)
			tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, k.Public().Hash(), chain.DefaultFeeRate)
			if err != nil {
				t.Error(err)
				return
			}
			for range 20 {
				if err := b.Broadcast(t.Context(), tx, []bsv.Output{coin.Output}); err != nil {
					t.Error(err)
				}
				if s, err := b.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Seen {
					t.Error(s, err)
				}
				if _, err := b.Tip(t.Context()); err != nil {
					t.Error(err)
				}
				if n := len(b.Services()); n != 3 {
					t.Error(n)
				}
			}
		})
	}
	wg.Wait()
}
