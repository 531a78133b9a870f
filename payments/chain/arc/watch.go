package arc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	// Pauses before the next connection; each further one is twice as long until
	// something is heard.
	firstPause = time.Second
	maxPause   = time.Minute
	// idleStream is after what silence a connection is taken for lost: Arcade
	// says something every 15 s.
	idleStream = time.Minute
	// maxEvent is the largest event in bytes: one with a Merkle path.
	maxEvent = 256 << 10
)

// Watch implements chain.Watcher with Arcade's event stream. On ARC, and on an
// Arcade that has no such stream at its address, it returns ErrUnsupported.
func (b *Backend) Watch(ctx context.Context, changed func(txid bsv.Txid)) error {
	s := stream{backend: b, changed: changed}
	wait := firstPause
	for {
		s.heard = false
		err := s.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("watch Arcade: %w", ctx.Err())
		case errors.Is(err, chain.ErrUnsupported), errors.Is(err, ErrCredentials):
			return fmt.Errorf("watch Arcade: %w", err)
		}
		if s.heard {
			wait = firstPause
		}
		if b.pause(ctx, wait) != nil {
			return fmt.Errorf("watch Arcade: %w", ctx.Err())
		}
		wait = min(2*wait, maxPause)
	}
}

// stream is what is kept from one connection to the next.
type stream struct {
	backend *Backend
	changed func(txid bsv.Txid)
	last    string // id of the last event; what came after it is sent again
	heard   bool
}

// follow makes one connection and reads it to its end.
func (s *stream) follow(ctx context.Context) error {
	d, err := s.backend.dialect(ctx, 0)
	if err == nil && d == dialectArcade {
		if err = s.read(ctx); errors.Is(err, errGone) {
			// What is there instead: ARC, or nothing.
			if _, err = s.backend.dialect(ctx, dialectArcade); err == nil {
				return unsupported("news")
			}
		}
		return err
	}
	if err == nil {
		return unsupported("news")
	}
	return err
}

func (s *stream) read(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := s.backend.client
	r := request{path: dialectArcade.path("/events?callbackToken=" + s.backend.token), header: map[string]string{
		"Accept": "text/event-stream",
	}}
	if s.last != "" {
		r.header["Last-Event-ID"] = s.last
	}
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := c.judge(answer{code: resp.StatusCode}, resp); err != nil {
		return err
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "text/event-stream" || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s and no event stream: %w", codeText(resp.StatusCode), ErrProtocol)
	}
	idle := time.AfterFunc(s.backend.idle, cancel)
	defer idle.Stop()
	return readEvents(resp.Body, func() { idle.Reset(s.backend.idle); s.heard = true }, func(e event) {
		idle.Stop()
		defer idle.Reset(s.backend.idle)
		s.take(e)
	})
}

// take hands on what an event is about.
func (s *stream) take(e event) {
	if e.kind != "status" && e.kind != "message" {
		return
	}
	var data struct{ Txid string }
	if json.Unmarshal([]byte(e.data), &data) != nil {
		return
	}
	txid, err := bsv.ParseTxid(data.Txid)
	if err != nil {
		return
	}
	if s.backend.sent.Inputs(txid) != nil { // else it is made up
		s.changed(txid)
	}
	// A number of nanoseconds; nothing else may stand in a header.
	if len(e.id) <= 20 && strings.Trim(e.id, "0123456789") == "" {
		s.last = e.id
	}
}

// event is a server-sent event.
type event struct{ id, kind, data string }

// readEvents reads a stream of server-sent events until it ends. alive is called
// for each line, the comments included.
func readEvents(r io.Reader, alive func(), each func(event)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	var data []string
	size := 0
	e := event{kind: "message"}
	for lines.Scan() {
		alive()
		line := lines.Text() // without the end, \n or \r\n
		if line == "" {
			if data != nil {
				e.data = strings.Join(data, "\n")
				each(e)
			}
			data, size = nil, 0
			e = event{kind: "message"}
			continue
		}
		if size += len(line); size > maxEvent {
			return fmt.Errorf("an event of more than %d bytes: %w", maxEvent, ErrProtocol)
		}
		field, value, _ := strings.Cut(line, ":") // nothing before it: a comment
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			data = append(data, value)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("an event of more than %d bytes: %w", maxEvent, ErrProtocol)
	} else if err != nil {
		return fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	return fmt.Errorf("the stream has ended: %w", chain.ErrUnavailable)
}
