package wire

// Resume asks to go on with a channel on a new connection.
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
