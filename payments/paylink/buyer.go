package paylink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// BuyerConfig is what a Buyer works with.
type BuyerConfig struct {
	Ledger *ledger.Ledger
	Wallet *wallet.Wallet
	Chain  chain.Backend
	Outbox *wallet.Outbox
	// MaxPrice is the highest price, ask and royalty together, that is taken.
	MaxPrice money.Rate
	Budget   *Budget
	// Later is what each channel may bind beyond this title, within the budget,
	// for titles that come after it.
	Later money.Satoshis
	// MaxFeeRate is the highest fee rate that is accepted for a close.
	MaxFeeRate money.FeeRate
	// MaxWindow is the longest refund window in blocks that is accepted.
	MaxWindow uint32
	// OpenTimeout is how long a seeder may take to sign a refund, and
	// OpenPatience how long others wait for it; 10 and 3 seconds where they are
	// zero. Who has kept others waiting shares no funding any more.
	OpenTimeout, OpenPatience time.Duration
	// Gather is how long a purchase that wants a channel waits for others to share
	// its funding with: 0.3 seconds where it is zero, not at all where it is below.
	Gather time.Duration
	// RetryAfter is how long a seeder that said that it cannot take the funding
	// now is left alone; 10 seconds where it is zero.
	RetryAfter time.Duration

	Clock func() time.Time
	Log   *slog.Logger
	// Notify is called on what a person wants to hear of, from any goroutine;
	// it must not block. May be nil.
	Notify func(Notice)
}

// Notice is something that happened with one seeder.
type Notice struct {
	Seeder string // host:port
	Text   string
}

// Buyer pays seeders for one download.
type Buyer struct {
	cfg       BuyerConfig
	opener    sync.Once
	seats     chan *seat   // purchases that want a channel
	solos     chan *seat   // those that want it in a funding of its own
	proposals atomic.Int32 // fundings that bind coins whose change nobody can spend yet
	seating   sync.Mutex   // guards the seats of fundings, and is held for a moment only
	// In tests: gathered says instead of a timer when n purchases are enough,
	// patience ends the wait for signatures, apply is the write of a funding.
	gathered func(n int) <-chan time.Time
	patience <-chan time.Time
	apply    func(context.Context, ledger.Batch) error

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	live claims[*purchase]

	mu        sync.Mutex
	purchases []*purchase
	finishing bool
	wasted    map[[33]byte]int  // channels that came to nothing, by the seeder's identity
	late      map[[33]byte]bool // seeders that others have waited for in vain
	overLimit atomic.Bool
}

// NewBuyer makes a Buyer.
func NewBuyer(cfg BuyerConfig) *Buyer {
	cfg.OpenTimeout = cmp.Or(cfg.OpenTimeout, 10*time.Second)
	cfg.OpenPatience = cmp.Or(cfg.OpenPatience, 3*time.Second)
	cfg.RetryAfter = cmp.Or(cfg.RetryAfter, 10*time.Second)
	cfg.Gather = cmp.Or(cfg.Gather, 300*time.Millisecond)
	b := &Buyer{cfg: cfg, seats: make(chan *seat), solos: make(chan *seat), wasted: make(map[[33]byte]int), late: make(map[[33]byte]bool)}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// OverLimit says that a seeder could not be paid any more because the budget is
// used up.
func (b *Buyer) OverLimit() bool { return b.overLimit.Load() }

// Open begins the payment side of a connection whose peer speaks bc_pay.
func (b *Buyer) Open(conn BuyerConn, t Title) Purchase {
	p := &purchase{buyer: b, conn: conn, title: t, log: b.cfg.Log.With("seeder", conn.Remote()),
		mail: make(chan channel.Event, mailboxSize), wake: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		close(p.done)
		return p
	}
	b.purchases = append(slices.DeleteFunc(b.purchases, (*purchase).isDone), p)
	b.opener.Do(func() { b.wg.Go(func() { b.openChannels(b.ctx) }) })
	b.wg.Go(func() { p.run(b.ctx) })
	return p
}

// Maintain brings channels of earlier runs in order: fundings that were never
// broadcast are given up and their coins released, and refunds whose time has
// come are broadcast, also of channels whose seeder said that it had closed
// them and had not.
func (b *Buyer) Maintain(ctx context.Context) error {
	rows, err := b.cfg.Ledger.Channels(ctx, ledger.Filter{Role: ledger.Payer})
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(row ledger.Channel) bool {
		return row.State == ledger.StateFailed || row.State == ledger.StateRefunded
	})
	if len(rows) == 0 {
		return nil
	}
	tip, err := b.cfg.Chain.Tip(ctx)
	if err != nil {
		return fmt.Errorf("ask for the tip: %w", err)
	}
	var errs []error
	unfunded := make(map[bsv.Txid][]ledger.Channel)
	for _, row := range rows {
		state, err := channel.RestorePayer(row.Snapshot, bsv.PrivateKey{})
		if err == nil && (state.Phase == channel.Proposed || state.Phase == channel.Signed) {
			unfunded[row.FundingTxid] = append(unfunded[row.FundingTxid], row)
			continue
		}
		errs = append(errs, b.maintainOne(ctx, row, tip.Height))
	}
	for funding, rows := range unfunded {
		errs = append(errs, b.maintainUnfunded(ctx, funding, rows))
	}
	return errors.Join(errs...)
}

// maintainUnfunded gives up the channels of a funding that was never stored, and
// frees its coins when nobody is about to store it.
func (b *Buyer) maintainUnfunded(ctx context.Context, funding bsv.Txid, rows []ledger.Channel) error {
	var errs []error
	free := true
	for _, row := range rows {
		done, err := b.endUnfunded(ctx, row)
		errs = append(errs, err)
		free = free && done
	}
	if free {
		errs = append(errs, b.cfg.Ledger.ReleaseCoins(ctx, funding))
	}
	return errors.Join(errs...)
}

// endUnfunded gives up a channel, unless its funding is stored, and says whether
// it has.
func (b *Buyer) endUnfunded(ctx context.Context, row ledger.Channel) (bool, error) {
	owner := new(purchase)
	run, err := b.take(ctx, row.ID, owner)
	if err != nil || run == nil {
		return false, err
	}
	defer b.live.release(row.ID, owner)
	if run.state.Phase != channel.Proposed && run.state.Phase != channel.Signed {
		return run.state.Phase == channel.Failed, nil // since rows were read
	}
	_, err = b.cfg.Ledger.Outgoing(ctx, row.FundingTxid)
	switch {
	case err == nil:
		// The ledger is put together from what was found; its other channels
		// have let the funding go.
		if run.state.Phase == channel.Signed {
			_, err = run.step(ctx, channel.FundingReady{Stored: true})
		}
		return false, err
	case !errors.Is(err, ledger.ErrNotFound):
		return false, err
	}
	_, err = run.step(ctx, channel.Abandon{})
	return err == nil, err
}

// unspent says whether the chain knows of nothing that spends the funding of a
// channel that is called closed.
func (b *Buyer) unspent(ctx context.Context, row ledger.Channel) (bool, error) {
	coins, err := b.cfg.Ledger.Coins(ctx, ledger.CoinFilter{Key: &ledger.Key{Branch: wallet.BranchPayout, Index: row.KeyIndex}})
	if err != nil {
		return false, err
	}
	for _, c := range coins {
		if c.Txid == row.CloseTxid && c.State != ledger.CoinVoid {
			return false, nil // the close's change was found on the chain
		}
	}
	spent, err := b.cfg.Chain.Spent(ctx, bsv.Outpoint{Txid: row.FundingTxid, Index: row.FundingIndex})
	if errors.Is(err, chain.ErrNotFound) || errors.Is(err, chain.ErrUnsupported) {
		return false, nil
	}
	return err == nil && !spent, err
}

// take makes owner the one who steps a channel, and loads it; nil where another
// one is.
func (b *Buyer) take(ctx context.Context, id wire.ChannelID, owner *purchase) (*payerRun, error) {
	if !b.live.claim(id, owner) {
		return nil, nil
	}
	row, err := b.cfg.Ledger.Channel(ctx, id) // as it is now
	var run *payerRun
	if err == nil {
		run, err = b.restore(row)
	}
	if err != nil {
		b.live.release(id, owner)
		return nil, fmt.Errorf("channel %x: %w", id[:8], err)
	}
	return run, nil
}

func (b *Buyer) maintainOne(ctx context.Context, row ledger.Channel, height uint32) error {
	tip := channel.Tip{Height: height}
	if row.State == ledger.StateClosed {
		if height < row.RefundHeight {
			return nil
		}
		var err error
		if tip.Unspent, err = b.unspent(ctx, row); err != nil || !tip.Unspent {
			return err
		}
	}
	owner := new(purchase)
	run, err := b.take(ctx, row.ID, owner)
	if err != nil || run == nil {
		return err
	}
	defer b.live.release(row.ID, owner)
	_, err = run.step(ctx, tip)
	return err
}

func (b *Buyer) restore(row ledger.Channel) (*payerRun, error) {
	key, out, err := channelKeys(b.cfg.Wallet, row.KeyIndex)
	if err != nil {
		return nil, err
	}
	state, err := channel.RestorePayer(row.Snapshot, key)
	if err != nil {
		return nil, err
	}
	return &payerRun{buyer: b, state: state, keyIndex: row.KeyIndex, out: out, row: row}, nil
}

// Finish pays every seeder what is owed, has the channels closed, and waits
// until the seeders have answered or ctx ends. A seeder that does not answer
// keeps its channel until it closes it, or until the refund.
func (b *Buyer) Finish(ctx context.Context) error { return b.end(ctx, true) }

// Suspend pays what is owed and leaves the channels open, for a later run to
// go on with.
func (b *Buyer) Suspend(ctx context.Context) error { return b.end(ctx, false) }

func (b *Buyer) end(ctx context.Context, settle bool) error {
	b.mu.Lock()
	b.finishing = true
	purchases := slices.Clone(b.purchases)
	b.mu.Unlock()
	var errs []error
	for _, p := range purchases {
		p.finish(settle)
	}
	for _, p := range purchases {
		select {
		case <-p.done:
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("seeder %v has not answered: %w", p.conn.Remote(), ctx.Err()))
		}
	}
	b.mu.Lock()
	b.stop()
	b.mu.Unlock()
	b.wg.Wait()
	return errors.Join(errs...)
}

func (b *Buyer) isFinishing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.finishing
}

// maxWasted is how many channels with one seeder may come to nothing: each
// costs a miner's fee, and binds its capacity until the refund.
const maxWasted = 3

func (b *Buyer) waste(identity [33]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wasted[identity]++
}

func (b *Buyer) wastedOn(identity [33]byte) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wasted[identity]
}

func (b *Buyer) setLate(identity [33]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.late[identity] = true
}

func (b *Buyer) isLate(identity [33]byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.late[identity]
}

func (b *Buyer) notify(p *purchase, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p.log.Info(text)
	if b.cfg.Notify != nil {
		b.cfg.Notify(Notice{Seeder: p.conn.Remote().String(), Text: text})
	}
}

// Receipt is what one channel of a download cost: of a channel that served other
// titles too, the part for this one.
type Receipt struct {
	Seeder  string
	Channel wire.ChannelID
	State   string // the ledger's word
	Rate    money.Rate
	Royalty money.Rate
	Bytes   int64
	// Commitments is how many were signed, the first empty one included.
	Commitments uint64
	Payee       money.Satoshis
	Creator     money.Satoshis
	Fee         money.Satoshis // of funding and close, where the channel was opened for this title
	Funding     bsv.Txid
	Close       bsv.Txid // zero while the channel is open
}

// Total is all that the channel cost.
func (r Receipt) Total() money.Satoshis { return r.Payee + r.Creator + r.Fee }

// Receipts lists the channels that paid for a title, in earlier runs too.
func Receipts(ctx context.Context, l *ledger.Ledger, infoHash [20]byte) ([]Receipt, error) {
	shares, err := l.Shares(ctx, infoHash, ledger.Payer)
	if err != nil {
		return nil, err
	}
	var receipts []Receipt
	for _, s := range shares {
		row := &s.Channel
		if row.State == ledger.StateFailed || s.Commitments == 0 {
			continue
		}
		receipts = append(receipts, Receipt{Seeder: row.Remote, Channel: row.ID, State: row.State, Rate: s.Rate, Royalty: s.Royalty,
			Bytes: s.Bytes, Commitments: s.Commitments, Payee: s.Payee, Creator: s.Creator, Fee: s.Fee, Funding: row.FundingTxid, Close: row.CloseTxid})
	}
	slices.SortStableFunc(receipts, func(x, y Receipt) int { return cmp.Compare(x.Seeder, y.Seeder) })
	return receipts, nil
}
