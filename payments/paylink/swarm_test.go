package paylink_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// trade is an open channel with both its ends, and no chain or disk.
type trade struct {
	payer channel.Payer
	payee channel.Payee
	asked []int // pieces of the blocks that it was asked for, in their order
	came  map[int]int64
}

func newTrade(t *testing.T, n byte, credit int64, exposure int64) *trade {
	t.Helper()
	payer, payee := key(t, n), key(t, n+100)
	terms := wire.Terms{Payee: payee.Public(), PayeeHash: payee.Public().Hash(), Ask: 1_000_000, Credit: credit, FeeRate: 100}
	open := wire.Open{Payer: payer.Public(), PayerHash: payer.Public().Hash(), FundingTxid: [32]byte{n}, Capacity: 1_000_000_000, FeeRate: 100, RefundHeight: 1000}
	tr := &trade{came: make(map[int]int64)}
	leg := channel.LegOf([20]byte{}, &terms)
	tr.payer = channel.Payer{Key: payer, Terms: terms, Leg: leg, Open: open, Phase: channel.Open, Credit: credit, Exposure: exposure}
	tr.payee = channel.Payee{Key: payee, Terms: terms, Leg: leg, Open: open, Phase: channel.Open, Confirmed: true}
	tr.payer.Last = wire.Pay{Channel: tr.payer.ID(), Seq: 1, Leg: 1}
	tr.payee.Last = tr.payer.Last
	return tr
}

// tell lets the payer know what has come and carries its payment over.
func (tr *trade) tell(t *testing.T, n, verified int64) {
	var effects []channel.Effect
	tr.payer, effects = tr.payer.Step(channel.Delivered{Wire: tr.payer.Wire + n, Payable: tr.payer.Payable + verified, Limit: money.MaxSatoshis}, time.Time{})
	for _, e := range effects {
		send, ok := e.(channel.Send)
		if !ok {
			continue
		}
		var answers []channel.Effect
		tr.payee, answers = tr.payee.Step(channel.Got{Msg: send.Msg}, time.Time{})
		for _, a := range answers {
			if f, ok := a.(channel.Fail); ok {
				t.Fatal(f.Err)
			}
			if s, ok := a.(channel.Send); ok {
				tr.payer, _ = tr.payer.Step(channel.Got{Msg: s.Msg}, time.Time{})
			}
		}
	}
}

// Several seeders with a small credit share the pieces of one title, and what
// one of them was asked for nobody else is asked for. They must not all come to
// the end of their credit with nothing that could be paid for.
func TestSeedersThatSharePiecesDoNotLock(t *testing.T) {
	const block = 64 << 10
	for _, pieceLength := range []int64{1 << 20, 4 << 20, 16 << 20} {
		for _, seeders := range []int{1, 2, 3, 8} {
			for _, credit := range []int64{channel.MinCredit, 2 * pieceLength} {
				t.Run(fmt.Sprintf("%d MiB, %d seeders, credit %d KiB", pieceLength>>20, seeders, credit>>10), func(t *testing.T) {
					share(t, rand.New(rand.NewPCG(uint64(pieceLength), uint64(seeders))), seeders, credit, pieceLength, block)
				})
			}
		}
	}
}

func share(t *testing.T, rng *rand.Rand, seeders int, credit, pieceLength, block int64) {
	pieces := 3*seeders + 4
	perPiece := int(pieceLength / block)
	var all []*trade
	for i := range seeders {
		all = append(all, newTrade(t, byte(i+1), credit, paylink.Exposure(pieceLength)))
	}
	free := make([]int, pieces) // blocks that nobody was asked for
	rest := make([]int, pieces) // blocks that have not come
	for i := range pieces {
		free[i], rest[i] = perPiece, perPiece
	}
	// ask fills a seeder's queue: pieces that are begun come first.
	ask := func(tr *trade) {
		for len(tr.asked) < 16 {
			next := -1
			for i := range pieces {
				if free[i] > 0 && (next < 0 || free[next] == perPiece && free[i] < perPiece) {
					next = i
				}
			}
			if next < 0 {
				return
			}
			free[next]--
			tr.asked = append(tr.asked, next)
		}
	}
	for left := pieces * perPiece; left > 0; left-- {
		order := rng.Perm(seeders)
		served := false
		for _, i := range order {
			tr := all[i]
			ask(tr)
			if len(tr.asked) == 0 || tr.payee.Allowed()-tr.payee.Served < block {
				continue
			}
			piece := tr.asked[0]
			tr.asked = tr.asked[1:]
			tr.payee, _ = tr.payee.Step(channel.Served{Bytes: block}, time.Time{})
			tr.came[piece] += block
			rest[piece]--
			tr.tell(t, block, 0)
			if rest[piece] == 0 {
				for _, other := range all {
					other.tell(t, 0, other.came[piece])
					delete(other.came, piece)
				}
			}
			served = true
			break
		}
		if !served {
			for i, tr := range all {
				t.Logf("seeder %d: paid for %d, verified %d, received %d, allowed %d", i, tr.payer.Last.Bytes, tr.payer.Payable, tr.payer.Wire, tr.payee.Allowed())
			}
			t.Fatalf("all seeders wait with %d blocks to come", left)
		}
	}
	for _, tr := range all {
		if tr.payer.Last.Bytes > tr.payer.Payable+tr.payer.Exposure {
			t.Errorf("paid for %d bytes of %d verified ones", tr.payer.Last.Bytes, tr.payer.Payable)
		}
	}
}
