package wire

import "unicode/utf8"

// MaxText is the longest text of a Refusal in bytes.
const MaxText = 200

// Code says why something was refused.
type Code uint16

// The codes. Others may come; they mean what their text says.
const (
	CodeUnspecified    Code = 0
	CodeTerms          Code = 1 // not the offered terms: keys, capacity, height, fee rate
	CodeExpired        Code = 2 // the offer has run out
	CodeFunding        Code = 3 // the funding is not what Open promised, or not valid
	CodeUnknownChannel Code = 4 // no such channel, or it is closed
	CodePayment        Code = 5 // a commitment that does not follow from the last
	CodeUnconfirmed    Code = 6 // no more until the funding is mined
	CodeDoubleSpend    Code = 7 // the funding was spent elsewhere
	CodeUnavailable    Code = 8 // a passing trouble on this side: try again later
	CodeOrder          Code = 9 // a message that does not belong here
)

// Refusal ends what the peer asked for, not the connection.
type Refusal struct {
	Channel ChannelID // that is meant; zero where none is
	Code    Code
	Text    string // for people; UTF-8, at most MaxText bytes
}

// Kind is KindRefusal.
func (*Refusal) Kind() Kind { return KindRefusal }

func (m *Refusal) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.u16(uint16(m.Code))
	text := m.Text
	for len(text) > MaxText {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	e.bytes([]byte(text), MaxText)
}

func (m *Refusal) decode(d *decoder) {
	d.raw(m.Channel[:])
	m.Code = Code(d.u16())
	text := d.bytes(MaxText)
	if !utf8.Valid(text) {
		d.fail(ErrMalformed)
		return
	}
	m.Text = string(text)
}
