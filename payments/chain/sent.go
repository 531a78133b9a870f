package chain

import (
	"sync"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// MaxSent is how many transactions a Sent remembers.
const MaxSent = 1024

// Sent remembers what the newest transactions spend that were handed to a
// backend's Broadcast, for the backend to see later which of them lost their
// inputs to others. The zero value is ready; its methods may be called from
// several goroutines.
type Sent struct {
	mu     sync.Mutex
	inputs map[bsv.Txid][]bsv.Outpoint
	ring   []bsv.Txid // the keys of inputs, a circle once it is full
	next   int
}

// Add remembers tx. The oldest one is forgotten where there are too many.
func (s *Sent) Add(tx *bsv.Tx) {
	txid := tx.Txid()
	inputs := make([]bsv.Outpoint, len(tx.Inputs))
	for i, in := range tx.Inputs {
		inputs[i] = in.Prev
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.inputs[txid]; ok {
		return
	}
	if s.inputs == nil {
		s.inputs = make(map[bsv.Txid][]bsv.Outpoint)
	}
	if len(s.ring) < MaxSent {
		s.ring = append(s.ring, txid)
	} else {
		delete(s.inputs, s.ring[s.next])
		s.ring[s.next] = txid
		s.next = (s.next + 1) % MaxSent
	}
	s.inputs[txid] = inputs
}

// Inputs returns what a transaction spends that was handed to Add; nil for one
// that was not, or is forgotten. The slice is not to be written to.
func (s *Sent) Inputs(txid bsv.Txid) []bsv.Outpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inputs[txid]
}

// Len returns how many transactions are remembered.
func (s *Sent) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inputs)
}
