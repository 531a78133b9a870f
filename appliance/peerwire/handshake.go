package peerwire

import (
	"context"
	"errors"
	"expvar"
	"io"
	"iter"
	"net"
	"os"
	"sync"
	"time"

	"github.com/anacrolix/torrent/mse"
)

const (
	protocol      = "\x13BitTorrent protocol"
	handshakeSize = 68
)

// Bits of the handshake's reserved bytes.
const (
	reservedExtended = 0x10 // of byte 5, BEP 10
	reservedFast     = 0x04 // of byte 7, BEP 6
)

// Defaults of a Host.
const (
	DefaultQueue            = 512
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultIdleTimeout      = 150 * time.Second
	DefaultWriteTimeout     = 60 * time.Second
	keepaliveAfter          = 110 * time.Second
)

// Config is what all connections of a Host have in common. The zero value of
// every field but PeerID stands for a default.
type Config struct {
	PeerID  [20]byte // BEP 20
	Version string   // the client's name in the extended handshake; "BitCDN"
	// Queue is how many requests of one peer may wait; it is offered as reqq.
	Queue int
	// HandshakeTimeout bounds a handshake, from the accept on.
	HandshakeTimeout time.Duration
	// IdleTimeout ends a connection that sent nothing for so long.
	IdleTimeout time.Duration
	// WriteTimeout ends a connection that did not take one block in so long.
	WriteTimeout time.Duration
}

// Host holds what its connections share. It is safe for concurrent use.
type Host struct {
	cfg     Config
	buffers sync.Pool // *[]byte of writeBuffer bytes
}

// NewHost returns a host with the defaults filled in.
func NewHost(cfg Config) *Host {
	if cfg.Version == "" {
		cfg.Version = "BitCDN"
	}
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultQueue
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = DefaultIdleTimeout
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = DefaultWriteTimeout
	}
	h := &Host{cfg: cfg}
	h.buffers.New = func() any { b := make([]byte, writeBuffer); return &b }
	return h
}

// Hashes is the set of info hashes that a handshake may name.
type Hashes interface {
	// Has reports whether ih is served.
	Has(ih [20]byte) bool
	// All lists every info hash that is served: a peer that obfuscates its
	// handshake (MSE) names the title by a keyed hash only.
	All() iter.Seq[[20]byte]
}

// Handshake is the result of a peer's half of a handshake. The answer is sent
// by the Conn that is made of it.
type Handshake struct {
	InfoHash  [20]byte
	PeerID    [20]byte
	Fast      bool // the peer speaks BEP 6
	Extended  bool // the peer speaks BEP 10
	Encrypted bool // the whole stream is RC4, not only its header obfuscated

	nc  net.Conn
	src io.Reader
	out *output // non-nil where Encrypted
}

// Accept reads a peer's handshake, plain or obfuscated, from nc, which has just
// been accepted. Where it fails, with an *Ended, nc has been closed. The
// context's end closes nc as well.
func (h *Host) Accept(ctx context.Context, nc net.Conn, hashes Hashes) (*Handshake, error) {
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	hs, err := h.accept(ctx, nc, hashes)
	if !stop() && err == nil {
		err = &Ended{Reason: ReasonShutdown}
	}
	if err == nil {
		return hs, nil
	}
	nc.Close()
	var e *Ended
	switch {
	case ctx.Err() != nil:
		return nil, &Ended{ReasonShutdown, ctx.Err()}
	case errors.As(err, &e):
		return nil, e
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Ended{ReasonHandshakeTimeout, err}
	}
	return nil, &Ended{ReasonBadHandshake, err}
}

func (h *Host) accept(ctx context.Context, nc net.Conn, hashes Hashes) (*Handshake, error) {
	if err := nc.SetDeadline(time.Now().Add(h.cfg.HandshakeTimeout)); err != nil {
		return nil, err
	}
	hs := &Handshake{nc: nc, src: nc}
	var b [handshakeSize]byte
	if _, err := io.ReadFull(nc, b[:len(protocol)]); err != nil {
		return nil, err
	}
	head := b[len(protocol):]
	var secret []byte
	if string(b[:len(protocol)]) != protocol {
		var err error
		if secret, err = hs.deobfuscate(ctx, b[:len(protocol)], hashes); err != nil {
			return nil, err
		}
		head = b[:]
	}
	if _, err := io.ReadFull(hs.src, head); err != nil {
		return nil, err
	}
	if string(b[:len(protocol)]) != protocol {
		return nil, errors.New("obfuscated stream holds no BitTorrent")
	}
	hs.Extended = b[25]&reservedExtended != 0
	hs.Fast = b[27]&reservedFast != 0
	hs.InfoHash = [20]byte(b[28:48])
	hs.PeerID = [20]byte(b[48:68])
	if secret != nil && string(secret) != string(hs.InfoHash[:]) {
		return nil, errors.New("two titles in one handshake")
	}
	if !hashes.Has(hs.InfoHash) {
		return nil, ended(ReasonUnknownTitle, "info hash %x", hs.InfoHash)
	}
	if hs.PeerID == h.cfg.PeerID {
		return nil, &Ended{Reason: ReasonSelf}
	}
	return hs, nil
}

// deobfuscate runs the receiving side of MSE. first is what was read already.
func (hs *Handshake) deobfuscate(ctx context.Context, first []byte, hashes Hashes) (secret []byte, err error) {
	out := &output{w: hs.nc}
	in := &rest{first: append([]byte(nil), first...), r: hs.nc}
	key := make([]byte, 20)
	rw, method, err := mse.ReceiveHandshake(ctx, struct {
		io.Reader
		io.Writer
	}{in, out}, func(match func([]byte) bool) {
		for ih := range hashes.All() {
			copy(key, ih[:])
			if !match(key) {
				return // key stays the one that matched
			}
		}
	}, selectMethod)
	forgetOffers()
	if errors.Is(err, mse.ErrNoSecretKeyMatch) {
		return nil, &Ended{ReasonUnknownTitle, err}
	}
	if err != nil {
		return nil, err
	}
	hs.src = rw
	if method == mse.CryptoMethodRC4 {
		out.cipher, out.capture = rw, true
		hs.out, hs.Encrypted = out, true
	}
	return key, nil
}

// forgetOffers empties the library's statistics of the methods that peers offer:
// they have a place for each of 2³² numbers that a peer can say.
func forgetOffers() {
	if offers, ok := expvar.Get("mseCryptoProvides").(*expvar.Map); ok {
		offers.Init()
	}
}

// selectMethod takes the cheaper method of those that the peer offers: after an
// obfuscated header plain blocks still go out with sendfile.
func selectMethod(offered mse.CryptoMethod) mse.CryptoMethod {
	switch {
	case offered&mse.CryptoMethodPlaintext != 0:
		return mse.CryptoMethodPlaintext
	case offered&mse.CryptoMethodRC4 != 0:
		return mse.CryptoMethodRC4
	}
	return 0 // refused by the handshake
}

// rest gives back what was read ahead, and then the stream.
type rest struct {
	first []byte
	r     io.Reader
}

func (r *rest) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		if r.first = r.first[n:]; len(r.first) == 0 {
			r.first = nil
		}
		return n, nil
	}
	return r.r.Read(p)
}

// output is where the cipher of an obfuscated stream writes to: the connection
// during the handshake, and the very bytes that were given to the cipher later,
// so that whole batches are encrypted in place and leave with one call.
type output struct {
	w       io.Writer
	cipher  io.Writer
	capture bool
	dst     []byte
}

// cipherChunk is how much is encrypted at a time, bytes. The cipher keeps a
// buffer of this size for every connection.
const cipherChunk = 4 << 10

func (o *output) Write(p []byte) (int, error) {
	if !o.capture {
		return o.w.Write(p)
	}
	n := copy(o.dst, p)
	o.dst = o.dst[n:]
	return len(p), nil
}

// encrypt replaces p by what goes on the wire.
func (o *output) encrypt(p []byte) {
	for len(p) > 0 {
		n := min(len(p), cipherChunk)
		o.dst = p[:n]
		o.cipher.Write(p[:n]) // into o.dst: cannot fail
		p = p[n:]
	}
}
