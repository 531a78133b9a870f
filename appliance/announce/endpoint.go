package announce

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const maxURL = 2048 // bytes

var (
	errEndpoint = errors.New("unusable tracker URL")
	errPrivate  = errors.New("is in a private network")
)

// endpoint is a tracker's announce URL that may be followed.
type endpoint struct {
	text    string // as in the torrent
	url     *url.URL
	udp     bool
	host    string // without port
	port    uint16
	literal netip.Addr // where host is an address in numbers
	local   bool       // it names a private or loopback address itself
}

// address is host and port as they are shown.
func (e *endpoint) address() string { return net.JoinHostPort(e.host, strconv.Itoa(int(e.port))) }

// key tells apart what has health and manners of its own: two schemes or ports
// of a host are two services.
func (e *endpoint) key() string {
	if e.udp {
		return "udp " + e.address()
	}
	return "tcp " + e.address()
}

func parseEndpoint(text string) (*endpoint, error) {
	bad := func(why string) (*endpoint, error) { return nil, fmt.Errorf("%w: %s", errEndpoint, why) }
	if len(text) > maxURL {
		return bad("too long")
	}
	u, err := url.Parse(text)
	if err != nil {
		return bad("not a URL") // the error's words hold all of it
	}
	u.Fragment, u.RawFragment = "", ""
	e := &endpoint{text: text, url: u, host: strings.ToLower(u.Hostname())}
	port := u.Port()
	switch u.Scheme {
	case "http":
		e.port = 80
	case "https":
		e.port = 443
	case "udp":
		e.udp = true
		if port == "" {
			return bad("no port")
		}
	default:
		return bad("scheme " + strconv.Quote(u.Scheme))
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return bad("port " + strconv.Quote(port))
		}
		e.port = uint16(n)
	}
	if e.host == "" {
		return bad("no host")
	}
	if err := e.checkHost(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *endpoint) checkHost() error {
	if a, err := netip.ParseAddr(e.host); err == nil {
		a = a.Unmap()
		switch {
		case a.Zone() != "", a.IsMulticast(), a.IsUnspecified(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return fmt.Errorf("%w: address %v", errEndpoint, a)
		}
		e.literal, e.local = a, !public(a)
	} else if isLocalhost(e.host) {
		e.local = true
	}
	if e.local && !e.udp && !strings.HasPrefix(e.url.Path, "/announce") {
		return fmt.Errorf("%w: %s %w, where only paths that begin with /announce are asked for", errEndpoint, e.host, errPrivate)
	}
	return nil
}

func isLocalhost(host string) bool { return strings.TrimSuffix(host, ".") == "localhost" }

// public reports whether an address is one of the Internet at large. Addresses
// that carry an IPv4 address, and are led to it, are judged by that.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Zone() != "" {
		return false
	}
	if a.Is6() {
		b := a.As16()
		if netip.MustParsePrefix("64:ff9b::/96").Contains(a) {
			return public(netip.AddrFrom4([4]byte(b[12:])))
		}
		if netip.MustParsePrefix("2002::/16").Contains(a) {
			return public(netip.AddrFrom4([4]byte(b[2:6])))
		}
	}
	for _, p := range [...]string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", // RFC 6890
		"::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32", "fec0::/10",
	} {
		if netip.MustParsePrefix(p).Contains(a) {
			return false
		}
	}
	return true
}
