package wire

// MaxParents is how many unconfirmed ancestors a Funded may carry.
const MaxParents = 25

// Funded hands over the funding transaction, which the payer has broadcast,
// and the first commitment.
type Funded struct {
	Channel ChannelID
	Funding []byte   // raw transaction
	Parents [][]byte // raw unconfirmed ancestors, parents before children
	First   Pay      // a commitment that gives everything back
}

// Kind is KindFunded.
func (*Funded) Kind() Kind { return KindFunded }

func (m *Funded) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.bytes(m.Funding, MaxPayload)
	if len(m.Parents) > MaxParents {
		e.fail(ErrTooLong)
		return
	}
	e.u8(byte(len(m.Parents)))
	for _, p := range m.Parents {
		e.bytes(p, MaxPayload)
	}
	m.First.encode(e)
}

func (m *Funded) decode(d *decoder) {
	d.raw(m.Channel[:])
	m.Funding = d.bytes(MaxPayload)
	n := int(d.u8())
	if n > MaxParents {
		d.fail(ErrTooLong)
		return
	}
	for range n {
		m.Parents = append(m.Parents, d.bytes(MaxPayload))
	}
	m.First.decode(d)
}
