package webui

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// FuzzHost looks for a Host header that stands for something else to a browser
// than to allowed.
func FuzzHost(f *testing.F) {
	for _, host := range []string{"localhost", "192.168.1.2:80", "[fe80::1]:8080", "box.local.", "[", ":", "evil.example:80", "[::ffff:8.8.8.8]", "127.0.0.1.evil.example", "fe80::1%25evil.example"} {
		f.Add(host)
	}
	p := &pages{hosts: map[string]bool{"box.example": true}}
	f.Fuzz(func(t *testing.T, host string) {
		if !p.allowed(host) {
			return
		}
		u, err := url.Parse("http://" + host + "/")
		if err != nil || u.Host != host {
			return // no browser sends it as a host
		}
		name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
		if addr, err := netip.ParseAddr(name); err == nil && (addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.Is4In6()) {
			return
		}
		if name != "localhost" && name != "box.example" && !strings.HasSuffix(name, ".local") {
			t.Fatalf("%q is allowed, and is %q", host, name)
		}
	})
}
