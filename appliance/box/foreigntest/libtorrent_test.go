package foreigntest

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"
	"testing"
)

//go:embed testdata/leech.py
var leechProgram string

// libtorrent is a program of ours on libtorrent's Python bindings.
type libtorrent struct{ *process }

func startLibtorrent(ctx context.Context, t *testing.T, o *order) leech {
	// Debian's own interpreter has the bindings; another may come first in PATH.
	python := find(t, "/usr/bin/python3", "python3-libtorrent")
	if said, err := exec.CommandContext(ctx, python, "-c", "import libtorrent").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s\nThis test uses libtorrent: apt-get install python3-libtorrent", python, err, said)
	}
	source := o.source(t)
	if o.magnet { // it needs no tracker where the link names a peer
		var err error
		if source, err = o.title.magnet("", o.swarm.peer.String()); err != nil {
			t.Fatal(err)
		}
	}
	options, err := json.Marshal(map[string]any{"source": source, "dir": o.downloads(), "encrypted": o.encrypted})
	if err != nil {
		t.Fatal(err)
	}
	return &libtorrent{start(ctx, t, o.home, python, "-c", leechProgram, string(options))}
}

func (l *libtorrent) finish(ctx context.Context) error { return l.wait(ctx) }

func (l *libtorrent) stands(context.Context) error {
	var state struct {
		Error          string
		Metadata       bool
		Done, Received int64
		Peers          []struct{ Choked, Interested, Ready bool }
	}
	line := l.lastLine("{")
	if err := json.Unmarshal(line, &state); err != nil {
		return fmt.Errorf("its state: %s: %w", line, err)
	}
	if state.Error != "" || !state.Metadata || state.Done+state.Received != 0 || len(state.Peers) != 1 ||
		!state.Peers[0].Choked || !state.Peers[0].Interested || !state.Peers[0].Ready {
		return fmt.Errorf("its state: %s", line)
	}
	return l.running()
}
