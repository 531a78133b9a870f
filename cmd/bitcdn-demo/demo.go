package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

// What the demo's people want.
const (
	royalty  money.Rate     = 500
	maxPrice money.Rate     = 5_000
	budget   money.Satoshis = 10_000
	pocket   money.Satoshis = 200_000 // what the client has
)

// seller is one box of the demo.
type seller struct {
	name    string
	price   money.Rate
	web     string
	data    string
	owner   bsv.PrivateKey // of the payout address
	peers   string         // host:port
	control *box.Control
	process *exec.Cmd
	done    chan struct{} // closed when the process has ended
}

type demo struct {
	bin, folder, work, web string
	once                   bool
	out, err               io.Writer

	node    *regnode.Node
	sellers []*seller
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) show(ctx context.Context) error {
	if d.folder == "" {
		out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return fmt.Errorf("find the Go toolchain: %w", err)
		}
		d.folder = filepath.Join(strings.TrimSpace(string(out)), "src")
	}
	d.say("== a node in regression test mode (built on the first run)")
	err := os.MkdirAll(filepath.Join(d.work, "node"), 0o755)
	if err != nil {
		return err
	}
	if d.node, err = regnode.Start(ctx, regnode.Options{Dir: filepath.Join(d.work, "node")}); err != nil {
		return err
	}
	d.say("   bsvd answers on loopback")

	d.say("\n== a creator publishes %s with a royalty of %v", d.folder, royalty)
	torrent := filepath.Join(d.work, "title.torrent")
	if _, err := d.bitcdn(ctx, "publish", d.folder, "--data", filepath.Join(d.work, "creator"), "--network", "regtest",
		"--royalty", fmt.Sprint(int64(royalty)), "--title", "The Go source tree", "-o", torrent); err != nil {
		return err
	}

	d.say("\n== two boxes sell it")
	web2, err := freePort()
	if err != nil {
		return err
	}
	d.sellers = []*seller{{name: "box-1", price: 2_000, web: d.web}, {name: "box-2", price: 3_000, web: web2}}
	var magnet string
	for i, s := range d.sellers {
		if magnet, err = d.startBox(ctx, s, byte(i+1), torrent); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		d.say("   %s asks %v, peers on %s, page http://%s/", s.name, s.price, s.peers, s.web)
	}

	d.say("\n== a client with %v", pocket)
	client := filepath.Join(d.work, "client")
	address, err := d.clientCommand(ctx, client, "wallet", "address")
	if err != nil {
		return err
	}
	to, err := bsv.ParseAddress(strings.TrimSpace(address), regnode.Network)
	if err != nil {
		return err
	}
	if _, err := d.node.PayMined(ctx, to, pocket); err != nil {
		return err
	}
	receipt, err := d.buy(ctx, client, magnet)
	if err != nil {
		return err
	}
	summary, err := d.settle(ctx, receipt)
	if err != nil {
		return err
	}
	d.say("\n== every file against the original")
	files, size, err := compare(ctx, d.folder, receipt.Path)
	if err != nil {
		return err
	}
	d.say("   %d files, %d bytes: all the same", files, size)
	summary.print(d.out)
	if err := summary.check(receipt); err != nil {
		return err
	}
	if d.once {
		return nil
	}
	return d.stay(ctx)
}

// buy runs the paying client, whose progress goes straight to the terminal.
func (d *demo) buy(ctx context.Context, client, magnet string) (*receipt, error) {
	path := filepath.Join(d.work, "receipt.json")
	args := []string{"get", magnet, "-o", filepath.Join(d.work, "bought"), "--max-price", fmt.Sprint(int64(maxPrice)),
		"--budget", fmt.Sprint(int64(budget)), "--receipt", path, "--give-up-after", "1m"}
	for _, s := range d.sellers {
		args = append(args, "--peer", s.peers)
	}
	d.say("   bitcdn get MAGNET --max-price %d --budget %d", maxPrice, budget)
	if err := os.MkdirAll(filepath.Join(d.work, "bought"), 0o755); err != nil {
		return nil, err
	}
	if _, err := d.clientCommand(ctx, client, args...); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r receipt
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if !r.Complete {
		return nil, errors.New("the download is not complete")
	}
	return &r, nil
}

func (d *demo) startBox(ctx context.Context, s *seller, n byte, torrent string) (magnet string, err error) {
	s.data = filepath.Join(d.work, s.name)
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return "", err
	}
	if s.peers, err = freePort(); err != nil {
		return "", err
	}
	if s.owner, err = bsv.NewPrivateKey(bytes.Repeat([]byte{n}, 32)); err != nil {
		return "", err
	}
	settings := box.DefaultSettings()
	settings.Name = s.name
	settings.Network = regnode.Network
	settings.Listen = box.ListenSettings{Peers: s.peers, Web: s.web}
	settings.Chain.Node, settings.Chain.Poll = d.node.URL(), box.Duration(time.Second)
	settings.Price.Default = s.price
	settings.Payout.Address = s.owner.Public().Hash().Address(regnode.Network)
	settings.Payout.Threshold = 10
	config := filepath.Join(s.data, "bitcdnd.toml")
	if err := box.WriteSettings(config, settings); err != nil {
		return "", err
	}
	log, err := os.Create(filepath.Join(s.data, "log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	s.process = exec.Command(filepath.Join(d.bin, "bitcdnd"), "--config", config, "--data", s.data)
	s.process.Stdout, s.process.Stderr = log, log
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.process.Start(); err != nil {
		return "", err
	}
	s.done = make(chan struct{})
	go func() {
		_ = s.process.Wait()
		close(s.done)
	}()
	s.control = box.NewControl(s.data)
	if err := d.awaitBox(ctx, s); err != nil {
		return "", err
	}
	raw, err := os.ReadFile(torrent)
	if err != nil {
		return "", err
	}
	added, err := s.control.Add(ctx, box.AddRequest{Torrent: raw, DataDir: filepath.Dir(d.folder)})
	return added.Magnet, err
}

// awaitBox waits until a box answers, or has ended.
func (d *demo) awaitBox(ctx context.Context, s *seller) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return until(ctx, func() (bool, error) {
		select {
		case <-s.done:
			log, _ := os.ReadFile(filepath.Join(s.data, "log"))
			return false, fmt.Errorf("bitcdnd ended:\n%s", log)
		default:
		}
		status, err := s.control.Status(ctx)
		return err == nil && status.Chain.Height > 0, nil
	})
}

// until repeats f until it is true, fails, or the time is over.
func until(ctx context.Context, f func() (bool, error)) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (d *demo) clientCommand(ctx context.Context, data string, args ...string) (string, error) {
	return d.bitcdn(ctx, append(args, "--data", data, "--network", "regtest", "--node", d.node.URL())...)
}

// bitcdn runs a command, shows what it prints, and returns its standard output.
func (d *demo) bitcdn(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	c := exec.CommandContext(ctx, filepath.Join(d.bin, "bitcdn"), args...)
	c.Stdout, c.Stderr = io.MultiWriter(&out, d.out), d.err
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = time.Minute
	if err := c.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("bitcdn %s: %w", args[0], err)
	}
	return out.String(), nil
}

// stay leaves the first box running for somebody to look at.
func (d *demo) stay(ctx context.Context) error {
	d.end(d.sellers[1:])
	d.say("\nThe first box goes on. Its status page: http://%s/    (Ctrl-C stops it)", d.web)
	select {
	case <-ctx.Done():
		return nil
	case <-d.sellers[0].done:
		return errors.New("the box has ended by itself")
	case <-d.node.Done():
		return errors.New("the node has ended by itself")
	}
}

func (d *demo) stop() {
	d.end(d.sellers)
	if d.node != nil {
		_ = d.node.Stop()
	}
}

func (d *demo) end(sellers []*seller) {
	for _, s := range sellers {
		if s.done == nil {
			continue
		}
		_ = s.process.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.done:
		case <-time.After(30 * time.Second):
			_ = s.process.Process.Kill()
			<-s.done
		}
	}
}
