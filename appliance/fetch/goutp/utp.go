// Package utp stands in for the module of this name, which the BitTorrent
// library names but which we do not build: uTP without cgo is slower than TCP
// by two orders of magnitude, so it is switched off. Every call fails with
// ErrNotBuilt; nothing here opens a socket.
package utp

import (
	"context"
	"errors"
	"log/slog"
	"net"
)

// ErrNotBuilt is what every call in this package returns.
var ErrNotBuilt = errors.New("uTP is not built into this program; use TCP")

// Default names the implementation, as the library prints it.
const Default = "not built"

// FirewallCallback decides whether a first packet from an address is refused.
type FirewallCallback func(net.Addr) bool

// Option configures a socket; none has an effect.
type Option func()

// WithLogger is accepted and ignored.
func WithLogger(*slog.Logger) Option { return func() {} }

// Socket is what the library expects of a uTP socket. No value of it exists.
type Socket interface {
	net.PacketConn
	Accept() (net.Conn, error)
	Addr() net.Addr
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	SetFirewallCallback(FirewallCallback)
}

// NewSocket always fails with ErrNotBuilt.
func NewSocket(network, addr string, _ ...Option) (Socket, error) { return nil, ErrNotBuilt }

// NewSocketFromPacketConn always fails with ErrNotBuilt.
func NewSocketFromPacketConn(net.PacketConn, ...Option) (Socket, error) { return nil, ErrNotBuilt }
