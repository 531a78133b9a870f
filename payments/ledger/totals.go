package ledger

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Total is what a day, a title, or a channel came to. Amounts are satoshis.
type Total struct {
	Day      time.Time // of TotalsByDay: its beginning, UTC
	Title    [20]byte
	Name     string
	Channel  [32]byte // of TotalsByChannel
	Creator  string   // for who lists royalties in this form: the creator's address
	Channels int      // how many there are in it; not told by TotalsByDay
	// What payers paid this node: settled by a transaction in a block, by one
	// that is not in a block yet, and in channels that are not settled.
	Settled, OnTheWay, Open int64
	Royalty                 int64 // paid to creators by those channels
	RoyaltySettled          int64 // with Creator: the part of Royalty that is in a block
	Bytes                   int64 // paid for by them
	Bought                  int64 // paid by this node, royalties included
	Fees                    int64 // to miners, of channels and, by day, of payments
	PaidOut                 int64 // by day: swept to the owner, and sent, where that is in a block
	PayingOut               int64 // by day: the same on its way
}

// totalJSON is a Total as it is written.
type totalJSON struct {
	Day            string `json:"day,omitempty"`
	Channel        string `json:"channel,omitempty"`
	InfoHash       string `json:"info_hash,omitempty"`
	Name           string `json:"name,omitempty"`
	Creator        string `json:"creator,omitempty"`
	Channels       int    `json:"channels,omitempty"`
	Settled        int64  `json:"settled"`
	OnTheWay       int64  `json:"on_the_way"`
	Open           int64  `json:"open"`
	Royalty        int64  `json:"royalty"`
	RoyaltySettled int64  `json:"royalty_settled,omitempty"`
	Bytes          int64  `json:"bytes"`
	Bought         int64  `json:"bought"`
	Fees           int64  `json:"fees"`
	PaidOut        int64  `json:"paid_out"`
	PayingOut      int64  `json:"paying_out"`
}

// MarshalJSON writes the total with hashes in hexadecimal, and what does not
// belong to its kind left out.
func (t Total) MarshalJSON() ([]byte, error) {
	v := totalJSON{Channel: hexOf(t.Channel[:]), InfoHash: hexOf(t.Title[:]), Name: t.Name, Creator: t.Creator, Channels: t.Channels,
		Settled: t.Settled, OnTheWay: t.OnTheWay, Open: t.Open, Royalty: t.Royalty, RoyaltySettled: t.RoyaltySettled, Bytes: t.Bytes,
		Bought: t.Bought, Fees: t.Fees, PaidOut: t.PaidOut, PayingOut: t.PayingOut}
	if !t.Day.IsZero() {
		v.Day = t.Day.UTC().Format(time.DateOnly)
	}
	return json.Marshal(v)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (t *Total) UnmarshalJSON(b []byte) error {
	var v totalJSON
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*t = Total{Name: v.Name, Creator: v.Creator, Channels: v.Channels, Settled: v.Settled, OnTheWay: v.OnTheWay, Open: v.Open,
		Royalty: v.Royalty, RoyaltySettled: v.RoyaltySettled, Bytes: v.Bytes, Bought: v.Bought, Fees: v.Fees, PaidOut: v.PaidOut,
		PayingOut: v.PayingOut}
	var err error
	if v.Day != "" {
		t.Day, err = time.Parse(time.DateOnly, v.Day)
	}
	return errors.Join(err, unhex(t.Channel[:], v.Channel), unhex(t.Title[:], v.InfoHash))
}

// unhex reads what hexOf writes.
func unhex(into []byte, text string) error {
	if text == "" {
		return nil
	}
	if len(text) != hex.EncodedLen(len(into)) {
		return fmt.Errorf("%d digits, want %d", len(text), hex.EncodedLen(len(into)))
	}
	_, err := hex.Decode(into, []byte(text))
	return err
}

// channelTotal are the numbers of a Total, given shares s of channels c with
// the column mined. A title's fees are those of channels that were opened for
// it.
const channelTotal = `
	coalesce(sum(CASE WHEN c.role = 2 AND c.mined THEN s.payee END), 0),
	coalesce(sum(CASE WHEN c.role = 2 AND c.state = 'closed' AND NOT c.mined THEN s.payee END), 0),
	coalesce(sum(CASE WHEN c.role = 2 AND c.state IN ('open', 'closing') THEN s.payee END), 0),
	coalesce(sum(CASE WHEN c.role = 2 AND c.state IN ('open', 'closing', 'closed') THEN s.creator END), 0),
	coalesce(sum(CASE WHEN c.role = 2 AND c.state IN ('open', 'closing', 'closed') THEN s.bytes END), 0),
	coalesce(sum(CASE WHEN c.role = 1 AND c.state NOT IN ('refunded', 'failed') THEN s.payee + s.creator END), 0),
	coalesce(sum(CASE WHEN c.role = 1 AND c.state != 'failed' AND s.opened_for THEN c.fee END), 0), 0, 0`

// TotalsByTitle calls fn with each title's total, ordered by what it earned,
// the most first, until fn returns an error.
func (l *Ledger) TotalsByTitle(ctx context.Context, fn func(Total) error) error {
	return l.totalRows(ctx, fn, func(rows *sql.Rows, t *Total) error {
		var updated, earned int64 // the bare name comes from the newest channel
		return rows.Scan(fixed(t.Title[:]), &t.Name, &updated, &earned, &t.Channels, &t.Settled, &t.OnTheWay, &t.Open, &t.Royalty,
			&t.Bytes, &t.Bought, &t.Fees, &t.PaidOut, &t.PayingOut)
	}, withShares+`SELECT s.title, s.name, max(c.updated), sum(CASE WHEN c.role = 2 THEN s.payee ELSE 0 END) AS earned,
		count(DISTINCT c.id), `+channelTotal+`
		FROM shares AS s JOIN (SELECT c.*, `+closeMined+` AS mined FROM channels AS c) AS c ON c.id = s.channel
		GROUP BY s.title ORDER BY earned DESC, s.title`)
}

// TotalsByChannel calls fn with each channel's total, the oldest first, until
// fn returns an error. Title and Name are those that it served last.
func (l *Ledger) TotalsByChannel(ctx context.Context, fn func(Total) error) error {
	return l.totalRows(ctx, fn, func(rows *sql.Rows, t *Total) error {
		return rows.Scan(fixed(t.Channel[:]), fixed(t.Title[:]), &t.Name, &t.Channels, &t.Settled, &t.OnTheWay, &t.Open, &t.Royalty,
			&t.Bytes, &t.Bought, &t.Fees, &t.PaidOut, &t.PayingOut)
	}, `SELECT c.id, c.title, c.title_name, 1, `+channelTotal+`
		FROM (SELECT c.rowid AS n, c.*, `+closeMined+` AS mined FROM channels AS c) AS c
		JOIN (SELECT rowid AS n, payee, creator, bytes, 1 AS opened_for FROM channels) AS s ON s.n = c.n
		GROUP BY c.n ORDER BY c.n`)
}

// TotalsByDay calls fn with each day on which something was booked, the oldest
// first, until fn returns an error. It leaves out what is not booked: channels
// that are not settled.
func (l *Ledger) TotalsByDay(ctx context.Context, p Period, fn func(Total) error) error {
	from, last := p.millis()
	share := func(column string) string {
		return `coalesce(sum(CASE WHEN e.account = 'sales' THEN CASE WHEN e.amount < 0 THEN 1 ELSE -1 END * ` + shareOf(column) + ` END), 0)`
	}
	return l.totalRows(ctx, fn, func(rows *sql.Rows, t *Total) error {
		var day int64
		if err := rows.Scan(&day, &t.Settled, &t.OnTheWay, &t.Royalty, &t.Bytes, &t.Bought, &t.Fees, &t.PaidOut, &t.PayingOut); err != nil {
			return err
		}
		t.Day = time.Unix(day*86400, 0).UTC()
		return nil
	}, `SELECT e.at / 86400000 AS day,
		-sum(CASE WHEN e.account = 'sales' AND o.txid IS NOT NULL THEN e.amount ELSE 0 END),
		-sum(CASE WHEN e.account = 'sales' AND o.txid IS NULL THEN e.amount ELSE 0 END),
		`+share("creator")+`, `+share("bytes")+`,
		sum(CASE WHEN e.account IN ('purchases', 'royalties') THEN e.amount ELSE 0 END),
		sum(CASE WHEN e.account LIKE 'fees:%' THEN e.amount ELSE 0 END),
		sum(CASE WHEN e.account IN ('payouts', 'sent') AND o.txid IS NOT NULL THEN e.amount ELSE 0 END),
		sum(CASE WHEN e.account IN ('payouts', 'sent') AND o.txid IS NULL THEN e.amount ELSE 0 END)
		`+entriesWithShares+` LEFT JOIN outgoing AS o ON o.txid = e.txid AND o.state = 'mined'
		WHERE e.at BETWEEN ? AND ? AND e.account NOT IN ('wallet', 'receivable', 'escrow', 'deposits', 'withdrawn')
		GROUP BY day ORDER BY day`, from, last)
}

func (l *Ledger) totalRows(ctx context.Context, fn func(Total) error, scan func(*sql.Rows, *Total) error, query string, args ...any) error {
	rows, err := l.db.Read().QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read totals: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var t Total
		if err := scan(rows, &t); err != nil {
			return fmt.Errorf("read totals: %w", err)
		}
		if err := fn(t); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read totals: %w", err)
	}
	return nil
}
