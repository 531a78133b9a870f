package wire

// RefundSig is the seeder's signature of the payer's refund, without which the
// payer does not broadcast its funding.
type RefundSig struct {
	Channel   ChannelID
	Signature []byte // with hash type, at most MaxSignature bytes
}

// Kind is KindRefundSig.
func (*RefundSig) Kind() Kind { return KindRefundSig }

func (m *RefundSig) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.bytes(m.Signature, MaxSignature)
}

func (m *RefundSig) decode(d *decoder) {
	d.raw(m.Channel[:])
	m.Signature = d.bytes(MaxSignature)
}
