package memory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/money"
)

func clock() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC) }

func key(t *testing.T, n byte) bsv.PrivateKey {
	t.Helper()
	k, err := bsv.NewPrivateKey(append(make([]byte, 31), n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestConformance(t *testing.T) {
	c := memory.New(clock)
	chaintest.Run(t, chaintest.Harness{
		Backend: c,
		Mine:    func(_ testing.TB, n int) { c.Mine(n) },
		Fund: func(_ testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			return c.FundUnconfirmed(script, value)
		},
		Reorganise:    func(_ testing.TB, depth int) { c.Reorganise(depth) },
		Stop:          func(testing.TB) { c.SetDown(true) },
		RefusesLowFee: true,
	})
}

func TestDeterministic(t *testing.T) {
	var tips [2]chain.Header
	for i := range tips {
		c := memory.New(clock)
		c.Fund(bsv.P2PKH(key(t, 2).Public().Hash()), 1000)
		c.FundUnconfirmed(bsv.P2PKH(key(t, 3).Public().Hash()), 1000)
		c.Mine(5)
		c.MineTo(20)
		tip, err := c.Tip(t.Context())
		if err != nil || tip.Height != 20 {
			t.Fatal(tip, err)
		}
		tips[i] = tip
	}
	if tips[0] != tips[1] {
		t.Fatalf("%v and %v", tips[0], tips[1])
	}
}

func TestFaults(t *testing.T) {
	c := memory.New(clock)
	k := key(t, 2)
	coin := c.Fund(bsv.P2PKH(k.Public().Hash()), 5000)
	tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, key(t, 3).Public().Hash(), chain.DefaultFeeRate)
	if err != nil {
		t.Fatal(err)
	}
	first, second := errors.New("first"), errors.New("second")
	c.FailNext(first)
	c.FailNext(second)
	if _, err := c.Tip(t.Context()); !errors.Is(err, first) {
		t.Fatal(err)
	}
	if err := c.Broadcast(t.Context(), tx, nil); !errors.Is(err, second) {
		t.Fatal(err)
	}
	if s, err := c.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Unknown {
		t.Fatal(s, err)
	}
	c.LoseAnswer()
	if err := c.Broadcast(t.Context(), tx, nil); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
	if s, err := c.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Seen {
		t.Fatal(s, err)
	}
	c.SetDown(true)
	if _, err := c.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
	c.SetDown(false)

	wrong := coin.Output
	wrong.Value++
	again := c.Fund(bsv.P2PKH(k.Public().Hash()), 5000)
	tx, _, err = bsv.BuildSweep([]bsv.Coin{again}, []bsv.PrivateKey{k}, key(t, 3).Public().Hash(), chain.DefaultFeeRate)
	if err != nil {
		t.Fatal(err)
	}
	for _, prev := range [][]bsv.Output{{wrong}, {coin.Output, coin.Output}} {
		if err := c.Broadcast(t.Context(), tx, prev); err == nil {
			t.Fatal("wrong previous outputs are taken")
		}
	}
}

// A double spend that a miner prefers undoes what was seen and all that builds
// on it.
func TestMineConflict(t *testing.T) {
	c := memory.New(clock)
	a, b := key(t, 2), key(t, 3)
	coin := c.Fund(bsv.P2PKH(a.Public().Hash()), 5000)
	sweep := func(coin bsv.Coin, from, to bsv.PrivateKey) *bsv.Tx {
		t.Helper()
		tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{from}, to.Public().Hash(), chain.DefaultFeeRate)
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	parent := sweep(coin, a, b)
	child := sweep(bsv.Coin{Outpoint: bsv.Outpoint{Txid: parent.Txid()}, Output: parent.Outputs[0]}, b, a)
	for _, tx := range []*bsv.Tx{parent, child} {
		if err := c.Broadcast(t.Context(), tx, nil); err != nil {
			t.Fatal(err)
		}
	}
	winner := sweep(coin, a, a)
	if err := c.MineConflict(winner); err != nil {
		t.Fatal(err)
	}
	for tx, want := range map[*bsv.Tx]chain.State{
		parent: chain.Conflicted, child: chain.Conflicted, winner: chain.Mined,
	} {
		if s, err := c.Status(t.Context(), tx.Txid()); err != nil || s.State != want {
			t.Errorf("%v, %v; want %v", s, err, want)
		}
	}
	if len(c.Mempool()) != 0 {
		t.Error("the mempool is not empty")
	}
	wrong := sweep(coin, a, b)
	wrong.Outputs[0].Value--
	rejected := new(chain.Rejected)
	if err := c.MineConflict(wrong); !errors.As(err, &rejected) {
		t.Error(err)
	}
}

func TestReorganise(t *testing.T) {
	c := memory.New(clock)
	k := key(t, 2)
	old := c.Fund(bsv.P2PKH(k.Public().Hash()), 5000)
	c.Mine(1)
	coin := c.Fund(bsv.P2PKH(k.Public().Hash()), 6000)
	before, err := c.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Reorganise(2)
	tip, err := c.Tip(t.Context())
	if err != nil || tip.Height != before.Height+1 {
		t.Fatal(tip, err)
	}
	if h, err := c.Header(t.Context(), before.Height); err != nil || h.Hash == before.Hash {
		t.Fatal("the block is still there", err)
	}
	for o, want := range map[bsv.Outpoint]chain.State{old.Outpoint: chain.Mined, coin.Outpoint: chain.Seen} {
		if s, err := c.Status(t.Context(), o.Txid); err != nil || s.State != want {
			t.Errorf("%v, %v; want %v", s, err, want)
		}
	}
	c.Mine(1)
	if s, err := c.Status(t.Context(), coin.Outpoint.Txid); err != nil || s.Height != tip.Height+1 {
		t.Error(s, err)
	}
}

func TestWaitState(t *testing.T) {
	c := memory.New(clock)
	coin := c.FundUnconfirmed(bsv.P2PKH(key(t, 2).Public().Hash()), 5000)
	go c.Mine(1)
	if err := c.WaitState(t.Context(), coin.Outpoint.Txid, chain.Mined); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.WaitState(ctx, coin.Outpoint.Txid, chain.Unknown); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// The headers are those of the regression test network: linked, with proof of
// work, and later than the median of those before.
func TestHeaders(t *testing.T) {
	for name, clock := range map[string]func() time.Time{
		"a clock that stands still":      clock,
		"a clock older than the network": func() time.Time { return time.Unix(0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := memory.New(clock)
			c.Mine(50)
			c.Reorganise(10)
			var prev chain.Header
			for height := range uint32(52) {
				h, err := c.Header(t.Context(), height)
				if err != nil || h.CheckHash() != nil || h.Height != height || h.Prev != prev.Hash {
					t.Fatal(h, err)
				}
				// The target is 7fffff followed by zeros.
				if h.Bits != 0x207fffff || h.Hash[31] > 0x7f {
					t.Fatalf("block %d has no proof of work: %s", height, h.Hash)
				}
				if h.Time.Before(prev.Time) {
					t.Errorf("block %d is older than the one before", height)
				}
				prev = h
			}
			first, err := c.Header(t.Context(), 0)
			if err != nil || first.Hash.String() != "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206" {
				t.Error(first.Hash, err)
			}
		})
	}
}

// A clock that stands still brings the chain into the future slowly.
func TestTimeOfManyBlocks(t *testing.T) {
	c := memory.New(clock)
	c.Mine(2000)
	tip, err := c.Tip(t.Context())
	if err != nil || tip.Time.Sub(clock()) > 10*time.Minute {
		t.Fatal(tip.Time, err)
	}
}

func TestProofs(t *testing.T) {
	c := memory.New(clock)
	var ids []bsv.Txid
	for n := range byte(7) {
		ids = append(ids, c.FundUnconfirmed(bsv.P2PKH(key(t, n+2).Public().Hash()), 5000).Outpoint.Txid)
	}
	c.Mine(2)
	for i, id := range ids {
		s, err := c.Status(t.Context(), id)
		if err != nil || s.Proof == nil || s.Proof.Index != uint64(i+1) {
			t.Fatal(s, err)
		}
		h, err := c.Header(t.Context(), s.Height)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Proof.Check(id, h); err != nil {
			t.Error(err)
		}
	}
}
