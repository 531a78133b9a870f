package fetch

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/anacrolix/dht/v2"
	alog "github.com/anacrolix/log"
	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/mse"
)

const (
	clientName   = "BitCDN"
	peerIDPrefix = "-BC0001-" // BEP 20
	// dhtEvery is how often the DHT is asked while the download runs, and
	// dhtSoon when it knew nobody.
	dhtEvery = 5 * time.Minute
	dhtSoon  = 20 * time.Second
)

// config is a client that only dials out, and only over d.dialer.
func (d *download) config() *torrent.ClientConfig {
	c := torrent.NewDefaultClientConfig()
	// Without TCP, uTP and DHT of its own the client opens no socket. The dialer
	// that is added afterwards is not touched by DisableTCP.
	c.DisableTCP = true
	c.DisableUTP = true
	c.NoDHT = true
	c.PeriodicallyAnnounceTorrentsToDht = false
	c.AcceptPeerConnections = false
	c.DialForPeerConns = false
	c.NoDefaultPortForwarding = true
	c.DisableWebtorrent = true
	c.DisableWebseeds = len(d.r.WebSeeds) == 0

	c.NoUpload = true
	c.Seed = false
	c.DisableAggressiveUpload = true
	// Else a connection ends with the last piece, before it is paid.
	c.DropMutuallyCompletePeers = false
	// Moving a request to another peer mostly fetches the block twice, and both
	// times it is paid. A peer that stalls may cost this long instead.
	c.StealRequestGrace = d.r.stealAfter

	c.ExtendedHandshakeClientVersion = clientName
	c.HTTPUserAgent = clientName
	c.Bep20 = peerIDPrefix

	switch d.r.Encryption {
	case RequireRC4:
		c.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{Preferred: true, RequirePreferred: true}
		c.CryptoProvides = mse.CryptoMethodRC4
	default:
		c.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{Preferred: false}
	}

	c.EstablishedConnsPerTorrent = d.r.MaxConns
	c.HalfOpenConnsPerTorrent = max(4, d.r.MaxConns/3)
	c.TotalHalfOpenConns = max(4, d.r.MaxConns/3)
	c.TorrentPeersHighWater = 200
	c.TorrentPeersLowWater = 30
	c.MaxAllocPeerRequestDataPerConn = 64 << 10

	c.DefaultStorage = noBlocks{}
	c.Slogger = d.log
	c.Callbacks = d.callbacks()
	return c
}

// announced is a listener that nobody reaches: it gives the client a port to
// tell trackers.
type announced struct{ port uint16 }

func (a announced) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (a announced) Close() error              { return nil }
func (a announced) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), a.port))
}

// startDHT asks the DHT for peers now and again. The node answers nobody
// (BEP 43), so that it is known to nobody and keeps nothing for others.
func (d *download) startDHT(ctx context.Context) error {
	pc, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	cfg := dht.NewDefaultServerConfig()
	cfg.Conn = pc
	cfg.Passive = true
	cfg.Logger = alog.NewLogger("dht")
	cfg.Logger.SetHandlers(alog.SlogHandlerAsHandler{SlogHandler: d.log.Handler()})
	cfg.StartingNodes = func() ([]dht.Addr, error) { return dht.GlobalBootstrapAddrs("udp") }
	if len(d.r.DHTNodes) > 0 {
		var nodes []dht.Addr
		for _, n := range d.r.DHTNodes {
			nodes = append(nodes, dht.NewAddr(net.UDPAddrFromAddrPort(n)))
		}
		cfg.StartingNodes = func() ([]dht.Addr, error) { return nodes, nil }
		cfg.NoSecurity = true // own nodes may have any identity
	}
	s, err := dht.NewServer(cfg)
	if err != nil {
		pc.Close()
		return err
	}
	d.spawn(func() {
		defer s.Close()
		for {
			pause := dhtSoon
			if d.askDHT(ctx, s) > 0 {
				pause = dhtEvery
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	})
	return nil
}

// askDHT adds the peers that one traversal finds, and says how many.
func (d *download) askDHT(ctx context.Context, s *dht.Server) (found int) {
	a, err := s.AnnounceTraversal(d.r.Source.InfoHash)
	if err != nil {
		d.log.Info("DHT not reached", "err", err)
		return 0
	}
	defer a.Close()
	for {
		select {
		case <-ctx.Done():
			return found
		case v, ok := <-a.Peers:
			if !ok {
				return found
			}
			var peers []torrent.PeerInfo
			for _, p := range v.Peers {
				ip, ok := netip.AddrFromSlice(p.IP)
				if !ok || p.Port <= 0 || p.Port > 65535 {
					continue
				}
				peers = append(peers, torrent.PeerInfo{
					Addr:   netip.AddrPortFrom(ip.Unmap(), uint16(p.Port)),
					Source: torrent.PeerSourceDhtGetPeers,
				})
			}
			found += d.t.AddPeers(peers)
		}
	}
}
