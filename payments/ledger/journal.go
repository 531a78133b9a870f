package ledger

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/bitcdn/bitcdn/payments/money"
)

// Accounts of the journal. A positive amount adds to what is owned or was
// spent, a negative one says where it came from.
const (
	AccountWallet      = "wallet"       // coins that the wallet has
	AccountEscrow      = "escrow"       // capacity of channels that this node pays in
	AccountReceivable  = "receivable"   // closed channels whose payout is not in a coin (yet)
	AccountSales       = "sales"        // what payers paid this node; negative
	AccountPurchases   = "purchases"    // what this node paid to sellers
	AccountRoyalties   = "royalties"    // and to creators
	AccountPayouts     = "payouts"      // swept to the owner
	AccountSent        = "sent"         // paid to others
	AccountDeposits    = "deposits"     // coins that came from outside; negative
	AccountWithdrawn   = "withdrawn"    // coins that somebody with the same words spent
	AccountFeesChannel = "fees:channel" // miners' fees of fundings and closes
	AccountFeesSweep   = "fees:sweep"   // and of consolidations
	AccountFeesSend    = "fees:send"
)

// Entry is one line of the journal.
type Entry struct {
	ID      int64 // rises with time
	Group   int64 // entries of a group sum to zero
	At      time.Time
	Account string
	Amount  int64 // satoshis
	Channel [32]byte
	Title   [20]byte
	Txid    [32]byte
	Note    string
}

// EntryFilter selects entries. The zero value selects all.
type EntryFilter struct {
	Account string
	Channel *[32]byte
	Title   *[20]byte
	Txid    *[32]byte
	After   int64 // only entries with a larger ID
	Limit   int   // 0: 1000
}

// Entries returns the entries that f selects, the oldest first.
func (l *Ledger) Entries(ctx context.Context, f EntryFilter) ([]Entry, error) {
	query := `SELECT id, tx_group, at, account, amount, channel, title, txid, note FROM entries WHERE id > ?`
	args := []any{f.After}
	add := func(clause string, value any) { query, args = query+` AND `+clause, append(args, value) }
	if f.Account != "" {
		add(`account = ?`, f.Account)
	}
	if f.Channel != nil {
		add(`channel = ?`, f.Channel[:])
	}
	if f.Title != nil {
		add(`title = ?`, f.Title[:])
	}
	if f.Txid != nil {
		add(`txid = ?`, f.Txid[:])
	}
	if f.Limit <= 0 {
		f.Limit = 1000
	}
	rows, err := l.db.Read().QueryContext(ctx, query+` ORDER BY id LIMIT ?`, append(args, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	defer rows.Close()
	var all []Entry
	for rows.Next() {
		var e Entry
		var at int64
		if err := rows.Scan(&e.ID, &e.Group, &at, &e.Account, &e.Amount, fixed(e.Channel[:]), fixed(e.Title[:]),
			fixed(e.Txid[:]), &e.Note); err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		e.At = fromMillis(at)
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return all, nil
}

// What entries are about.
const (
	aboutChannel = "channel"
	aboutPayment = "payment"
	aboutCoin    = "coin"
)

// subject is the thing whose rows determine entries.
type subject struct {
	about string
	key   string // channel id, txid, or txid and index
}

// line is what the entries about a subject add up to, by all that tells them
// apart.
type line struct {
	account string
	channel [32]byte
	title   [20]byte
	txid    [32]byte
}

// lines are amounts by line; no line is zero.
type lines map[line]int64

func (ls lines) add(l line, amount int64) {
	ls[l] += amount
	if ls[l] == 0 {
		delete(ls, l)
	}
}

func (ls lines) sum() (sum int64) {
	for _, amount := range ls {
		sum += amount
	}
	return sum
}

// minus returns ls - posted: what is to be posted still.
func (ls lines) minus(posted lines) lines {
	rest := make(lines)
	for l, amount := range ls {
		rest.add(l, amount)
	}
	for l, amount := range posted {
		rest.add(l, -amount)
	}
	return rest
}

// posted returns what the entries about a subject add up to.
func posted(ctx context.Context, q querier, s subject) (lines, error) {
	rows, err := q.QueryContext(ctx, `SELECT account, channel, title, txid, sum(amount) FROM entries
		WHERE about = ? AND subject = ? GROUP BY 1, 2, 3, 4 HAVING sum(amount) != 0`, s.about, []byte(s.key))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(lines)
	for rows.Next() {
		var l line
		var amount int64
		if err := rows.Scan(&l.account, fixed(l.channel[:]), fixed(l.title[:]), fixed(l.txid[:]), &amount); err != nil {
			return nil, err
		}
		all[l] = amount
	}
	return all, rows.Err()
}

// post appends a group of entries.
func (u *update) post(s subject, ls lines, note string) error {
	if len(ls) == 0 {
		return nil
	}
	if sum := ls.sum(); sum != 0 {
		return fmt.Errorf("entries about %s %x sum to %d: %w", s.about, s.key[:4], sum, ErrUnbalanced)
	}
	order := make([]line, 0, len(ls))
	for l := range ls {
		order = append(order, l)
	}
	slices.SortFunc(order, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.account, b.account), bytes.Compare(a.txid[:], b.txid[:]),
			bytes.Compare(a.channel[:], b.channel[:]), bytes.Compare(a.title[:], b.title[:]))
	})
	var group int64
	if err := u.tx.QueryRowContext(u.ctx, `SELECT coalesce(max(tx_group), 0) + 1 FROM entries`).Scan(&group); err != nil {
		return err
	}
	for _, l := range order {
		if _, err := u.tx.ExecContext(u.ctx, `INSERT INTO entries (tx_group, at, about, subject, account, amount, channel,
			title, txid, note) VALUES (?,?,?,?,?,?,?,?,?,?)`, group, millis(u.now), s.about, []byte(s.key), l.account,
			ls[l], nullHash(l.channel), nullTitle(l.title), nullHash(l.txid), note); err != nil {
			return err
		}
	}
	return nil
}

func nullTitle(t [20]byte) any {
	if t == [20]byte{} {
		return nil
	}
	return t[:]
}

// book posts what the changes so far call for.
func (u *update) book() error {
	subjects := make(map[subject]bool)
	for id := range u.channels {
		subjects[subject{aboutChannel, string(id[:])}] = true
	}
	for txid := range u.txids {
		if err := concerned(u.ctx, u.tx, txid, subjects); err != nil {
			return err
		}
	}
	order := make([]subject, 0, len(subjects))
	for s := range subjects {
		order = append(order, s)
	}
	slices.SortFunc(order, func(a, b subject) int {
		return cmp.Or(cmp.Compare(a.about, b.about), cmp.Compare(a.key, b.key))
	})
	for _, s := range order {
		due, note, err := dueFor(u.ctx, u.tx, s)
		if err != nil {
			return err
		}
		have, err := posted(u.ctx, u.tx, s)
		if err != nil {
			return err
		}
		if err := u.post(s, due.minus(have), note); err != nil {
			return err
		}
	}
	return nil
}

// concerned collects everything whose entries depend on a transaction.
func concerned(ctx context.Context, q querier, txid [32]byte, into map[subject]bool) error {
	into[subject{aboutPayment, string(txid[:])}] = true
	rows, err := q.QueryContext(ctx, `SELECT ?2, id, 0 FROM channels WHERE funding_txid = ?1 OR close_txid = ?1
		UNION ALL SELECT ?3, txid, idx FROM coins WHERE txid = ?1 OR spent_by = ?1`, txid[:], aboutChannel, aboutCoin)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var about string
		var o Outpoint
		if err := rows.Scan(&about, fixed(o.Txid[:]), &o.Index); err != nil {
			return err
		}
		if about == aboutChannel {
			into[subject{about, string(o.Txid[:])}] = true
			continue
		}
		into[subject{about, o.key()}] = true
	}
	return rows.Err()
}

func (o Outpoint) key() string {
	return string(append(o.Txid[:], byte(o.Index), byte(o.Index>>8), byte(o.Index>>16), byte(o.Index>>24)))
}

func outpointOf(key string) (o Outpoint) {
	copy(o.Txid[:], key)
	for i := range 4 {
		o.Index |= uint32(key[32+i]) << (8 * i)
	}
	return o
}

// dueFor returns what the entries about a subject must add up to, given the
// rows as they are. It is the one definition of the books.
func dueFor(ctx context.Context, q querier, s subject) (lines, string, error) {
	switch s.about {
	case aboutChannel:
		return dueForChannel(ctx, q, [32]byte([]byte(s.key)))
	case aboutPayment:
		return dueForPayment(ctx, q, [32]byte([]byte(s.key)))
	}
	return dueForCoin(ctx, q, outpointOf(s.key))
}

// A channel is booked when it is settled. What came back to us is the coin that
// its close made on the branch and index of its payout key.
//
//	payee: wallet + coin, receivable + rest, sales - payee
//	payer: wallet + coin, purchases + payee, royalties + creator, fees + rest, escrow - capacity
//	refunded, payer: wallet + coin, fees + rest, escrow - capacity
//
// Sales, purchases and royalties are those of each title, all else is booked
// under the title for which the channel was opened, as its funding was.
func dueForChannel(ctx context.Context, q querier, id [32]byte) (lines, string, error) {
	due := make(lines)
	found, err := queryChannels(ctx, q, selectChannels+` WHERE id = ?`, id[:])
	if err != nil || len(found) == 0 {
		return due, "", err
	}
	c := found[0]
	note := c.Role.String() + " channel " + c.State
	if c.State != StateClosed && c.State != StateRefunded {
		return due, note, nil
	}
	if c.Role == Payee && c.State == StateRefunded {
		return due, note, nil
	}
	var back int64
	err = one(ctx, q, &back, `SELECT coalesce(sum(value), 0) FROM coins WHERE `+paidBack, nullHash(c.CloseTxid), c.KeyIndex)
	if err != nil {
		return nil, "", err
	}
	shares, err := sharesOf(ctx, q, c)
	if err != nil {
		return nil, "", err
	}
	add := func(account string, title [20]byte, amount int64) {
		due.add(line{account: account, channel: c.ID, title: title, txid: c.CloseTxid}, amount)
	}
	opened := shares[0].Title
	add(AccountWallet, opened, back)
	if c.Role == Payee {
		add(AccountReceivable, opened, int64(c.Payee)-back)
		for _, s := range shares {
			add(AccountSales, s.Title, -int64(s.Payee))
		}
		return due, note, nil
	}
	rest := int64(c.Capacity) - back
	if c.State == StateClosed {
		for _, s := range shares {
			add(AccountPurchases, s.Title, int64(s.Payee))
			add(AccountRoyalties, s.Title, int64(s.Creator))
		}
		rest -= int64(c.Payee + c.Creator)
	}
	add(AccountFeesChannel, opened, rest)
	add(AccountEscrow, opened, -int64(c.Capacity))
	return due, note, nil
}

// branchPayout is the branch of the wallet's keys that channels pay to.
const branchPayout = 3

// paidBack selects the coin that settles a channel with close txid ?1 and key
// index ?2.
const paidBack = `txid = ?1 AND branch = 3 AND key_index = ?2 AND state NOT IN ('pending', 'void')`

// A payment from the wallet's coins is booked from when it is stored until it
// is found in conflict.
//
//	wallet - (coins spent - coins made), fees + fee, and the rest by purpose
func dueForPayment(ctx context.Context, q querier, txid [32]byte) (lines, string, error) {
	due := make(lines)
	o, err := paymentRow(ctx, q, txid)
	if err != nil || o == nil {
		return due, "", err
	}
	if !o.booked() {
		return due, o.Purpose + " " + o.State, nil
	}
	var net int64
	if err := one(ctx, q, &net, `SELECT
		(SELECT coalesce(sum(value), 0) FROM coins WHERE spent_by = ?1 AND state IN ('reserved', 'spent')) -
		(SELECT coalesce(sum(value), 0) FROM coins WHERE txid = ?1 AND state != 'void')`, txid[:]); err != nil {
		return nil, "", err
	}
	rest := net - int64(o.Fee)
	if rest < 0 {
		return nil, "", fmt.Errorf("%s %x pays %d from %d: %w", o.Purpose, txid[:4], int64(o.Fee), net, ErrUnbalanced)
	}
	due.add(line{account: AccountWallet, txid: txid}, -net)
	due.add(line{account: feeAccount(o.Purpose), txid: txid}, int64(o.Fee))
	to := AccountSent
	switch o.Purpose {
	case Funding:
		channels, err := queryChannels(ctx, q, selectChannels+` WHERE funding_txid = ? AND role = ?`, txid[:], Payer)
		if err != nil {
			return nil, "", err
		}
		for _, c := range channels {
			shares, err := sharesOf(ctx, q, c)
			if err != nil {
				return nil, "", err
			}
			due.add(line{account: AccountEscrow, channel: c.ID, title: shares[0].Title, txid: txid}, int64(c.Capacity))
			rest -= int64(c.Capacity)
		}
		if rest < 0 {
			return nil, "", fmt.Errorf("funding %x lacks %d for its channels: %w", txid[:4], -rest, ErrUnbalanced)
		}
		if o.Fee == 0 {
			to = AccountFeesChannel // it was not told, and a funding pays nobody else
		}
	case Sweep:
		to = AccountPayouts
	}
	due.add(line{account: to, txid: txid}, rest)
	return due, o.Purpose, nil
}

func feeAccount(purpose string) string {
	switch purpose {
	case Funding:
		return AccountFeesChannel
	case Sweep, Consolidation:
		return AccountFeesSweep
	}
	return AccountFeesSend
}

// booked reports whether the journal holds o: from when it is stored until it
// is found in conflict.
func (o *Outgoing) booked() bool { return o.pays() && o.State != Conflicted }

// A coin is booked by itself where neither a payment of ours nor the settling
// of a channel accounts for it: it came from outside, or left unknown to us.
func dueForCoin(ctx context.Context, q querier, at Outpoint) (lines, string, error) {
	due := make(lines)
	const note = "coin found"
	rows, err := q.QueryContext(ctx, `SELECT value, state, spent_by, branch, key_index FROM coins WHERE txid = ? AND idx = ?`,
		at.Txid[:], at.Index)
	if err != nil {
		return nil, "", err
	}
	defer rows.Close()
	if !rows.Next() {
		return due, note, rows.Err()
	}
	var c Coin
	if err := rows.Scan(&c.Value, &c.State, fixed(c.SpentBy[:]), &c.Branch, &c.KeyIndex); err != nil {
		return nil, "", err
	}
	if err := rows.Close(); err != nil {
		return nil, "", err
	}
	if c.State == CoinVoid || c.State == CoinPending {
		return due, note, nil
	}
	made, err := paymentRow(ctx, q, at.Txid)
	if err != nil {
		return nil, "", err
	}
	var settles int64
	if c.Branch == branchPayout {
		if err := one(ctx, q, &settles, `SELECT count(*) FROM channels WHERE close_txid = ? AND key_index = ?
			AND (state = 'closed' OR state = 'refunded' AND role = 1)`, at.Txid[:], c.KeyIndex); err != nil {
			return nil, "", err
		}
	}
	value := int64(c.Value)
	if settles == 0 && (made == nil || !made.booked()) {
		due.add(line{account: AccountWallet, txid: at.Txid}, value)
		due.add(line{account: AccountDeposits, txid: at.Txid}, -value)
	}
	if c.State == CoinSpent {
		spender, err := paymentRow(ctx, q, c.SpentBy)
		if err != nil {
			return nil, "", err
		}
		if spender == nil || !spender.booked() {
			due.add(line{account: AccountWallet, txid: at.Txid}, -value)
			due.add(line{account: AccountWithdrawn, txid: at.Txid}, value)
		}
	}
	return due, note, nil
}

// paymentRow returns what the books need of an outgoing transaction, nil where
// there is none.
func paymentRow(ctx context.Context, q querier, txid [32]byte) (*Outgoing, error) {
	rows, err := q.QueryContext(ctx, `SELECT purpose, state, fee FROM outgoing WHERE txid = ?`, txid[:])
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err()
	}
	var o Outgoing
	if err := rows.Scan(&o.Purpose, &o.State, &o.Fee); err != nil {
		return nil, err
	}
	return &o, rows.Close()
}

// one reads a single number.
func one(ctx context.Context, q querier, into *int64, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := rows.Scan(into); err != nil {
		return err
	}
	return rows.Close()
}

// balance returns the sum of an account.
func balance(ctx context.Context, q querier, account string) (sum int64, err error) {
	err = one(ctx, q, &sum, `SELECT coalesce(sum(amount), 0) FROM entries WHERE account = ?`, account)
	return sum, err
}

func satoshis(n int64) (money.Satoshis, error) {
	s := money.Satoshis(n)
	return s, validAmounts(s)
}
