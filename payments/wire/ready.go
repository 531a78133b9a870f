package wire

// Ready says that the seeder took the funding and serves.
type Ready struct {
	Channel ChannelID
	Credit  int64 // bytes that may be owed from now on
}

// Kind is KindReady.
func (*Ready) Kind() Kind { return KindReady }

func (m *Ready) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.count(m.Credit)
}

func (m *Ready) decode(d *decoder) {
	d.raw(m.Channel[:])
	m.Credit = d.count()
}
