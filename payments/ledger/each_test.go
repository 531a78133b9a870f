package ledger_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
)

func TestEach(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	var b ledger.Batch
	const many = 450 // several pages
	for i := range many {
		c := payee(many - i)
		b.Channels = append(b.Channels, c)
		b.Outbox = append(b.Outbox, closing(c, id('t', many-i)))
	}
	must(t, l.Apply(ctx, b))
	n := 0
	must(t, l.EachChannel(ctx, func(c ledger.Channel) error {
		if c.ID != b.Channels[n].ID || c.Snapshot != nil || c.Payee != 100 {
			t.Errorf("channel %d is %x", n, c.ID[:5])
		}
		n++
		return nil
	}))
	out := 0
	must(t, l.EachOutgoing(ctx, func(o ledger.Outgoing) error {
		if o.Txid != b.Outbox[out].Txid || string(o.Raw) != "raw" {
			t.Errorf("transaction %d is %x", out, o.Txid[:5])
		}
		out++
		return nil
	}))
	if n != many || out != many {
		t.Errorf("%d channels, %d transactions", n, out)
	}
	if err := l.EachChannel(ctx, func(ledger.Channel) error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := l.EachOutgoing(ctx, func(ledger.Outgoing) error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestTitlesOfACoin(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := threeTitles(t, l, empty(1, titleA))
	o := closing(c, id('t', 1))
	must(t, l.PutOutgoing(ctx, o))
	o.State = ledger.Mined
	must(t, l.UpdateOutgoing(ctx, o))
	names, err := l.CoinTitles(ctx, o.Outputs[0])
	if !slices.Equal(names, []string{"first, renamed", "second"}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	for _, other := range []ledger.Coin{{Txid: id('x', 1), Branch: 3}, {Txid: id('t', 1), Branch: 1}} {
		if names, err := l.CoinTitles(ctx, other); len(names) != 0 || err != nil {
			t.Errorf("%q, %v", names, err)
		}
	}
}
