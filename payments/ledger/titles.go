package ledger

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bitcdn/bitcdn/payments/money"
)

// Share is what one channel paid for one of the titles that it served.
type Share struct {
	Channel       Channel // without its Snapshot
	Title         [20]byte
	Name          string
	Rate, Royalty money.Rate // as agreed last
	// Commitments is how many were signed for it; in that of the title that the
	// channel was opened for, the first empty one included.
	Commitments    uint64
	Bytes          int64
	Payee, Creator money.Satoshis
	// Fee is the channel's, in the share of the title that it was opened for.
	Fee money.Satoshis
}

// Shares returns what a title has of each channel that served it, the oldest
// channel first, on one side.
func (l *Ledger) Shares(ctx context.Context, title [20]byte, role Role) ([]Share, error) {
	tx, err := l.db.Read().BeginTx(ctx, nil) // of one moment
	if err != nil {
		return nil, fmt.Errorf("read shares: %w", err)
	}
	defer tx.Rollback() // nothing is written
	channels, err := queryChannels(ctx, tx, selectChannels+` WHERE role = ?1 AND
		(title = ?2 OR id IN (SELECT channel FROM channel_titles WHERE title = ?2)) ORDER BY created, id`, role, title[:])
	if err != nil {
		return nil, err
	}
	var all []Share
	for _, c := range channels {
		shares, err := sharesOf(ctx, tx, c)
		if err != nil {
			return nil, err
		}
		for _, s := range shares {
			if s.Title == title {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// CoinTitles returns the names of the titles that a coin was earned with, none
// for a coin that is no channel's payout.
func (l *Ledger) CoinTitles(ctx context.Context, c Coin) ([]string, error) {
	if c.Branch != branchPayout {
		return nil, nil
	}
	channels, err := queryChannels(ctx, l.db.Read(), selectChannels+` WHERE close_txid = ? AND key_index = ? AND role = ?`,
		c.Txid[:], c.KeyIndex, Payee)
	if err != nil || len(channels) == 0 {
		return nil, err
	}
	shares, err := sharesOf(ctx, l.db.Read(), channels[0])
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range shares {
		if s.Payee > 0 {
			names = append(names, s.Name)
		}
	}
	return names, nil
}

// sharesOf returns the shares of a channel's titles, each title once and first
// that for which it was opened.
func sharesOf(ctx context.Context, q querier, c Channel) ([]Share, error) {
	c.Snapshot = nil
	rows, err := q.QueryContext(ctx, `SELECT title, name, rate, royalty, commitments, bytes, payee, creator
		FROM channel_titles WHERE channel = ? ORDER BY ordinal`, c.ID[:])
	if err != nil {
		return nil, fmt.Errorf("read shares: %w", err)
	}
	defer rows.Close()
	rest := Share{Channel: c, Title: c.Title, Name: c.TitleName, Rate: c.Rate, Royalty: c.Royalty, Commitments: c.Seq,
		Bytes: c.Bytes, Payee: c.Payee, Creator: c.Creator}
	var all []Share
	current := -1
	for rows.Next() {
		s := Share{Channel: c}
		var commitments int64
		if err := rows.Scan(fixed(s.Title[:]), &s.Name, &s.Rate, &s.Royalty, &commitments, &s.Bytes, &s.Payee, &s.Creator); err != nil {
			return nil, fmt.Errorf("read shares: %w", err)
		}
		s.Commitments = uint64(commitments)
		if s.Title == c.Title {
			current = len(all)
		}
		rest.Commitments -= s.Commitments
		rest.Bytes -= s.Bytes
		rest.Payee -= s.Payee
		rest.Creator -= s.Creator
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read shares: %w", err)
	}
	if current < 0 {
		all = append(all, rest)
	} else {
		s := &all[current]
		s.Name, s.Rate, s.Royalty = rest.Name, rest.Rate, rest.Royalty
		s.Commitments += rest.Commitments
		s.Bytes += rest.Bytes
		s.Payee += rest.Payee
		s.Creator += rest.Creator
	}
	all[0].Fee = c.Fee
	return all, nil
}

// leaveTitle gives the title that a channel served until now what it was paid
// since it was taken up.
func (u *update) leaveTitle(old Channel) error {
	_, err := u.tx.ExecContext(u.ctx, `INSERT INTO channel_titles
		(channel, title, ordinal, name, rate, royalty, commitments, bytes, payee, creator)
		SELECT ?1, ?2, count(*), ?3, ?4, ?5, ?6 - coalesce(sum(commitments), 0), ?7 - coalesce(sum(bytes), 0),
			?8 - coalesce(sum(payee), 0), ?9 - coalesce(sum(creator), 0)
			FROM channel_titles WHERE channel = ?1
		ON CONFLICT (channel, title) DO UPDATE SET name = excluded.name, rate = excluded.rate, royalty = excluded.royalty,
			commitments = commitments + excluded.commitments, bytes = bytes + excluded.bytes,
			payee = payee + excluded.payee, creator = creator + excluded.creator`,
		old.ID[:], old.Title[:], old.TitleName, int64(old.Rate), int64(old.Royalty), int64(old.Seq), old.Bytes,
		int64(old.Payee), int64(old.Creator))
	return err
}

const saveCreator = `INSERT INTO channel_creators (channel, hash, amount) VALUES (?, ?, ?)
	ON CONFLICT (channel, hash) DO UPDATE SET amount = max(amount, excluded.amount) RETURNING amount`

func (u *update) saveCreators(c Channel) error {
	for _, a := range c.Creators {
		var stored money.Satoshis
		if err := u.tx.StmtContext(u.ctx, u.ledger.saveCreator).QueryRowContext(u.ctx, c.ID[:], a.Hash[:], int64(a.Amount)).
			Scan(&stored); err != nil {
			return err
		}
		if stored != a.Amount {
			return fmt.Errorf("creator %x gets %s, had %s: %w", a.Hash[:4], a.Amount, stored, ErrStale)
		}
	}
	return nil
}

// parseCreators reads what selectChannels makes of a channel's creators.
func parseCreators(text string) (all []CreatorAmount, err error) {
	for field := range strings.FieldsSeq(text) {
		var a CreatorAmount
		const digits = 2 * len(a.Hash)
		if len(field) <= digits {
			return nil, fmt.Errorf("creator %q", field)
		}
		_, badHash := hex.Decode(a.Hash[:], []byte(field[:digits]))
		amount, badAmount := strconv.ParseInt(field[digits:], 10, 64)
		if err := errors.Join(badHash, badAmount); err != nil {
			return nil, fmt.Errorf("creator %q: %w", field, err)
		}
		a.Amount = money.Satoshis(amount)
		all = append(all, a)
	}
	return all, nil
}

// withShares puts before a query the table shares: what each channel paid for
// each title, possibly in two rows.
const withShares = `WITH done AS (SELECT channel, sum(bytes) AS bytes, sum(payee) AS payee, sum(creator) AS creator
		FROM channel_titles GROUP BY channel),
	shares AS (
		SELECT channel, title, name, ordinal = 0 AS opened_for, bytes, payee, creator FROM channel_titles
		UNION ALL
		SELECT id, title, title_name, done.channel IS NULL, channels.bytes - coalesce(done.bytes, 0),
			channels.payee - coalesce(done.payee, 0), channels.creator - coalesce(done.creator, 0)
			FROM channels LEFT JOIN done ON done.channel = channels.id) `

// CreatorRoyalties is what one creator got by the channels of one side.
type CreatorRoyalties struct {
	// Hash is of the creator's address; zero for what went to creators that the
	// ledger does not know.
	Hash [20]byte
	// As in TitleEarnings. Of channels that this node pays in, those count as
	// settled whose close is known to be in a block.
	Unsettled, Settled money.Satoshis
	Channels           int
}

// RoyaltiesByCreator returns what each creator got by channels in which this
// node has a role, the most first and what went to unknown ones last.
func (l *Ledger) RoyaltiesByCreator(ctx context.Context, role Role) ([]CreatorRoyalties, error) {
	rows, err := l.db.Read().QueryContext(ctx, `WITH known AS (SELECT channel, sum(amount) AS amount FROM channel_creators GROUP BY channel),
		paid AS (SELECT channel, hash, amount FROM channel_creators
			UNION ALL SELECT id, zeroblob(20), creator - coalesce(known.amount, 0) FROM channels LEFT JOIN known ON known.channel = id)
		SELECT p.hash, sum(CASE WHEN `+closeMined+` THEN 0 ELSE p.amount END), sum(CASE WHEN `+closeMined+` THEN p.amount ELSE 0 END), count(*)
		FROM paid AS p JOIN channels AS c ON c.id = p.channel
		WHERE p.amount > 0 AND c.role = ? AND c.state IN ('open', 'closing', 'closed')
		GROUP BY p.hash ORDER BY p.hash = zeroblob(20), sum(p.amount) DESC, p.hash`, role)
	if err != nil {
		return nil, fmt.Errorf("read royalties: %w", err)
	}
	defer rows.Close()
	var all []CreatorRoyalties
	for rows.Next() {
		var r CreatorRoyalties
		if err := rows.Scan(fixed(r.Hash[:]), &r.Unsettled, &r.Settled, &r.Channels); err != nil {
			return nil, fmt.Errorf("read royalties: %w", err)
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read royalties: %w", err)
	}
	return all, nil
}

// closeMined says of a channel c that it is settled for good: the transaction
// that closed it, ours or that of the payee, is in a block.
const closeMined = `(c.state = 'closed' AND (
	EXISTS (SELECT 1 FROM outgoing WHERE txid = c.close_txid AND state = 'mined') OR
	EXISTS (SELECT 1 FROM coins WHERE txid = c.close_txid AND height > 0)))`
