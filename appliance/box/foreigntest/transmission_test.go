package foreigntest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
)

// transmissionSettings keep Transmission to the swarm that the tracker tells.
func transmissionSettings(t *testing.T, o *order) map[string]any {
	encryption := 0 // plain is preferred
	if o.encrypted {
		encryption = 2 // required
	}
	return map[string]any{
		"bind-address-ipv4": "127.0.0.1", "bind-address-ipv6": "::1", "peer-port": freePort(t),
		"dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false, "port-forwarding-enabled": false,
		"blocklist-enabled": false, "encryption": encryption, "download-dir": o.downloads(), "message-level": 2,
		"rpc-enabled": false,
	}
}

// transmissionCLI is transmission-cli, which shows its state on a terminal only.
type transmissionCLI struct {
	*process
	swarm *swarm
}

func startTransmissionCLI(ctx context.Context, t *testing.T, o *order) leech {
	program := find(t, "transmission-cli", "transmission-cli")
	settings := transmissionSettings(t, o)
	if err := writeJSON(filepath.Join(o.home, "settings.json"), settings); err != nil {
		t.Fatal(err)
	}
	encryption := "-et"
	if o.encrypted {
		encryption = "-er"
	}
	// The port, which settings give too, is not looked up for this program.
	return &transmissionCLI{swarm: o.swarm, process: start(ctx, t, o.home, program, "-g", o.home, "-w", o.downloads(),
		"-M", "-p", fmt.Sprint(settings["peer-port"]), encryption, o.source(t))}
}

func (c *transmissionCLI) finish(ctx context.Context) error {
	if err := completes(ctx, c.process, c.swarm); err != nil {
		return err
	}
	return c.end(ctx)
}

func (c *transmissionCLI) stands(context.Context) error {
	line := c.lastLine("Progress: ")
	if !bytes.HasPrefix(line, []byte("Progress: 0.0%, dl from 0 of 1 peers (0 kB/s)")) {
		return fmt.Errorf("its state: %s", line)
	}
	return c.running()
}

// transmissionDaemon is transmission-daemon, which is asked over its RPC.
type transmissionDaemon struct {
	*process
	swarm   *swarm
	address string
	session string // what it wants to be told against forged requests
}

func startTransmissionDaemon(ctx context.Context, t *testing.T, o *order) leech {
	program := find(t, "transmission-daemon", "transmission-daemon")
	settings := transmissionSettings(t, o)
	port := freePort(t)
	for name, value := range map[string]any{"rpc-enabled": true, "rpc-bind-address": "127.0.0.1", "rpc-port": port,
		"rpc-authentication-required": false, "rpc-whitelist": "127.0.0.1", "watch-dir-enabled": false} {
		settings[name] = value
	}
	if err := writeJSON(filepath.Join(o.home, "settings.json"), settings); err != nil {
		t.Fatal(err)
	}
	d := &transmissionDaemon{swarm: o.swarm, address: fmt.Sprintf("http://127.0.0.1:%d/transmission/rpc", port),
		process: start(ctx, t, o.home, program, "--foreground", "--config-dir", o.home)}
	source := o.source(t)
	if err := await(ctx, "transmission-daemon takes the torrent", func() error {
		if err := d.running(); err != nil {
			return err
		}
		return d.call(ctx, "torrent-add", map[string]any{"filename": source}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	return d
}

// call sends a request, and again where the daemon first names a session.
func (d *transmissionDaemon) call(ctx context.Context, method string, arguments, answer any) error {
	var reply struct {
		Result    string
		Arguments any
	}
	reply.Arguments = answer
	question := map[string]any{"method": method, "arguments": arguments}
	for range 2 {
		response, err := post(ctx, d.address, http.Header{"X-Transmission-Session-Id": {d.session}}, question, &reply)
		if response != nil && response.StatusCode == http.StatusConflict {
			d.session = response.Header.Get("X-Transmission-Session-Id")
			continue
		}
		if err != nil {
			return err
		}
		if reply.Result != "success" {
			return errors.New(reply.Result)
		}
		return nil
	}
	return errors.New("transmission-daemon takes no session")
}

func (d *transmissionDaemon) finish(ctx context.Context) error {
	if err := completes(ctx, d.process, d.swarm); err != nil {
		return err
	}
	return d.end(ctx)
}

func (d *transmissionDaemon) stands(ctx context.Context) error {
	var answer struct {
		Torrents []struct {
			Error          int
			ErrorString    string
			Metadata       float64 `json:"metadataPercentComplete"`
			HaveValid      int64
			HaveUnchecked  int64
			DownloadedEver int64
			Peers          []struct{ ClientIsChoked, ClientIsInterested bool }
		}
	}
	err := d.call(ctx, "torrent-get", map[string]any{"fields": []string{"error", "errorString", "metadataPercentComplete",
		"haveValid", "haveUnchecked", "downloadedEver", "peers"}}, &answer)
	if err != nil {
		return err
	}
	if len(answer.Torrents) != 1 {
		return fmt.Errorf("it has %d torrents", len(answer.Torrents))
	}
	x := answer.Torrents[0]
	if x.Error != 0 || x.Metadata != 1 || x.HaveValid+x.HaveUnchecked+x.DownloadedEver != 0 ||
		len(x.Peers) != 1 || !x.Peers[0].ClientIsChoked || !x.Peers[0].ClientIsInterested {
		return fmt.Errorf("its state: %+v", x)
	}
	return d.running()
}
