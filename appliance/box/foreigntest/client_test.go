package foreigntest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// order is one download that a foreign client is to make.
type order struct {
	title     *title
	swarm     *swarm
	home      string // a folder of its own
	magnet    bool
	encrypted bool
	asked     bool // the client's state will be asked for
}

func (o *order) downloads() string { return filepath.Join(o.home, "downloads") }

// source is what the client is given: a magnet link, or a torrent file's path.
func (o *order) source(t *testing.T) string {
	t.Helper()
	if o.magnet {
		link, err := o.title.magnet(o.swarm.tracker)
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	path, err := o.title.writeTorrent(o.home, o.swarm.tracker)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// leech is a foreign client at work.
type leech interface {
	// finish returns when all the data is on the disk and the client has ended.
	finish(ctx context.Context) error
	// stands returns nil where the client says that it has the metadata and a
	// connection, that it is choked, has received nothing, and that nothing is
	// wrong.
	stands(ctx context.Context) error
}

// client is a foreign BitTorrent client.
type client struct {
	name string
	// leavesOutEmpty says that it does not make files of no bytes.
	leavesOutEmpty bool
	// obfuscates says that it begins plain connections only when obfuscated ones
	// are refused.
	obfuscates bool
	start      func(ctx context.Context, t *testing.T, o *order) leech
}

func clients() []client {
	return []client{
		{name: "transmission-cli", leavesOutEmpty: true, start: startTransmissionCLI},
		{name: "transmission-daemon", leavesOutEmpty: true, start: startTransmissionDaemon},
		{name: "aria2", obfuscates: true, start: startAria2},
		{name: "libtorrent", start: startLibtorrent},
	}
}

// freePort finds a port of 127.0.0.1 for a program that cannot choose one.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// post sends JSON and reads the answer.
func post(ctx context.Context, address string, header http.Header, question, answer any) (*http.Response, error) {
	b, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	request.Header, request.Close = header, true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if b, err = io.ReadAll(response.Body); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return response, fmt.Errorf("%s: %s", response.Status, b)
	}
	return response, json.Unmarshal(b, answer)
}

// completes waits until a client has told the tracker that it is complete.
func completes(ctx context.Context, p *process, s *swarm) error {
	select {
	case <-s.completed:
		return nil
	case <-p.done:
		return fmt.Errorf("%s has ended: %w", p.name, p.err)
	case <-ctx.Done():
		return fmt.Errorf("%s is not complete: %w", p.name, ctx.Err())
	}
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
