package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// RawTx implements chain.Backend.
func (b *Backend) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	return ask(ctx, b, "ask for transaction "+txid.String(), func(ctx context.Context, s chain.Backend) (*bsv.Tx, error) {
		tx, err := s.RawTx(ctx, txid)
		if err == nil && tx.Txid() != txid {
			err = fmt.Errorf("it sent %s: %w", tx.Txid(), errLie)
		}
		return tx, err
	})
}

// errElsewhere says that a proof ends in a header that is not known.
var errElsewhere = fmt.Errorf("a proof that ends elsewhere: %w", chain.ErrNotFound)

// Proof implements chain.Prover.
func (b *Backend) Proof(ctx context.Context, txid bsv.Txid) (*chain.Proof, error) {
	var elsewhere *chain.Proof
	p, err := ask(ctx, b, "ask for a proof of "+txid.String(), func(ctx context.Context, s chain.Backend) (*chain.Proof, error) {
		st, err := proofOf(ctx, s, txid)
		switch {
		case err == nil && st.Proof == nil:
			return nil, fmt.Errorf("%s, without a proof: %w", st.State, chain.ErrNotFound)
		case err == nil && !b.leadsHome(ctx, s, txid, st):
			if elsewhere == nil {
				elsewhere = st.Proof
			}
			return nil, errElsewhere
		}
		return st.Proof, err
	})
	if err != nil && elsewhere != nil && ctx.Err() == nil {
		return elsewhere, nil // nobody has a better one
	}
	return p, err
}

// proofOf asks one service for a proof, as the only thing of a status or with
// all of it.
func proofOf(ctx context.Context, s chain.Backend, txid bsv.Txid) (chain.Status, error) {
	if prover, ok := s.(chain.Prover); ok {
		p, err := prover.Proof(ctx, txid)
		if !errors.Is(err, chain.ErrUnsupported) {
			return chain.Status{State: chain.Mined, Proof: p}, err
		}
	}
	st, err := s.Status(ctx, txid)
	if err == nil {
		err = checkStatus(st)
	}
	return st, err
}

// leadsHome reports whether the proof that a service gave ends in one of the
// headers, or there are none.
func (b *Backend) leadsHome(ctx context.Context, s chain.Backend, txid bsv.Txid, st chain.Status) bool {
	if b.opt.Headers == nil || b.isKnown(txid, st) {
		return true
	}
	if _, ok := b.opt.Headers.Tip(); !ok {
		return false // it takes long to begin
	}
	if _, err := st.Proof.Root(txid); err != nil {
		return false
	}
	// A block that has just been found. What is wrong with a service's headers is
	// for others to say.
	own, cancel := context.WithTimeout(ctx, b.opt.Timeout)
	defer cancel()
	if _, err := b.opt.Headers.Sync(own, s); errors.Is(err, chain.ErrUnsupported) {
		_, _ = b.opt.Headers.Sync(own, b)
	}
	return b.isKnown(txid, st)
}

func (b *Backend) isKnown(txid bsv.Txid, s chain.Status) bool {
	for _, hash := range []chain.Hash{s.Proof.Block, s.Block} {
		if h, ok := b.opt.Headers.Find(hash); ok && s.Proof.Check(txid, h) == nil {
			return true
		}
	}
	for _, height := range []uint32{s.Proof.Height, s.Height} {
		if h, ok := b.opt.Headers.At(height); ok && s.Proof.Check(txid, h) == nil {
			return true
		}
	}
	return false
}

// Status implements chain.Backend.
func (b *Backend) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	s, lost, err := b.status(ctx, txid)
	if err != nil || !lost || s.State == chain.Conflicted || s.Proof != nil {
		return s, err
	}
	// It has lost, says one, and another that it has not.
	for _, winner := range s.Competing[:min(len(s.Competing), maxWinners)] {
		if winner == txid {
			continue
		}
		w, _, err := b.status(ctx, winner)
		if ctx.Err() != nil {
			return chain.Status{}, err
		}
		if err == nil && w.State == chain.Mined && (w.Proof != nil || s.State != chain.Mined) && b.displaces(ctx, winner, w, txid) {
			return chain.Status{State: chain.Conflicted, Competing: s.Competing}, nil
		}
		if ctx.Err() != nil {
			return chain.Status{}, fmt.Errorf("what displaced %s: %w: %w", txid, chain.ErrUnavailable, ctx.Err())
		}
	}
	return s, nil
}

// maxWinners is how many transactions are asked about that are said to have
// displaced another.
const maxWinners = 4

// displaces reports whether a transaction that is called mined is, and spends an
// output that the other one spends too. Without headers the service's word
// counts: nothing could be proven.
func (b *Backend) displaces(ctx context.Context, winner bsv.Txid, w chain.Status, loser bsv.Txid) bool {
	if b.opt.Headers == nil {
		return true
	}
	if w.Proof == nil || !b.isKnown(winner, w) {
		return false
	}
	won, err := b.RawTx(ctx, winner)
	if err != nil {
		return false
	}
	lost, err := b.RawTx(ctx, loser)
	if err != nil {
		return false
	}
	taken := make(map[bsv.Outpoint]bool, len(won.Inputs))
	for _, in := range won.Inputs {
		taken[in.Prev] = true
	}
	return slices.ContainsFunc(lost.Inputs, func(in bsv.Input) bool { return taken[in.Prev] })
}

// status gathers what the services say, and whether any of them says that the
// transaction has lost.
func (b *Backend) status(ctx context.Context, txid bsv.Txid) (best chain.Status, lost bool, err error) {
	problems := trouble{question: "ask for the status of " + txid.String()}
	answers, home := 0, false
	var v voices
	var competing []bsv.Txid
	candidates, up := b.candidates()
	for i, s := range candidates {
		if home || i >= up && answers > 0 && !v.loneLoss() {
			break
		}
		st, err := call(ctx, b, s, func(ctx context.Context, s chain.Backend) (chain.Status, error) {
			st, err := s.Status(ctx, txid)
			if err == nil {
				err = checkStatus(st)
			}
			return st, err
		})
		switch {
		case ctx.Err() != nil:
			return chain.Status{}, false, fmt.Errorf("%s: %s: %w", problems.question, s.Name, err)
		case err == nil && s.OwnOnly && st.State == chain.Unknown:
			err = errSilent
			fallthrough
		case err != nil:
			problems.add(s.Name, err)
			v.missed = v.missed || isVoter(s, err)
			continue
		}
		answers++
		v.hear(s, st.State)
		lost = lost || st.State == chain.Conflicted
		competing = append(competing, st.Competing...)
		home = st.Proof != nil && b.leadsHome(ctx, s.Backend, txid, st)
		if home || rank(st) > rank(best) {
			best = st
		}
	}
	if answers == 0 && problems.silent && !problems.failed {
		return chain.Status{}, false, nil // nobody else is there to know more
	}
	if answers == 0 {
		return chain.Status{}, false, problems.err()
	}
	slices.SortFunc(competing, func(a, b bsv.Txid) int { return bytes.Compare(a[:], b[:]) })
	best.Competing = slices.Compact(competing)
	switch {
	case best.State == chain.Seen && v.isSwallowed() && len(best.Competing) == 0:
		return chain.Status{}, lost, nil
	case best.State == chain.Conflicted && v.loneLoss() && v.missed:
		return chain.Status{}, false, fmt.Errorf("one service alone calls it lost: %w: %w", chain.ErrUnavailable, problems.err())
	}
	return best, lost, nil
}

// voices are who said what of a transaction.
type voices struct {
	index  bool // one that knows all transactions answered
	seen   bool // and has this one
	denied bool // or does not know it
	lost   int  // how many call it lost
	missed bool // one that would know did not answer
}

func (v *voices) hear(s *service, state chain.State) {
	if state == chain.Conflicted {
		v.lost++
	}
	if s.OwnOnly {
		return
	}
	v.index = true
	v.seen = v.seen || state == chain.Seen || state == chain.Mined
	v.denied = v.denied || state == chain.Unknown
}

// isSwallowed reports whether only services that broadcast call a transaction
// seen, and one that would see it does not know it.
func (v *voices) isSwallowed() bool { return v.denied && !v.seen }

// loneLoss reports whether a single service that broadcasts calls a transaction
// lost, and nobody else said anything.
func (v *voices) loneLoss() bool { return v.lost == 1 && !v.index }

// isVoter reports whether a service that did not answer a question would have
// had a say: one that never answered anything may want a key that the owner has
// not got.
func isVoter(s *service, err error) bool {
	if errors.Is(err, errSilent) || errors.Is(err, chain.ErrUnsupported) || errors.Is(err, chain.ErrNotFound) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.lastAnswer.IsZero()
}

// rank orders what is said of a transaction by how much it tells.
func rank(s chain.Status) int {
	switch s.State {
	case chain.Mined:
		if s.Proof != nil {
			return 4
		}
		return 3
	case chain.Seen:
		return 2
	case chain.Conflicted:
		return 1
	}
	return 0
}

// checkStatus returns an error where a status contradicts itself.
func checkStatus(s chain.Status) error {
	p := s.Proof
	switch {
	case s.State == chain.Mined && s.Block.IsZero():
		return fmt.Errorf("mined in no block: %w", errLie)
	case p == nil:
	case s.State != chain.Mined:
		return fmt.Errorf("a proof for what is %s: %w", s.State, errLie)
	case p.Height != 0 && p.Height != s.Height, !p.Block.IsZero() && p.Block != s.Block:
		return fmt.Errorf("mined in %d %s, with a proof for %d %s: %w", s.Height, s.Block, p.Height, p.Block, errLie)
	}
	return nil
}

// Broadcast implements chain.Backend.
func (b *Backend) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	txid := tx.Txid()
	if err := b.hopeless(ctx, tx, prev); err != nil {
		return fmt.Errorf("broadcast %s: %w", txid, err)
	}
	send := func(ctx context.Context, s chain.Backend) (struct{}, error) {
		return struct{}{}, s.Broadcast(ctx, tx, prev)
	}
	problems := trouble{question: "broadcast " + txid.String()}
	var verdict error
	var reason chain.Reason // of verdict
	refusals, index, missed := 0, false, false
	candidates, up := b.candidates()
	for i, s := range candidates {
		_, err := call(ctx, b, s, send)
		rejected := new(chain.Rejected)
		switch {
		case err == nil:
			b.tell(ctx, candidates[min(i+1, up):up], send)
			return nil
		case errors.As(err, &rejected):
			refusals++
			index = index || !s.OwnOnly
			if verdict == nil || outweighs(rejected.Reason, reason) {
				verdict, reason = fmt.Errorf("broadcast %s: %s: %w", txid, s.Name, rejected), rejected.Reason
			}
			if rejected.Reason == chain.Invalid && prev != nil && bsv.VerifyInputs(tx, prev) != nil {
				return verdict
			}
		case ctx.Err() != nil:
			return fmt.Errorf("broadcast %s: %s: %w", txid, s.Name, err)
		default:
			problems.add(s.Name, err)
			missed = missed || isVoter(s, err)
		}
	}
	if verdict != nil && reason.Final() && refusals == 1 && !index && missed {
		problems.texts = append(problems.texts, "one service alone refuses it for good: "+verdict.Error())
		return problems.err()
	}
	if verdict != nil {
		return verdict
	}
	return problems.err()
}

// outweighs reports whether a later service's reason counts in the place of an
// earlier one's. Missing inputs are unknown or spent, and who says that they are
// spent knows more. Otherwise one service alone does not make a refusal final.
func outweighs(later, earlier chain.Reason) bool {
	if earlier == chain.MissingInputs || later == chain.MissingInputs {
		return later == chain.DoubleSpend || earlier == chain.Invalid
	}
	return earlier.Final() && !later.Final()
}

// tellGrace is how long Broadcast waits for services whose word does not count
// any more.
const tellGrace = 2 * time.Second

// tell hands a transaction that the network has to further services. A slow one
// is not waited for.
func (b *Backend) tell(ctx context.Context, services []*service, send func(context.Context, chain.Backend) (struct{}, error)) {
	if !b.opt.BroadcastAll || len(services) == 0 {
		return
	}
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(func() { _, _ = call(context.WithoutCancel(ctx), b, s, send) }) // call bounds its time
	}
	told := make(chan struct{})
	go func() { wg.Wait(); close(told) }()
	grace := time.NewTimer(tellGrace)
	defer grace.Stop()
	select {
	case <-told:
	case <-grace.C:
	case <-ctx.Done():
	}
}

// hopeless returns the *chain.Rejected of a transaction that no service needs to
// be asked about.
func (b *Backend) hopeless(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	if len(tx.Inputs) == 0 || len(tx.Outputs) == 0 || tx.Size() > chain.MaxTxSize {
		return chain.Reject(chain.Invalid, fmt.Sprintf("%d inputs, %d outputs, %d bytes",
			len(tx.Inputs), len(tx.Outputs), tx.Size()))
	}
	paid, err := tx.Paid()
	if err != nil {
		return chain.Reject(chain.Invalid, err.Error())
	}
	if prev != nil && len(prev) != len(tx.Inputs) {
		return chain.Reject(chain.Invalid, fmt.Sprintf("%d previous outputs for %d inputs", len(prev), len(tx.Inputs)))
	}
	if prev != nil {
		spent, err := (&bsv.Tx{Outputs: prev}).Paid()
		if err != nil {
			return chain.Reject(chain.Invalid, err.Error())
		}
		if paid > spent {
			return chain.Reject(chain.Invalid, fmt.Sprintf("spends %d of %d", paid, spent))
		}
	}
	if tx.FinalAt(0) {
		return nil
	}
	if b.opt.Headers != nil {
		if own, ok := b.opt.Headers.Tip(); ok && tx.FinalAt(own.Height+1) {
			return nil // whatever a service says that is behind
		}
	}
	// Not every service looks at the lock time, and one that keeps a refund that
	// is early hinders the close.
	tip, err := b.Tip(ctx)
	if err != nil {
		return err
	}
	if !tx.FinalAt(tip.Height + 1) {
		return chain.Reject(chain.NonFinal, fmt.Sprintf("lock time %d, next block %d", tx.LockTime, tip.Height+1))
	}
	return nil
}

// Watch implements chain.Watcher: it watches all services that can be watched,
// each of them again a while after it has ended, and returns when ctx ends;
// ErrUnsupported where none can be.
//
// News are passed on at once, and then by the batch: a service that never stops
// telling would else have everybody ask all the time.
func (b *Backend) Watch(ctx context.Context, changed func(txid bsv.Txid)) error {
	problems := trouble{question: "watch"}
	var mu sync.Mutex // of problems and news
	news := make(map[bsv.Txid]bool)
	some := make(chan struct{}, 1)
	hear := func(txid bsv.Txid) {
		mu.Lock()
		if len(news) < maxNews {
			news[txid] = true
		}
		mu.Unlock()
		select {
		case some <- struct{}{}:
		default:
		}
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for _, s := range b.services {
		watcher, ok := s.Backend.(chain.Watcher)
		if !ok {
			continue
		}
		wg.Go(func() {
			err := watcher.Watch(ctx, hear)
			for !errors.Is(err, chain.ErrUnsupported) {
				if pause(ctx, lastSkip); ctx.Err() != nil {
					break
				}
				err = watcher.Watch(ctx, hear)
			}
			mu.Lock()
			defer mu.Unlock()
			problems.add(s.Name, err)
		})
	}
	go func() { wg.Wait(); close(ended) }()
	for {
		select {
		case <-some:
		case <-ended:
			if err := ctx.Err(); err != nil {
				return err
			}
			return problems.err()
		}
		mu.Lock()
		batch := slices.SortedFunc(maps.Keys(news), func(a, b bsv.Txid) int { return bytes.Compare(a[:], b[:]) })
		clear(news)
		mu.Unlock()
		for _, txid := range batch {
			if ctx.Err() == nil {
				changed(txid)
			}
		}
		pause(ctx, newsPause)
	}
}

const (
	// maxNews is how many transactions are remembered until they are told of.
	maxNews = chain.MaxSent
	// newsPause is how long no further news are passed on.
	newsPause = 10 * time.Second
)

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
