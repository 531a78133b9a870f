package ledger

import (
	"context"
	"database/sql"
	"fmt"
)

// Check reads the whole ledger and recomputes the journal from the rows.
// ErrBooks says that they contradict each other, db.ErrCorrupt that the file
// is damaged.
func (l *Ledger) Check(ctx context.Context) error {
	if err := l.db.Check(ctx); err != nil {
		return fmt.Errorf("check ledger: %w", err)
	}
	return l.checkBooks(ctx)
}

func (l *Ledger) checkBooks(ctx context.Context) error {
	// One read transaction, so that all of it is of the same moment.
	tx, err := l.db.Read().BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("check ledger: %w", err)
	}
	defer tx.Rollback() // nothing was written
	if err := checkBooks(ctx, tx); err != nil {
		return fmt.Errorf("check ledger: %w", err)
	}
	return nil
}

func checkBooks(ctx context.Context, tx *sql.Tx) error {
	for _, rule := range rules {
		var n int64
		if err := one(ctx, tx, &n, rule.count); err != nil {
			return err
		}
		if n != 0 {
			return fmt.Errorf("%d %s: %w", n, rule.text, ErrBooks)
		}
	}
	return checkSubjects(ctx, tx)
}

// rules are counts that are zero in books that are right.
var rules = []struct{ text, count string }{
	{"groups of entries that do not sum to zero", `SELECT count(*) FROM
			(SELECT 1 FROM entries GROUP BY tx_group HAVING sum(amount) != 0)`},
	{"coins reserved for nothing", `SELECT count(*) FROM coins WHERE state = 'reserved' AND spent_by IS NULL`},
	{"coins with a spender that are free", `SELECT count(*) FROM coins
			WHERE state IN ('pending', 'unspent', 'void') AND spent_by IS NOT NULL`},
	{"satoshis by which the wallet's account and its coins differ", `SELECT abs(
			(SELECT coalesce(sum(amount), 0) FROM entries WHERE account = 'wallet') -
			(SELECT coalesce(sum(value), 0) FROM coins AS c
				LEFT JOIN outgoing AS maker ON maker.txid = c.txid AND ` + bookedRow("maker") + `
				LEFT JOIN outgoing AS spender ON spender.txid = c.spent_by AND ` + bookedRow("spender") + `
				WHERE c.state = 'unspent' OR c.state = 'pending' AND maker.txid IS NOT NULL
				OR c.state = 'reserved' AND spender.txid IS NULL))`},
	{"entries missing from the journal", `SELECT coalesce(max(id), 0) - count(*) FROM entries`},
	{"transactions whose coins are not where its state puts them", `SELECT count(*) FROM outgoing AS o JOIN coins AS c
		ON c.spent_by = o.txid AND c.state != CASE WHEN o.state IN ('seen', 'mined') THEN 'spent' ELSE 'reserved' END
		OR c.txid = o.txid AND c.state = CASE WHEN o.state IN ('seen', 'mined') THEN 'pending' ELSE 'unspent' END`},
	{"closes on the network of channels that are not closed by them", `SELECT count(*) FROM outgoing AS o
		JOIN channels AS c ON c.id = o.channel WHERE o.purpose = 'close' AND o.state IN ('seen', 'mined')
		AND (c.state != 'closed' OR c.close_txid IS NOT o.txid)
		AND NOT EXISTS (SELECT 1 FROM outgoing AS other WHERE other.channel = o.channel AND other.txid != o.txid)`},
	{"channels whose titles have more than the channel", `SELECT count(*) FROM channels AS c JOIN
		(SELECT channel, sum(commitments) AS commitments, sum(bytes) AS bytes, sum(payee) AS payee, sum(creator) AS creator
			FROM channel_titles GROUP BY channel) AS t ON t.channel = c.id
		WHERE t.commitments > c.seq OR t.bytes > c.bytes OR t.payee > c.payee OR t.creator > c.creator`},
	{"channels whose creators have more than the channel", `SELECT count(*) FROM channels AS c JOIN
		(SELECT channel, sum(amount) AS amount FROM channel_creators GROUP BY channel) AS t ON t.channel = c.id
		WHERE t.amount > c.creator`},
	{"titles and creators of channels that are not there", `SELECT count(*) FROM
		(SELECT channel FROM channel_titles UNION SELECT channel FROM channel_creators) WHERE channel NOT IN (SELECT id FROM channels)`},
}

func checkSubjects(ctx context.Context, tx *sql.Tx) error {
	subjects, err := allSubjects(ctx, tx)
	if err != nil {
		return err
	}
	for _, s := range subjects {
		due, _, err := dueFor(ctx, tx, s)
		if err != nil {
			return err
		}
		have, err := posted(ctx, tx, s)
		if err != nil {
			return err
		}
		if off := due.minus(have); len(off) > 0 {
			return fmt.Errorf("%s %x is off by %v: %w", s.about, s.key, off, ErrBooks)
		}
	}
	return nil
}

// bookedRow is Outgoing.booked in SQL.
func bookedRow(table string) string {
	return table + `.purpose NOT IN ('close', 'refund') AND ` + table + `.state != 'conflicted'`
}

func allSubjects(ctx context.Context, q querier) ([]subject, error) {
	rows, err := q.QueryContext(ctx, `SELECT DISTINCT about, subject, 0 FROM entries
		UNION ALL SELECT 'channel', id, 0 FROM channels
		UNION ALL SELECT 'payment', txid, 0 FROM outgoing
		UNION ALL SELECT 'coins', txid, idx FROM coins`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	seen := make(map[subject]bool)
	var all []subject
	for rows.Next() {
		var about string
		var key []byte
		var index uint32
		if err := rows.Scan(&about, &key, &index); err != nil {
			return nil, err
		}
		s := subject{about, string(key)}
		if about == "coins" {
			s = subject{aboutCoin, Outpoint{[32]byte(key), index}.key()}
		}
		if !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all, rows.Err()
}
