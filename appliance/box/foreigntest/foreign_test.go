// Package foreigntest shows that other people's BitTorrent clients work with a
// box: Transmission, aria2 and libtorrent as Debian packages them, over
// loopback, against a box and a node in regression test mode.
//
// A foreign client gets what is free, whole and to the last byte. Of what has a
// price it gets the metadata, and then waits like at any busy seeder. A torrent
// that other programs made is sold as it is.
package foreigntest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/money"
)

// patience is how long one download may take on a machine that is busy with
// other things.
const patience = 90 * time.Second

// parallel is how many downloads run at a time, however few the cores are:
// Transmission, above all, mostly waits for its own clocks.
const parallel = "10"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	if os.Getenv(namespaceEnv) == "" {
		os.Exit(runInNamespace())
	}
	if err := bringUp(); err != nil {
		fmt.Fprintln(os.Stderr, "network namespace:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestForeignClients(t *testing.T) {
	r := newRig(t)
	files := []file{
		{"Ordner/große Datei – 大きい.bin", 17<<20 + 12_345},
		{"Ordner/tief/tiefer/noch eine.bin", 6<<20 + 1},
		{"leer.txt", 0},
		{"ein Block.bin", 16 << 10},
		{"kleiner als ein Block.txt", 11},
		{"mehr.bin", 300_000},
	}
	large := content(t, "Größe & Gewicht", files...)
	small := content(t, "klein", file{"a/eins.bin", 4_000_000}, file{"leer", 0}, file{"zwei.bin", 16<<10 + 1})
	t.Run("free", func(t *testing.T) { t.Parallel(); r.testFree(t, large) })
	t.Run("choked", func(t *testing.T) { t.Parallel(); r.testChoked(t, large) })
	t.Run("share", func(t *testing.T) { t.Parallel(); r.testShare(t, small) })
	t.Run("made elsewhere", func(t *testing.T) { t.Parallel(); r.testMadeElsewhere(t, large) })
}

// testFree has each client download a title without a price, in every way that
// it can begin.
func (r *rig) testFree(t *testing.T, path string) {
	s := r.startBox(t, nil)
	title := publishTitle(t, path, 0, 0)
	free := money.Rate(0)
	s.sell(t, title, &free)
	for _, c := range clients() {
		for _, source := range []string{"torrent", "magnet"} {
			for _, begin := range []string{"plain", "encrypted"} {
				t.Run(c.name+" from "+source+" "+begin, func(t *testing.T) {
					t.Parallel()
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					encrypted := begin == "encrypted"
					w := join(t, s.peers, c.obfuscates && !encrypted)
					c.download(ctx, t, &order{title: title, swarm: w, home: t.TempDir(), magnet: source == "magnet", encrypted: encrypted})
					if err := w.view(func(conns []*relayed) error { return served(conns, encrypted, title.length) }); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// download has the client complete an order, and compares.
func (c client) download(ctx context.Context, t *testing.T, o *order) {
	t.Helper()
	if err := c.start(ctx, t, o).finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := compare(o.title.path, filepath.Join(o.downloads(), o.title.name()), c.leavesOutEmpty); err != nil {
		t.Fatal(err)
	}
}

// served says whether the client's connections began as was asked for, and, so
// far as can be seen, brought all the data.
func served(conns []*relayed, encrypted bool, length int64) error {
	var blocks int64
	for _, r := range conns {
		if r.up.plain() == encrypted || encrypted && (r.up.readable() || r.down.readable()) {
			return fmt.Errorf("encrypted %t was asked for, and this was sent: %.100q", encrypted, r.up.begin)
		}
		if encrypted {
			blocks += r.down.bytes
		} else {
			blocks += r.down.block
		}
	}
	if blocks < length {
		return fmt.Errorf("%d bytes of blocks came from the box, the title has %d", blocks, length)
	}
	return nil
}

// testChoked has every client wait for a title with a price, while a client
// that pays gets it.
func (r *rig) testChoked(t *testing.T, path string) {
	// So slow that those who wait do so for some seconds.
	s := r.startBox(t, func(s *box.Settings) { s.Upload.Rate = 3 << 20 })
	title := publishTitle(t, path, 100_000, royalty)
	s.sell(t, title, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	type one struct {
		client
		leech
		*swarm
	}
	var all []one
	for _, c := range clients() {
		w := join(t, s.peers, c.obfuscates)
		all = append(all, one{c, c.start(ctx, t, &order{title: title, swarm: w, home: t.TempDir(), magnet: true, asked: true}), w})
	}
	for _, x := range all {
		if err := await(ctx, x.name+" is connected and choked", func() error { return x.stands(ctx) }); err != nil {
			t.Fatal(err)
		}
	}
	began := make(map[string]int)
	for _, x := range all {
		_ = x.view(func(conns []*relayed) error { began[x.name] = len(conns); return nil })
	}
	link, err := title.magnet("")
	if err != nil {
		t.Fatal(err)
	}
	bill := r.buy(ctx, t, s, title, link, false)
	if bill.Channels[0].Creator == 0 {
		t.Error("no royalty was paid")
	}
	for _, x := range all {
		if err := x.stands(ctx); err != nil {
			t.Errorf("%s, after the sale: %v", x.name, err)
		}
		if err := x.view(func(conns []*relayed) error { return waited(conns, began[x.name], int64(len(title.info))) }); err != nil {
			t.Errorf("%s: %v\n%s", x.name, err, x.swarm)
		}
	}
}

// waited says whether a client was choked on one connection all the time, and
// was sent no block on any.
func waited(conns []*relayed, began int, info int64) error {
	open := 0
	for _, r := range conns {
		if r.open {
			open++
		}
		const overhead = 8 << 10 // handshakes, the pieces there are, and keepalives
		switch {
		case r.down.block != 0 || r.down.messages[7] != 0:
			return fmt.Errorf("%d bytes of blocks were sent", r.down.block)
		case r.down.messages[1] != 0:
			return errors.New("unchoked")
		case r.down.bytes > info+info/8+overhead:
			return fmt.Errorf("%d bytes were sent, the metadata has %d", r.down.bytes, info)
		}
	}
	// A client may connect anew when it has the metadata.
	if open != 1 || len(conns) != began || began > 2 {
		return fmt.Errorf("%d connections, %d before, %d of them open", len(conns), began, open)
	}
	return nil
}

// testShare has every client complete a title with a price from the free share,
// which is so small that they get it in many portions and wait in between.
func (r *rig) testShare(t *testing.T, path string) {
	s := r.startBox(t, func(s *box.Settings) { s.Upload.FreeShare = 1 << 20 })
	title := publishTitle(t, path, 0, royalty)
	s.sell(t, title, nil)
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.download(ctx, t, &order{title: title, swarm: join(t, s.peers, false), home: t.TempDir()})
		})
	}
}

// testMadeElsewhere sells torrents of other programs unchanged.
func (r *rig) testMadeElsewhere(t *testing.T, path string) {
	s := r.startBox(t, nil)
	for _, m := range []struct {
		program, debianPackage string
		leavesOutEmpty         bool // files of no bytes
		args                   func(out string) []string
	}{
		// Pieces shorter than a block; pieces of a length that is not the default.
		{"transmission-create", "transmission-cli", true, func(out string) []string { return []string{"-o", out, "-s", "8", path} }},
		{"mktorrent", "mktorrent", false, func(out string) []string {
			return []string{"-a", "http://127.0.0.1:1/announce", "-l", "15", "-o", out, path}
		}},
	} {
		t.Run(m.program, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			home := t.TempDir()
			torrent := filepath.Join(home, "made.torrent")
			if err := start(ctx, t, home, find(t, m.program, m.debianPackage), m.args(torrent)...).wait(ctx); err != nil {
				t.Fatal(err)
			}
			title := foreignTitle(t, path, torrent)
			s.sell(t, title, nil)
			bill := r.buy(ctx, t, s, title, torrent, m.leavesOutEmpty)
			if bill.Channels[0].Creator != 0 {
				t.Error("a royalty was paid for a torrent without a manifest")
			}
		})
	}
}
