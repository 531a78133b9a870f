package announce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"
)

const (
	udpMagic = 0x41727101980 // BEP 15
	// udpFresh is how long a connection id may be used.
	udpFresh = time.Minute
	// maxIdle is how many sockets wait for their connection id's next use.
	maxIdle = 16
	// maxStray is how many packets that answer something else are read.
	maxStray  = 64
	maxPacket = 2048 // bytes of an answer; those of peers are not read
)

const (
	actionConnect  uint32 = 0
	actionAnnounce uint32 = 1
	actionError    uint32 = 3
)

// udpConn is a socket that is connected to a tracker, so that nobody else's
// packets arrive on it, and is used by one request at a time. It has no
// goroutine.
type udpConn struct {
	net.Conn
	key   string // network and address
	id    uint64
	until time.Time // id may be used before; zero: there is none
}

var errStray = errors.New("answers to questions that were not asked")

// askUDP announces by BEP 15, with the URL's path as BEP 41 has it. That a
// title stops is sent once and not waited for: packets are lost more seldom
// than shutdowns are waited for.
func (c *client) askUDP(ctx context.Context, f family, a netip.Addr, req request) (r reply, err error) {
	conn, err := c.takeUDP(ctx, f.network("udp"), netip.AddrPortFrom(a, req.port).String())
	if err != nil {
		return reply{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		var no *refusal
		if !stop() || err != nil && !errors.As(err, &no) {
			conn.Close()
			return
		}
		c.putUDP(conn)
	}()
	known := c.opt.Clock().Before(conn.until)
	if !known {
		if err := c.connectUDP(ctx, conn); err != nil {
			return reply{}, err
		}
	}
	packet := c.announcePacket(req)
	if req.event == stopped {
		binary.BigEndian.PutUint64(packet, conn.id)
		_, err := conn.Write(packet)
		return reply{}, err
	}
	if known {
		// The tracker may have begun anew meanwhile: a refusal or silence is
		// held against the connection id first.
		r, err := c.announceUDP(ctx, conn, packet, c.udpWaits[:1])
		if err == nil {
			return r, nil
		}
		if err := c.connectUDP(ctx, conn); err != nil {
			return reply{}, err
		}
	}
	return c.announceUDP(ctx, conn, packet, c.udpWaits)
}

func (c *client) connectUDP(ctx context.Context, conn *udpConn) error {
	conn.until = time.Time{}
	packet := make([]byte, 16)
	binary.BigEndian.PutUint64(packet, udpMagic)
	body, err := c.roundTrip(ctx, conn, packet, actionConnect, c.udpWaits)
	if err != nil {
		return err
	}
	if len(body) < 8 {
		return faultf("%w: %d bytes", errReply, len(body))
	}
	conn.id = binary.BigEndian.Uint64(body)
	conn.until = c.opt.Clock().Add(udpFresh)
	return nil
}

// announcePacket leaves out the connection id and the transaction id.
func (c *client) announcePacket(req request) []byte {
	b := make([]byte, 16, 98+2+len(req.url.Path)+len(req.url.RawQuery))
	binary.BigEndian.PutUint32(b[8:], actionAnnounce)
	b = append(b, req.infoHash[:]...)
	b = append(b, c.opt.PeerID[:]...)
	b = binary.BigEndian.AppendUint64(b, 0) // downloaded
	b = binary.BigEndian.AppendUint64(b, 0) // left
	b = binary.BigEndian.AppendUint64(b, uint64(req.uploaded))
	b = binary.BigEndian.AppendUint32(b, uint32(req.event))
	b = binary.BigEndian.AppendUint32(b, 0) // our address: the packet's
	b = binary.BigEndian.AppendUint32(b, c.id)
	b = binary.BigEndian.AppendUint32(b, 0) // peers wanted
	b = binary.BigEndian.AppendUint16(b, c.opt.Port)
	const urlData = 2 // BEP 41
	path := req.url.EscapedPath()
	if req.url.RawQuery != "" {
		path += "?" + req.url.RawQuery
	}
	for len(path) > 0 {
		n := min(len(path), math.MaxUint8)
		b = append(b, urlData, byte(n))
		b, path = append(b, path[:n]...), path[n:]
	}
	return b
}

func (c *client) announceUDP(ctx context.Context, conn *udpConn, packet []byte, waits []time.Duration) (reply, error) {
	binary.BigEndian.PutUint64(packet, conn.id)
	body, err := c.roundTrip(ctx, conn, packet, actionAnnounce, waits)
	if err != nil {
		return reply{}, err
	}
	return parseUDP(body)
}

// parseUDP reads the answer to an announce behind its action and transaction id.
func parseUDP(body []byte) (reply, error) {
	if len(body) < 12 {
		return reply{}, faultf("%w: %d bytes", errReply, len(body))
	}
	number := func(at int) int32 { return max(int32(be32(body[at:])), -1) }
	return reply{
		interval: time.Duration(min(max(number(0), 0), 86_400)) * time.Second,
		leechers: number(4),
		seeders:  number(8),
	}, nil
}

// roundTrip sends a packet until it is answered, once for each wait. A refusal
// is one of the title; an answer of another action is none.
func (c *client) roundTrip(ctx context.Context, conn *udpConn, packet []byte, action uint32, waits []time.Duration) ([]byte, error) {
	var buf [maxPacket]byte
	transaction := c.word()
	binary.BigEndian.PutUint32(packet[12:], transaction)
	strays := 0
	for _, wait := range waits {
		// After the deadline is set: one of ctx, which is in the past, must win.
		_ = conn.SetDeadline(time.Now().Add(wait))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if _, err := conn.Write(packet); err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
		for {
			n, err := conn.Read(buf[:])
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			var network net.Error
			if errors.As(err, &network) && network.Timeout() {
				break // again
			}
			if err != nil {
				return nil, fmt.Errorf("receive: %w", err)
			}
			if n < 8 || be32(buf[4:]) != transaction {
				if strays++; strays > maxStray {
					return nil, errStray
				}
				continue
			}
			switch got := be32(buf[:]); {
			case got == action:
				return append([]byte(nil), buf[8:n]...), nil
			case got == actionError && action == actionAnnounce:
				return nil, &refusal{reason: printable(string(buf[8:n]))}
			default:
				return nil, faultf("%w: action %d", errReply, got)
			}
		}
	}
	return nil, errTimeout
}

// takeUDP returns a socket that is connected to address: an idle one, if its
// connection id may still be used.
func (c *client) takeUDP(ctx context.Context, network, address string) (*udpConn, error) {
	key, now := network+" "+address, c.opt.Clock()
	var old []*udpConn
	var found *udpConn
	c.mu.Lock()
	kept := c.idle[:0]
	for _, u := range c.idle {
		switch {
		case !now.Before(u.until):
			old = append(old, u)
		case found == nil && u.key == key:
			found = u
		default:
			kept = append(kept, u)
		}
	}
	clear(c.idle[len(kept):])
	c.idle = kept
	c.mu.Unlock()
	for _, u := range old {
		u.Close()
	}
	if found != nil {
		return found, nil
	}
	conn, err := c.opt.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &udpConn{Conn: conn, key: key}, nil
}

func (c *client) putUDP(u *udpConn) {
	c.mu.Lock()
	var oldest *udpConn
	if len(c.idle) >= maxIdle {
		oldest = c.idle[0]
		c.idle = append(c.idle[:0], c.idle[1:]...)
	}
	c.idle = append(c.idle, u)
	c.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
}
