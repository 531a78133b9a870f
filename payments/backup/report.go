package backup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// templateOf reads from a channel's snapshot what its transactions are made of.
func templateOf(row ledger.Channel) (bsv.Channel, error) {
	if row.Role == ledger.Payer {
		s, err := channel.RestorePayer(row.Snapshot, bsv.PrivateKey{})
		if err != nil {
			return bsv.Channel{}, err
		}
		return s.Template()
	}
	s, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
	if err != nil {
		return bsv.Channel{}, err
	}
	return s.Template()
}

// report brings the lines and the sums up to date, and says whether all lines
// are done.
func (r *recovery) report(ctx context.Context, height uint32) (done bool, err error) {
	waiting, err := r.ledger.OutgoingUnsettled(ctx)
	if err != nil {
		return false, err
	}
	done = true
	r.result.Lines = r.result.Lines[:0]
	for id, line := range r.known {
		row, err := r.ledger.Channel(ctx, id)
		if err != nil {
			return false, err
		}
		if err := r.describe(ctx, line, row, waiting, height); err != nil {
			return false, err
		}
		done = done && line.Done
		r.result.Lines = append(r.result.Lines, *line)
	}
	slices.SortFunc(r.result.Lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Title, b.Title), bytes.Compare(a.Channel[:], b.Channel[:]))
	})
	coins, err := r.ledger.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
	if err != nil {
		return false, err
	}
	r.result.Coins = len(coins)
	if r.result.Confirmed, r.result.Unconfirmed, err = r.wallet.Balance(ctx); err != nil {
		return false, err
	}
	if r.Changed != nil {
		r.Changed(slices.Clone(r.result.Lines))
	}
	return done, nil
}

// describe says how far a channel is.
func (r *recovery) describe(ctx context.Context, line *Line, row ledger.Channel, waiting []ledger.Outgoing, height uint32) error {
	line.Txid, line.Done = row.CloseTxid, false
	var on string // how its transaction stands
	for _, o := range waiting {
		if o.Channel == row.ID && (o.Purpose == ledger.Close || o.Purpose == ledger.Refund) && o.State != ledger.Conflicted {
			line.Txid, on = o.Txid, o.State
			if on == ledger.Pending && o.LastError != "" {
				on = "not taken by the network yet: " + o.LastError
			}
		}
	}
	var err error
	if line.Chain, err = r.received(ctx, row, line.Txid); err != nil {
		return err
	}
	onNetwork := on == "" || on == ledger.Seen || on == ledger.Mined
	switch {
	case row.State == ledger.StateFailed:
		line.State, line.Done = "its funding was never paid", true
	case row.State == ledger.StateOpening && row.Role == ledger.Payee:
		line.State, line.Done = "nothing was paid", true
	case row.State == ledger.StateRefunded && row.Role == ledger.Payee:
		line.State, line.Done = "the payer took it back", true
	case row.State == ledger.StateRefunded:
		line.State, line.Done = "taken back", onNetwork
	case row.State == ledger.StateClosed && row.Role == ledger.Payee && row.Payee > line.Backup:
		line.State, line.Done = "closed, with a newer payment than the backup's", true
	case row.State == ledger.StateClosed && row.Role == ledger.Payee && !line.Txid.IsZero() && line.Chain < line.Backup:
		line.State, line.Done = "closed, with an older payment than the backup's", true
	case row.State == ledger.StateClosed:
		line.State, line.Done = "closed", true
	case row.Role == ledger.Payer && height > 0 && height < row.RefundHeight:
		line.State, line.Done = fmt.Sprintf("open; comes back from height %d on, or when the seller closes", row.RefundHeight), true
	default:
		line.State = "closing"
	}
	if !onNetwork && on != ledger.Pending {
		line.State += ", " + on
	}
	return nil
}

// received is what a channel's close or refund pays to this node.
func (r *recovery) received(ctx context.Context, row ledger.Channel, txid bsv.Txid) (sum money.Satoshis, err error) {
	if txid.IsZero() {
		return 0, nil
	}
	if o, err := r.ledger.Outgoing(ctx, txid); err == nil && o.State == ledger.Pending {
		return 0, nil
	} else if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return 0, err
	}
	coins, err := r.ledger.Coins(ctx, ledger.CoinFilter{Key: &ledger.Key{Branch: wallet.BranchPayout, Index: row.KeyIndex}})
	for _, c := range coins {
		if c.Txid == txid && c.State != ledger.CoinVoid && c.State != ledger.CoinPending {
			sum += c.Value
		}
	}
	return sum, err
}
