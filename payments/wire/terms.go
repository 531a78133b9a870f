package wire

import "github.com/bitcdn/bitcdn/payments/money"

// Terms is the seeder's offer, sent as soon as the peer is known to speak
// bc_pay. It is fixed in length.
type Terms struct {
	Network  byte     // 0 main, 1 test, 2 regtest
	Nonce    [16]byte // of this connection; a Resume signs it
	Identity [33]byte // the seeder's lasting key, by which a payer finds its channel again
	Payee    [33]byte // a key that was never used before, for the 2-of-2
	// PayeeHash is where the seeder's part of a close goes (P2PKH).
	PayeeHash [20]byte
	Ask       money.Rate // the seeder's price
	Royalty   money.Rate // the creator's part, on top
	// CreatorHash is where the royalty goes (P2PKH); zero without a royalty.
	CreatorHash  [20]byte
	MinCapacity  money.Satoshis
	MaxCapacity  money.Satoshis
	FeeRate      money.FeeRate // of the close and of the refund
	TipHeight    uint32        // of the chain, as the seeder sees it
	RefundWindow uint32        // blocks from the tip to the refund's height, at least
	CloseMargin  uint32        // blocks before the refund's height at which the seeder closes
	// UnconfirmedLimit caps what is delivered while the funding is not mined.
	UnconfirmedLimit money.Satoshis
	// Credit is how many bytes may be owed at the beginning.
	Credit int64
	Expiry int64 // Unix seconds after which an Open is refused
	// Signature is Identity's over the digest of all the above and the info
	// hash (strict DER without hash type).
	Signature []byte
}

// Kind is KindTerms.
func (*Terms) Kind() Kind { return KindTerms }

// Signed is the part of the payload that Signature covers.
func (m *Terms) Signed() ([]byte, error) {
	var e encoder
	m.body(&e)
	return e.b, e.err
}

func (m *Terms) body(e *encoder) {
	e.u8(Version)
	e.u8(m.Network)
	e.raw(m.Nonce[:])
	e.raw(m.Identity[:])
	e.raw(m.Payee[:])
	e.raw(m.PayeeHash[:])
	e.rate(m.Ask)
	e.rate(m.Royalty)
	e.raw(m.CreatorHash[:])
	e.sat(m.MinCapacity)
	e.sat(m.MaxCapacity)
	e.feeRate(m.FeeRate)
	e.u32(m.TipHeight)
	e.u32(m.RefundWindow)
	e.u32(m.CloseMargin)
	e.sat(m.UnconfirmedLimit)
	e.count(m.Credit)
	e.count(m.Expiry)
}

func (m *Terms) encode(e *encoder) {
	m.body(e)
	e.bytes(m.Signature, MaxSignature)
}

func (m *Terms) decode(d *decoder) {
	if v := d.u8(); d.err == nil && v != Version {
		d.fail(ErrKind)
		return
	}
	m.Network = d.u8()
	d.raw(m.Nonce[:])
	d.raw(m.Identity[:])
	d.raw(m.Payee[:])
	d.raw(m.PayeeHash[:])
	m.Ask = d.rate()
	m.Royalty = d.rate()
	d.raw(m.CreatorHash[:])
	m.MinCapacity = d.sat()
	m.MaxCapacity = d.sat()
	m.FeeRate = d.feeRate()
	m.TipHeight = d.u32()
	m.RefundWindow = d.u32()
	m.CloseMargin = d.u32()
	m.UnconfirmedLimit = d.sat()
	m.Credit = d.count()
	m.Expiry = d.count()
	m.Signature = d.bytes(MaxSignature)
}
