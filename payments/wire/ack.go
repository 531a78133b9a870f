package wire

// Ack says that the commitment of this number is on the seeder's disk.
type Ack struct {
	Channel ChannelID
	Seq     uint64
	Credit  int64 // bytes that may be owed from now on
}

// Kind is KindAck.
func (*Ack) Kind() Kind { return KindAck }

func (m *Ack) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.seq(m.Seq)
	e.count(m.Credit)
}

func (m *Ack) decode(d *decoder) {
	d.raw(m.Channel[:])
	m.Seq = d.seq()
	m.Credit = d.count()
}
