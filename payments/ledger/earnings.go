package ledger

import (
	"context"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/money"
)

// TitleEarnings is what one title has earned this node.
type TitleEarnings struct {
	Title [20]byte
	Name  string // as it was called last
	Bytes int64  // paid for
	// Unsettled is the newest commitments of channels whose close is not in a
	// block yet, Settled those of the others.
	Unsettled, Settled money.Satoshis
	Royalty            money.Satoshis // of both, paid to the creator by the same channels
	Channels           int
}

// closeIsMined joins a channel to its close, once that is in a block.
const closeIsMined = `outgoing AS o ON o.txid = c.close_txid AND o.state = 'mined' AND c.state = 'closed'`

// EarningsByTitle returns what each title has earned, the most first. Channels
// that failed or that the payer took back count for nothing.
func (l *Ledger) EarningsByTitle(ctx context.Context) ([]TitleEarnings, error) {
	// The bare column name comes from the row with the largest updated:
	// SQLite promises so for a single max().
	rows, err := l.db.Read().QueryContext(ctx, withShares+`SELECT s.title, s.name, max(c.updated), sum(s.bytes),
		sum(CASE WHEN o.txid IS NULL THEN s.payee ELSE 0 END),
		sum(CASE WHEN o.txid IS NULL THEN 0 ELSE s.payee END), sum(s.creator), count(DISTINCT c.id)
		FROM shares AS s JOIN channels AS c ON c.id = s.channel LEFT JOIN `+closeIsMined+`
		WHERE c.role = 2 AND c.state IN ('open', 'closing', 'closed')
		GROUP BY s.title ORDER BY sum(s.payee) DESC, s.title`)
	if err != nil {
		return nil, fmt.Errorf("read earnings: %w", err)
	}
	defer rows.Close()
	var all []TitleEarnings
	for rows.Next() {
		var e TitleEarnings
		var updated int64
		if err := rows.Scan(fixed(e.Title[:]), &e.Name, &updated, &e.Bytes, &e.Unsettled, &e.Settled, &e.Royalty,
			&e.Channels); err != nil {
			return nil, fmt.Errorf("read earnings: %w", err)
		}
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read earnings: %w", err)
	}
	return all, nil
}

// Totals is the ledger in a few numbers.
//
// Once every close is in a block, Earned = OnChain + Swept + SweepFees, as long
// as earnings are spent by sweeps only.
type Totals struct {
	Earned             money.Satoshis // Unsettled + Settled
	Unsettled, Settled money.Satoshis // as in TitleEarnings, of all titles
	Royalty            money.Satoshis // paid to creators by those channels
	OnChain            money.Satoshis // earnings in coins that are not swept, in a block or not
	Confirmed          money.Satoshis // the part of OnChain that is in a block
	Swept              money.Satoshis // paid out to the owner, on its way or in a block
	SweepFees          money.Satoshis
	// The parts of Swept and SweepFees that are in a block.
	SweptMined, SweepFeesMined money.Satoshis

	Bought      money.Satoshis // paid as the payer, royalties included
	ChannelFees money.Satoshis // borne as the payer, of settled channels and of fundings
	Escrow      money.Satoshis // bound in channels as the payer
}

// Totals returns the sums over the whole ledger.
func (l *Ledger) Totals(ctx context.Context) (Totals, error) {
	t, err := l.totals(ctx)
	if err != nil {
		return Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return t, nil
}

func (l *Ledger) totals(ctx context.Context) (Totals, error) {
	var t Totals
	err := l.db.Read().QueryRowContext(ctx, `SELECT
		coalesce(sum(CASE WHEN o.txid IS NULL THEN c.payee ELSE 0 END), 0),
		coalesce(sum(CASE WHEN o.txid IS NULL THEN 0 ELSE c.payee END), 0), coalesce(sum(c.creator), 0)
		FROM channels AS c LEFT JOIN `+closeIsMined+`
		WHERE c.role = 2 AND c.state IN ('open', 'closing', 'closed')`).Scan(&t.Unsettled, &t.Settled, &t.Royalty)
	if err != nil {
		return Totals{}, err
	}
	if t.Earned, err = money.Sum(t.Unsettled, t.Settled); err != nil {
		return Totals{}, err
	}
	err = l.db.Read().QueryRowContext(ctx, `SELECT coalesce(sum(value), 0),
		coalesce(sum(CASE WHEN height > 0 THEN value ELSE 0 END), 0)
		FROM coins WHERE origin = 'earning' AND state = 'unspent'`).Scan(&t.OnChain, &t.Confirmed)
	if err != nil {
		return Totals{}, err
	}
	err = l.db.Read().QueryRowContext(ctx, `SELECT coalesce(sum(payee + creator), 0) FROM channels
		WHERE role = 1 AND state NOT IN ('refunded', 'failed')`).Scan(&t.Bought)
	if err != nil {
		return Totals{}, err
	}
	err = l.db.Read().QueryRowContext(ctx, `SELECT coalesce(sum(CASE WHEN account = 'payouts' THEN amount END), 0),
		coalesce(sum(CASE WHEN account = 'fees:sweep' THEN amount END), 0)
		FROM entries WHERE account IN ('payouts', 'fees:sweep')
		AND txid IN (SELECT txid FROM outgoing WHERE state = 'mined')`).Scan(&t.SweptMined, &t.SweepFeesMined)
	if err != nil {
		return Totals{}, err
	}
	for account, into := range map[string]*money.Satoshis{
		AccountPayouts:     &t.Swept,
		AccountFeesSweep:   &t.SweepFees,
		AccountFeesChannel: &t.ChannelFees,
		AccountEscrow:      &t.Escrow,
	} {
		n, err := balance(ctx, l.db.Read(), account)
		if err != nil {
			return Totals{}, err
		}
		if *into, err = satoshis(n); err != nil {
			return Totals{}, fmt.Errorf("account %s: %w", account, err)
		}
	}
	return t, nil
}

// SpentOn returns what this node has paid for a title, by its newest
// commitments and royalties included, and the fees that it bore for that, as
// far as known: those of the channels that were opened for it. What came back
// by a refund is not paid.
func (l *Ledger) SpentOn(ctx context.Context, title [20]byte) (paid, fees money.Satoshis, err error) {
	shares, err := l.Shares(ctx, title, Payer)
	if err != nil {
		return 0, 0, fmt.Errorf("read spending: %w", err)
	}
	for _, s := range shares {
		amounts := []money.Satoshis{paid, s.Payee, s.Creator}
		if s.Channel.State == StateRefunded || s.Channel.State == StateFailed {
			amounts = amounts[:1]
		}
		if paid, err = money.Sum(amounts...); err == nil {
			fees, err = fees.Add(s.Fee)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read spending: %w", err)
		}
	}
	return paid, fees, nil
}
