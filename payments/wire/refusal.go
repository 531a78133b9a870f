package wire

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// MaxText is the longest text of a Refusal in bytes.
const MaxText = 200

// Code says why something was refused.
type Code uint16

// The codes. Others may come; they mean what their text says.
const (
	CodeUnspecified    Code = 0
	CodeTerms          Code = 1  // not the offered terms: keys, capacity, height, fee rate, number of creators
	CodeExpired        Code = 2  // the offer has run out
	CodeFunding        Code = 3  // the funding is not valid, for no reason that has its own code
	CodeUnknownChannel Code = 4  // no such channel, or it is closed
	CodePayment        Code = 5  // a commitment that does not follow from the last
	CodeUnconfirmed    Code = 6  // no more until the funding is mined
	CodeDoubleSpend    Code = 7  // another transaction competes with the funding, or has won
	CodeUnavailable    Code = 8  // a passing trouble on this side: try again later
	CodeOrder          Code = 9  // a message that does not belong here
	CodeVersion        Code = 10 // the funding or an unconfirmed parent is not version 1
	CodeNonFinal       Code = 11 // the funding or an unconfirmed parent cannot be mined yet
	CodeUnderpaid      Code = 12 // the funding pays too little to the miners
	CodeUnknownParent  Code = 13 // the funding spends what the chain does not know
	CodeSpent          Code = 14 // what the funding spends, or its output, is spent already
	CodeTooLarge       Code = 15 // too many inputs, outputs, bytes or unconfirmed ancestors
	CodeWrongFunding   Code = 16 // not the funding that Open promised: output, amount, id
)

var codeWords = [...]string{
	CodeUnspecified:    "the seeder gives no reason",
	CodeTerms:          "the channel is not as the seeder offered it",
	CodeExpired:        "the seeder's offer has run out",
	CodeFunding:        "the seeder does not take the funding: it is not valid",
	CodeUnknownChannel: "the seeder does not know the channel, or has closed it",
	CodePayment:        "the seeder does not take a payment: it does not follow from the last one",
	CodeUnconfirmed:    "the seeder waits until the funding is mined",
	CodeDoubleSpend:    "another transaction spends the coins of the funding",
	CodeUnavailable:    "the seeder cannot take payments now",
	CodeOrder:          "the seeder did not expect this message",
	CodeVersion:        "the seeder does not take the funding: it, or an unconfirmed transaction that it spends, is not version 1",
	CodeNonFinal:       "the seeder does not take the funding: it, or an unconfirmed transaction that it spends, cannot be mined yet",
	CodeUnderpaid:      "the seeder does not take the funding: its miner's fee is too low",
	CodeUnknownParent:  "the seeder does not take the funding: the chain does not know what it spends",
	CodeSpent:          "the seeder does not take the funding: its coins are spent already",
	CodeTooLarge:       "the seeder does not take the funding: it has too many inputs, or too many unconfirmed transactions behind it",
	CodeWrongFunding:   "the seeder does not take the funding: it is not the one that was announced",
}

// String says in words that a payer understands what the code means. None of
// them are the peer's.
func (c Code) String() string {
	if int(c) < len(codeWords) {
		return codeWords[c]
	}
	return fmt.Sprintf("the seeder refuses for a reason of number %d", uint16(c))
}

// OfFunding reports whether the code refuses a funding for good: no waiting
// makes it better.
func (c Code) OfFunding() bool {
	switch c {
	case CodeFunding, CodeDoubleSpend, CodeVersion, CodeNonFinal, CodeUnderpaid, CodeUnknownParent, CodeSpent, CodeTooLarge, CodeWrongFunding:
		return true
	}
	return false
}

// Refusal ends what the peer asked for, not the connection.
type Refusal struct {
	Channel ChannelID // that is meant; zero where none is
	Code    Code
	Text    string // for people; UTF-8, at most MaxText bytes
}

// maxQuoted is how many bytes of a peer's text are shown to people.
const maxQuoted = 100

// String gives the code's words and, as an addition, the peer's own text in
// quotes and without anything that a terminal would obey.
func (m *Refusal) String() string {
	if m.Text == "" {
		return m.Code.String()
	}
	text := cutText(m.Text, maxQuoted)
	if text != m.Text {
		text += "…"
	}
	return m.Code.String() + " (it says " + strconv.QuoteToGraphic(text) + ")"
}

// cutText shortens a text to whole characters.
func cutText(text string, most int) string {
	for len(text) > most {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// Kind is KindRefusal.
func (*Refusal) Kind() Kind { return KindRefusal }

func (m *Refusal) encode(e *encoder) {
	e.raw(m.Channel[:])
	e.u16(uint16(m.Code))
	e.bytes([]byte(cutText(m.Text, MaxText)), MaxText)
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
