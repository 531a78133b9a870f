package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libsv/go-bt/v2"
)

// The policy: fees in satoshis per bytes, of which one is not a round number of
// satoshis per kB.
const (
	feeSatoshis = 5
	feeBytes    = 501
)

// entry is a transaction that was sent here, and what became of it.
type entry struct {
	txid      string
	tx        *bt.Tx
	status    string
	extra     string
	code      int // of the refusal, where it has one
	competing []string
	forced    bool // by a test: the node is not asked again
	place     place
	token     string
	changed   time.Time
}

// rejection is a refusal that is answered at once, with one of ARC's codes.
type rejection struct {
	code  int
	extra string
}

func (r *rejection) Error() string { return fmt.Sprintf("%d: %s", r.code, r.extra) }

func reject(code int, format string, args ...any) error {
	return &rejection{code, fmt.Sprintf("arc error %d: ", code) + fmt.Sprintf(format, args...)}
}

type store struct {
	node *node

	mu      sync.Mutex
	entries map[string]*entry
	order   []*entry
	streams map[chan struct{}]bool // told of every change
	last    time.Time
}

func newStore(n *node) *store {
	return &store{node: n, entries: make(map[string]*entry), streams: make(map[chan struct{}]bool)}
}

// parse reads a transaction in any of the forms of a request.
func parse(rawTx, text *string, body []byte) (*bt.Tx, error) {
	var err error
	switch {
	case rawTx != nil:
		body, err = hex.DecodeString(*rawTx)
	case text != nil:
		body, err = hex.DecodeString(strings.TrimSpace(*text))
	}
	if err != nil {
		return nil, reject(400, "%v", err)
	}
	tx, err := bt.NewTxFromBytes(body)
	if err != nil {
		return nil, reject(400, "%v", err)
	}
	return tx, nil
}

// spent returns the outputs that tx spends, from the transaction itself where it
// is in the extended format.
func (s *store) spent(ctx context.Context, tx *bt.Tx) ([]*bt.Output, error) {
	outs := make([]*bt.Output, len(tx.Inputs))
	for i, in := range tx.Inputs {
		if in.PreviousTxScript != nil {
			outs[i] = &bt.Output{Satoshis: in.PreviousTxSatoshis, LockingScript: in.PreviousTxScript}
			continue
		}
		text, ok, err := s.node.raw(ctx, in.PreviousTxIDStr())
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, reject(460, "parent %s not found", in.PreviousTxIDStr())
		}
		parent, err := bt.NewTxFromString(text)
		if err != nil {
			return nil, err
		}
		if int(in.PreviousTxOutIndex) >= len(parent.Outputs) {
			return nil, reject(462, "parent %s has no output %d", in.PreviousTxIDStr(), in.PreviousTxOutIndex)
		}
		outs[i] = parent.Outputs[in.PreviousTxOutIndex]
	}
	return outs, nil
}

// validate does what ARC does before it asks the network.
func (s *store) validate(ctx context.Context, tx *bt.Tx) error {
	if len(tx.Inputs) == 0 || len(tx.Outputs) == 0 {
		return reject(463, "no inputs or no outputs")
	}
	outs, err := s.spent(ctx, tx)
	if err != nil {
		return err
	}
	var in uint64
	for _, o := range outs {
		in += o.Satoshis
	}
	out := tx.TotalOutputSatoshis()
	if out > in {
		return reject(464, "%d satoshis of %d", out, in)
	}
	if (in-out)*feeBytes < uint64(tx.Size())*feeSatoshis {
		return reject(465, "transaction fee of %d sat is too low for %d bytes", in-out, tx.Size())
	}
	return nil
}

// network asks the node to take a transaction that is valid as far as validate
// can tell. A *rejection is the node's refusal.
func (s *store) network(ctx context.Context, tx *bt.Tx) (competing []string, err error) {
	txid := tx.TxID()
	if at, err := s.node.find(ctx, txid); err != nil || at.known {
		return nil, err
	}
	for _, in := range tx.Inputs {
		parent := in.PreviousTxIDStr()
		if free, err := s.node.unspent(ctx, parent, in.PreviousTxOutIndex); err != nil {
			return nil, err
		} else if free {
			continue
		}
		rivals, err := s.rivals(ctx, tx, in)
		if err != nil {
			return nil, err
		}
		if len(rivals) == 0 {
			return nil, reject(462, "missing inputs: %s:%d is not there or spent", parent, in.PreviousTxOutIndex)
		}
		competing = append(competing, rivals...)
	}
	if len(competing) > 0 {
		return competing, reject(466, "txn-mempool-conflict")
	}
	var answer string
	err = s.node.call(ctx, &answer, "sendrawtransaction", tx.String())
	refused := new(refusal)
	if !errors.As(err, &refused) {
		return nil, err
	}
	// The node's gettxout does not know what its mempool spends.
	if _, after, ok := strings.Cut(refused.Message, "already spent by transaction "); ok {
		rival, _, _ := strings.Cut(after, " ")
		return []string{rival}, reject(466, "%s", refused.Message)
	}
	switch {
	case strings.Contains(refused.Message, "already have transaction"):
		return nil, nil
	case strings.Contains(refused.Message, "not finalized"):
		return nil, reject(476, "%s", refused.Message)
	case strings.Contains(refused.Message, "failed to validate input"):
		return nil, reject(461, "%s", refused.Message)
	}
	return nil, reject(463, "%s", refused.Message)
}

// rivals are the transactions sent here that have spent the same output.
func (s *store) rivals(ctx context.Context, tx *bt.Tx, input *bt.Input) ([]string, error) {
	s.mu.Lock()
	var same []string
	for _, e := range s.order {
		if e.txid == tx.TxID() || e.tx == nil {
			continue
		}
		for _, in := range e.tx.Inputs {
			if in.PreviousTxIDStr() == input.PreviousTxIDStr() && in.PreviousTxOutIndex == input.PreviousTxOutIndex {
				same = append(same, e.txid)
			}
		}
	}
	s.mu.Unlock()
	var known []string
	for _, txid := range same {
		at, err := s.node.find(ctx, txid)
		if err != nil {
			return nil, err
		}
		if at.known {
			known = append(known, txid)
		}
	}
	return known, nil
}

// update changes an entry, which it makes where there is none, and returns a
// copy.
func (s *store) update(tx *bt.Tx, txid string, change func(e *entry)) entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[txid]
	if e == nil {
		e = &entry{txid: txid, status: "UNKNOWN"}
		s.entries[txid] = e
		s.order = append(s.order, e)
	}
	if tx != nil {
		e.tx = tx
	}
	before := *e
	change(e)
	if e.status != before.status || e.place != before.place || !slices.Equal(e.competing, before.competing) {
		// Later than all before, for the ids of events.
		e.changed = time.Now()
		if !e.changed.After(s.last) {
			e.changed = s.last.Add(1)
		}
		s.last = e.changed
		for told := range s.streams {
			select {
			case told <- struct{}{}:
			default:
			}
		}
	}
	return *e
}

// conflict notes that a transaction lost against others, and that these were
// contested.
func (s *store) conflict(tx *bt.Tx, competing []string, extra string) entry {
	for _, rival := range competing {
		s.mu.Lock()
		known := s.entries[rival] != nil
		s.mu.Unlock()
		if !known {
			continue
		}
		s.update(nil, rival, func(e *entry) {
			if !slices.Contains(e.competing, tx.TxID()) {
				e.competing = append(slices.Clone(e.competing), tx.TxID())
			}
			if e.status == "SEEN_ON_NETWORK" {
				e.status = "DOUBLE_SPEND_ATTEMPTED"
			}
		})
	}
	return s.update(tx, tx.TxID(), func(e *entry) {
		e.status, e.extra, e.code, e.competing = "REJECTED", extra, 466, competing
	})
}

// refresh asks the node how far a transaction has come; false for one that was
// never sent here.
func (s *store) refresh(ctx context.Context, txid string) (entry, bool, error) {
	s.mu.Lock()
	known := s.entries[txid]
	var now entry
	if known != nil {
		now = *known
	}
	s.mu.Unlock()
	if known == nil || now.forced {
		return now, known != nil, nil
	}
	at, err := s.node.find(ctx, txid)
	if err != nil {
		return entry{}, true, err
	}
	return s.update(nil, txid, func(e *entry) {
		switch {
		case e.forced:
		case at.block != "":
			e.status, e.place, e.extra, e.code = "MINED", at, "", 0
		case at.known && len(e.competing) > 0:
			e.status, e.place = "DOUBLE_SPEND_ATTEMPTED", at
		case at.known:
			e.status, e.place = "SEEN_ON_NETWORK", at
		case e.status == "MINED":
			e.status, e.place = "MINED_IN_STALE_BLOCK", at
		default: // the node has forgotten it, or never had it
			e.place = at
		}
	}), true, nil
}

// poll looks for news while somebody listens.
func (s *store) poll(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		var open []string
		if len(s.streams) > 0 {
			for _, e := range s.order {
				if e.status != "REJECTED" {
					open = append(open, e.txid)
				}
			}
		}
		s.mu.Unlock()
		for _, txid := range open {
			_, _, _ = s.refresh(ctx, txid) // the next round asks again
		}
	}
}

// since returns copies of what was sent with a token and has changed after t, in
// the order of the changes.
func (s *store) since(token string, t time.Time) []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var news []entry
	for _, e := range s.order {
		if e.token == token && e.changed.After(t) {
			news = append(news, *e)
		}
	}
	slices.SortFunc(news, func(a, b entry) int { return a.changed.Compare(b.changed) })
	return news
}

func (s *store) subscribe() (told chan struct{}, leave func()) {
	told = make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[told] = true
	return told, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, told)
	}
}

// force lets a test say what has become of a transaction.
func (s *store) force(w http.ResponseWriter, r *http.Request) {
	var order struct {
		Txid, TxStatus, ExtraInfo string
		CompetingTxs              []string
		Release                   bool // to what the node says
	}
	if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.update(nil, order.Txid, func(e *entry) {
		e.forced = !order.Release
		e.status, e.extra, e.competing = order.TxStatus, order.ExtraInfo, order.CompetingTxs
	})
}
