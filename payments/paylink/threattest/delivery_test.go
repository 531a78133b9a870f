package threattest

import (
	"testing"

	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// exposed is the most that a channel with one seeder pays for what never turns
// out to be good: what is paid ahead, and after broken connections as much again
// and a 64th of what was good.
func (r *rig) exposed(good int64) money.Satoshis {
	r.Helper()
	return r.due(2*paylink.Exposure(r.title.PieceLength) + good/64)
}

// Row 2.
func TestSellerIsPaidAndDoesNotDeliver(t *testing.T) {
	for name, c := range map[string]struct {
		good   int64 // bytes, on the first connection
		bad    int64 // bytes, on each
		breaks int
		bound  func(r *rig) money.Satoshis
	}{
		"delivers nothing":                       {0, 0, 0, func(*rig) money.Satoshis { return 0 }},
		"stops in the middle of a piece":         {8 << 20, 700 << 10, 0, func(r *rig) money.Satoshis { return r.due(paylink.Exposure(r.title.PieceLength)) }},
		"delivers rubbish":                       {0, 32 << 20, 0, func(r *rig) money.Satoshis { return r.due(paylink.Exposure(r.title.PieceLength)) }},
		"delivers rubbish after 16 MiB":          {16 << 20, 32 << 20, 0, func(r *rig) money.Satoshis { return r.due(paylink.Exposure(r.title.PieceLength)) }},
		"breaks connections to collect exposure": {0, 16 << 20, 6, func(r *rig) money.Satoshis { return r.exposed(0) }},
		"breaks connections after 16 MiB":        {16 << 20, 16 << 20, 6, func(r *rig) money.Satoshis { return r.exposed(16 << 20) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			b, s := r.newBuyer(), r.newSeeder()
			for try := range c.breaks + 1 {
				s.connect(b)
				if try == 0 {
					s.isOpen()
					for range c.good >> 20 {
						s.deliver(1<<20, 1<<20)
					}
				} else {
					s.waitFor("the channel goes on", func() bool { return s.seen[wire.KindResume] == try })
				}
				s.ping()
				for sent := int64(0); sent < c.bad; sent += 256 << 10 {
					s.deliver(min(256<<10, c.bad-sent), 0)
				}
				s.ping()
				if try < c.breaks {
					r.must(b.Suspend(t.Context()))
					r.again(b)
				}
			}
			r.must(b.Finish(t.Context()))
			r.mine(1)
			fees := channelFees(feeRate)
			rows, err := b.ledger.Channels(t.Context(), ledgerPayer)
			r.must(err)
			if len(rows) != 1 || rows[0].Payee < r.due(c.good) {
				t.Errorf("%d channels, the first pays %v", len(rows), rows[0].Payee)
			}
			record(t, result{row: 2, attack: name, attacker: "seller", victim: "buyer", tries: c.breaks + 1, atRisk: rows[0].Capacity,
				lost: s.lossOf(b), bound: c.bound(r) + fees})
			r.audit(b.party)
		})
	}
	t.Run("closes and offers another channel each time", func(t *testing.T) {
		r := newRig(t, nil)
		b, s := r.newBuyer(), r.newSeeder()
		const channels = 4
		s.connect(b)
		for try := range channels {
			s.isOpen()
			s.ping()
			s.deliver(16<<20, 0)
			s.ping()
			s.close(try < channels-1)
		}
		r.must(b.Finish(t.Context()))
		r.mine(1)
		rows, err := b.ledger.Channels(t.Context(), ledgerPayer)
		r.must(err)
		record(t, result{row: 2, attack: "closes and offers another channel each time", attacker: "seller", victim: "buyer", tries: len(rows),
			atRisk: 100_000, lost: s.lossOf(b), bound: channels * (r.due(paylink.Exposure(r.title.PieceLength)) + channelFees(feeRate))})
		r.audit(b.party)
	})
}
