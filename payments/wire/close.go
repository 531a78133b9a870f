package wire

import "github.com/bitcdn/bitcdn/payments/money"

// Close asks the seeder to settle the channel now, or to forget one whose refund
// it has signed and whose funding will never come.
type Close struct {
	Channel ChannelID
}

// Kind is KindClose.
func (*Close) Kind() Kind { return KindClose }

func (m *Close) encode(e *encoder) { e.raw(m.Channel[:]) }
func (m *Close) decode(d *decoder) { d.raw(m.Channel[:]) }

// Closed says by which transaction the seeder settled, and what it took.
type Closed struct {
	Channel ChannelID
	Txid    [32]byte // internal byte order
	Payee   money.Satoshis
	Creator money.Satoshis // to all creators together
}

// Kind is KindClosed.
func (*Closed) Kind() Kind { return KindClosed }

func (m *Closed) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.raw(m.Txid[:])
	e.sat(m.Payee)
	e.sat(m.Creator)
}

func (m *Closed) decode(d *decoder) {
	d.raw(m.Channel[:])
	d.raw(m.Txid[:])
	m.Payee = d.sat()
	m.Creator = d.sat()
}
