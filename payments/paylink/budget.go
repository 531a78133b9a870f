package paylink

import (
	"sync"

	"github.com/bitcdn/bitcdn/payments/money"
)

// Budget is what a download may cost in all, fees included. It is shared by
// the purchases from all seeders.
type Budget struct {
	mu    sync.Mutex
	limit money.Satoshis
	spent money.Satoshis
}

// NewBudget makes a budget of which some may be spent already, by an earlier
// run of the same download.
func NewBudget(limit, spent money.Satoshis) *Budget { return &Budget{limit: limit, spent: spent} }

// Spent is what has been spent.
func (b *Budget) Spent() money.Satoshis {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spent
}

// Limit is what may be spent in all.
func (b *Budget) Limit() money.Satoshis { return b.limit }

// take spends an amount whole, or nothing.
func (b *Budget) take(amount money.Satoshis) bool {
	ok := false
	b.use(func(left money.Satoshis) money.Satoshis {
		if ok = amount <= left; ok {
			return amount
		}
		return 0
	})
	return ok
}

// give returns what was taken and not spent after all.
func (b *Budget) give(amount money.Satoshis) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent -= amount
}

// use lets f spend some of what is left; nobody else spends meanwhile.
func (b *Budget) use(f func(left money.Satoshis) money.Satoshis) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent += f(max(b.limit-b.spent, 0))
}
