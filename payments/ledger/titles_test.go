package ledger_test

import (
	"context"
	"errors"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

var (
	titleA, titleB, titleC = [20]byte{0xa}, [20]byte{0xb}, [20]byte{0xc}
	creator1, creator2     = [20]byte{1}, [20]byte{2}
)

// pay makes the next commitment of a channel, for a title.
func pay(t testing.TB, l *ledger.Ledger, c *ledger.Channel, title [20]byte, name string, bytes int64, payee money.Satoshis, creators ...ledger.CreatorAmount) {
	t.Helper()
	c.Title, c.TitleName, c.Rate = title, name, money.Rate(payee)
	c.Seq++
	c.Bytes += bytes
	c.Payee += payee
	if creators != nil {
		c.Creators, c.Creator = creators, 0
		for _, a := range creators {
			c.Creator += a.Amount
		}
	}
	must(t, l.SaveChannel(context.Background(), *c))
	check(t, l)
}

// threeTitles is a channel that served A, B, A again and C, for which nothing
// was paid, and paid two creators.
func threeTitles(t testing.TB, l *ledger.Ledger, c ledger.Channel) ledger.Channel {
	t.Helper()
	c.State = ledger.StateOpen
	pay(t, l, &c, titleA, "first", 1000, 100, ledger.CreatorAmount{Hash: creator1, Amount: 10})
	pay(t, l, &c, titleA, "first", 1000, 100, ledger.CreatorAmount{Hash: creator1, Amount: 20})
	pay(t, l, &c, titleB, "second", 500, 70, ledger.CreatorAmount{Hash: creator2, Amount: 7}, ledger.CreatorAmount{Hash: creator1, Amount: 20})
	pay(t, l, &c, titleA, "first, renamed", 10, 3, ledger.CreatorAmount{Hash: creator2, Amount: 7}, ledger.CreatorAmount{Hash: creator1, Amount: 21})
	pay(t, l, &c, titleC, "third", 0, 0)
	return c
}

func empty(n int, title [20]byte) ledger.Channel {
	c := payee(n)
	c.Title, c.Seq, c.Bytes, c.Payee, c.Creator = title, 0, 0, 0, 0
	return c
}

func TestSeveralTitlesOverOneChannel(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := empty(1, titleA)
	must(t, l.SaveChannel(ctx, c))
	c = threeTitles(t, l, c)
	txid := id('t', 1)

	expect := func(when string, settled bool) {
		t.Helper()
		check(t, l)
		byTitle, err := l.EarningsByTitle(ctx)
		must(t, err)
		want := []ledger.TitleEarnings{
			{Title: titleA, Name: "first, renamed", Bytes: 2010, Unsettled: 203, Royalty: 21, Channels: 1},
			{Title: titleB, Name: "second", Bytes: 500, Unsettled: 70, Royalty: 7, Channels: 1},
			{Title: titleC, Name: "third", Channels: 1},
		}
		if len(byTitle) != len(want) {
			t.Fatalf("%s: %+v", when, byTitle)
		}
		for i, w := range want {
			if settled {
				w.Settled, w.Unsettled = w.Unsettled, 0
			}
			byTitle[i].Name = w.Name // of two rows of one moment, any
			if byTitle[i] != w {
				t.Errorf("%s: %+v, want %+v", when, byTitle[i], w)
			}
		}
		creators, err := l.RoyaltiesByCreator(ctx, ledger.Payee)
		must(t, err)
		if len(creators) != 2 || creators[0].Hash != creator1 || creators[1].Hash != creator2 || creators[0].Channels != 1 {
			t.Fatalf("%s: royalties %+v", when, creators)
		}
		for i, want := range []money.Satoshis{21, 7} {
			got := creators[i].Unsettled
			if settled {
				got = creators[i].Settled
			}
			if got != want || creators[i].Settled+creators[i].Unsettled != want {
				t.Errorf("%s: royalty %+v, want %v", when, creators[i], want)
			}
		}
	}
	expect("open", false)
	c.State, c.CloseTxid = ledger.StateClosing, txid
	must(t, l.Apply(ctx, ledger.Batch{Channels: []ledger.Channel{c}, Outbox: []ledger.Outgoing{closing(c, txid)}}))
	expect("close stored", false)
	o, err := l.Outgoing(ctx, txid)
	must(t, err)
	o.State, o.Height = ledger.Mined, 100
	must(t, l.UpdateOutgoing(ctx, o))
	expect("close mined", true)
	for title, want := range map[[20]byte]int64{titleA: -203, titleB: -70, titleC: 0} {
		entries, err := l.Entries(ctx, ledger.EntryFilter{Account: ledger.AccountSales, Title: &title})
		must(t, err)
		var sum int64
		for _, e := range entries {
			sum += e.Amount
		}
		if sum != want {
			t.Errorf("title %x: sales of %d, want %d", title[:1], sum, want)
		}
	}
	got, err := l.Channel(ctx, c.ID)
	must(t, err)
	if len(got.Creators) != 2 || got.Creators[0] != (ledger.CreatorAmount{Hash: creator1, Amount: 21}) ||
		got.Creators[1] != (ledger.CreatorAmount{Hash: creator2, Amount: 7}) {
		t.Errorf("creators %+v", got.Creators)
	}
	c.Title = titleB
	if err := l.SaveChannel(ctx, c); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("another title for a settled channel: %v", err)
	}
}

func TestSharesOfABoughtTitle(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := threeTitles(t, l, withTitle(t, l, fund(t, l, 1), titleA))
	other := fund(t, l, 2)
	other.Title, other.State = titleB, ledger.StateOpen
	pay(t, l, &other, titleB, "second", 10, 1)
	for title, want := range map[[20]byte]struct{ paid, fees money.Satoshis }{
		titleA: {224, 30}, titleB: {78, 0}, titleC: {0, 0}, {1}: {0, 30}, // both were opened for the last, which was never paid for
	} {
		if title == titleA {
			want.fees = 0
		}
		if title == ([20]byte{1}) {
			want.fees = 60
		}
		if paid, fees, err := l.SpentOn(ctx, title); paid != want.paid || fees != want.fees || err != nil {
			t.Errorf("title %x: %v and %v, %v; want %v and %v", title[:1], paid, fees, err, want.paid, want.fees)
		}
	}
	shares, err := l.Shares(ctx, titleA, ledger.Payer)
	must(t, err)
	if len(shares) != 1 || shares[0].Channel.ID != c.ID || shares[0].Bytes != 2010 || shares[0].Payee != 203 || shares[0].Creator != 21 ||
		shares[0].Commitments != 3 || shares[0].Name != "first, renamed" || shares[0].Rate != 3 || shares[0].Channel.Snapshot != nil {
		t.Errorf("shares %+v", shares)
	}
	if shares, err = l.Shares(ctx, titleB, ledger.Payer); err != nil || len(shares) != 2 || shares[0].Commitments != 1 {
		t.Errorf("shares %+v, %v", shares, err)
	}
	if shares, err = l.Shares(ctx, titleB, ledger.Payee); err != nil || len(shares) != 0 {
		t.Errorf("shares of the other side %+v, %v", shares, err)
	}
	if found, err := l.Channels(ctx, ledger.Filter{Title: &titleA}); err != nil || len(found) != 1 || found[0].Title != titleC {
		t.Errorf("channels that served a title: %d, %v", len(found), err)
	}
	// It is settled: what was bought is booked title by title, the fees where the
	// funding was.
	must(t, l.Apply(ctx, ledger.Batch{Moves: []ledger.Move{{Channel: c.ID, State: ledger.StateClosed, CloseTxid: id('t', 1)}}}))
	check(t, l)
	sums := make(map[string]int64)
	entries, err := l.Entries(ctx, ledger.EntryFilter{Channel: &c.ID})
	must(t, err)
	for _, e := range entries {
		sums[e.Account+string(rune('0'+e.Title[0]))] += e.Amount
	}
	for key, want := range map[string]int64{"purchases:": 203, "royalties:": 21, "purchases;": 70, "royalties;": 7, "escrow1": 0, "escrow:": 0} {
		if sums[key] != want {
			t.Errorf("%s: %d, want %d (all: %v)", key, sums[key], want, sums)
		}
	}
}

// withTitle takes up a title with a channel.
func withTitle(t testing.TB, l *ledger.Ledger, c ledger.Channel, title [20]byte) ledger.Channel {
	t.Helper()
	c.Title = title
	must(t, l.SaveChannel(context.Background(), c))
	return c
}

func TestCreatorsThatDoNotAddUp(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := empty(1, titleA)
	pay(t, l, &c, titleA, "first", 1, 1, ledger.CreatorAmount{Hash: creator1, Amount: 30}, ledger.CreatorAmount{Hash: creator2, Amount: 5})
	many := make([]ledger.CreatorAmount, ledger.MaxCreators+1)
	for i := range many {
		many[i].Hash = [20]byte{byte(i), byte(i >> 8)}
	}
	for name, bad := range map[string]struct {
		creators []ledger.CreatorAmount
		sum      money.Satoshis
		want     error
	}{
		"less than the sum": {[]ledger.CreatorAmount{{creator1, 30}, {creator2, 5}}, 36, ledger.ErrUnbalanced},
		"twice":             {[]ledger.CreatorAmount{{creator1, 30}, {creator1, 5}}, 35, ledger.ErrUnbalanced},
		"one loses":         {[]ledger.CreatorAmount{{creator1, 29}, {creator2, 7}}, 36, ledger.ErrStale},
		"negative":          {[]ledger.CreatorAmount{{creator1, 37}, {creator2, -1}}, 36, money.ErrRange},
		"too many":          {many, 36, money.ErrRange},
	} {
		next := c
		next.Seq++
		next.Creators, next.Creator = bad.creators, bad.sum
		if err := l.SaveChannel(ctx, next); !errors.Is(err, bad.want) {
			t.Errorf("%s: %v, want %v", name, err, bad.want)
		}
		check(t, l)
	}
	// Who does not know them leaves them as they are.
	next := c
	next.Seq++
	next.Creators, next.Creator = nil, 36
	must(t, l.SaveChannel(ctx, next))
	check(t, l)
	all, err := l.RoyaltiesByCreator(ctx, ledger.Payee)
	must(t, err)
	if len(all) != 3 || all[0].Unsettled != 30 || all[1].Unsettled != 5 || all[2].Hash != ([20]byte{}) || all[2].Unsettled != 1 {
		t.Errorf("royalties %+v", all)
	}
	for _, statement := range []string{
		`UPDATE channel_creators SET amount = amount - 1`, `DELETE FROM channel_creators`, `DELETE FROM channel_titles`,
	} {
		must(t, l.SaveChannel(ctx, withTitle(t, l, next, titleB)))
		if err := l.Exec(ctx, statement); err == nil {
			t.Errorf("taken: %s", statement)
		}
	}
}

func TestMarks(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	if got, err := l.Marked(ctx, "payout"); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, value := range []string{"one", "two"} {
		must(t, l.Mark(ctx, "payout", value))
		if got, err := l.Marked(ctx, "payout"); got != value || err != nil {
			t.Errorf("%q, %v; want %q", got, err, value)
		}
	}
}
