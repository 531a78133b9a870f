package fetch

import "time"

// State is what a download is doing, in words for a person.
type State string

// States of a download.
const (
	FindingPeers      State = "finding peers"
	GettingMetadata   State = "getting metadata"
	Checking          State = "checking"
	Downloading       State = "downloading"
	WaitingForPayment State = "waiting for payment"
	Settling          State = "settling payments"
	Complete          State = "complete"
)

// Progress is one look at a download.
type Progress struct {
	State State
	// Name of the title; empty while nothing is known.
	Name string
	// Done and Total are bytes; Total is 0 while the metadata is not known.
	// Done counts blocks that are not verified yet, so it can fall.
	Done, Total int64
	// Rate is the mean of needed bytes over the last seconds, in bytes a second.
	Rate float64
	// Left is the time to completion at this rate; negative is unknown.
	Left time.Duration
	// Peers are the connections; Paying those that are paid.
	Peers, Paying int
}

const (
	progressEvery = 200 * time.Millisecond
	rateSamples   = 25 // five seconds
	// stillFor is after how many samples without a byte nothing moves.
	stillFor = 5
)

// meter works out the rate from the running total of bytes.
type meter struct {
	at    [rateSamples]time.Time
	bytes [rateSamples]int64
	n     int
}

func (m *meter) add(now time.Time, total int64) {
	i := m.n % rateSamples
	m.at[i], m.bytes[i] = now, total
	m.n++
}

func (m *meter) sample(back int) (time.Time, int64) {
	i := (m.n - 1 - back) % rateSamples
	return m.at[i], m.bytes[i]
}

func (m *meter) rate() float64 {
	if m.n < 2 {
		return 0
	}
	t1, b1 := m.sample(0)
	t0, b0 := m.sample(min(m.n, rateSamples) - 1)
	if d := t1.Sub(t0).Seconds(); d > 0 {
		return float64(b1-b0) / d
	}
	return 0
}

// still says that nothing came in for a second.
func (m *meter) still() bool {
	if m.n <= stillFor {
		return true
	}
	_, b1 := m.sample(0)
	_, b0 := m.sample(stillFor)
	return b1 == b0
}
