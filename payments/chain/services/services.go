// Package services opens the view of the chain that a program works with, from
// the services that its settings name: each is spoken to in its own dialect,
// all of them together answer as one (failover), and what they call mined is
// believed only with a Merkle path into the program's own chain of headers
// (spv).
//
// Nothing is asked before the first call. A service that is down, or whose
// key is wrong, shows in Services and does not keep the others from answering.
package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc"
	"github.com/bitcdn/bitcdn/payments/chain/chaintracks"
	"github.com/bitcdn/bitcdn/payments/chain/failover"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/chain/spv"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain"
	"github.com/pelletier/go-toml/v2"
)

// The kinds of service.
const (
	Node         = "node"         // JSON-RPC of a full node: http://user:password@host:port
	ARC          = "arc"          // ARC or Arcade; which of them, is found out
	WhatsOnChain = "whatsonchain" // …/v1/bsv/main
	Chaintracks  = "chaintracks"  // block headers only
)

var (
	// ErrNone says that there is no service for a network.
	ErrNone = errors.New("no chain service is named")
	// ErrService says that a service cannot be used as it is written; the text
	// says why, and never holds a password or a key.
	ErrService = errors.New("not a usable chain service")
)

// Service is one service of the settings.
type Service struct {
	Kind string `toml:"kind" comment:"node, arc, whatsonchain or chaintracks"`
	URL  string `toml:"url"`
	Key  string `toml:"key,omitempty" comment:"bearer key, where the service wants one"`
	// Rate is how many requests a second the service allows; 0 is what it allows
	// everybody. Only WhatsOnChain has such a limit.
	Rate float64 `toml:"rate,omitempty" comment:"requests a second that a key of WhatsOnChain allows"`
}

// Defaults are the public services of a network, in the order in which they
// are asked: those that broadcast first. Regtest has none.
func Defaults(network bsv.Network) []Service {
	switch network {
	case bsv.Main:
		return []Service{
			{Kind: ARC, URL: "https://arc.taal.com"},
			{Kind: ARC, URL: "https://arc.gorillapool.io"},
			{Kind: WhatsOnChain, URL: "https://api.whatsonchain.com/v1/bsv/main"},
			{Kind: Chaintracks, URL: "https://mainnet-chaintracks.babbage.systems"},
		}
	case bsv.Test:
		return []Service{
			{Kind: ARC, URL: "https://arc-test.taal.com"},
			{Kind: WhatsOnChain, URL: "https://api.whatsonchain.com/v1/bsv/test"},
			{Kind: Chaintracks, URL: "https://testnet-chaintracks.babbage.systems"},
		}
	}
	return nil
}

// Check says what keeps a service from being used, as an ErrService: an
// unknown kind, an address that is none, or a key that would travel in the
// clear.
func (s Service) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrService, s.Kind, fmt.Sprintf(format, args...))
	}
	if s.Kind == Node {
		if _, err := node.Dial(s.URL, node.Options{}); err != nil {
			return fmt.Errorf("%w: %w", ErrService, err)
		}
		return nil
	}
	if s.Kind != ARC && s.Kind != WhatsOnChain && s.Kind != Chaintracks {
		return fmt.Errorf("%w: kind %.40q is none of node, arc, whatsonchain and chaintracks", ErrService, s.Kind)
	}
	u, err := url.Parse(s.URL)
	switch {
	case err != nil:
		return bad("the address cannot be read") // the parser's words would repeat it
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return bad("%s is not of the form https://host/path", u.Redacted())
	case u.User != nil:
		return bad("a key belongs into key, not into the address")
	case s.Rate < 0 || math.IsNaN(s.Rate) || s.Rate > 0 && s.Rate < 0.01: // one in 100 s
		return bad("a rate of %v", s.Rate)
	case s.Key != "" && u.Scheme == "http" && !isLocal(u.Hostname()):
		return bad("the key for %s would travel in the clear; use https", u.Host)
	}
	return nil
}

// isLocal says whether a host is this machine or in a network of the owner's.
func isLocal(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast())
}

// name is what people read of a service: nothing secret.
func (s Service) name() string {
	if u, err := url.Parse(s.URL); err == nil {
		return s.Kind + " " + u.Host
	}
	return s.Kind
}

// maxFile is the longest file of services in bytes.
const maxFile = 64 << 10

// Load reads a file of services: a list of [[service]] tables with kind, url
// and key. ErrService where it cannot be used; none of its words repeat a key.
func Load(path string) ([]Service, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read services: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read services: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes: %w", path, maxFile, ErrService)
	}
	var list struct{ Service []Service }
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&list); err != nil {
		var where *toml.DecodeError
		if errors.As(err, &where) {
			row, _ := where.Position()
			return nil, fmt.Errorf("%s: line %d: %w", path, row, ErrService)
		}
		return nil, fmt.Errorf("%s: only [[service]] with kind, url and key: %w", path, ErrService)
	}
	for _, s := range list.Service {
		if err := s.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if len(list.Service) == 0 {
		return nil, fmt.Errorf("%s: %w", path, ErrNone)
	}
	return list.Service, nil
}

// Config says what a View is made of.
type Config struct {
	Network bsv.Network
	// Services in the order in which they are asked; Defaults where there are
	// none.
	Services []Service
	// Checkpoint is "height:hash" of a header that the owner trusts; empty
	// where the services are believed to begin with.
	Checkpoint string
	// Headers is the file of the header chain; empty keeps it in memory.
	Headers string
	Clock   func() time.Time
	Log     *slog.Logger
	// Progress, where set, is told how far the header chain has come while it
	// is far behind.
	Progress func(done, total int)
}

const (
	// scarce is how many requests a second are so few that the same is not asked
	// for twice within tipAge: a box has several parts that look for a new block
	// every ten seconds.
	scarce = 10
	tipAge = 8 * time.Second
)

// View is the chain as a program sees it: a chain.Backend for which mined
// means proven.
type View struct {
	*spv.Backend
	services *failover.Backend
	headers  *headers.Chain
}

// Open makes a View. Errors are ErrNone, ErrService, headers.ErrCheckpoint and
// those of the file system.
func Open(ctx context.Context, cfg Config) (*View, error) {
	list := cfg.Services
	if len(list) == 0 {
		list = Defaults(cfg.Network)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: network %v has none by default", ErrNone, cfg.Network)
	}
	checkpoint, err := headers.ParseCheckpoint(cfg.Checkpoint)
	if err != nil {
		return nil, err
	}
	v := new(View)
	var all []failover.Service
	var sources []headers.Source
	own := false // a node of the owner's
	fresh := time.Duration(0)
	for _, s := range list {
		backend, err := v.dial(s, cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, failover.Service{Name: s.name(), Backend: backend, OwnOnly: s.Kind == ARC})
		if s.Kind != ARC {
			sources = append(sources, backend)
		}
		own = own || s.Kind == Node
		if s.Kind == WhatsOnChain && s.Rate <= scarce {
			fresh = tipAge
		}
	}
	agree := headers.DefaultAgree
	if own {
		agree = min(agree, len(sources)) // it is believed
	}
	switch {
	case len(sources) == 0:
		return nil, fmt.Errorf("%w: none of them gives block headers, add one of the kind node, whatsonchain or chaintracks", ErrService)
	case len(sources) < agree && checkpoint.IsZero() && cfg.Network != bsv.Regtest:
		return nil, fmt.Errorf("%w: one alone gives block headers, so nobody confirms where they begin; add a second one, or name a checkpoint", ErrService)
	}
	opt := headers.Options{Network: cfg.Network, Checkpoint: checkpoint, Sources: sources, Agree: agree, Clock: cfg.Clock, Progress: cfg.Progress}
	v.headers, err = headers.Open(ctx, cfg.Headers, opt)
	if err != nil && cfg.Headers != "" && !errors.Is(err, headers.ErrCheckpoint) && ctx.Err() == nil {
		// The file holds nothing that cannot be fetched again.
		if cfg.Log != nil {
			cfg.Log.Warn("headers are kept in memory only", "error", err)
		}
		v.headers, err = headers.Open(ctx, "", opt)
	}
	if err != nil {
		return nil, fmt.Errorf("header chain: %w", err)
	}
	if v.services, err = failover.New(all, failover.Options{Clock: cfg.Clock, Headers: v.headers, BroadcastAll: true}); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrService, err), v.headers.Close())
	}
	v.Backend = spv.New(v.services, v.headers, spv.Options{Sources: sources, Fresh: fresh, Clock: cfg.Clock, Log: cfg.Log})
	return v, nil
}

// dial makes one service's backend.
func (v *View) dial(s Service, cfg Config) (chain.Backend, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	var b chain.Backend
	var err error
	switch s.Kind {
	case Node:
		b, err = node.Dial(s.URL, node.Options{})
	case ARC:
		b, err = arc.Dial(s.URL, arc.Options{Key: s.Key, Clock: cfg.Clock, Tip: v.height, FeeFloor: leastFee, FeeCeiling: mostFee})
	case WhatsOnChain:
		b, err = whatsonchain.Dial(s.URL, cfg.Network, whatsonchain.Options{Key: s.Key, Rate: s.Rate, Clock: cfg.Clock})
	case Chaintracks:
		b, err = chaintracks.Dial(s.URL, s.Key)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrService, err)
	}
	return b, nil
}

// leastFee and mostFee bound what a service may say that it wants. Below, a close
// or a refund might not be mined when it is needed, and at 300 bytes the
// difference is no money; above, nobody has ever asked.
const leastFee, mostFee = chain.DefaultFeeRate, 10 * chain.DefaultFeeRate

// height is what a service without an index judges lock times by.
func (v *View) height(ctx context.Context) (uint32, error) {
	tip, err := v.Tip(ctx)
	return tip.Height, err
}

// Services tells how each service has answered so far.
func (v *View) Services() []failover.State { return v.services.Services() }

// Close closes the header chain's file.
func (v *View) Close() error { return v.headers.Close() }
