package channel

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// ErrCreators says that a channel pays as many creators as a close can, and
// that a title's creator is not among them.
var ErrCreators = errors.New("too many creators for one channel")

// Leg is what a channel pays for at one time: a title, at the price of the
// terms that were signed for it. A channel has one leg after the other.
type Leg struct {
	Title   [20]byte    `json:"title"` // info hash
	Ask     money.Rate  `json:"ask"`
	Royalty money.Rate  `json:"royalty"`
	Creator bsv.Hash160 `json:"creator"` // of the royalty; zero without one
	// Credit is how many bytes the payee lets a new payer of this title owe.
	Credit int64 `json:"credit"`
}

// LegOf is the leg that terms for a title offer.
func LegOf(title [20]byte, t *wire.Terms) Leg {
	leg := Leg{Title: title, Ask: t.Ask, Royalty: t.Royalty, Credit: t.Credit}
	if t.Royalty > 0 {
		leg.Creator = t.CreatorHash
	}
	return leg
}

// Price is ask and royalty together.
func (l Leg) Price() money.Rate { return l.Ask + l.Royalty }

// Due is what n bytes of the leg cost in all, the seeder's and the creator's
// part. ErrRange of package money.
func (l Leg) Due(n int64) (payee, creator money.Satoshis, err error) {
	if payee, err = l.Ask.Due(n); err != nil {
		return 0, 0, err
	}
	creator, err = l.Royalty.Due(n)
	return payee, creator, err
}

// affordable is the largest number of bytes whose two parts together cost at
// most limit. Each part is rounded up, so the sum of the rates may promise one
// satoshi too much.
func (l Leg) affordable(limit money.Satoshis) int64 {
	price := l.Price()
	for try := limit; try >= 0; try-- {
		n := price.Bytes(try)
		payee, creator, err := l.Due(n)
		if err == nil && payee+creator <= limit {
			return n
		}
	}
	return 0
}

// fine is an amount in 1,024ths of a satoshi, for sums over legs of different
// prices whose roundings should not add up.
type fine int64

const fineUnit = 1 << 10

// fineOf is what n bytes are worth at a price, rounded up.
func fineOf(price money.Rate, n int64) fine {
	if n <= 0 {
		return 0
	}
	worth, err := price.Due(min(n, maxCount/fineUnit) * fineUnit)
	if err != nil {
		return fine(money.MaxSatoshis)
	}
	return fine(worth)
}

// bytesAt is how many bytes an amount buys at a price.
func (f fine) bytesAt(price money.Rate) int64 {
	if f <= 0 {
		return 0
	}
	return price.Bytes(money.Satoshis(f)) / fineUnit
}

// Past is what the finished legs of a channel have come to. The amounts are
// those at which the current leg began; the rest is what limits are reckoned
// from.
type Past struct {
	Payee    money.Satoshis `json:"payee"`
	Creators []wire.Royalty `json:"creators,omitempty"`
	Bytes    int64          `json:"bytes"`            // that were paid for
	Served   int64          `json:"served,omitempty"` // of the payee, block data
	// Worth is what the payee served, Earned what of it was paid, Forgiven what
	// was lost with connections that broke.
	Worth    fine `json:"worth,omitempty"`
	Earned   fine `json:"earned,omitempty"`
	Forgiven fine `json:"forgiven,omitempty"`
	// Verified is what the payer got for its money, Lost what it paid for ahead
	// and did not get.
	Verified fine `json:"verified,omitempty"`
	Lost     fine `json:"lost,omitempty"`
}

// covered is how many bytes of a leg a commitment's amounts pay for: what the
// scarcer one buys at its rate. With both rates zero everything is covered.
func (l Leg) covered(past *Past, p *wire.Pay) int64 {
	return min(l.Ask.Bytes(p.Payee-past.Payee),
		l.Royalty.Bytes(amountTo(p.Creators, l.Creator)-amountTo(past.Creators, l.Creator)))
}

// owed is what n bytes of a leg cost, on top of the finished legs: the payee's
// amount, and that of the leg's creator.
func (l Leg) owed(past *Past, n int64) (payee, creator money.Satoshis, err error) {
	if payee, creator, err = l.Due(n); err != nil {
		return 0, 0, err
	}
	if payee, err = payee.Add(past.Payee); err != nil {
		return 0, 0, err
	}
	creator, err = creator.Add(amountTo(past.Creators, l.Creator))
	return payee, creator, err
}

// creators is how many creators a close pays once the leg has paid its own.
func (l Leg) creators(paid []wire.Royalty) int {
	if l.Royalty == 0 || indexOf(paid, l.Creator) >= 0 {
		return len(paid)
	}
	return len(paid) + 1
}

// capacityBytes is how many bytes of a leg can be paid for in all.
func (l Leg) capacityBytes(o *wire.Open, past *Past, paid []wire.Royalty, limit money.Satoshis) int64 {
	return l.affordable(min(maxSpend(o, l.creators(paid)), limit) - spent(&wire.Pay{Payee: past.Payee, Creators: past.Creators}))
}

// maxSpend is the most that a channel pays to a payee and so many creators.
func maxSpend(o *wire.Open, creators int) money.Satoshis {
	return bsv.Channel{Capacity: o.Capacity, FeeRate: o.FeeRate}.MaxSpend(creators)
}

func spent(p *wire.Pay) money.Satoshis { return p.Payee + p.Royalties() }

func indexOf(all []wire.Royalty, to [20]byte) int {
	return slices.IndexFunc(all, func(r wire.Royalty) bool { return r.To == to })
}

func amountTo(all []wire.Royalty, to [20]byte) money.Satoshis {
	if i := indexOf(all, to); i >= 0 {
		return all[i].Amount
	}
	return 0
}

// raise returns the amounts with that of one creator raised to at least this
// one. The list that was given stays as it is.
func raise(all []wire.Royalty, to [20]byte, amount money.Satoshis) []wire.Royalty {
	i := indexOf(all, to)
	switch {
	case amount <= 0 || i >= 0 && all[i].Amount >= amount:
		return all
	case i < 0:
		return append(slices.Clip(all), wire.Royalty{To: to, Amount: amount})
	}
	all = slices.Clone(all)
	all[i].Amount = amount
	return all
}

// follows says whether a commitment's amounts can come after another's: none
// falls, and the creators keep their places.
func follows(next, last *wire.Pay) error {
	if next.Payee < last.Payee || len(next.Creators) < len(last.Creators) {
		return fmt.Errorf("commitment %d takes something back", next.Seq)
	}
	for i, r := range next.Creators {
		switch {
		case r.Amount < 1:
			return fmt.Errorf("commitment %d names a creator without an amount", next.Seq)
		case i >= len(last.Creators):
		case r.To != last.Creators[i].To || r.Amount < last.Creators[i].Amount:
			return fmt.Errorf("commitment %d takes something back", next.Seq)
		}
	}
	return nil
}

func sameAmounts(a, b *wire.Pay) bool {
	return a.Payee == b.Payee && slices.Equal(a.Creators, b.Creators)
}

// toClose is the creators' part of a commitment as a close pays it.
func toClose(all []wire.Royalty) []bsv.Royalty {
	if len(all) == 0 {
		return nil
	}
	out := make([]bsv.Royalty, len(all))
	for i, r := range all {
		out[i] = bsv.Royalty{To: r.To, Amount: r.Amount}
	}
	return out
}

// sum adds counts of bytes, and stays at the largest one.
func sum(counts ...int64) int64 {
	var s int64
	for _, n := range counts {
		if n > 0 && s > math.MaxInt64-n {
			return math.MaxInt64
		}
		s += n
	}
	return s
}

// checkMove says why a channel cannot pay for the title of these terms.
func checkMove(first, t *wire.Terms, leg Leg, paid []wire.Royalty) error {
	switch {
	case t.Identity != first.Identity:
		return errors.New("terms of another seeder")
	case t.Network != first.Network:
		return ErrNetwork
	case leg.creators(paid) > wire.MaxCreators:
		return ErrCreators
	}
	return nil
}
