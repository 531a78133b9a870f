package wire

import "github.com/bitcdn/bitcdn/payments/money"

// Pay is a commitment: both sides rebuild the same transaction from its
// numbers. All of them are cumulative over the channel's life, and none of
// them ever falls.
type Pay struct {
	Channel   ChannelID
	Seq       uint64
	Bytes     int64 // that are paid for
	Payee     money.Satoshis
	Creator   money.Satoshis
	Signature []byte // the payer's, with hash type, at most MaxSignature bytes
}

// Kind is KindPay.
func (*Pay) Kind() Kind { return KindPay }

func (m *Pay) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.u64(m.Seq)
	e.count(m.Bytes)
	e.sat(m.Payee)
	e.sat(m.Creator)
	e.bytes(m.Signature, MaxSignature)
}

func (m *Pay) decode(d *decoder) {
	d.raw(m.Channel[:])
	m.Seq = d.u64()
	m.Bytes = d.count()
	m.Payee = d.sat()
	m.Creator = d.sat()
	m.Signature = d.bytes(MaxSignature)
}
