package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/storage/durable"
)

// ErrLedgerThere says that the folder has a ledger that no recovery has begun:
// it may be newer than any backup, and nothing is put into it.
var ErrLedgerThere = errors.New("the folder has a ledger already, which is newer than a backup")

const (
	ledgerName = "money.db"
	// marker is a file that lies in a folder while a recovery is under way.
	marker = "recovery"
)

// Recovery is what Recover works with.
type Recovery struct {
	Words   string
	Network bsv.Network
	// Dir is the data folder. The caller holds its lock.
	Dir string
	// Files are backups of either kind, or none: then only the coins that are
	// on the chain come back.
	Files []string
	// WordsElsewhere leaves the words out of the folder, where the daemon will
	// have them from somewhere else.
	WordsElsewhere bool
	// Passphrase opens the wallet of an earlier try, if it was locked since.
	Passphrase func() (string, error)
	Chain      chain.Backend
	Gap        uint32        // see wallet.Options
	Poll       time.Duration // how often the chain is asked while closes are on their way
	Clock      func() time.Time
	Random     io.Reader
	Log        *slog.Logger
	// Scanning and Changed are told of progress; they may be nil.
	Scanning func(wallet.Scan)
	Changed  func([]Line)
}

// Line is one channel of a recovery.
type Line struct {
	Channel [32]byte
	Role    ledger.Role
	Title   string
	// Backup is what the backup's commitment gives this node: its earnings, or
	// what is left of its capacity before the fee.
	Backup money.Satoshis
	// Chain is what the transaction on the chain gives this node, where there
	// is one and it is known.
	Chain money.Satoshis
	Txid  bsv.Txid // of the close or refund; zero where there is none
	State string   // in words
	// Done says that nothing more is waited for.
	Done bool
}

// Result is what came of a recovery.
type Result struct {
	Made   time.Time // when the newest backup of the state was; zero without one
	Payout string    // the owner's address, by the backup
	Lines  []Line
	// Coins that the wallet has, in blocks and not.
	Coins                  int
	Confirmed, Unconfirmed money.Satoshis
	// Done says that the network has every close. The folder is ready then for
	// the daemon.
	Done bool
}

// Recover makes a wallet and a ledger of words and backups, closes every channel
// of the backups, and finds the coins on the chain. It returns when the network
// has every close, or with the error of ctx, and what was reached until then. It
// may be called again with the same folder and goes on.
//
// Nothing is changed before all files have been read whole and found good.
// Where the chain has more than a backup, a close with a newer commitment or a
// refund, that is taken over. A commitment of the backup is broadcast only for a
// funding of which the chain knows no spender.
//
// Errors are those of Read, ErrLedgerThere, wallet.ErrOtherWords and
// those of the wallet, the ledger and the chain.
func Recover(ctx context.Context, cfg Recovery) (Result, error) {
	r := &recovery{Recovery: cfg}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	if r.Poll <= 0 {
		r.Poll = 5 * time.Second
	}
	if err := r.recover(ctx); err != nil {
		return r.result, fmt.Errorf("recover: %w", err)
	}
	return r.result, nil
}

// Check reads backups whole, as Recover does before it begins, and changes
// nothing. Errors are those of Recover.
func Check(ctx context.Context, words string, net bsv.Network, files []string) error {
	r := &recovery{Recovery: Recovery{Words: words, Network: net, Files: files}}
	if err := r.read(ctx); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}

type recovery struct {
	Recovery
	key    *Key
	id     string     // of this recovery
	states []Contents // the oldest first
	whole  string     // path of the newest backup of the whole ledger
	head   Header     // its header
	ledger *ledger.Ledger
	wallet *wallet.Wallet
	outbox *wallet.Outbox
	seller *paylink.Seller
	buyer  *paylink.Buyer
	known  map[[32]byte]*Line
	result Result
}

func (r *recovery) recover(ctx context.Context) error {
	if err := r.read(ctx); err != nil {
		return err
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	defer func() {
		if err := r.ledger.Close(); err != nil {
			r.Log.Error("close the ledger", "error", err)
		}
	}()
	for _, c := range r.states {
		if err := r.put(ctx, c); err != nil {
			return err
		}
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	// Closing does not wait for the scan, which may take an hour.
	if _, err := r.round(ctx); err != nil {
		return err
	}
	if err := r.wallet.Refresh(ctx); err != nil { // the first one looks at all keys
		return err
	}
	for {
		done, err := r.round(ctx)
		if err != nil {
			return err
		}
		if done {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(r.Poll):
		}
	}
	r.result.Done = true
	return r.end()
}

// read reads all files whole, and changes nothing.
func (r *recovery) read(ctx context.Context) (err error) {
	if r.key, err = KeyOf(r.Words, r.Network); err != nil {
		return err
	}
	for _, path := range r.Files {
		if err := r.readFile(ctx, path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	r.sortStates()
	if n := len(r.states); n > 0 {
		r.result.Made, r.result.Payout = r.states[n-1].Made, r.states[n-1].Payout
	}
	return nil
}

// sortStates puts the oldest first.
func (r *recovery) sortStates() {
	slices.SortStableFunc(r.states, func(a, b Contents) int { return a.Made.Compare(b.Made) })
}

func (r *recovery) readFile(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := ReadHeader(f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if h.Kind == State {
		c, err := Read(f, r.key)
		r.states = append(r.states, c)
		return err
	}
	if err := CheckHistory(ctx, f, r.key, io.Discard); err != nil {
		return err
	}
	if r.whole == "" || h.Made.After(r.head.Made) {
		r.whole, r.head = path, h
	}
	return nil
}

// begin makes the folder, or goes on with one that an earlier try has left.
func (r *recovery) begin(ctx context.Context) error {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(r.Dir, ledgerName)
	there, err := isThere(path)
	if err != nil {
		return err
	}
	if !there {
		if err := noRest(path); err != nil {
			return err
		}
	}
	underWay, err := Unfinished(r.Dir)
	if err != nil {
		return err
	}
	if there && !underWay {
		return fmt.Errorf("%s: %w", r.Dir, ErrLedgerThere)
	}
	err = wallet.CheckWords(r.Dir, r.Words, r.Passphrase)
	if err != nil && !errors.Is(err, wallet.ErrNoWallet) {
		return err
	}
	noWallet := err != nil
	if r.id, err = r.mark(underWay); err != nil {
		return err
	}
	if err := clearScratch(r.Dir); err != nil {
		return err
	}
	if noWallet && !r.WordsElsewhere {
		if err := wallet.Restore(ctx, r.Dir, r.Words, r.Network); err != nil {
			return err
		}
	}
	if r.whole != "" && !there {
		f, err := os.Open(r.whole)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := RestoreHistory(ctx, f, r.key, path); err != nil {
			return err
		}
	}
	// Not the usual pause between flushes: this is a disk's only work now.
	r.ledger, err = ledger.OpenWith(ctx, path, r.Clock, ledger.Options{Interval: time.Millisecond})
	if err == nil && r.whole != "" {
		if err = r.takeWhole(ctx, there); err != nil {
			err = errors.Join(err, r.ledger.Close())
		}
	}
	return err
}

func isThere(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// noRest returns ErrLedgerThere where the log of a database lies beside the place
// of one: SQLite would take it for a part of what is put there.
func noRest(path string) error {
	for _, suffix := range []string{"-wal", "-journal"} {
		there, err := isThere(path + suffix)
		if err != nil {
			return err
		}
		if there {
			return fmt.Errorf("%s: %w", path+suffix, ErrLedgerThere)
		}
	}
	return nil
}

// takeWhole takes over from the backup of the whole ledger what is not settled,
// where the ledger was there before it: an earlier try had another backup or
// none. What is settled is history.
func (r *recovery) takeWhole(ctx context.Context, there bool) error {
	name := fmt.Sprintf("recovered from %d %x", r.head.Made.Unix(), r.head.random)
	_, err := r.ledger.Claimed(ctx, name)
	if err == nil || !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	if there {
		c, err := r.unsettled(ctx)
		if err != nil {
			return err
		}
		r.states = append(r.states, c)
		r.sortStates()
		for _, c := range r.states {
			if err := r.put(ctx, c); err != nil {
				return err
			}
		}
	}
	_, err = r.ledger.Claim(ctx, name, r.whole)
	return err
}

// unsettled reads from the backup of the whole ledger what a backup of the state
// made at that time would have.
func (r *recovery) unsettled(ctx context.Context) (c Contents, err error) {
	dir, err := os.MkdirTemp(r.Dir, scratchPattern)
	if err != nil {
		return Contents{}, err
	}
	defer os.RemoveAll(dir)
	f, err := os.Open(r.whole)
	if err != nil {
		return Contents{}, err
	}
	defer f.Close()
	path := filepath.Join(dir, ledgerName)
	if err := RestoreHistory(ctx, f, r.key, path); err != nil {
		return Contents{}, err
	}
	l, err := ledger.OpenWith(ctx, path, r.Clock, ledger.Options{Interval: time.Millisecond})
	if err != nil {
		return Contents{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	c, err = collect(ctx, l, "")
	c.Made = r.head.Made
	return c, err
}

// mark gives the recovery a name that outlasts this try.
func (r *recovery) mark(underWay bool) (id string, err error) {
	path := filepath.Join(r.Dir, marker)
	if underWay {
		b, err := os.ReadFile(path)
		return strings.TrimSpace(string(b)), err
	}
	id = rand.Text()
	return id, durable.Replace(path, []byte(id+"\n"), 0o600)
}

// Unfinished reports whether a recovery into a folder was begun and has not come
// to its end.
func Unfinished(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, marker))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// end makes the folder an ordinary one.
func (r *recovery) end() error {
	if err := os.Remove(filepath.Join(r.Dir, marker)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(r.Dir)
}

// put stores what a backup holds, unless the ledger knows more.
func (r *recovery) put(ctx context.Context, c Contents) error {
	for branch, next := range c.NextKey {
		if err := r.ledger.AdvanceKeys(ctx, branch, min(next, ledger.MaxKeyIndex)); err != nil {
			return err
		}
	}
	for _, row := range c.Channels {
		err := r.ledger.SaveChannel(ctx, row)
		if errors.Is(err, ledger.ErrStale) || errors.Is(err, ledger.ErrChanged) {
			r.Log.Info("the ledger knows more of a channel than the backup", "channel", fmt.Sprintf("%x", row.ID[:8]), "reason", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, o := range c.Outgoing {
		if err := r.putOutgoing(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) putOutgoing(ctx context.Context, o Outgoing) error {
	if _, err := r.ledger.Outgoing(ctx, o.Txid); !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	row := o.Outgoing
	row.State, row.Height, row.Final, row.Tries, row.NextTry, row.LastError = ledger.Pending, 0, false, 0, time.Time{}, ""
	b := ledger.Batch{Outbox: []ledger.Outgoing{row}}
	var spends []ledger.Outpoint
	for _, coin := range o.Spends {
		spends = append(spends, coin.Outpoint())
		if _, err := r.ledger.Coin(ctx, coin.Outpoint()); errors.Is(err, ledger.ErrNotFound) {
			coin.State, coin.SpentBy = ledger.CoinUnspent, [32]byte{}
			b.Coins = append(b.Coins, coin)
		} else if err != nil {
			return err
		}
	}
	if len(spends) > 0 {
		b.Reserve = []ledger.Reservation{{Coins: spends, By: row.Txid}}
	}
	err := r.ledger.Apply(ctx, b)
	if errors.Is(err, ledger.ErrCoinTaken) {
		r.Log.Warn("a payment of the backup spends what the ledger has spent otherwise", "txid", bsv.Txid(row.Txid))
		return nil
	}
	return err
}

func (r *recovery) open(ctx context.Context) (err error) {
	opt := wallet.Options{Clock: r.Clock, Log: r.Log, Passphrase: r.Passphrase, Gap: r.Gap, Scanning: r.Scanning, RestoreID: r.id}
	r.outbox = wallet.NewOutbox(r.ledger, r.Chain, r.Clock, r.Log)
	opt.Stored = r.outbox.Kick
	if r.WordsElsewhere {
		r.wallet, err = wallet.OpenWords(ctx, r.Words, r.Network, r.ledger, r.Chain, opt)
	} else {
		r.wallet, err = wallet.Open(ctx, r.Dir, r.ledger, r.Chain, opt)
	}
	if err != nil {
		return err
	}
	r.seller, err = paylink.NewSeller(paylink.SellerConfig{Ledger: r.ledger, Wallet: r.wallet, Chain: r.Chain, Outbox: r.outbox,
		Offer: paylink.DefaultOffer(), Policy: paylink.DefaultPolicy(), Poll: r.Poll, Clock: r.Clock, Random: r.Random, Log: r.Log})
	if err != nil {
		return err
	}
	r.buyer = paylink.NewBuyer(paylink.BuyerConfig{Ledger: r.ledger, Wallet: r.wallet, Chain: r.Chain, Outbox: r.outbox, Clock: r.Clock, Log: r.Log})
	return r.list(ctx)
}

// list makes a line for each channel that the backups hold, and for those that
// are not settled in a ledger that came whole.
func (r *recovery) list(ctx context.Context) error {
	r.known = make(map[[32]byte]*Line)
	open := true
	rows, err := r.ledger.Channels(ctx, ledger.Filter{Open: &open})
	if err != nil {
		return err
	}
	newest := make(map[[32]byte]uint64)
	add := func(c *ledger.Channel) {
		if r.known[c.ID] != nil && c.Seq < newest[c.ID] {
			return
		}
		newest[c.ID] = c.Seq
		gives := c.Payee
		if c.Role == ledger.Payer {
			gives = c.Capacity - c.Payee - c.Creator
		}
		r.known[c.ID] = &Line{Channel: c.ID, Role: c.Role, Title: c.TitleName, Backup: gives}
	}
	for i := range rows {
		add(&rows[i])
	}
	for _, s := range r.states {
		for i := range s.Channels {
			add(&s.Channels[i])
		}
	}
	return nil
}

// round does what can be done now, and reports whether nothing is waited for.
// What the chain service does not answer is tried again by the next one.
func (r *recovery) round(ctx context.Context) (done bool, err error) {
	try := func(what string, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.Log.Warn(what, "error", err)
		}
		return nil
	}
	open := true
	rows, err := r.ledger.Channels(ctx, ledger.Filter{Open: &open, Role: ledger.Payee})
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		if err := try("a channel cannot be closed yet", r.settle(ctx, row)); err != nil {
			return false, err
		}
	}
	tip, tipErr := r.Chain.Tip(ctx)
	if err := try("the chain cannot be asked", tipErr); err != nil {
		return false, err
	}
	// Only then the refunds: a funding that is not in the ledger is given up there.
	waiting := r.takeFundings(ctx)
	if waiting == nil {
		waiting = r.buyer.Maintain(ctx)
	}
	if err := try("refunds", waiting); err != nil {
		return false, err
	}
	// It sees to it that the network has the fundings on which closes rest.
	if err := try("fundings", r.seller.Watch(ctx)); err != nil {
		return false, err
	}
	r.outbox.Kick()
	_, stepErr := r.outbox.Step(ctx)
	if err := try("closes", stepErr); err != nil {
		return false, err
	}
	done, err = r.report(ctx, tip.Height)
	return done && tipErr == nil, err
}

// takeFundings opens the channels in which this node pays and whose funding has
// left after the backup, which was made between the signatures and that.
func (r *recovery) takeFundings(ctx context.Context) error {
	open := true
	rows, err := r.ledger.Channels(ctx, ledger.Filter{Open: &open, Role: ledger.Payer})
	if err != nil {
		return err
	}
	for _, row := range rows {
		s, err := channel.RestorePayer(row.Snapshot, bsv.PrivateKey{})
		if err != nil {
			return err
		}
		if s.Phase != channel.Signed {
			continue
		}
		if _, err := r.ledger.Outgoing(ctx, row.FundingTxid); !errors.Is(err, ledger.ErrNotFound) {
			if err != nil {
				return err
			}
			continue // the outbox sees to it
		}
		_, err = r.Chain.RawTx(ctx, row.FundingTxid)
		if errors.Is(err, chain.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		s.Phase, row.State = channel.Open, ledger.StateOpen
		if row.Snapshot, err = s.Snapshot(); err != nil {
			return err
		}
		if err := r.ledger.SaveChannel(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

// settle closes a channel that this node is paid by, or takes over what became
// of it.
func (r *recovery) settle(ctx context.Context, row ledger.Channel) error {
	if row.State == ledger.StateOpening {
		return nil // nothing was paid
	}
	funding := bsv.Outpoint{Txid: row.FundingTxid, Index: row.FundingIndex}
	by, spent, err := chain.SpenderOf(ctx, r.Chain, funding)
	switch {
	case errors.Is(err, chain.ErrNotFound), errors.Is(err, chain.ErrUnsupported), err == nil && !spent:
		if row.State == ledger.StateOpen {
			return r.seller.CloseChannel(ctx, row.ID)
		}
		return nil // its close is in the outbox
	case err != nil:
		return err
	}
	if by.IsZero() {
		if by, err = r.searchSpender(ctx, row, funding); err != nil {
			return err
		}
	}
	if by.IsZero() {
		return r.settleUnseen(ctx, row)
	}
	if _, err := r.ledger.Outgoing(ctx, by); !errors.Is(err, ledger.ErrNotFound) {
		return err // the outbox sees the rest through
	}
	tx, err := r.Chain.RawTx(ctx, by)
	if err != nil {
		return err
	}
	return r.adopt(ctx, row, tx)
}

// hashes are where a channel's transactions pay to.
func (r *recovery) hashes(row ledger.Channel) (payee, payer bsv.Hash160, err error) {
	k, err := r.wallet.Key(wallet.BranchPayout, row.KeyIndex)
	if err != nil {
		return payee, payer, err
	}
	c, err := templateOf(row)
	return k.Public().Hash(), c.PayerHash, err
}

// searchSpender finds what spends a funding by where that pays to: this node's
// key or the payer's. It is zero where both have gone on.
func (r *recovery) searchSpender(ctx context.Context, row ledger.Channel, funding bsv.Outpoint) (bsv.Txid, error) {
	mine, payer, err := r.hashes(row)
	if err != nil {
		return bsv.Txid{}, err
	}
	found, err := chain.UnspentOf(ctx, r.Chain, []bsv.Script{bsv.P2PKH(mine), bsv.P2PKH(payer)})
	if err != nil {
		return bsv.Txid{}, err
	}
	for _, coin := range slices.Concat(found...) {
		tx, err := r.Chain.RawTx(ctx, coin.Outpoint.Txid)
		if err != nil {
			return bsv.Txid{}, err
		}
		if len(tx.Inputs) == 1 && tx.Inputs[0].Prev == funding {
			return coin.Outpoint.Txid, nil
		}
	}
	return bsv.Txid{}, nil
}

// settleUnseen settles a channel of which the chain says only that it is spent.
func (r *recovery) settleUnseen(ctx context.Context, row ledger.Channel) error {
	mine, _, err := r.hashes(row)
	if err != nil {
		return err
	}
	state := ledger.StateClosed
	used, err := chain.UsedOf(ctx, r.Chain, []bsv.Script{bsv.P2PKH(mine)})
	switch {
	case errors.Is(err, chain.ErrUnsupported):
		// Which of the two it was is not known. A closed channel's earnings are
		// on the key, if they are anywhere, and the scan finds them there.
	case err != nil:
		return err
	case !used[0] && row.Payee > 0:
		state = ledger.StateRefunded // every close since the backup pays to that key
	}
	return r.ledger.Apply(ctx, ledger.Batch{Moves: []ledger.Move{{Channel: row.ID, State: state}}})
}

// adopt takes over the transaction that has settled a channel: a close goes into
// the outbox, as if it had been made here, and is seen through from there.
func (r *recovery) adopt(ctx context.Context, row ledger.Channel, tx *bsv.Tx) error {
	txid := tx.Txid()
	if tx.LockTime != 0 { // no commitment has one, and the refund has
		return r.ledger.Apply(ctx, ledger.Batch{Moves: []ledger.Move{{Channel: row.ID, State: ledger.StateRefunded, CloseTxid: txid}}})
	}
	mine, payer, err := r.hashes(row)
	if err != nil {
		return err
	}
	c, err := templateOf(row)
	if err != nil {
		return err
	}
	out := ledger.Outgoing{Txid: txid, Raw: tx.Bytes(), Purpose: ledger.Close, Channel: row.ID,
		PrevOutputs: wallet.AppendOutput(nil, bsv.Output{Value: c.Capacity, Script: c.Lock()})}
	var earned, royalties money.Satoshis
	var creators []ledger.CreatorAmount
	var gone []ledger.Outpoint
	for i, o := range tx.Outputs {
		to, ok := o.Script.P2PKHHash()
		switch {
		case ok && to == mine:
			coin := ledger.Coin{Txid: txid, Index: uint32(i), Value: o.Value, Script: o.Script, Branch: wallet.BranchPayout,
				KeyIndex: row.KeyIndex, Origin: ledger.OriginEarning}
			out.Outputs = append(out.Outputs, coin)
			earned += o.Value
			spent, err := r.Chain.Spent(ctx, bsv.Outpoint{Txid: txid, Index: uint32(i)})
			if err != nil && !errors.Is(err, chain.ErrUnsupported) {
				return err
			}
			if spent { // paid out since
				gone = append(gone, coin.Outpoint())
			}
		case ok && to != payer:
			royalties += o.Value
			creators = append(creators, ledger.CreatorAmount{Hash: to, Amount: o.Value})
		}
	}
	b := ledger.Batch{Outbox: []ledger.Outgoing{out}, Lost: gone}
	s, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
	if err != nil {
		return err
	}
	s.Phase, s.Close = channel.Closing, txid
	if row.Snapshot, err = s.Snapshot(); err != nil {
		return err
	}
	row.State, row.CloseTxid = ledger.StateClosing, txid
	switch {
	case earned == row.Payee && royalties == row.Creator:
		b.Channels = []ledger.Channel{row}
	case earned >= row.Payee && royalties >= row.Creator:
		// Which number that commitment had is not on the chain; it is a later
		// one.
		row.Seq++
		row.Payee, row.Creator, row.Creators = earned, royalties, creators
		b.Channels = []ledger.Channel{row}
	default:
		r.Log.Warn("a channel was closed with less than the backup has", "channel", fmt.Sprintf("%x", row.ID[:8]), "txid", txid,
			"backup", row.Payee, "close", earned)
	}
	return r.ledger.Apply(ctx, b)
}
