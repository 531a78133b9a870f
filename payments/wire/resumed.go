package wire

// Resumed tells the payer the newest commitment that the seeder holds, so that
// both go on from the same numbers. Last.Seq is 0 where the seeder signed the
// refund but has not seen the funding: the payer then sends Funded.
type Resumed struct {
	Last   Pay
	Credit int64 // bytes that may be owed from now on
}

// Kind is KindResumed.
func (*Resumed) Kind() Kind { return KindResumed }

func (m *Resumed) encode(e *encoder) {
	m.Last.encode(e)
	e.count(m.Credit)
}

func (m *Resumed) decode(d *decoder) {
	m.Last.decode(d)
	m.Credit = d.count()
}
