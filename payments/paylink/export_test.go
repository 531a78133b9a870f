package paylink

import (
	"context"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
)

// WaitEnded waits until a sale's goroutine has ended.
func WaitEnded(s Sale) { <-s.(*sale).done }

// GatherUntil replaces the timer of Gather: n is how many have a seat.
func (b *Buyer) GatherUntil(enough func(n int) <-chan time.Time) { b.gathered = enough }

// PatienceUntil replaces the timer of OpenPatience.
func (b *Buyer) PatienceUntil(c <-chan time.Time) { b.patience = c }

// ApplyWith replaces the write that stores a funding and its channels.
func (b *Buyer) ApplyWith(apply func(context.Context, ledger.Batch) error) { b.apply = apply }
