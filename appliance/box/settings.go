package box

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/chain/services"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/storage/durable"
	"github.com/pelletier/go-toml/v2"
)

// SettingsVersion is the version of settings files that this program reads.
const SettingsVersion = 1

// maxSettings is the longest settings file in bytes.
const maxSettings = 1 << 20

// ErrSettings says that the settings cannot be used; the text says which one
// and why.
var ErrSettings = errors.New("unusable settings")

// Settings are what an owner decides, in one TOML file. Every field has a
// default; a missing file is all defaults.
type Settings struct {
	Version int    `toml:"version"`
	Name    string `toml:"name" comment:"what the box calls itself on its page"`
	// Network is main, test or regtest.
	Network bsv.Network `toml:"network" comment:"main, test or regtest"`

	Listen   ListenSettings   `toml:"listen"`
	Chain    ChainSettings    `toml:"chain"`
	Price    PriceSettings    `toml:"price"`
	Upload   UploadSettings   `toml:"upload"`
	Announce AnnounceSettings `toml:"announce"`
	Channels ChannelSettings  `toml:"channels"`
	Payout   PayoutSettings   `toml:"payout"`
	Backup   BackupSettings   `toml:"backup"`
	Wallet   WalletSettings   `toml:"wallet"`
}

// ListenSettings are addresses.
type ListenSettings struct {
	Peers string   `toml:"peers" comment:"host:port for BitTorrent peers; an empty host is every interface"`
	Web   string   `toml:"web" comment:"host:port of the status page; empty is none"`
	Hosts []string `toml:"hosts" comment:"further names by which the page may be asked for"`
}

// ChainSettings say where the block chain is seen. Without Services and Node
// these are the network's public services (services.Defaults).
type ChainSettings struct {
	Services []services.Service `toml:"service,omitempty"`
	Node     string             `toml:"node" comment:"JSON-RPC of your own node: http://user:password@host:port; then only it is asked.\nElse the services of the tables [[chain.service]] (kind, url, key), in their order;\nwithout any, well-known public ones: print them with bitcdnd --print-services"`
	// Checkpoint is where the box's own chain of headers begins.
	Checkpoint string   `toml:"checkpoint" comment:"height:hash of a block that you know to be right; empty believes two services that agree, once"`
	Offline    bool     `toml:"offline" comment:"ask no service; nothing can be sold then"`
	Poll       Duration `toml:"poll" comment:"how often the services are asked for news"`
}

// ChainServices are the services that are asked: those that are named, or the
// network's public ones. None where the box is offline, or on regtest.
func (s *Settings) ChainServices() []services.Service {
	c := &s.Chain
	switch {
	case c.Offline:
		return nil
	case c.Node != "":
		return []services.Service{{Kind: services.Node, URL: c.Node}}
	case len(c.Services) > 0:
		return c.Services
	}
	return services.Defaults(s.Network)
}

// PriceSettings are in satoshis per GiB.
type PriceSettings struct {
	Default money.Rate `toml:"default" comment:"satoshis per GiB for titles without a price of their own; 0 gives them away"`
}

// UploadSettings are in bytes a second; 0 is no limit, or none.
type UploadSettings struct {
	Rate           int64 `toml:"rate" comment:"bytes per second for everybody together; 0 is no limit"`
	FreeShare      int64 `toml:"free_share" comment:"bytes per second of priced titles for all who do not pay together; 0 is none"`
	MaxConnections int   `toml:"max_connections" comment:"0 is the program's default"`
}

// AnnounceSettings say who is told of the titles.
type AnnounceSettings struct {
	Trackers bool   `toml:"trackers" comment:"tell the trackers in the torrents that the box seeds them"`
	Port     uint16 `toml:"port" comment:"port that trackers are told; 0 is that of listen.peers"`
}

// ChannelSettings say how payers are dealt with.
type ChannelSettings struct {
	MinCapacity      money.Satoshis `toml:"min_capacity" comment:"satoshis that a payer binds at least"`
	MaxCapacity      money.Satoshis `toml:"max_capacity" comment:"satoshis that a payer binds at most"`
	UnconfirmedLimit money.Satoshis `toml:"unconfirmed_limit" comment:"satoshis' worth delivered before a funding is mined"`
	Credit           int64          `toml:"credit" comment:"bytes that a new payer may owe"`
	IdleClose        Duration       `toml:"idle_close" comment:"channels on which nothing moves are settled after this"`
}

// Duration is a time.Duration written as "90s" or "1h30m".
type Duration time.Duration

// MarshalText writes the duration as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// DefaultSettings are for a box at home.
func DefaultSettings() Settings {
	offer, policy := paylink.DefaultOffer(), paylink.DefaultPolicy()
	return Settings{
		Version:  SettingsVersion,
		Name:     "BitCDN box",
		Network:  bsv.Main,
		Listen:   ListenSettings{Peers: ":42070", Web: "127.0.0.1:8080"},
		Chain:    ChainSettings{Poll: Duration(10 * time.Second)},
		Price:    PriceSettings{Default: 1_000},
		Announce: AnnounceSettings{Trackers: true},
		Channels: ChannelSettings{MinCapacity: offer.MinCapacity, MaxCapacity: offer.MaxCapacity,
			UnconfirmedLimit: offer.UnconfirmedLimit, Credit: offer.Credit, IdleClose: Duration(policy.IdleClose)},
		Payout: PayoutSettings{Threshold: 10_000, MaxFeeShare: 50, Every: Duration(time.Hour)},
		Backup: BackupSettings{Keep: backup.DefaultKeep},
	}
}

// LoadSettings reads a settings file; one that does not exist is all defaults.
// Errors are ErrSettings with the reason, and those of reading.
func LoadSettings(path string) (Settings, error) {
	s := DefaultSettings()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read settings: %w", err)
	}
	if info.Size() > maxSettings {
		return Settings{}, fmt.Errorf("%s has %d bytes: %w", path, info.Size(), ErrSettings)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Settings{}, fmt.Errorf("read settings: %w", err)
	}
	dec := toml.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return Settings{}, fmt.Errorf("%s: %w: there is no such setting:\n%s", path, ErrSettings, strict.String())
		}
		var where *toml.DecodeError
		if errors.As(err, &where) {
			return Settings{}, fmt.Errorf("%s: %w:\n%s", path, ErrSettings, where.String())
		}
		return Settings{}, fmt.Errorf("%s: %w: %w", path, ErrSettings, err)
	}
	if err := s.Check(); err != nil {
		return Settings{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Check says what cannot be used, as an ErrSettings.
func (s *Settings) Check() error {
	bad := func(name string, format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrSettings, name, fmt.Sprintf(format, args...))
	}
	if s.Version != SettingsVersion {
		return bad("version", "%d, this program reads %d", s.Version, SettingsVersion)
	}
	for name, address := range map[string]string{"listen.peers": s.Listen.Peers, "listen.web": s.Listen.Web} {
		if _, _, err := net.SplitHostPort(address); err != nil && !(name == "listen.web" && address == "") {
			return bad(name, "%v", err)
		}
	}
	if s.Chain.Node != "" && len(s.Chain.Services) > 0 {
		return bad("chain", "name a node or services, not both; a node can be one of the services")
	}
	for _, service := range s.ChainServices() {
		if err := service.Check(); err != nil {
			return bad("chain", "%v", err)
		}
	}
	if _, err := headers.ParseCheckpoint(s.Chain.Checkpoint); err != nil {
		return bad("chain.checkpoint", "%v", err)
	}
	if !s.Price.Default.Valid() {
		return bad("price.default", "%d is not between 0 and %d", s.Price.Default, money.MaxRate)
	}
	c := &s.Channels
	switch {
	case s.Upload.Rate < 0 || s.Upload.FreeShare < 0 || s.Upload.MaxConnections < 0:
		return bad("upload", "no value may be negative")
	case c.MinCapacity <= 0 || !c.MaxCapacity.Valid() || c.MaxCapacity < c.MinCapacity:
		return bad("channels", "min_capacity %v and max_capacity %v", c.MinCapacity, c.MaxCapacity)
	case !c.UnconfirmedLimit.Valid():
		return bad("channels.unconfirmed_limit", "%d", c.UnconfirmedLimit)
	case c.Credit < channel.MinCredit || c.Credit > channel.MaxCredit:
		return bad("channels.credit", "%d is not between %d and %d", c.Credit, channel.MinCredit, channel.MaxCredit)
	case c.IdleClose < Duration(time.Minute):
		return bad("channels.idle_close", "below a minute")
	case s.Chain.Poll < Duration(100*time.Millisecond):
		return bad("chain.poll", "below 100 ms")
	}
	if name, why := s.Payout.check(); name != "" {
		return bad(name, "%s", why)
	}
	if name, why := s.Backup.check(); name != "" {
		return bad(name, "%s", why)
	}
	if s.Payout.Address != "" {
		if _, err := bsv.ParseAddress(s.Payout.Address, s.Network); err != nil {
			return bad("payout.address", "%v", err)
		}
	}
	return nil
}

// WriteSettings writes a settings file atomically, with a comment to each
// setting, readable by its owner only: it may hold a node's password.
func WriteSettings(path string, s Settings) error {
	b, err := toml.Marshal(s)
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return durable.Replace(path, b, 0o600)
}
