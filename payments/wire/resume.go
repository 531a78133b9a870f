package wire

// Resume asks to go on with a channel on a new connection. Where that is one
// of another title, the payer's next commitment begins a leg for it.
type Resume struct {
	Channel ChannelID
	// Proof is the payer's channel key's signature over the nonce of this
	// connection's Terms, the info hash and the channel (strict DER).
	Proof []byte
}

// Kind is KindResume.
func (*Resume) Kind() Kind { return KindResume }

func (m *Resume) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.bytes(m.Proof, MaxSignature)
}

func (m *Resume) decode(d *decoder) {
	d.raw(m.Channel[:])
	m.Proof = d.bytes(MaxSignature)
}
