package backup

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// Contents are what a backup of the kind State holds.
type Contents struct {
	Made time.Time // as the header says
	// NextKey are the key counters by branch.
	NextKey map[uint32]uint32
	// Payout is the owner's address; empty where none is set.
	Payout   string
	Channels []ledger.Channel // not settled
	Outgoing []Outgoing       // not buried, in the order in which they were stored
}

// Outgoing is a transaction that has to reach the chain, and the wallet's coins
// that it spends. Its Outputs are set.
type Outgoing struct {
	ledger.Outgoing
	Spends []ledger.Coin
}

// The plaintext is one JSON object a line: a head, the channels, the outgoing
// transactions, an end that counts them. Fields are only ever added.
type (
	headRecord struct {
		Counters map[uint32]uint32 `json:"next_key"`
		Payout   string            `json:"payout,omitempty"`
	}
	channelRecord struct {
		ID           []byte          `json:"id"`
		Role         uint8           `json:"role"`
		State        string          `json:"state"`
		Title        []byte          `json:"title"`
		TitleName    string          `json:"title_name"`
		Remote       string          `json:"remote"`
		PeerKey      []byte          `json:"peer_key"`
		KeyIndex     uint32          `json:"key_index"`
		FundingTxid  []byte          `json:"funding_txid,omitempty"`
		FundingIndex uint32          `json:"funding_index"`
		Capacity     money.Satoshis  `json:"capacity"`
		RefundHeight uint32          `json:"refund_height"`
		Rate         money.Rate      `json:"rate"`
		Royalty      money.Rate      `json:"royalty"`
		Seq          uint64          `json:"seq"`
		Bytes        int64           `json:"bytes"`
		Payee        money.Satoshis  `json:"payee"`
		Creator      money.Satoshis  `json:"creator"`
		Creators     []creatorRecord `json:"creators,omitempty"`
		Snapshot     []byte          `json:"snapshot"`
		CloseTxid    []byte          `json:"close_txid,omitempty"`
		Fee          money.Satoshis  `json:"fee"`
	}
	creatorRecord struct {
		Hash   []byte         `json:"hash"`
		Amount money.Satoshis `json:"amount"`
	}
	coinRecord struct {
		Txid     []byte         `json:"txid"`
		Index    uint32         `json:"index"`
		Value    money.Satoshis `json:"value"`
		Script   []byte         `json:"script"`
		Branch   uint32         `json:"branch"`
		KeyIndex uint32         `json:"key_index"`
		Height   uint32         `json:"height"`
		Origin   string         `json:"origin"`
	}
	outgoingRecord struct {
		Txid        []byte         `json:"txid"`
		Raw         []byte         `json:"raw"`
		PrevOutputs []byte         `json:"prev_outputs"`
		Purpose     string         `json:"purpose"`
		Channel     []byte         `json:"channel,omitempty"`
		Fee         money.Satoshis `json:"fee"`
		Makes       []coinRecord   `json:"makes,omitempty"`
		Spends      []coinRecord   `json:"spends,omitempty"`
	}
	endRecord struct {
		Channels int `json:"channels"`
		Outgoing int `json:"outgoing"`
	}
	record struct {
		Head     *headRecord     `json:"head,omitempty"`
		Channel  *channelRecord  `json:"channel,omitempty"`
		Outgoing *outgoingRecord `json:"outgoing,omitempty"`
		End      *endRecord      `json:"end,omitempty"`
	}
)

// maxRecord is the longest line: a snapshot, or a transaction and what it
// spends, in base64, with room for the rest.
const maxRecord = 8 << 20

// maxRecords bounds a backup's lines.
const maxRecords = 1 << 20

// collect reads the ledger. Channels come first: a channel that is closed in
// between is there as open, together with its close, and not without.
func collect(ctx context.Context, l *ledger.Ledger, payout string) (c Contents, err error) {
	c.Payout = payout
	c.NextKey = make(map[uint32]uint32)
	open := true
	if c.Channels, err = l.Channels(ctx, ledger.Filter{Open: &open}); err != nil {
		return Contents{}, err
	}
	rows, err := l.OutgoingUnsettled(ctx)
	if err != nil {
		return Contents{}, err
	}
	for _, row := range rows {
		if row.State == ledger.Conflicted {
			continue // nothing comes of it
		}
		o := Outgoing{Outgoing: row}
		if o.Outputs, err = l.Coins(ctx, ledger.CoinFilter{Txid: &row.Txid}); err != nil {
			return Contents{}, err
		}
		if o.Spends, err = l.Coins(ctx, ledger.CoinFilter{SpentBy: &row.Txid}); err != nil {
			return Contents{}, err
		}
		c.Outgoing = append(c.Outgoing, o)
	}
	for branch := wallet.BranchReceive; branch <= wallet.BranchIdentity; branch++ {
		if c.NextKey[branch], err = l.NextKey(ctx, branch); err != nil {
			return Contents{}, err
		}
	}
	return c, nil
}

// encode writes contents as lines.
func (c *Contents) encode(w io.Writer) error {
	e := json.NewEncoder(w)
	if err := e.Encode(record{Head: &headRecord{Counters: c.NextKey, Payout: c.Payout}}); err != nil {
		return err
	}
	for i := range c.Channels {
		if err := e.Encode(record{Channel: channelToRecord(&c.Channels[i])}); err != nil {
			return err
		}
	}
	for i := range c.Outgoing {
		if err := e.Encode(record{Outgoing: outgoingToRecord(&c.Outgoing[i])}); err != nil {
			return err
		}
	}
	return e.Encode(record{End: &endRecord{len(c.Channels), len(c.Outgoing)}})
}

// decode reads what encode has written; ErrDamaged for anything else.
func decode(r io.Reader) (c Contents, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRecord)
	for n := 0; lines.Scan(); n++ {
		var rec record
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil || n > maxRecords {
			return Contents{}, fmt.Errorf("line %d: %w", n+1, ErrDamaged)
		}
		switch {
		case (rec.Head != nil) != (n == 0):
			return Contents{}, fmt.Errorf("line %d: %w", n+1, ErrDamaged)
		case rec.Head != nil:
			c.NextKey, c.Payout = rec.Head.Counters, rec.Head.Payout
		case rec.Channel != nil:
			row, err := rec.Channel.row()
			if err != nil {
				return Contents{}, fmt.Errorf("line %d: %w", n+1, err)
			}
			c.Channels = append(c.Channels, row)
		case rec.Outgoing != nil:
			row, err := rec.Outgoing.row()
			if err != nil {
				return Contents{}, fmt.Errorf("line %d: %w", n+1, err)
			}
			c.Outgoing = append(c.Outgoing, row)
		case rec.End != nil:
			if *rec.End != (endRecord{len(c.Channels), len(c.Outgoing)}) || lines.Scan() {
				return Contents{}, fmt.Errorf("line %d: %w", n+1, ErrDamaged)
			}
			// The rest of the stream has its checks too.
			if err := lines.Err(); err != nil {
				return Contents{}, readError(err)
			}
			return c, nil
		} // else a record of a later program, which this one does not need
	}
	return Contents{}, readError(lines.Err())
}

func readError(err error) error {
	if err == nil || errors.Is(err, bufio.ErrTooLong) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) ||
		errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrDamaged
	}
	return err
}

func hash(h [32]byte) []byte {
	if h == [32]byte{} {
		return nil
	}
	return h[:]
}

// fill copies bytes of a fixed length. None leave zeros where that is allowed.
func fill(dst, b []byte, optional bool) error {
	if len(b) != len(dst) && !(optional && len(b) == 0) {
		return fmt.Errorf("%d bytes where there must be %d: %w", len(b), len(dst), ErrDamaged)
	}
	copy(dst, b)
	return nil
}

func channelToRecord(c *ledger.Channel) *channelRecord {
	var creators []creatorRecord
	for i := range c.Creators {
		creators = append(creators, creatorRecord{c.Creators[i].Hash[:], c.Creators[i].Amount})
	}
	return &channelRecord{ID: c.ID[:], Role: uint8(c.Role), State: c.State, Title: c.Title[:], TitleName: c.TitleName, Remote: c.Remote,
		PeerKey: c.PeerKey[:], KeyIndex: c.KeyIndex, FundingTxid: hash(c.FundingTxid), FundingIndex: c.FundingIndex, Capacity: c.Capacity,
		RefundHeight: c.RefundHeight, Rate: c.Rate, Royalty: c.Royalty, Seq: c.Seq, Bytes: c.Bytes, Payee: c.Payee, Creator: c.Creator,
		Creators: creators, Snapshot: c.Snapshot, CloseTxid: hash(c.CloseTxid), Fee: c.Fee}
}

func (r *channelRecord) row() (ledger.Channel, error) {
	c := ledger.Channel{Role: ledger.Role(r.Role), State: r.State, TitleName: r.TitleName, Remote: r.Remote, KeyIndex: r.KeyIndex,
		FundingIndex: r.FundingIndex, Capacity: r.Capacity, RefundHeight: r.RefundHeight, Rate: r.Rate, Royalty: r.Royalty, Seq: r.Seq,
		Bytes: r.Bytes, Payee: r.Payee, Creator: r.Creator, Snapshot: r.Snapshot, Fee: r.Fee}
	for _, a := range r.Creators {
		to := ledger.CreatorAmount{Amount: a.Amount}
		if err := fill(to.Hash[:], a.Hash, false); err != nil {
			return ledger.Channel{}, err
		}
		c.Creators = append(c.Creators, to)
	}
	return c, errors.Join(fill(c.ID[:], r.ID, false), fill(c.Title[:], r.Title, false), fill(c.PeerKey[:], r.PeerKey, false),
		fill(c.FundingTxid[:], r.FundingTxid, true), fill(c.CloseTxid[:], r.CloseTxid, true))
}

func coinsToRecords(coins []ledger.Coin) (all []coinRecord) {
	for _, c := range coins {
		all = append(all, coinRecord{Txid: c.Txid[:], Index: c.Index, Value: c.Value, Script: c.Script, Branch: c.Branch, KeyIndex: c.KeyIndex,
			Height: c.Height, Origin: c.Origin})
	}
	return all
}

func coins(records []coinRecord) (all []ledger.Coin, err error) {
	for _, r := range records {
		c := ledger.Coin{Index: r.Index, Value: r.Value, Script: r.Script, Branch: r.Branch, KeyIndex: r.KeyIndex, Height: r.Height, Origin: r.Origin}
		if err := fill(c.Txid[:], r.Txid, false); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func outgoingToRecord(o *Outgoing) *outgoingRecord {
	return &outgoingRecord{Txid: o.Txid[:], Raw: o.Raw, PrevOutputs: o.PrevOutputs, Purpose: o.Purpose, Channel: hash(o.Channel), Fee: o.Fee,
		Makes: coinsToRecords(o.Outputs), Spends: coinsToRecords(o.Spends)}
}

func (r *outgoingRecord) row() (o Outgoing, err error) {
	o.Raw, o.PrevOutputs, o.Purpose, o.Fee = r.Raw, r.PrevOutputs, r.Purpose, r.Fee
	if err := errors.Join(fill(o.Txid[:], r.Txid, false), fill(o.Channel[:], r.Channel, true)); err != nil {
		return Outgoing{}, err
	}
	tx, err := bsv.ParseTx(o.Raw, ledger.MaxRaw)
	if err != nil || tx.Txid() != o.Txid {
		return Outgoing{}, fmt.Errorf("a transaction that is another one: %w", ErrDamaged)
	}
	if o.Outputs, err = coins(r.Makes); err != nil {
		return Outgoing{}, err
	}
	o.Spends, err = coins(r.Spends)
	return o, err
}

// Write writes a backup of the kind State to w.
func Write(ctx context.Context, w io.Writer, k *Key, l *ledger.Ledger, payout string, now time.Time, random io.Reader) error {
	c, err := collect(ctx, l, payout)
	if err == nil {
		err = c.write(w, k, now, random)
	}
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

func (c *Contents) write(w io.Writer, k *Key, now time.Time, random io.Reader) error {
	return pack(w, k, State, now, random, c.encode)
}

// pack writes a backup whose plaintext is what fill writes.
func pack(w io.Writer, k *Key, kind Kind, now time.Time, random io.Reader, fill func(io.Writer) error) error {
	e, err := encrypt(w, k, kind, now, random)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(e)
	if err := fill(z); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return e.Close()
}

// unpack opens a backup of this kind and has use read its plaintext, all of
// which it checks.
func unpack(r io.Reader, k *Key, kind Kind, use func(Header, io.Reader) error) error {
	d, err := decrypt(r, k)
	if err != nil {
		return err
	}
	if d.head.Kind != kind {
		return fmt.Errorf("a backup of the kind %v, wanted is %v: %w", d.head.Kind, kind, ErrFormat)
	}
	z, err := gzip.NewReader(d)
	if err != nil {
		return readError(err)
	}
	if err := use(d.head, z); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, z); err != nil || n > 0 {
		return errors.Join(readError(err), ErrDamaged)
	}
	if n, err := io.Copy(io.Discard, d); err != nil || n > 0 {
		return errors.Join(err, ErrDamaged)
	}
	return nil
}

// Read reads a backup of the kind State whole. Errors are ErrFormat, ErrNewer,
// ErrOtherWallet, ErrOtherNetwork, ErrDamaged and those of r.
func Read(r io.Reader, k *Key) (c Contents, err error) {
	err = unpack(r, k, State, func(h Header, r io.Reader) (err error) {
		c, err = decode(r)
		c.Made = h.Made
		return err
	})
	if err != nil {
		return Contents{}, fmt.Errorf("open backup: %w", err)
	}
	return c, nil
}
