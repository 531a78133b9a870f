// Package box wires a whole box together and is its lifecycle: wallet, ledger,
// chain, catalogue, upload side, payments, payouts, pages and the service
// manager, started and stopped in one place.
//
// Run returns when its context ends or when one part fails; then the upload
// side has stopped, every channel's newest commitment is in the ledger, and
// nothing more is written. Channels stay open across a restart. A second box
// on the same data folder is refused (ErrRunning).
//
// The data folder holds wallet files, money.db (the ledger; not to be lost),
// titles.db and torrents/ (can be made again), and control.sock, through which
// the command line manages the box (Control).
package box

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/appliance/announce"
	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/appliance/seed"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/services"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/storage/pieces"
	"github.com/bitcdn/bitcdn/systemd"
	"github.com/bitcdn/bitcdn/webui"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Options are what a box gets from its program.
type Options struct {
	Settings Settings
	DataDir  string
	Version  string
	Clock    func() time.Time
	Log      *slog.Logger
	// Words is given the recovery words of a new wallet, once. An error stops
	// the start: a wallet whose words nobody saw must not earn.
	Words func(words string) error
	// WalletWords are the wallet's words where they do not lie in the data
	// folder; Passphrase is asked where those that do are locked.
	WalletWords string
	Passphrase  func() (string, error)
	// Started, where set, is told the addresses that the box listens on.
	Started func(Addresses)
}

// Addresses are where a running box is reached.
type Addresses struct {
	Peers, Web net.Addr // Web is nil without pages
	Control    string   // path of the socket
}

// Box is a running box.
type Box struct {
	opt     Options
	started time.Time
	health  *health.Set

	ledger    *ledger.Ledger
	wallet    *wallet.Wallet
	chain     chain.Backend  // offline where there is no service
	view      *services.View // nil where there is none
	outbox    *wallet.Outbox
	seller    *paylink.Seller
	catalogue *catalog.Catalogue
	titles    *titles
	server    *seed.Server
	announcer *announce.Announcer // nil where trackers are not told
	peerID    [20]byte
	rate      *rateMeter
	tip       atomic.Pointer[chain.Header] // nil until the chain has answered

	unwritable atomic.Bool // the ledger, at the last attempt
}

// Run is a box from start to end.
func Run(ctx context.Context, opt Options) error {
	if err := os.MkdirAll(opt.DataDir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	lockFile, err := Lock(opt.DataDir)
	if err != nil {
		return err
	}
	defer lockFile.Close()
	b := &Box{opt: opt, started: opt.Clock(), health: health.NewSet(opt.Clock), rate: newRateMeter(opt.Clock)}
	defer b.close()
	if err := b.open(ctx); err != nil {
		return err
	}
	return b.serve(ctx)
}

// open brings up everything that is not a service, lowest first.
func (b *Box) open(ctx context.Context) (err error) {
	s := &b.opt.Settings
	if err := checkRecovered(b.opt.DataDir); err != nil {
		return err
	}
	if b.ledger, err = ledger.OpenWith(ctx, filepath.Join(b.opt.DataDir, "money.db"), b.opt.Clock, ledger.Options{Wrote: b.ledgerWrote}); err != nil {
		return err
	}
	if err := b.openChain(ctx); err != nil {
		return err
	}
	if err := b.openWallet(ctx); err != nil {
		return err
	}
	if b.catalogue, err = catalog.Open(ctx, filepath.Join(b.opt.DataDir, "titles.db"), filepath.Join(b.opt.DataDir, "torrents"), b.opt.Clock); err != nil {
		return err
	}
	b.titles = &titles{catalogue: b.catalogue, handles: pieces.NewHandles(0), price: s.Price.Default, network: s.Network, health: b.health, log: b.opt.Log}
	if b.peerID, err = seed.NewPeerID(rand.Reader); err != nil {
		return err
	}
	options := seed.Options{Catalogue: b.titles, PeerID: b.peerID, FreeShare: s.Upload.FreeShare, UploadRate: s.Upload.Rate,
		MaxConns: s.Upload.MaxConnections, Unservable: b.titles.unservable, Clock: b.opt.Clock, Log: b.opt.Log}
	if b.view != nil {
		if err := b.openSeller(); err != nil {
			return err
		}
		options.Payments = b.seller
	}
	b.server = seed.New(options)
	return nil
}

func (b *Box) openWallet(ctx context.Context) (err error) {
	opt := wallet.Options{Clock: b.opt.Clock, Log: b.opt.Log, Passphrase: b.opt.Passphrase, Gap: b.opt.Settings.Wallet.Gap}
	if b.opt.WalletWords != "" {
		b.wallet, err = wallet.OpenWords(ctx, b.opt.WalletWords, b.opt.Settings.Network, b.ledger, b.chain, opt)
		return err
	}
	b.wallet, err = OpenWallet(ctx, b.opt.DataDir, b.opt.Settings.Network, b.ledger, b.chain, opt, b.opt.Words)
	return err
}

// OpenWallet opens a data folder's wallet, or makes one and shows its recovery
// words once.
func OpenWallet(ctx context.Context, dir string, network bsv.Network, l *ledger.Ledger, c chain.Backend, opt wallet.Options, show func(words string) error) (*wallet.Wallet, error) {
	w, err := wallet.Open(ctx, dir, l, c, opt)
	if errors.Is(err, wallet.ErrNoWallet) {
		words, err := wallet.Create(ctx, dir, network, rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a wallet: %w", err)
		}
		if err := show(words); err != nil {
			// Nothing was paid to it yet; kept, it would be opened the next time.
			return nil, errors.Join(fmt.Errorf("show the recovery words: %w", err), os.Remove(filepath.Join(dir, wallet.FileName)))
		}
		w, err = wallet.Open(ctx, dir, l, c, opt)
		if err != nil {
			return nil, fmt.Errorf("open the wallet: %w", err)
		}
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the wallet: %w", err)
	}
	if w.Network() != network {
		return nil, fmt.Errorf("%w: network: the wallet in %s is for %v, the settings say %v", ErrSettings, dir, w.Network(), network)
	}
	return w, nil
}

func (b *Box) openSeller() (err error) {
	c := &b.opt.Settings.Channels
	offer, policy := paylink.DefaultOffer(), paylink.DefaultPolicy()
	offer.MinCapacity, offer.MaxCapacity, offer.UnconfirmedLimit, offer.Credit = c.MinCapacity, c.MaxCapacity, c.UnconfirmedLimit, c.Credit
	offer.UnconfirmedTotal = 100 * c.UnconfirmedLimit
	policy.IdleClose = time.Duration(c.IdleClose)
	b.outbox = wallet.NewOutbox(b.ledger, b.chain, b.opt.Clock, b.opt.Log)
	b.outbox.Poll = time.Duration(b.opt.Settings.Chain.Poll)
	b.seller, err = paylink.NewSeller(paylink.SellerConfig{Ledger: b.ledger, Wallet: b.wallet, Chain: b.chain, Outbox: b.outbox,
		Offer: offer, Policy: policy, Poll: time.Duration(b.opt.Settings.Chain.Poll), Looked: b.chainLooked, Endangered: b.endangered, Clock: b.opt.Clock, Random: rand.Reader, Log: b.opt.Log})
	return err
}

// serve runs the services until the context ends or one of them fails.
func (b *Box) serve(ctx context.Context) error {
	listeners, err := b.listen(ctx)
	if err != nil {
		return err
	}
	if err := b.openAnnouncer(listeners.peers.Addr()); err != nil {
		listeners.close()
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// The seller outlives the upload side, so that the sales of the last
	// connections are stored.
	payments, stopPayments := context.WithCancel(context.WithoutCancel(ctx))
	// Who asks a tracker finds us listening until the tracker was told.
	upload := ctx
	if b.announcer != nil {
		var stopUpload context.CancelFunc
		upload, stopUpload = context.WithCancel(context.WithoutCancel(ctx))
		group.Go(func() error {
			defer stopUpload()
			return b.announce(ctx)
		})
	}
	group.Go(func() error {
		defer stopPayments()
		return b.server.Serve(upload, listeners.peers)
	})
	if b.seller != nil {
		// Backups go on until the last payment is stored.
		copying, stopCopying := context.WithCancel(context.WithoutCancel(ctx))
		group.Go(func() error {
			defer stopCopying()
			return b.seller.Run(payments)
		})
		group.Go(func() error { return b.backups(copying) })
		group.Go(func() error { return b.scan(ctx) })
		group.Go(func() error { return untilStopped(payments, b.outbox.Run(payments)) })
		group.Go(func() error { return b.payouts(ctx) })
		group.Go(func() error { return b.watchChain(ctx) })
	}
	if listeners.web != nil {
		pages := webui.NewServer(webui.New(b, webui.Options{Hosts: b.opt.Settings.Listen.Hosts, Log: b.opt.Log}), b.opt.Log)
		group.Go(func() error { return serveHTTP(ctx, pages, listeners.web) })
	}
	group.Go(func() error { return serveHTTP(ctx, &http.Server{Handler: b.control()}, listeners.control) })
	group.Go(func() error { return b.retryLedger(ctx) })
	group.Go(func() error { return b.rate.run(ctx, func() int64 { return b.server.Stats().BytesSent }) })
	group.Go(func() error {
		return systemd.Watchdog(ctx, systemd.WallTicker, b.opt.Log, func() error { return b.alive(ctx) })
	})
	addresses := Addresses{Peers: listeners.peers.Addr(), Control: listeners.path}
	if listeners.web != nil {
		addresses.Web = listeners.web.Addr()
	}
	if b.opt.Started != nil {
		b.opt.Started(addresses)
	}
	if err := systemd.Ready(); err != nil {
		b.opt.Log.Warn("telling the service manager", "error", err)
	}
	context.AfterFunc(ctx, func() {
		if err := systemd.Stopping(); err != nil {
			b.opt.Log.Warn("telling the service manager", "error", err)
		}
	})
	return group.Wait()
}

// untilStopped turns the end of a context, which some services return, into
// none.
func untilStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// alive is what the watchdog is fed with: the ledger answers.
func (b *Box) alive(ctx context.Context) error {
	_, err := b.ledger.Totals(ctx)
	return err
}

type listeners struct {
	peers, web, control net.Listener
	path                string
}

func (l *listeners) close() {
	for _, c := range []net.Listener{l.peers, l.web, l.control} {
		if c != nil {
			_ = c.Close()
		}
	}
}

func (b *Box) listen(ctx context.Context) (l listeners, err error) {
	handed, err := systemd.Listeners()
	if err != nil {
		return l, err
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	var config net.ListenConfig
	open := func(name, address string) (net.Listener, error) {
		if got := handed[name]; len(got) > 0 {
			return got[0], nil
		}
		ln, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listen for %s: %w", name, err)
		}
		return ln, nil
	}
	if l.peers, err = open(systemd.Peer, b.opt.Settings.Listen.Peers); err != nil {
		return l, err
	}
	if b.opt.Settings.Listen.Web != "" || len(handed[systemd.Web]) > 0 {
		if l.web, err = open(systemd.Web, b.opt.Settings.Listen.Web); err != nil {
			return l, err
		}
	}
	l.path = filepath.Join(b.opt.DataDir, controlSocket)
	if len(l.path) > maxSocketPath {
		return l, fmt.Errorf("%w: the data folder's path has %d characters too many for the control socket in it", ErrSettings, len(l.path)-maxSocketPath)
	}
	// The lock says that no other box uses the socket that may still be there.
	if err = os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return l, fmt.Errorf("control socket: %w", err)
	}
	if l.control, err = listenPrivate(ctx, l.path); err != nil {
		return l, fmt.Errorf("control socket: %w", err)
	}
	if err = os.Chmod(l.path, 0o600); err != nil {
		return l, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// maxSocketPath is what Linux takes (unix(7)), without the byte that ends it.
const maxSocketPath = 107

// listenPrivate listens on a socket that at no moment anybody else can open: a
// change of its mode afterwards would come too late for who connects in between.
func listenPrivate(ctx context.Context, path string) (net.Listener, error) {
	mask := unix.Umask(0o077)
	defer unix.Umask(mask)
	var config net.ListenConfig
	return config.Listen(ctx, "unix", path)
}

func serveHTTP(ctx context.Context, server *http.Server, l net.Listener) error {
	server.ReadHeaderTimeout = 10 * time.Second
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %v: %w", l.Addr(), err)
	}
	return nil
}

func (b *Box) close() {
	var errs []error
	if b.catalogue != nil {
		errs = append(errs, b.catalogue.Close())
	}
	if b.view != nil {
		errs = append(errs, b.view.Close())
	}
	if b.ledger != nil {
		errs = append(errs, b.ledger.Close())
	}
	if err := errors.Join(errs...); err != nil {
		b.opt.Log.Error("closing", "error", err)
	}
}
