package wire

import "github.com/bitcdn/bitcdn/payments/money"

// Open is the payer's answer to Terms: it has made a funding transaction, which
// nobody else has seen, and asks for the signature of its refund.
type Open struct {
	Payer        [33]byte // a fresh key for the 2-of-2
	PayerHash    [20]byte // where change and refund go (P2PKH)
	FundingTxid  [32]byte // internal byte order
	FundingIndex uint32
	Capacity     money.Satoshis
	RefundHeight uint32
	FeeRate      money.FeeRate // as in the terms or above
}

// Kind is KindOpen.
func (*Open) Kind() Kind { return KindOpen }

func (m *Open) encode(e *encoder) {
	e.raw(m.Payer[:])
	e.raw(m.PayerHash[:])
	e.raw(m.FundingTxid[:])
	e.u32(m.FundingIndex)
	e.sat(m.Capacity)
	e.u32(m.RefundHeight)
	e.feeRate(m.FeeRate)
}

func (m *Open) decode(d *decoder) {
	d.raw(m.Payer[:])
	d.raw(m.PayerHash[:])
	d.raw(m.FundingTxid[:])
	m.FundingIndex = d.u32()
	m.Capacity = d.sat()
	m.RefundHeight = d.u32()
	m.FeeRate = d.feeRate()
}
