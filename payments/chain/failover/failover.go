// Package failover makes one view of the chain from several services, in the
// order in which their owner prefers them.
//
// # Who answers
//
// A question goes to the first service that can answer it. One that fails, for
// whatever reason, is passed over for the next; it is not asked again for a
// while that grows from 2 seconds to 5 minutes as it goes on failing, unless no
// other can answer. An answer makes it whole. One that cannot answer a question
// at all (ErrUnsupported) has not failed.
//
// ErrNotFound of one service is not the last word, since another may know more:
// it is the answer where none that is up knows better. The same holds for
// Status, where the most informed answer counts:
//
//	mined with a proof > mined > seen > conflicted > unknown
//
// The first proof ends the asking; with Options.Headers, the first that ends in
// one of them, so that a service on another branch of the chain does not hide
// what the others can prove. Without a proof all are asked. What competes is
// gathered from all that were. Where one says that a transaction is
// on its way and another that it has lost, the winner decides: the transaction
// is Conflicted when the winner is mined, with a proof and with an input in
// common where there are Options.Headers, and otherwise as the first one says.
//
// A service that broadcasts may take a transaction and keep it to itself. What
// only OwnOnly services call seen is Unknown where one that sees all does not
// know it, so that it is sent again, to all of them. And what one of them alone
// calls lost is ErrUnavailable while others that answered before are silent.
//
// Broadcast goes to the first service that takes the transaction. One service's
// refusal must not lose a payment, so that it is Rejected only when no service
// takes it. The reason is that of the first that refused, but for one that knows
// that inputs are spent where the first only misses them, and one that time may
// heal where the first one's is final. Services that do not answer have no vote,
// and where none answers it is ErrUnavailable; so it is also where an
// OwnOnly one alone refuses for good, and another that answered before is
// silent. No service is
// asked about what can be seen here: a lock time above the tip, and with the
// previous outputs at hand also wrong amounts. No second one is asked where the
// first says Invalid and a signature does not hold here either.
//
// FeeRate is that of the first service that tells one, since it also broadcasts
// first; chain.DefaultFeeRate where none does.
//
// # What is believed
//
// Only what contradicts itself is taken for a failure: a transaction with
// another txid, a header of another height, a coin with another script, a proof
// for another block. Everything else that a service says is passed on as it is.
// Package spv stands above this one and asks for proof.
//
// No lock is held while a service is asked.
package failover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
)

var (
	_ chain.Backend      = (*Backend)(nil)
	_ chain.BulkUnspent  = (*Backend)(nil)
	_ chain.BulkUsed     = (*Backend)(nil)
	_ chain.SpentBy      = (*Backend)(nil)
	_ chain.HeaderRange  = (*Backend)(nil)
	_ chain.Prover       = (*Backend)(nil)
	_ chain.Consolidator = (*Backend)(nil)
	_ chain.Watcher      = (*Backend)(nil)
)

// Service is one view of the chain and what its owner calls it.
type Service struct {
	Name    string
	Backend chain.Backend
	// OwnOnly says that the service knows only transactions that were handed to
	// it: that it does not know one tells nothing.
	OwnOnly bool
}

// Options of a Backend. The zero value is good.
type Options struct {
	// Clock is what services are skipped by; nil means time.Now.
	Clock func() time.Time
	// Timeout is how long a service may take over a question before the next one
	// is asked; 0 means 30 s. The context's own deadline holds too.
	Timeout time.Duration
	// Headers is what proofs are expected to end in; nil means that any proof
	// will do. It is brought up to date where one ends elsewhere.
	Headers *headers.Chain
	// BroadcastAll hands a transaction to all services once one has taken it, and
	// waits for them a moment; what they say does not count. Without it a service
	// that takes a transaction and does nothing keeps it from the network.
	BroadcastAll bool
}

// How long a service that failed is skipped.
const (
	firstSkip = 2 * time.Second
	lastSkip  = 5 * time.Minute
)

// ErrServices says that New was given no services, or two of one name.
var ErrServices = errors.New("not a list of chain services")

// State is how a service does, for a status page.
type State struct {
	Name string
	// LastError is why it failed last; nil when it has answered since.
	LastError error
	// LastAnswer is when it last answered; the zero time where it never has.
	LastAnswer time.Time
	// Down says that others are asked in its place.
	Down bool
}

// Backend is several services as one. Use New.
type Backend struct {
	opt      Options
	services []*service
}

// service is a Service and how it does.
type service struct {
	Service
	mu         sync.Mutex
	failures   int // in a row
	skip       time.Time
	lastError  error
	lastAnswer time.Time
}

// New returns the view that the services give together, the most preferred one
// first. Errors are ErrServices.
func New(services []Service, opt Options) (*Backend, error) {
	if len(services) == 0 {
		return nil, fmt.Errorf("none at all: %w", ErrServices)
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Timeout <= 0 {
		opt.Timeout = 30 * time.Second
	}
	b := &Backend{opt: opt}
	names := make(map[string]bool)
	for _, s := range services {
		if s.Backend == nil || s.Name == "" || names[s.Name] {
			return nil, fmt.Errorf("service %q is not one, or there are two: %w", s.Name, ErrServices)
		}
		names[s.Name] = true
		b.services = append(b.services, &service{Service: s})
	}
	return b, nil
}

// Services says how the services do, in the owner's order.
func (b *Backend) Services() []State {
	now := b.opt.Clock()
	states := make([]State, len(b.services))
	for i, s := range b.services {
		s.mu.Lock()
		states[i] = State{Name: s.Name, LastError: s.lastError, LastAnswer: s.lastAnswer, Down: now.Before(s.skip)}
		s.mu.Unlock()
	}
	return states
}

// candidates are all services, those that are skipped behind the up others: they
// are asked when nobody else answers.
func (b *Backend) candidates() (all []*service, up int) {
	now := b.opt.Clock()
	var down []*service
	for _, s := range b.services {
		s.mu.Lock()
		if now.Before(s.skip) {
			down = append(down, s)
		} else {
			all = append(all, s)
		}
		s.mu.Unlock()
	}
	return append(all, down...), len(all)
}

func (s *service) answered(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures, s.skip, s.lastError, s.lastAnswer = 0, time.Time{}, nil, now
}

func (s *service) failed(now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastError = err
	// Several calls that fail at the same time are one failure.
	if now.Before(s.skip) {
		return
	}
	s.skip = now.Add(min(firstSkip<<min(s.failures, 16), lastSkip))
	s.failures++
}

// call asks one service and notes how it did. The error is the service's own,
// but for a time-out, which is ErrUnavailable, and for the end of the caller's
// context, which is both.
func call[T any](ctx context.Context, b *Backend, s *service, f func(context.Context, chain.Backend) (T, error)) (T, error) {
	var none T
	own, cancel := context.WithTimeout(ctx, b.opt.Timeout)
	defer cancel()
	answer, err := f(own, s.Backend)
	rejected := new(chain.Rejected)
	switch {
	case err == nil, errors.As(err, &rejected), errors.Is(err, chain.ErrNotFound):
		s.answered(b.opt.Clock())
		return answer, err
	case ctx.Err() != nil: // not its fault
		return none, fmt.Errorf("%w: %w", chain.ErrUnavailable, ctx.Err())
	case errors.Is(err, chain.ErrUnsupported):
		return none, err
	case own.Err() != nil:
		err = fmt.Errorf("no answer within %s: %w", b.opt.Timeout, chain.ErrUnavailable)
	}
	s.failed(b.opt.Clock(), err)
	return none, err
}

// errSilent says that a service that knows only its own has nothing to say.
var errSilent = errors.New("knows only what was handed to it")

// ask returns the answer of the first service that has one.
func ask[T any](ctx context.Context, b *Backend, question string, f func(context.Context, chain.Backend) (T, error)) (T, error) {
	var none T
	problems := trouble{question: question}
	candidates, up := b.candidates()
	for i, s := range candidates {
		if i >= up && problems.notFound {
			break
		}
		answer, err := call(ctx, b, s, f)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return none, fmt.Errorf("%s: %s: %w", question, s.Name, err)
		}
		if s.OwnOnly && errors.Is(err, chain.ErrNotFound) {
			err = errSilent
		}
		problems.add(s.Name, err)
	}
	return none, problems.err()
}

// trouble is why no service answers.
type trouble struct {
	question                 string
	texts                    []string
	causes                   []error
	notFound, failed, silent bool
}

func (p *trouble) add(name string, err error) {
	p.texts = append(p.texts, fmt.Sprintf("%s: %v", name, err))
	switch {
	case errors.Is(err, chain.ErrNotFound):
		p.notFound = true
	case errors.Is(err, errSilent):
		p.silent = true
	case errors.Is(err, chain.ErrUnsupported):
	default:
		p.failed = true
		p.causes = append(p.causes, err)
	}
}

// err is of one kind only, whatever the services said: ErrNotFound where any of
// them does not know, ErrUnavailable where any failed, ErrUnsupported where none
// can tell.
func (p *trouble) err() error {
	e := &failure{text: p.question + ": " + strings.Join(p.texts, "; ")}
	switch {
	case p.notFound:
		e.causes = []error{chain.ErrNotFound}
	case p.failed:
		e.causes = append([]error{chain.ErrUnavailable}, p.causes...)
	case p.silent:
		e.causes = []error{chain.ErrNotFound}
	default:
		e.causes = []error{chain.ErrUnsupported}
	}
	return e
}

// failure is what all services said, in one line.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string   { return f.text }
func (f *failure) Unwrap() []error { return f.causes }
