package wallet

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

// MaxDifferences is the most differences that a Report holds.
const MaxDifferences = 1000

// Report is what a comparison of a ledger with its own transactions and with
// the chain has found.
type Report struct {
	// Compared: coins, outgoing transactions, and closes of channels.
	Coins, Transactions, Closes int
	// Settled is what the channels' rows say that closes in blocks paid this
	// node, Paid what these closes paid on the chain.
	Settled, Paid money.Satoshis
	// Offline says that the chain was not asked.
	Offline bool
	// Differences are sentences, at most MaxDifferences; empty where all agrees.
	Differences []string
	// Unasked are the questions that the chain service cannot answer.
	Unasked []string
}

// CheckChain compares a ledger with the transactions in it and with the chain;
// with a nil chain only the former. Of what the ledger says:
//
//   - a coin that is unspent is so on the chain, with its value and script, and
//     in a block of that height;
//   - a transaction that is mined is, in a block of that height, one that was
//     seen is known, one that was given up is not mined;
//   - the close of a channel spends its funding and pays what the row says, to
//     this node, to each creator and in all;
//   - what was earned and settled is what the closes paid.
//
// The stored bytes of each transaction have its txid, spend the coins that are
// reserved for it, make those that it is said to make, and pay the fee that was
// booked. Whether the books agree with themselves, ledger.Check says.
//
// The ledger may be in use: what has changed meanwhile is no difference. An
// error of the ledger or the chain ends it; the report holds what was found
// until then.
func CheckChain(ctx context.Context, l *ledger.Ledger, c chain.Backend) (Report, error) {
	k := &checker{ctx: ctx, ledger: l, chain: c, unasked: make(map[string]bool)}
	k.Offline = c == nil
	err := errors.Join(k.keys(), l.EachOutgoing(ctx, k.stored))
	if err == nil && c != nil {
		err = k.compare()
	}
	if err != nil {
		return k.Report, fmt.Errorf("check against the chain: %w", err)
	}
	return k.Report, nil
}

type checker struct {
	Report
	ctx     context.Context
	ledger  *ledger.Ledger
	chain   chain.Backend
	unasked map[string]bool

	// The transaction that was asked for last: those who ask come in its order.
	lastTxid bsv.Txid
	lastTx   *bsv.Tx
}

func (k *checker) differ(format string, args ...any) {
	switch n := len(k.Differences); {
	case n < MaxDifferences-1:
		sentence := fmt.Sprintf(format, args...)
		k.Differences = append(k.Differences, strings.ToUpper(sentence[:1])+sentence[1:])
	case n == MaxDifferences-1:
		k.Differences = append(k.Differences, "There is more that differs.")
	}
}

// unsupported notes a question that the service cannot answer.
func (k *checker) unsupported(err error, question string) bool {
	if !errors.Is(err, chain.ErrUnsupported) {
		return false
	}
	if !k.unasked[question] {
		k.unasked[question] = true
		k.Unasked = append(k.Unasked, question)
	}
	return true
}

// keys checks that no key in use can be handed out again.
func (k *checker) keys() error {
	next := make(map[uint32]uint32)
	for _, branch := range []uint32{BranchReceive, BranchChange, BranchChannel} {
		n, err := k.ledger.NextKey(k.ctx, branch)
		if err != nil {
			return err
		}
		next[branch] = n
	}
	coins, err := k.ledger.Coins(k.ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent, ledger.CoinReserved, ledger.CoinPending}})
	if err != nil {
		return err
	}
	for _, c := range coins {
		branch := c.Branch
		if branch == BranchPayout {
			branch = BranchChannel
		}
		if n, ok := next[branch]; ok && c.KeyIndex >= n {
			k.differ("Coin %s lies on key %d of branch %d, of which only %d were given out: the key could be given out again.",
				outpoint(c.Outpoint()), c.KeyIndex, c.Branch, n)
		}
	}
	return nil
}

// stored compares a transaction's row with its bytes.
func (k *checker) stored(o ledger.Outgoing) error {
	k.Transactions++
	what := fmt.Sprintf("the %s %s", o.Purpose, bsv.Txid(o.Txid))
	tx, err := bsv.ParseTx(o.Raw, ledger.MaxRaw)
	if err != nil {
		k.differ("The stored bytes of %s are no transaction: %v.", what, err)
		return nil
	}
	if tx.Txid() != o.Txid {
		k.differ("The stored bytes of %s are those of %s.", what, tx.Txid())
		return nil
	}
	if err := k.coinsOf(o, tx, what); err != nil {
		return err
	}
	k.feeOf(o, tx, what)
	return nil
}

// coinsOf compares the coins that a transaction spends and makes.
func (k *checker) coinsOf(o ledger.Outgoing, tx *bsv.Tx, what string) error {
	made, err := k.ledger.Coins(k.ctx, ledger.CoinFilter{Txid: &o.Txid})
	if err != nil {
		return err
	}
	for _, c := range made {
		k.output(c, tx)
	}
	spent, err := k.ledger.Coins(k.ctx, ledger.CoinFilter{SpentBy: &o.Txid})
	if err != nil {
		return err
	}
	inputs := make(map[bsv.Outpoint]bool, len(tx.Inputs))
	for _, in := range tx.Inputs {
		inputs[in.Prev] = true
	}
	for _, c := range spent {
		if !inputs[outpoint(c.Outpoint())] {
			k.differ("Coin %s is set aside for %s, which does not spend it.", outpoint(c.Outpoint()), what)
		}
	}
	if pays := o.Purpose != ledger.Close && o.Purpose != ledger.Refund; pays && o.State != ledger.Conflicted && len(spent) != len(inputs) {
		k.differ("%s spends %d coins, the ledger has %d of them.", what, len(inputs), len(spent))
	}
	return nil
}

// output compares a coin with the output that it is.
func (k *checker) output(c ledger.Coin, tx *bsv.Tx) {
	at := outpoint(c.Outpoint())
	if uint64(c.Index) >= uint64(len(tx.Outputs)) {
		k.differ("Coin %s is not there: its transaction has %d outputs.", at, len(tx.Outputs))
		return
	}
	out := tx.Outputs[c.Index]
	if out.Value != c.Value {
		k.differ("Coin %s is of %v, the ledger says %v.", at, out.Value, c.Value)
	}
	if string(out.Script) != string(c.Script) {
		k.differ("Coin %s is locked to another key than the ledger says.", at)
	}
}

func (k *checker) feeOf(o ledger.Outgoing, tx *bsv.Tx, what string) {
	if len(o.PrevOutputs) == 0 {
		return
	}
	prev, err := ParseOutputs(o.PrevOutputs)
	if err != nil || len(prev) != len(tx.Inputs) {
		k.differ("What is stored of the inputs of %s does not fit them.", what)
		return
	}
	var in money.Satoshis
	for _, p := range prev {
		if in, err = in.Add(p.Value); err != nil {
			k.differ("The inputs of %s are more than there is.", what)
			return
		}
	}
	out, err := tx.Paid()
	if err != nil || out > in {
		k.differ("%s pays more than it spends.", what)
		return
	}
	if pays := o.Purpose != ledger.Close && o.Purpose != ledger.Refund; pays && in-out != o.Fee && o.Fee != 0 {
		k.differ("%s pays a fee of %v, booked are %v.", what, in-out, o.Fee)
	}
}

// compare asks the chain.
func (k *checker) compare() error {
	coins, err := k.ledger.Coins(k.ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
	if err != nil {
		return err
	}
	for _, c := range coins {
		if err := k.coin(c); err != nil {
			return err
		}
	}
	if err := k.ledger.EachOutgoing(k.ctx, k.transaction); err != nil {
		return err
	}
	return k.closes()
}

// tx returns a transaction of the chain, nil where there is none.
func (k *checker) tx(txid bsv.Txid) (*bsv.Tx, error) {
	if k.lastTx != nil && k.lastTxid == txid {
		return k.lastTx, nil
	}
	tx, err := k.chain.RawTx(k.ctx, txid)
	if errors.Is(err, chain.ErrNotFound) {
		return nil, nil
	}
	if err == nil {
		k.lastTxid, k.lastTx = txid, tx
	}
	return tx, err
}

// coin compares an unspent coin with the chain.
func (k *checker) coin(c ledger.Coin) error {
	k.Coins++
	at := outpoint(c.Outpoint())
	found := len(k.Differences)
	tx, err := k.tx(at.Txid)
	switch {
	case err != nil:
		return err
	case tx == nil:
		k.differ("Coin %s of %v is not on the chain.", at, c.Value)
	default:
		k.output(c, tx)
		if err := k.unspent(c, at); err != nil {
			return err
		}
	}
	if len(k.Differences) == found {
		return nil
	}
	if now, err := k.ledger.Coin(k.ctx, c.Outpoint()); err == nil && (now.State != c.State || now.Height != c.Height) {
		k.Differences = k.Differences[:found] // it has moved on meanwhile
	}
	return nil
}

func (k *checker) unspent(c ledger.Coin, at bsv.Outpoint) error {
	spent, err := k.chain.Spent(k.ctx, at)
	switch {
	case k.unsupported(err, "whether coins are unspent"), errors.Is(err, chain.ErrNotFound):
	case err != nil:
		return err
	case spent:
		k.differ("Coin %s of %v is spent on the chain.", at, c.Value)
	}
	if c.Height == 0 {
		return nil
	}
	st, err := k.chain.Status(k.ctx, at.Txid)
	switch {
	case k.unsupported(err, "whether transactions are mined"):
	case err != nil:
		return err
	case st.State != chain.Mined:
		k.differ("Coin %s of %v is said to be in block %d; its transaction is %v.", at, c.Value, c.Height, st.State)
	case st.Height != c.Height:
		k.differ("Coin %s is in block %d, the ledger says %d.", at, st.Height, c.Height)
	}
	return nil
}

// transaction compares the state of an outgoing transaction with the chain.
func (k *checker) transaction(o ledger.Outgoing) error {
	if o.State == ledger.Pending {
		return nil // nothing is said of it
	}
	st, err := k.chain.Status(k.ctx, o.Txid)
	if k.unsupported(err, "whether transactions are mined") {
		return nil
	}
	if err != nil {
		return err
	}
	what := fmt.Sprintf("the %s %s", o.Purpose, bsv.Txid(o.Txid))
	found := len(k.Differences)
	switch {
	case o.State == ledger.Mined && st.State != chain.Mined:
		k.differ("%s is said to be in block %d; it is %v.", what, o.Height, st.State)
	case o.State == ledger.Mined && st.Height != o.Height:
		k.differ("%s is in block %d, the ledger says %d.", what, st.Height, o.Height)
	case o.State == ledger.Seen && st.State != chain.Seen && st.State != chain.Mined:
		k.differ("%s was on the network; it is %v now.", what, st.State)
	case o.State == ledger.Conflicted && st.State == chain.Mined:
		k.differ("%s was given up; it is in block %d.", what, st.Height)
	}
	if len(k.Differences) == found {
		return nil
	}
	if now, err := k.ledger.Outgoing(k.ctx, o.Txid); err == nil && (now.State != o.State || now.Height != o.Height) {
		k.Differences = k.Differences[:found]
	}
	return nil
}

// closes compares what channels came to with the chain.
func (k *checker) closes() error {
	err := k.ledger.EachChannel(k.ctx, func(c ledger.Channel) error {
		if c.State != ledger.StateClosed || c.CloseTxid == [32]byte{} {
			return nil
		}
		return k.close(c)
	})
	if err == nil && k.Settled != k.Paid {
		k.differ("The settled earnings are %v, the closes in blocks paid %v.", k.Settled, k.Paid)
	}
	return err
}

func (k *checker) close(c ledger.Channel) error {
	k.Closes++
	what := fmt.Sprintf("the close %s of channel %x", bsv.Txid(c.CloseTxid), c.ID[:8])
	tx, err := k.tx(c.CloseTxid)
	if err != nil {
		return err
	}
	if tx == nil {
		if o, err := k.ledger.Outgoing(k.ctx, c.CloseTxid); err == nil && o.State == ledger.Pending {
			return nil // thrown out, and on its way again
		}
		k.differ("The chain does not know %s.", what)
		return nil
	}
	if funding := (bsv.Outpoint{Txid: c.FundingTxid, Index: c.FundingIndex}); len(tx.Inputs) != 1 || tx.Inputs[0].Prev != funding {
		k.differ("%s does not spend the channel's funding.", what)
		return nil
	}
	ours, err := k.oursOf(c, tx)
	if err != nil {
		return err
	}
	if c.Role == ledger.Payer {
		k.paidByUs(c, tx, ours, what)
		return nil
	}
	if ours != c.Payee {
		k.differ("%s pays this node %v, the newest commitment was of %v.", what, ours, c.Payee)
	}
	k.creators(c, tx, what)
	return k.settled(c, ours)
}

// oursOf is what a channel's close pays to this node, on the chain.
func (k *checker) oursOf(c ledger.Channel, tx *bsv.Tx) (sum money.Satoshis, err error) {
	coins, err := k.ledger.Coins(k.ctx, ledger.CoinFilter{Txid: &c.CloseTxid, Key: &ledger.Key{Branch: BranchPayout, Index: c.KeyIndex}})
	for _, coin := range coins {
		if uint64(coin.Index) < uint64(len(tx.Outputs)) && string(tx.Outputs[coin.Index].Script) == string(coin.Script) {
			sum += tx.Outputs[coin.Index].Value
		}
	}
	return sum, err
}

// creators compares what a close pays to the creators that are known.
func (k *checker) creators(c ledger.Channel, tx *bsv.Tx, what string) {
	paid := make(map[[20]byte]money.Satoshis)
	for _, o := range tx.Outputs {
		if h, ok := o.Script.P2PKHHash(); ok {
			paid[h] += o.Value
		}
	}
	for _, a := range c.Creators {
		if paid[a.Hash] < a.Amount {
			k.differ("%s pays the creator %x %v, agreed were %v.", what, a.Hash[:4], paid[a.Hash], a.Amount)
		}
	}
}

// paidByUs compares the close of a channel that this node paid in: the payee
// may have taken an older commitment, and no more than the newest.
func (k *checker) paidByUs(c ledger.Channel, tx *bsv.Tx, ours money.Satoshis, what string) {
	out, err := tx.Paid()
	if err != nil {
		k.differ("%s pays more than there is.", what)
		return
	}
	if others := out - ours; others != c.Payee+c.Creator {
		k.differ("%s pays others %v, the newest commitment was of %v.", what, others, c.Payee+c.Creator)
	}
}

// settled adds up what is settled: closes in blocks.
func (k *checker) settled(c ledger.Channel, ours money.Satoshis) error {
	o, err := k.ledger.Outgoing(k.ctx, c.CloseTxid)
	if errors.Is(err, ledger.ErrNotFound) || err == nil && o.State != ledger.Mined {
		return nil
	}
	if err != nil {
		return err
	}
	if k.Settled, err = k.Settled.Add(c.Payee); err != nil {
		return err
	}
	k.Paid, err = k.Paid.Add(ours)
	return err
}
