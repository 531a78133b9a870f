package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/payments/money"
)

// Role is the side of a channel that this node is.
type Role uint8

// The two sides of a channel.
const (
	Payer Role = 1
	Payee Role = 2
)

// String returns "payer" or "payee".
func (r Role) String() string {
	switch r {
	case Payer:
		return "payer"
	case Payee:
		return "payee"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// States of a channel, in the order in which it passes through them; the last
// three are alternatives.
const (
	StateOpening  = "opening"  // agreed, funding not yet accepted by the payee
	StateOpen     = "open"     // commitments flow
	StateClosing  = "closing"  // no further commitment; close not yet on the network
	StateClosed   = "closed"   // the close is on the network
	StateRefunded = "refunded" // the payer took everything back
	StateFailed   = "failed"   // never came to be, or its funding was double-spent
)

// rank orders states: a SaveChannel never takes a channel to a lower rank.
func rank(state string) int {
	switch state {
	case StateOpening:
		return 1
	case StateOpen:
		return 2
	case StateClosing:
		return 3
	case StateClosed, StateRefunded, StateFailed:
		return 4
	}
	return 0
}

// settled reports whether nothing more is expected of a channel in this state.
func settled(state string) bool { return rank(state) == 4 }

// Limits of a Channel.
const (
	MaxSnapshot = 1 << 20 // bytes
	MaxCreators = 256
)

// Channel is one payment channel as this node knows it.
//
// It may serve several titles, one after the other: Title is the one that is
// being served, and what the amounts and Bytes grow by belongs to it. Shares
// tells what each title has.
type Channel struct {
	ID        [32]byte
	Role      Role
	State     string // one of the constants
	Title     [20]byte
	TitleName string
	Remote    string   // host:port of the peer, as last seen
	PeerKey   [33]byte // of the other side
	KeyIndex  uint32   // of our channel key and of our payout or refund key

	FundingTxid   [32]byte
	FundingIndex  uint32
	Capacity      money.Satoshis
	RefundHeight  uint32 // block height from which the payer can take all back
	Rate, Royalty money.Rate

	Seq            uint64 // of the newest commitment; at most 2^63-1
	Bytes          int64  // that it pays for
	Payee, Creator money.Satoshis
	// Creators says whom Creator is paid to, ordered by hash when it is read.
	// Where it is given its amounts make up Creator; nil leaves what is stored.
	Creators []CreatorAmount
	Snapshot []byte // the channel machine's state; at most MaxSnapshot

	CloseTxid [32]byte // of the close or refund, once known
	// Fee is what the payer bears in fees for this channel, its share of the
	// funding and the close, as far as known.
	Fee              money.Satoshis
	Created, Updated time.Time // set by the ledger; whole milliseconds
}

// Filter selects channels. The zero value selects all.
type Filter struct {
	Role  Role      // zero: both
	Open  *bool     // true: opening, open and closing ones; false: the others
	Title *[20]byte // that serve this title or have served it
}

// CreatorAmount is what a channel pays to one creator.
type CreatorAmount struct {
	Hash   [20]byte // of the creator's address
	Amount money.Satoshis
}

func (c *Channel) check() error {
	switch {
	case c.Role != Payer && c.Role != Payee:
		return fmt.Errorf("unknown role %d", c.Role)
	case rank(c.State) == 0:
		return fmt.Errorf("unknown state %q", c.State)
	case c.Seq > 1<<63-1, c.Bytes < 0, !c.Rate.Valid(), !c.Royalty.Valid():
		return money.ErrRange
	case len(c.Snapshot) > MaxSnapshot:
		return fmt.Errorf("snapshot of %d bytes: %w", len(c.Snapshot), money.ErrRange)
	}
	if err := validAmounts(c.Capacity, c.Payee, c.Creator, c.Fee); err != nil {
		return err
	}
	if c.Payee+c.Creator > c.Capacity {
		return fmt.Errorf("%s and %s of %s: %w", c.Payee, c.Creator, c.Capacity, ErrUnbalanced)
	}
	return c.checkCreators()
}

func (c *Channel) checkCreators() error {
	if c.Creators == nil {
		return nil
	}
	if len(c.Creators) > MaxCreators {
		return fmt.Errorf("%d creators: %w", len(c.Creators), money.ErrRange)
	}
	var sum money.Satoshis
	seen := make(map[[20]byte]bool, len(c.Creators))
	for _, a := range c.Creators {
		if seen[a.Hash] {
			return fmt.Errorf("creator %x twice: %w", a.Hash[:4], ErrUnbalanced)
		}
		seen[a.Hash] = true
		var err error
		if sum, err = sum.Add(a.Amount); err != nil {
			return err
		}
	}
	if sum != c.Creator {
		return fmt.Errorf("%s to creators, together %s: %w", c.Creator, sum, ErrUnbalanced)
	}
	return nil
}

// merge checks c against what is stored and takes over what a change may not
// lose: a state that is further on, the close that brought it there, and fees
// that are known.
func (c *Channel) merge(old *Channel) error {
	switch {
	case c.Role != old.Role, c.KeyIndex != old.KeyIndex:
		return fmt.Errorf("role or key: %w", ErrChanged)
	case c.Title != old.Title && settled(old.State):
		return fmt.Errorf("title of a settled channel: %w", ErrChanged)
	case old.FundingTxid != [32]byte{} && (c.FundingTxid != old.FundingTxid ||
		c.FundingIndex != old.FundingIndex || c.Capacity != old.Capacity):
		return fmt.Errorf("funding: %w", ErrChanged)
	case c.Seq < old.Seq:
		return fmt.Errorf("commitment %d after %d: %w", c.Seq, old.Seq, ErrStale)
	}
	same := c.Payee == old.Payee && c.Creator == old.Creator && c.Bytes == old.Bytes
	switch {
	case c.Seq == old.Seq && !same:
		return fmt.Errorf("commitment %d with other amounts: %w", c.Seq, ErrStale)
	case settled(old.State) && (!same || c.Seq != old.Seq):
		return fmt.Errorf("commitment %d after the channel was settled: %w", c.Seq, ErrStale)
	case c.Payee < old.Payee || c.Creator < old.Creator || c.Bytes < old.Bytes:
		return fmt.Errorf("commitment %d takes back what %d paid: %w", c.Seq, old.Seq, ErrStale)
	}
	if rank(c.State) < rank(old.State) || settled(old.State) {
		c.State = old.State
	}
	if c.CloseTxid == [32]byte{} || settled(old.State) && old.CloseTxid != [32]byte{} {
		c.CloseTxid = old.CloseTxid
	}
	if c.Fee == 0 {
		c.Fee = old.Fee
	}
	c.Created = old.Created
	return nil
}

// SaveChannel inserts or updates a channel. A state that lies before the
// stored one is ignored, because the chain may have moved the channel on while
// the caller held a copy; so are a zero CloseTxid and a zero Fee. Errors are
// ErrStale, ErrChanged, ErrUnbalanced, money.ErrRange and those of storage.
func (l *Ledger) SaveChannel(ctx context.Context, c Channel) error {
	return l.Apply(ctx, Batch{Channels: []Channel{c}})
}

func (u *update) saveChannel(c Channel) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("channel %x: %w", c.ID[:4], err)
	}
	old, err := u.channel(c.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		c.Created, c.Updated = u.now, u.now
		err = u.insertChannel(c)
	case err == nil:
		c.Updated = u.now
		err = c.merge(&old)
		if err == nil && c.Title != old.Title {
			err = u.leaveTitle(old)
		}
		if err == nil {
			err = u.updateChannel(c)
		}
	}
	if err == nil {
		err = u.saveCreators(c)
	}
	if err != nil {
		return fmt.Errorf("channel %x: %w", c.ID[:4], err)
	}
	if c.State != old.State || c.FundingTxid != old.FundingTxid || c.CloseTxid != old.CloseTxid {
		u.touchChannel(c.ID)
		u.touch(c.FundingTxid)
		u.touch(old.CloseTxid)
		u.touch(c.CloseTxid)
	}
	return nil
}

// channel reads one channel within the update.
func (u *update) channel(id [32]byte) (Channel, error) {
	rows, err := u.tx.StmtContext(u.ctx, u.ledger.selectOne).QueryContext(u.ctx, id[:])
	if err != nil {
		return Channel{}, err
	}
	return onlyChannel(rows, id)
}

func (u *update) insertChannel(c Channel) error {
	_, err := u.tx.ExecContext(u.ctx, insertChannel, c.ID[:], c.Role, c.State, c.Title[:], c.TitleName,
		c.Remote, c.PeerKey[:], c.KeyIndex, nullHash(c.FundingTxid), c.FundingIndex, int64(c.Capacity),
		c.RefundHeight, int64(c.Rate), int64(c.Royalty), int64(c.Seq), c.Bytes, int64(c.Payee),
		int64(c.Creator), bytes.Clone(c.Snapshot), nullHash(c.CloseTxid), int64(c.Fee), millis(c.Created),
		millis(c.Updated))
	return err
}

func (u *update) updateChannel(c Channel) error {
	_, err := u.tx.StmtContext(u.ctx, u.ledger.updateOne).ExecContext(u.ctx, c.State, c.Title[:], c.TitleName, c.Remote, c.PeerKey[:],
		nullHash(c.FundingTxid), c.FundingIndex, int64(c.Capacity), c.RefundHeight, int64(c.Rate), int64(c.Royalty),
		int64(c.Seq), c.Bytes, int64(c.Payee), int64(c.Creator), bytes.Clone(c.Snapshot), nullHash(c.CloseTxid),
		int64(c.Fee), millis(c.Updated), c.ID[:])
	return err
}

// Move takes a channel to a state that the chain has put it into, backwards
// too, as after a reorganisation.
type Move struct {
	Channel   [32]byte
	State     string
	CloseTxid [32]byte // stored where it is not zero
}

func (u *update) move(m Move) error {
	if rank(m.State) == 0 {
		return fmt.Errorf("channel %x: unknown state %q", m.Channel[:4], m.State)
	}
	old, err := u.channel(m.Channel)
	if err != nil {
		return err
	}
	if m.CloseTxid == [32]byte{} {
		m.CloseTxid = old.CloseTxid
	}
	if m.State == old.State && m.CloseTxid == old.CloseTxid {
		return nil
	}
	if _, err := u.tx.ExecContext(u.ctx, `UPDATE channels SET state = ?, close_txid = ?, updated = ? WHERE id = ?`,
		m.State, nullHash(m.CloseTxid), millis(u.now), m.Channel[:]); err != nil {
		return err
	}
	u.touchChannel(m.Channel)
	u.touch(old.CloseTxid)
	u.touch(m.CloseTxid)
	return nil
}

// Channel returns one channel, or ErrNotFound.
func (l *Ledger) Channel(ctx context.Context, id [32]byte) (Channel, error) {
	rows, err := l.db.Read().QueryContext(ctx, selectChannels+` WHERE id = ?`, id[:])
	if err != nil {
		return Channel{}, fmt.Errorf("read channel: %w", err)
	}
	return onlyChannel(rows, id)
}

// Channels returns the channels that f selects, the oldest first.
func (l *Ledger) Channels(ctx context.Context, f Filter) ([]Channel, error) {
	var where []string
	var args []any
	if f.Role != 0 {
		where, args = append(where, `role = ?`), append(args, f.Role)
	}
	if f.Open != nil {
		clause := channelIsOpen
		if !*f.Open {
			clause = `NOT ` + channelIsOpen
		}
		where = append(where, clause)
	}
	if f.Title != nil {
		where = append(where, `(title = ? OR id IN (SELECT channel FROM channel_titles WHERE title = ?))`)
		args = append(args, f.Title[:], f.Title[:])
	}
	query := selectChannels
	if len(where) > 0 {
		query += ` WHERE ` + strings.Join(where, ` AND `)
	}
	return queryChannels(ctx, l.db.Read(), query+` ORDER BY created, id`, args...)
}

// EachChannel calls fn with every channel, without its Snapshot, the oldest
// first, until it returns an error. Its use of memory does not grow with the
// ledger.
func (l *Ledger) EachChannel(ctx context.Context, fn func(Channel) error) error {
	const size = 200
	columns := strings.Replace(selectChannels, `snapshot`, `NULL`, 1)
	for after := int64(0); ; {
		page, err := queryChannels(ctx, l.db.Read(), columns+` WHERE rowid > ? ORDER BY rowid LIMIT ?`, after, size)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, c := range page {
			if err := fn(c); err != nil {
				return err
			}
		}
		last := page[len(page)-1].ID
		if err := one(ctx, l.db.Read(), &after, `SELECT rowid FROM channels WHERE id = ?`, last[:]); err != nil {
			return fmt.Errorf("read channels: %w", err)
		}
	}
}

const channelColumns = `id, role, state, title, title_name, remote, peer_key, key_index, funding_txid,
	funding_index, capacity, refund_height, rate, royalty, seq, bytes, payee, creator, snapshot, close_txid,
	fee, created, updated`

const selectChannels = `SELECT ` + channelColumns + `, (SELECT group_concat(hex(hash) || amount, ' ' ORDER BY hash)
	FROM channel_creators WHERE channel = channels.id) FROM channels`

// selectChannelOnly leaves out the creators.
const selectChannelOnly = `SELECT ` + channelColumns + `, NULL FROM channels WHERE id = ?`

// channelIsOpen is spelled as the partial index on channels is, so that SQLite
// uses it.
const channelIsOpen = `(state IN ('opening', 'open', 'closing'))`

const insertChannel = `INSERT INTO channels (` + channelColumns + `)
	VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`

const updateChannel = `UPDATE channels SET state = ?, title = ?, title_name = ?, remote = ?, peer_key = ?, funding_txid = ?,
	funding_index = ?, capacity = ?, refund_height = ?, rate = ?, royalty = ?, seq = ?, bytes = ?, payee = ?,
	creator = ?, snapshot = ?, close_txid = ?, fee = ?, updated = ? WHERE id = ?`

// querier is what reads from a transaction and from the database alike.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// onlyChannel reads the one row that there may be, and closes rows.
func onlyChannel(rows *sql.Rows, id [32]byte) (Channel, error) {
	found, err := scanChannels(rows)
	if err != nil {
		return Channel{}, err
	}
	if len(found) == 0 {
		return Channel{}, fmt.Errorf("channel %x: %w", id[:4], ErrNotFound)
	}
	return found[0], nil
}

func queryChannels(ctx context.Context, q querier, query string, args ...any) ([]Channel, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read channels: %w", err)
	}
	return scanChannels(rows)
}

func scanChannels(rows *sql.Rows) (all []Channel, err error) {
	defer rows.Close()
	for rows.Next() {
		var c Channel
		var seq, created, updated int64
		var creators sql.NullString
		if err := rows.Scan(fixed(c.ID[:]), &c.Role, &c.State, fixed(c.Title[:]), &c.TitleName, &c.Remote,
			fixed(c.PeerKey[:]), &c.KeyIndex, fixed(c.FundingTxid[:]), &c.FundingIndex, &c.Capacity,
			&c.RefundHeight, &c.Rate, &c.Royalty, &seq, &c.Bytes, &c.Payee, &c.Creator, &c.Snapshot,
			fixed(c.CloseTxid[:]), &c.Fee, &created, &updated, &creators); err != nil {
			return nil, fmt.Errorf("read channels: %w", err)
		}
		if c.Creators, err = parseCreators(creators.String); err != nil {
			return nil, fmt.Errorf("read channels: %w", err)
		}
		c.Seq, c.Created, c.Updated = uint64(seq), fromMillis(created), fromMillis(updated)
		all = append(all, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read channels: %w", err)
	}
	return all, nil
}
