package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

// Kinds of a Record.
const (
	KindEarning       = "earning"       // a channel settled that paid this node
	KindPurchase      = "purchase"      // a channel settled that this node paid in
	KindTakenBack     = "taken back"    // such a channel that paid nothing
	KindFunding       = "funding"       // capacity bound in channels: costs a fee only
	KindPayout        = "payout"        // earnings swept to the owner
	KindPayment       = "payment"       // sent to somebody
	KindConsolidation = "consolidation" // coins joined for a fee
	KindDeposit       = "deposit"       // a coin from outside
	KindWithdrawal    = "withdrawal"    // a coin that somebody with the same words spent
)

// Record is one business of the journal in one line, as a tax return wants it.
//
// Records are made from the journal and are as lasting: what turns out
// otherwise later, by a double spend or a reorganisation, is a further Record
// of the opposite sign. Over all records, Amount - Fee - Royalty, the royalty of
// earnings left out, is what the wallet holds, channels included.
type Record struct {
	At    time.Time // when it was booked
	Kind  string    // one of the constants
	State string    // of the transaction now: Pending, Seen, Mined or Conflicted
	Title string    // name; what it is about where there are several is in lines of its own
	// InfoHash, Peer and Channel are of the channel; zero where there is none.
	InfoHash [20]byte
	Peer     [33]byte
	Channel  [32]byte
	Bytes    int64 // paid for
	Amount   int64 // satoshis, positive for what came in, negative for what went out
	Fee      int64 // satoshis to miners, borne by this node
	Royalty  int64 // satoshis to creators: of a purchase paid by this node, of an earning by the payer
	Txid     [32]byte
}

func (r *Record) empty() bool { return r.Amount == 0 && r.Fee == 0 && r.Royalty == 0 }

// Period is a span of time. A zero time leaves that end open.
type Period struct {
	From, To time.Time // To is not part of it
}

// millis are the ends in milliseconds, To as the last one that is part of it.
func (p Period) millis() (from, last int64) {
	last = 1<<63 - 1
	if !p.To.IsZero() {
		last = p.To.UnixMilli() - 1
	}
	return millis(p.From), last
}

// recordPage is how many entries are read at a time: between two pages nothing
// is held in the database, however slow the reader is.
const recordPage = 1000

// Records calls fn with each record of a period in the order in which they were
// booked, until one returns an error. Its use of memory does not grow with the
// ledger.
func (l *Ledger) Records(ctx context.Context, p Period, fn func(Record) error) error {
	var group []recordLine
	after := int64(0)
	for {
		page, err := l.recordLines(ctx, p, after)
		if err != nil {
			return fmt.Errorf("read records: %w", err)
		}
		for _, line := range page {
			after = line.id
			if len(group) > 0 && group[0].group != line.group {
				if err := emit(group, fn); err != nil {
					return err
				}
				group = group[:0]
			}
			group = append(group, line)
		}
		if len(page) < recordPage {
			return emit(group, fn)
		}
	}
}

// recordLine is an entry and what there is to know about it.
type recordLine struct {
	id, group, at int64
	about         string
	account       string
	amount        int64
	channel       [32]byte
	title         [20]byte
	txid          [32]byte
	role          Role // 0 without a channel
	peer          [33]byte
	name          string
	bytes, payee  int64 // of the channel's share for the title
	creator       int64
	state         string // of the outgoing transaction, "" where it is none
	height        int64
}

// shareOf is a number of the share that the title of entry e has of its channel
// c, whose former part is t.
func shareOf(column string) string {
	return `(coalesce(t.` + column + `, 0) + CASE WHEN c.title = e.title THEN c.` + column + ` -
		(SELECT coalesce(sum(` + column + `), 0) FROM channel_titles WHERE channel = c.id) ELSE 0 END)`
}

// entriesWithShares joins entries with what shareOf needs.
const entriesWithShares = ` FROM entries AS e LEFT JOIN channels AS c ON c.id = e.channel
	LEFT JOIN channel_titles AS t ON t.channel = e.channel AND t.title = e.title `

var selectRecordLines = `SELECT e.id, e.tx_group, e.at, e.about, e.account, e.amount, e.channel, e.title, e.txid,
	coalesce(c.role, 0), c.peer_key, coalesce(CASE WHEN c.title = e.title THEN c.title_name ELSE t.name END, ''),
	coalesce(` + shareOf("bytes") + `, 0), coalesce(` + shareOf("payee") + `, 0), coalesce(` + shareOf("creator") + `, 0),
	coalesce((SELECT state FROM outgoing WHERE txid = e.txid), ''),
	coalesce((SELECT max(height) FROM coins WHERE txid = e.txid), 0)` + entriesWithShares + `
	WHERE e.id > ? AND e.at BETWEEN ? AND ? AND e.account NOT IN ('wallet', 'receivable') ORDER BY e.id LIMIT ?`

func (l *Ledger) recordLines(ctx context.Context, p Period, after int64) ([]recordLine, error) {
	from, last := p.millis()
	rows, err := l.db.Read().QueryContext(ctx, selectRecordLines, after, from, last, recordPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return scanRecordLines(rows)
}

func scanRecordLines(rows *sql.Rows) (all []recordLine, err error) {
	for rows.Next() {
		var r recordLine
		if err := rows.Scan(&r.id, &r.group, &r.at, &r.about, &r.account, &r.amount, fixed(r.channel[:]), fixed(r.title[:]),
			fixed(r.txid[:]), &r.role, fixed(r.peer[:]), &r.name, &r.bytes, &r.payee, &r.creator, &r.state, &r.height); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// emit makes the records of one group of entries.
func emit(group []recordLine, fn func(Record) error) error {
	if len(group) == 0 {
		return nil
	}
	var records []Record
	switch group[0].about {
	case aboutChannel:
		records = channelRecords(group)
	case aboutPayment:
		records = []Record{paymentRecord(group)}
	default:
		records = []Record{coinRecord(group)}
	}
	for _, r := range records {
		if r.empty() {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *recordLine) record(kind string) Record {
	r := Record{At: fromMillis(l.at), Kind: kind, State: l.state, Title: l.name, InfoHash: l.title, Peer: l.peer,
		Channel: l.channel, Txid: l.txid}
	if r.State == "" { // somebody else's transaction
		r.State = Seen
		if l.height > 0 {
			r.State = Mined
		}
	}
	return r
}

// channelRecords makes one record for each title of a settled channel.
func channelRecords(group []recordLine) []Record {
	kind := KindEarning
	if group[0].role == Payer {
		kind = KindTakenBack
		if slices.ContainsFunc(group, func(l recordLine) bool { return l.account == AccountPurchases || l.account == AccountRoyalties }) {
			kind = KindPurchase
		}
	}
	var all []Record
	for i := range group {
		line := &group[i]
		at := slices.IndexFunc(all, func(r Record) bool { return r.InfoHash == line.title })
		if at < 0 {
			at = len(all)
			all = append(all, line.record(kind))
		}
		r := &all[at]
		switch line.account {
		case AccountSales:
			r.Amount -= line.amount
			if line.payee != 0 {
				// An earning is booked whole, and undone whole.
				r.Royalty -= line.amount / line.payee * line.creator
				r.Bytes -= line.amount / line.payee * line.bytes
			}
		case AccountPurchases:
			r.Amount -= line.amount
		case AccountRoyalties:
			r.Royalty += line.amount
		case AccountFeesChannel:
			r.Fee += line.amount
		}
		if kind == KindPurchase && (line.account == AccountPurchases || line.account == AccountRoyalties && line.payee == 0) {
			r.Bytes += sign(line.amount) * line.bytes
		}
	}
	slices.SortFunc(all, func(a, b Record) int { return bytes.Compare(a.InfoHash[:], b.InfoHash[:]) })
	return all
}

func sign(n int64) int64 {
	if n < 0 {
		return -1
	}
	return 1
}

func paymentRecord(group []recordLine) Record {
	r := group[0].record(KindConsolidation)
	r.Title, r.InfoHash, r.Peer, r.Channel = "", [20]byte{}, [33]byte{}, [32]byte{}
	channels := 0
	for i := range group {
		line := &group[i]
		switch line.account {
		case AccountPayouts:
			r.Kind = KindPayout
			r.Amount -= line.amount
		case AccountSent:
			r.Kind = KindPayment
			r.Amount -= line.amount
		case AccountFeesChannel:
			r.Kind = KindFunding
			r.Fee += line.amount
		case AccountEscrow:
			r.Kind = KindFunding
			if channels++; channels == 1 {
				r.Title, r.InfoHash, r.Peer, r.Channel = line.name, line.title, line.peer, line.channel
			} else { // one funding of several channels is not any one's
				r.Title, r.InfoHash, r.Peer, r.Channel = "", [20]byte{}, [33]byte{}, [32]byte{}
			}
		default:
			r.Fee += line.amount
		}
	}
	return r
}

func coinRecord(group []recordLine) Record {
	r := group[0].record(KindDeposit)
	for i := range group {
		if group[i].account == AccountWithdrawn {
			r.Kind = KindWithdrawal
		}
		r.Amount -= group[i].amount
	}
	return r
}
