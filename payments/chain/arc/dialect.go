package arc

import (
	"context"
	"errors"
	"fmt"
)

// dialect is one of the services, by the beginning of its paths.
type dialect uint8

const (
	dialectARC dialect = iota + 1
	dialectArcade
)

func (d dialect) path(tail string) string {
	if d == dialectARC {
		return "/v1" + tail
	}
	return tail
}

// dialect returns which service it is. was is the one that a caller found gone,
// or 0: that one is asked for again before it is believed.
func (b *Backend) dialect(ctx context.Context, was dialect) (dialect, error) {
	b.mu.Lock()
	d := b.kind
	b.mu.Unlock()
	if d != 0 && d != was {
		return d, nil
	}
	d, err := b.probe(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask the service what it is: %w", err)
	}
	b.mu.Lock()
	b.kind = d
	b.mu.Unlock()
	return d, nil
}

// probe asks for the policy, and where neither service has one, for Arcade's
// health: its first versions have no policy.
func (b *Backend) probe(ctx context.Context) (dialect, error) {
	for _, try := range []struct {
		d    dialect
		tail string
	}{{dialectARC, "/policy"}, {dialectArcade, "/policy"}, {dialectArcade, "/health"}} {
		a, err := b.client.call(ctx, request{path: try.d.path(try.tail)})
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return 0, err
		}
		var object map[string]any
		if err := a.decode(&object); err != nil || a.code != 200 {
			return 0, fmt.Errorf("%s: %w", codeText(a.code), ErrProtocol)
		}
		return try.d, nil
	}
	return 0, ErrProtocol
}

// call makes a request in the service's dialect, and again where the service has
// become the other one. The error is errGone where the path is gone and the
// service is what it was.
func (b *Backend) call(ctx context.Context, r request) (answer, error) {
	tail := r.path
	d, err := b.dialect(ctx, 0)
	for range 2 {
		if err != nil {
			return answer{}, err
		}
		r.path = d.path(tail)
		var a answer
		if a, err = b.client.call(ctx, r); !errors.Is(err, errGone) || r.body == nil && unknownTx(a) {
			return a, err
		}
		was := d
		if d, err = b.dialect(ctx, was); err == nil && d == was {
			return a, errGone
		}
	}
	return answer{}, fmt.Errorf("the service changes all the time: %w", ErrProtocol)
}

// unknownTx reports whether an answer of 404 is about a transaction, and not
// about its path: the services say so in JSON of their own.
func unknownTx(a answer) bool {
	var body struct {
		Status       int
		Title, Error string
	}
	return a.code == 404 && a.decode(&body) == nil &&
		(body.Status == 404 && body.Title != "" || body.Error == "transaction not found")
}
