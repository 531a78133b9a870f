package channel

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// ErrSnapshot says that stored bytes are no state of a channel.
var ErrSnapshot = errors.New("not a channel's stored state")

// snapshot is a state on disk: the messages that made it, in their own
// encoding, and the counters. Fields are only ever added.
type snapshot struct {
	Version   int      `json:"v"`
	Side      string   `json:"side"` // payer or payee
	Phase     Phase    `json:"phase"`
	Leg       Leg      `json:"leg"`
	Past      Past     `json:"past"`
	Terms     []byte   `json:"terms"`
	Open      []byte   `json:"open,omitempty"`
	Last      []byte   `json:"last,omitempty"`
	Funding   []byte   `json:"funding,omitempty"`
	Refund    []byte   `json:"refund,omitempty"`
	Confirmed bool     `json:"confirmed,omitempty"`
	Doubted   bool     `json:"doubted,omitempty"`
	Served    int64    `json:"served,omitempty"`
	Forgiven  int64    `json:"forgiven,omitempty"`
	Active    int64    `json:"active,omitempty"` // Unix seconds
	Credit    int64    `json:"credit,omitempty"`
	Acked     uint64   `json:"acked,omitempty"`
	Wire      int64    `json:"wire,omitempty"`
	Payable   int64    `json:"payable,omitempty"`
	Forgone   int64    `json:"forgone,omitempty"`
	Refused   bool     `json:"refused,omitempty"`
	Close     bsv.Txid `json:"close"`
}

const snapshotVersion = 1

// Snapshot encodes the state without its key.
func (s Payee) Snapshot() ([]byte, error) {
	return encodeSnapshot(snapshot{Side: "payee", Phase: s.Phase, Leg: s.Leg, Past: s.Past, Funding: s.Funding, Confirmed: s.Confirmed,
		Doubted: s.Doubted, Served: s.Served, Forgiven: s.Forgiven, Active: s.Active.Unix(), Close: s.Close}, &s.Terms, &s.Open, &s.Last)
}

// RestorePayee reads what Snapshot wrote. ErrSnapshot.
func RestorePayee(b []byte, key bsv.PrivateKey, policy Policy) (Payee, error) {
	s := Payee{Key: key, Policy: policy}
	snap, err := decodeSnapshot(b, "payee", &s.Terms, &s.Open, &s.Last)
	if err != nil {
		return Payee{}, err
	}
	s.Phase, s.Leg, s.Past, s.Funding = snap.Phase, snap.Leg, snap.Past, snap.Funding
	s.Confirmed, s.Doubted = snap.Confirmed, snap.Doubted
	s.Served, s.Forgiven, s.Close = snap.Served, snap.Forgiven, snap.Close
	s.Active = time.Unix(snap.Active, 0)
	if s.Phase == Checking { // the check died with the process
		s.Phase, s.Last, s.Funding = Signed, wire.Pay{}, nil
	}
	return s, nil
}

// Snapshot encodes the state without its key.
func (s Payer) Snapshot() ([]byte, error) {
	return encodeSnapshot(snapshot{Side: "payer", Phase: s.Phase, Leg: s.Leg, Past: s.Past, Funding: s.Funding, Refund: s.Refund,
		Credit: s.Credit, Acked: s.Acked, Wire: s.Wire, Payable: s.Payable,
		Forgone: s.Forgone, Refused: s.Refused, Close: s.Close}, &s.Terms, &s.Open, &s.Last)
}

// RestorePayer reads what Snapshot wrote. ErrSnapshot.
func RestorePayer(b []byte, key bsv.PrivateKey) (Payer, error) {
	s := Payer{Key: key}
	snap, err := decodeSnapshot(b, "payer", &s.Terms, &s.Open, &s.Last)
	if err != nil {
		return Payer{}, err
	}
	s.Phase, s.Leg, s.Past, s.Funding, s.Refund = snap.Phase, snap.Leg, snap.Past, snap.Funding, snap.Refund
	s.Credit, s.Acked, s.Wire, s.Payable, s.Close = snap.Credit, snap.Acked, snap.Wire, snap.Payable, snap.Close
	s.Forgone, s.Refused = snap.Forgone, snap.Refused
	return s, nil
}

func encodeSnapshot(s snapshot, t *wire.Terms, o *wire.Open, p *wire.Pay) (b []byte, err error) {
	s.Version = snapshotVersion
	if s.Terms, err = wire.Encode(t); err != nil {
		return nil, err
	}
	if s.Open, err = wire.Encode(o); err != nil {
		return nil, err
	}
	if s.Last, err = wire.Encode(p); err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

func decodeSnapshot(b []byte, side string, t *wire.Terms, o *wire.Open, p *wire.Pay) (snapshot, error) {
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return snapshot{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if s.Version != snapshotVersion || s.Side != side {
		return snapshot{}, fmt.Errorf("version %d of a %s: %w", s.Version, s.Side, ErrSnapshot)
	}
	if err := errors.Join(into(s.Terms, t), into(s.Open, o), into(s.Last, p)); err != nil {
		return snapshot{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	return s, nil
}

// into decodes a message of a known kind.
func into[M any, P interface {
	*M
	wire.Message
}](b []byte, dst P) error {
	m, err := wire.Decode(b)
	if err != nil {
		return err
	}
	got, ok := m.(P)
	if !ok {
		return fmt.Errorf("a message of kind %d", m.Kind())
	}
	*dst = *got
	return nil
}
