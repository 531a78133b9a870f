package box

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/chain/services"
	"github.com/bitcdn/bitcdn/webui"
)

// headersFile keeps the box's own chain of block headers. It can be lost.
const headersFile = "headers.dat"

// openChain makes the view of the chain that the settings name; it asks nobody.
func (b *Box) openChain(ctx context.Context) error {
	s := &b.opt.Settings
	list := s.ChainServices()
	if len(list) == 0 {
		b.chain = offline{}
		b.health.Raise(health.Condition{Code: "chain-missing", Severity: health.Warning,
			Title:  "No block chain service is set, so nothing can be sold.",
			Remedy: "Set chain.node in the settings to the address of a node, or clear chain.offline."})
		return nil
	}
	view, err := services.Open(ctx, services.Config{Network: s.Network, Services: list, Checkpoint: s.Chain.Checkpoint,
		Headers: filepath.Join(b.opt.DataDir, headersFile), Clock: b.opt.Clock, Log: b.opt.Log})
	if err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	b.chain, b.view = view, view
	return nil
}

// chainLooked keeps the tip that the status shows, and the conditions of the
// services behind it.
func (b *Box) chainLooked(tip chain.Header, err error) {
	if err == nil {
		b.tip.Store(&tip)
		b.health.Clear("chain-unreachable")
	} else {
		b.health.Raise(health.Condition{Code: "chain-unreachable", Severity: health.Failure,
			Title:  "No block chain service answers, so no new payers are taken.",
			Remedy: "Check the network connection, and the services under chain in the settings.",
			Detail: err.Error()})
	}
	b.checkHeaders()
	b.checkProofs()
	b.checkServices()
}

// checkHeaders raises what is wrong with the headers that the services have.
func (b *Box) checkHeaders() {
	const code = "chain-headers"
	err := b.view.Trouble()
	c := health.Condition{Code: code, Severity: health.Warning,
		Title:  "A block chain service gives block headers that this box does not believe.",
		Remedy: "It is passed over. If it is the only one, name others under chain in the settings."}
	switch {
	case err == nil:
		b.health.Clear(code)
		return
	case errors.Is(err, headers.ErrFuture):
		c.Title = "The newest blocks seem to be from the future: the clock of this box is slow."
		c.Remedy = "Check that the box gets the time from the network."
	case errors.Is(err, headers.ErrAnchor):
		c.Severity = health.Failure
		c.Title = "The block chain services do not agree on where to begin, so nothing can be sold."
		c.Remedy = "It is tried again. Name another service, or set chain.checkpoint to a block that you know to be right."
	case errors.Is(err, headers.ErrDeepReorg):
		c.Severity = health.Failure
		c.Title = "A block chain service follows another chain than this box has followed so far."
		c.Remedy = "Compare with an explorer that you trust. If the box is wrong, stop it, set chain.checkpoint, delete " + headersFile + " and start it."
	}
	c.Detail = err.Error()
	b.health.Raise(c)
}

// checkProofs raises transactions that a service calls mined and cannot prove.
func (b *Box) checkProofs() {
	const code = "chain-unproven"
	n, last := b.view.Unproven()
	if n == 0 {
		b.health.Clear(code)
		return
	}
	b.health.Raise(health.Condition{Code: code, Severity: health.Warning,
		Title:  fmt.Sprintf("%d transactions are called mined by a service that does not prove it; they count as on their way.", n),
		Remedy: "This passes when the proof comes. If it stays, name another service under chain in the settings.",
		Detail: last})
}

// serviceGrace is how long a service may be away before the owner hears of it.
const serviceGrace = time.Hour

// checkServices raises the services that have not answered for long, or that
// refuse the key.
func (b *Box) checkServices() {
	const code = "chain-service"
	now := b.opt.Clock()
	var names, details []string
	for _, s := range b.view.Services() {
		if s.Down && now.Sub(later(s.LastAnswer, b.started)) >= serviceGrace {
			names = append(names, s.Name)
			details = append(details, fmt.Sprintf("%s: %v", s.Name, s.LastError))
		}
	}
	if len(names) == 0 {
		b.health.Clear(code)
		return
	}
	b.health.Raise(health.Condition{Code: code, Severity: health.Notice,
		Title:  "A block chain service has not answered for an hour: " + strings.Join(names, ", ") + ".",
		Remedy: "The others do its work. If it wants a key, set it under chain in the settings.",
		Detail: strings.Join(details, "\n")})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// watchChain listens to the services that tell of news by themselves, so that
// a double spend is not found out only at the next look.
func (b *Box) watchChain(ctx context.Context) error {
	err := b.view.Watch(ctx, func(txid bsv.Txid) {
		b.outbox.Kick()
		b.seller.Changed(txid)
	})
	if errors.Is(err, chain.ErrUnsupported) {
		return nil // they are asked every now and then
	}
	return untilStopped(ctx, err)
}

// chainServices is what the status says of the services.
func (b *Box) chainServices() []webui.ChainService {
	if b.view == nil {
		return nil
	}
	var list []webui.ChainService
	for _, s := range b.view.Services() {
		c := webui.ChainService{Name: s.Name, Down: s.Down, LastAnswer: s.LastAnswer}
		if s.LastError != nil {
			c.Error = s.LastError.Error()
		}
		list = append(list, c)
	}
	return list
}
