package box

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/appliance/announce"
)

// openAnnouncer makes what tells the trackers, unless the owner wants none told.
func (b *Box) openAnnouncer(peers net.Addr) error {
	s := &b.opt.Settings.Announce
	if !s.Trackers {
		return nil
	}
	port := s.Port
	if tcp, ok := peers.(*net.TCPAddr); ok && port == 0 {
		port = uint16(tcp.Port)
	}
	sent := &sentBytes{box: b}
	announcer, err := announce.New(announce.Options{Port: port, PeerID: b.peerID, Uploaded: sent.of,
		Random: rand.Reader, Clock: b.opt.Clock, Log: b.opt.Log})
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	b.announcer = announcer
	return nil
}

// announce tells the trackers of all titles until ctx ends, and then that the
// box stops.
func (b *Box) announce(ctx context.Context) error {
	var registering sync.WaitGroup
	registering.Go(func() {
		// Beside the announcing: what has no trackers in the database yet has its torrent read.
		for t, err := range b.catalogue.Trackers(ctx) {
			if err != nil {
				if ctx.Err() == nil {
					b.opt.Log.Error("trackers of the titles", "error", err)
				}
				return
			}
			if _, known := b.announcer.Stats(t.InfoHash); !known { // or it was added again since, maybe with others
				b.announceTitle(t.InfoHash, t.Tiers)
			}
		}
	})
	defer registering.Wait()
	return b.announcer.Run(ctx)
}

// announceTitle has a title announced that was added, or found at start.
func (b *Box) announceTitle(ih [20]byte, trackers [][]string) {
	if b.announcer == nil {
		return
	}
	b.announcer.Add(ih, trackers)
	if !b.titles.Has(ih) { // removed at this moment
		b.announcer.Remove(ih)
	}
}

// dropTitle has a title announced no longer, if it was removed.
func (b *Box) dropTitle(ih [20]byte) {
	if b.announcer != nil && !b.titles.Has(ih) {
		b.announcer.Remove(ih)
	}
}

// sentBytes knows how much was sent of each title. A look at all of them
// serves for a while, as ten titles a second may be announced.
type sentBytes struct {
	box *Box

	mu    sync.Mutex
	until time.Time
	bytes map[[20]byte]int64
}

const sentBytesFor = 30 * time.Second

func (s *sentBytes) of(ih [20]byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.box.opt.Clock(); s.bytes == nil || !now.Before(s.until) {
		titles := s.box.server.Stats().Titles
		s.bytes = make(map[[20]byte]int64, len(titles))
		for ih, t := range titles {
			s.bytes[ih] = t.BytesSent
		}
		s.until = now.Add(sentBytesFor)
	}
	return s.bytes[ih]
}
