package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bitcdn/bitcdn/payments/money"
)

// What an outgoing transaction is for.
const (
	Funding = "funding" // pays into channels
	Close   = "close"   // settles a channel with its newest commitment
	Refund  = "refund"  // takes a channel's capacity back
	Sweep   = "sweep"   // pays earnings out to the owner
	Send    = "send"    // pays somebody
	// Consolidation joins coins of the wallet in one.
	Consolidation = "consolidation"
)

// States of an outgoing transaction.
const (
	Pending    = "pending"    // to be broadcast
	Seen       = "seen"       // the network has it
	Mined      = "mined"      // it is in a block
	Conflicted = "conflicted" // it can not be mined
)

// Limits of an Outgoing.
const (
	MaxRaw       = 1 << 20 // bytes of Raw and of PrevOutputs
	MaxLastError = 500     // bytes of LastError; more is cut off
)

// Outgoing is a transaction that has to reach the chain.
//
// Its state moves more than its own row. While it is pending the coins that it
// spends are reserved and its Outputs pending; when it is seen or mined they
// are spent and unspent; when it is conflicted the Outputs are void, while the
// coins stay reserved until they are released. The channel of a close that is
// seen becomes closed, that of a refund refunded; the channels of a conflicted
// funding have failed.
type Outgoing struct {
	Txid        [32]byte
	Raw         []byte
	PrevOutputs []byte // the outputs that it spends, in the wallet's encoding
	Purpose     string
	Channel     [32]byte // of a close and a refund
	// Fee is the miner's, of all but closes and refunds; what is left over from
	// the coins that are spent went to others.
	Fee money.Satoshis
	// Outputs are the coins that it makes for this wallet; all have its Txid.
	// They are stored with it and not returned when it is read: see Coins.
	Outputs []Coin

	State  string
	Height uint32 // of its block; of a conflicted one, of the tip when that was found
	// Final says that it is not looked at any more: buried or in conflict for
	// long enough.
	Final     bool
	Tries     int // failed broadcasts since it was last seen
	NextTry   time.Time
	LastError string
	Created   time.Time // set by the ledger
}

func (o *Outgoing) check() error {
	switch o.Purpose {
	case Funding, Sweep, Send, Consolidation:
	case Close, Refund:
		if o.Channel == [32]byte{} {
			return errors.New("without its channel")
		}
	default:
		return fmt.Errorf("unknown purpose %q", o.Purpose)
	}
	switch o.State {
	case Pending, Seen, Mined, Conflicted:
	default:
		return fmt.Errorf("unknown state %q", o.State)
	}
	switch {
	case o.Txid == [32]byte{}:
		return errors.New("without its txid")
	case len(o.Raw) == 0 || len(o.Raw) > MaxRaw || len(o.PrevOutputs) > MaxRaw:
		return fmt.Errorf("%d and %d bytes: %w", len(o.Raw), len(o.PrevOutputs), money.ErrRange)
	}
	for _, c := range o.Outputs {
		if c.Txid != o.Txid {
			return errors.New("with an output of another transaction")
		}
	}
	return validAmounts(o.Fee)
}

// pays reports whether it moves coins of the wallet, as opposed to the output
// of a channel.
func (o *Outgoing) pays() bool {
	return o.Purpose != Close && o.Purpose != Refund
}

// PutOutgoing stores a transaction that is to be broadcast, in state Pending
// unless it says otherwise, and its Outputs. To store it again changes nothing,
// and with other bytes is ErrChanged.
func (l *Ledger) PutOutgoing(ctx context.Context, o Outgoing) error {
	return l.Apply(ctx, Batch{Outbox: []Outgoing{o}})
}

func (u *update) putOutgoing(o Outgoing) error {
	if o.State == "" {
		o.State = Pending
	}
	if err := o.check(); err != nil {
		return fmt.Errorf("outgoing %x: %w", o.Txid[:4], err)
	}
	old, err := selectOutgoing(u.ctx, u.tx, o.Txid)
	if err == nil {
		if !bytes.Equal(old.Raw, o.Raw) || old.Purpose != o.Purpose || old.Channel != o.Channel || old.Fee != o.Fee {
			return fmt.Errorf("outgoing %x: %w", o.Txid[:4], ErrChanged)
		}
		return nil
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if o.NextTry.IsZero() {
		o.NextTry = u.now
	}
	if _, err := u.tx.ExecContext(u.ctx, `INSERT INTO outgoing (txid, raw, prev_outputs, purpose, channel, fee, state,
		height, final, tries, next_try, last_error, created) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		o.Txid[:], o.Raw, bytes.Clone(o.PrevOutputs), o.Purpose, nullHash(o.Channel), int64(o.Fee), o.State, o.Height,
		o.Final, o.Tries, millis(o.NextTry), cut(o.LastError), millis(u.now)); err != nil {
		return err
	}
	for _, c := range o.Outputs {
		c.State = CoinPending
		if err := u.putCoin(c); err != nil {
			return err
		}
	}
	return u.follow(o)
}

// UpdateOutgoing stores the state, height, tries, next try and last error of a
// transaction, and moves coins and channels along with its state. ErrNotFound
// where it was never put.
func (l *Ledger) UpdateOutgoing(ctx context.Context, o Outgoing) error {
	return l.Apply(ctx, Batch{Updates: []Outgoing{o}})
}

func (u *update) updateOutgoing(o Outgoing) error {
	old, err := selectOutgoing(u.ctx, u.tx, o.Txid)
	if err != nil {
		return err
	}
	o.Raw, o.PrevOutputs, o.Purpose, o.Channel, o.Fee = old.Raw, old.PrevOutputs, old.Purpose, old.Channel, old.Fee
	o.Outputs = nil
	if err := o.check(); err != nil {
		return fmt.Errorf("outgoing %x: %w", o.Txid[:4], err)
	}
	if _, err := u.tx.ExecContext(u.ctx, `UPDATE outgoing SET state = ?, height = ?, final = ?, tries = ?, next_try = ?,
		last_error = ? WHERE txid = ?`, o.State, o.Height, o.Final, o.Tries, millis(o.NextTry), cut(o.LastError),
		o.Txid[:]); err != nil {
		return err
	}
	if o.State == old.State && o.Height == old.Height {
		return nil
	}
	return u.follow(o)
}

// follow moves the coins and channels of o to where its state puts them.
func (u *update) follow(o Outgoing) error {
	u.touch(o.Txid)
	height := uint32(0)
	if o.State == Mined {
		height = o.Height
	}
	// What a state makes of the coins that the transaction makes, except those
	// that are spent already, and of the ones that it spends.
	made, spent := CoinPending, CoinReserved
	switch o.State {
	case Seen, Mined:
		made, spent = CoinUnspent, CoinSpent
	case Conflicted:
		made = CoinVoid
	}
	if _, err := u.tx.ExecContext(u.ctx, `UPDATE coins SET height = ?2,
		state = CASE WHEN state IN ('reserved', 'spent') THEN state ELSE ?3 END WHERE txid = ?1`,
		o.Txid[:], height, made); err != nil {
		return err
	}
	if _, err := u.tx.ExecContext(u.ctx, `UPDATE coins SET state = ?2 WHERE spent_by = ?1 AND state IN ('reserved', 'spent')`,
		o.Txid[:], spent); err != nil {
		return err
	}
	return u.followChannels(o)
}

func (u *update) followChannels(o Outgoing) error {
	onNetwork := o.State == Seen || o.State == Mined
	switch {
	case o.Purpose == Close && onNetwork:
		return u.moveIfThere(Move{Channel: o.Channel, State: StateClosed, CloseTxid: o.Txid})
	case o.Purpose == Refund && onNetwork:
		return u.moveIfThere(Move{Channel: o.Channel, State: StateRefunded, CloseTxid: o.Txid})
	case o.Purpose == Close && o.State == Conflicted:
		// The one thing that can conflict with a close is the refund.
		return u.moveIfThere(Move{Channel: o.Channel, State: StateRefunded})
	case o.Purpose == Refund && o.State == Conflicted:
		// And the other way round; which close it was is found on the chain.
		return u.moveIfThere(Move{Channel: o.Channel, State: StateClosed})
	case o.Purpose == Funding && o.State == Conflicted:
		return u.moveFunded(o.Txid, `state IN ('opening', 'open', 'closing')`, StateFailed)
	}
	return nil
}

func (u *update) moveIfThere(m Move) error {
	if err := u.move(m); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

func (u *update) moveFunded(funding [32]byte, which, state string) error {
	rows, err := u.tx.QueryContext(u.ctx, `SELECT id FROM channels WHERE funding_txid = ? AND `+which, funding[:])
	if err != nil {
		return err
	}
	defer rows.Close()
	ids, err := scanHashes(rows)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := u.move(Move{Channel: id, State: state}); err != nil {
			return err
		}
	}
	return nil
}

func scanHashes(rows *sql.Rows) (all [][32]byte, err error) {
	for rows.Next() {
		var h [32]byte
		if err := rows.Scan(fixed(h[:])); err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, rows.Err()
}

// Outgoing returns one transaction, or ErrNotFound.
func (l *Ledger) Outgoing(ctx context.Context, txid [32]byte) (Outgoing, error) {
	return selectOutgoing(ctx, l.db.Read(), txid)
}

// OutgoingDue returns up to limit transactions that are to be looked at by now
// and are not Final, in the order in which they were put, so that a parent
// comes before its child.
func (l *Ledger) OutgoingDue(ctx context.Context, now time.Time, limit int) ([]Outgoing, error) {
	return queryOutgoing(ctx, l.db.Read(), selectOutgoings+` WHERE final = 0 AND next_try <= ? ORDER BY seq LIMIT ?`,
		millis(now), limit)
}

// OutgoingUnsettled returns all transactions that are not Final, in the order
// in which they were put.
func (l *Ledger) OutgoingUnsettled(ctx context.Context) ([]Outgoing, error) {
	return queryOutgoing(ctx, l.db.Read(), selectOutgoings+` WHERE final = 0 ORDER BY seq`)
}

// OutgoingFor returns the newest transactions of a purpose, at most limit.
func (l *Ledger) OutgoingFor(ctx context.Context, purpose string, limit int) ([]Outgoing, error) {
	return queryOutgoing(ctx, l.db.Read(), selectOutgoings+` WHERE purpose = ? ORDER BY seq DESC LIMIT ?`, purpose, limit)
}

const selectOutgoings = `SELECT txid, raw, prev_outputs, purpose, channel, fee, state, height, final, tries, next_try,
	last_error, created FROM outgoing`

func selectOutgoing(ctx context.Context, q querier, txid [32]byte) (Outgoing, error) {
	found, err := queryOutgoing(ctx, q, selectOutgoings+` WHERE txid = ?`, txid[:])
	if err != nil {
		return Outgoing{}, err
	}
	if len(found) == 0 {
		return Outgoing{}, fmt.Errorf("outgoing %x: %w", txid[:4], ErrNotFound)
	}
	return found[0], nil
}

func queryOutgoing(ctx context.Context, q querier, query string, args ...any) ([]Outgoing, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	defer rows.Close()
	var all []Outgoing
	for rows.Next() {
		var o Outgoing
		var next, created int64
		if err := rows.Scan(fixed(o.Txid[:]), &o.Raw, &o.PrevOutputs, &o.Purpose, fixed(o.Channel[:]), &o.Fee, &o.State,
			&o.Height, &o.Final, &o.Tries, &next, &o.LastError, &created); err != nil {
			return nil, fmt.Errorf("read outbox: %w", err)
		}
		o.NextTry, o.Created = fromMillis(next), fromMillis(created)
		all = append(all, o)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return all, nil
}

func cut(text string) string { return text[:min(len(text), MaxLastError)] }

// EachOutgoing calls fn with every transaction, in the order in which they were
// put, until it returns an error. Its use of memory does not grow with the
// ledger.
func (l *Ledger) EachOutgoing(ctx context.Context, fn func(Outgoing) error) error {
	after := int64(0)
	for {
		page, last, err := l.outgoingPage(ctx, after)
		if err != nil {
			return fmt.Errorf("read outbox: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		for _, o := range page {
			if err := fn(o); err != nil {
				return err
			}
		}
		after = last
	}
}

// outgoingPage returns some transactions after one, and the place of the last.
func (l *Ledger) outgoingPage(ctx context.Context, after int64) (page []Outgoing, last int64, err error) {
	const size = 64 // a sweep has 30 kB
	page, err = queryOutgoing(ctx, l.db.Read(), selectOutgoings+` WHERE seq > ? ORDER BY seq LIMIT ?`, after, size)
	if err != nil || len(page) == 0 {
		return nil, 0, err
	}
	txid := page[len(page)-1].Txid
	err = one(ctx, l.db.Read(), &last, `SELECT seq FROM outgoing WHERE txid = ?`, txid[:])
	return page, last, err
}
