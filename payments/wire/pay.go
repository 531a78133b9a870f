package wire

import "github.com/bitcdn/bitcdn/payments/money"

// MaxCreators is how many creators one channel pays at the most.
const MaxCreators = 8

// Royalty is what a creator gets of a commitment.
type Royalty struct {
	To     [20]byte // hash of the creator's key (P2PKH)
	Amount money.Satoshis
}

// Pay is a commitment: both sides rebuild the same transaction from its
// amounts. They are cumulative over the channel's life, and none of them ever
// falls.
//
// A channel may pay for several titles, one after the other. Each such leg is
// named by the number of the commitment that began it, which has Leg = Seq and
// Bytes = 0, and every commitment says of which leg and title it is.
type Pay struct {
	Channel   ChannelID
	Seq       uint64 // at most MaxSeq
	Leg       uint64 // 1 to Seq
	Title     [20]byte
	Bytes     int64 // of this leg that are paid for
	Payee     money.Satoshis
	Creators  []Royalty // at most MaxCreators, in the order of the close's outputs
	Signature []byte    // the payer's, with hash type, at most MaxSignature bytes
}

// Royalties is what all creators get together.
func (m *Pay) Royalties() money.Satoshis {
	var sum money.Satoshis
	for i := range m.Creators {
		sum += m.Creators[i].Amount
	}
	return sum
}

// Kind is KindPay.
func (*Pay) Kind() Kind { return KindPay }

func (m *Pay) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.seq(m.Seq)
	e.seq(m.Leg)
	e.raw(m.Title[:])
	e.count(m.Bytes)
	e.sat(m.Payee)
	if len(m.Creators) > MaxCreators {
		e.fail(ErrTooLong)
		return
	}
	e.u8(byte(len(m.Creators)))
	for i := range m.Creators {
		e.raw(m.Creators[i].To[:])
		e.sat(m.Creators[i].Amount)
	}
	e.bytes(m.Signature, MaxSignature)
}

func (m *Pay) decode(d *decoder) {
	d.raw(m.Channel[:])
	m.Seq = d.seq()
	m.Leg = d.seq()
	d.raw(m.Title[:])
	m.Bytes = d.count()
	m.Payee = d.sat()
	n := int(d.u8())
	if n > MaxCreators {
		d.fail(ErrTooLong)
		return
	}
	for range n {
		var r Royalty
		d.raw(r.To[:])
		r.Amount = d.sat()
		m.Creators = append(m.Creators, r)
	}
	m.Signature = d.bytes(MaxSignature)
}
