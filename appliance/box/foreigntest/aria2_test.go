package foreigntest

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// aria2 is aria2c, which is asked over its RPC where it has one.
type aria2 struct {
	*process
	address string
}

func startAria2(ctx context.Context, t *testing.T, o *order) leech {
	program := find(t, "aria2c", "aria2")
	args := []string{"--no-conf", "--dir=" + o.downloads(), "--interface=127.0.0.1", "--disable-ipv6", "--async-dns=false",
		"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false",
		fmt.Sprintf("--listen-port=%d", freePort(t)), "--seed-time=0", "--file-allocation=none",
		"--show-console-readout=false", "--summary-interval=0", "--console-log-level=notice"}
	if o.encrypted {
		args = append(args, "--bt-require-crypto=true", "--bt-min-crypto-level=arc4")
	}
	a := &aria2{}
	if o.asked { // with an RPC it does not end by itself
		port := freePort(t)
		args = append(args, "--enable-rpc", fmt.Sprintf("--rpc-listen-port=%d", port), "--rpc-listen-all=false")
		a.address = fmt.Sprintf("http://127.0.0.1:%d/jsonrpc", port)
	}
	a.process = start(ctx, t, o.home, program, append(args, o.source(t))...)
	return a
}

func (a *aria2) finish(ctx context.Context) error { return a.wait(ctx) }

func (a *aria2) call(ctx context.Context, method string, result any, params ...any) error {
	if params == nil {
		params = []any{}
	}
	var answer struct{ Result any }
	answer.Result = result
	_, err := post(ctx, a.address, nil, map[string]any{"jsonrpc": "2.0", "id": 1, "method": "aria2." + method, "params": params}, &answer)
	return err
}

func (a *aria2) stands(ctx context.Context) error {
	if err := a.running(); err != nil {
		return err
	}
	var active []struct {
		GID             string
		CompletedLength string
		ErrorCode       string
		Bittorrent      struct{ Info *struct{ Name string } }
	}
	if err := a.call(ctx, "tellActive", &active); err != nil {
		return err
	}
	if len(active) != 1 || active[0].Bittorrent.Info == nil {
		return fmt.Errorf("no metadata: %+v", active)
	}
	var peers []struct{ AmChoking, PeerChoking, DownloadSpeed string }
	if err := a.call(ctx, "getPeers", &peers, active[0].GID); err != nil {
		return err
	}
	if x := active[0]; x.CompletedLength != "0" || x.ErrorCode != "" || len(peers) != 1 || peers[0].PeerChoking != "true" {
		return fmt.Errorf("its state: %+v, peers %+v", x, peers)
	}
	var stopped []any
	if err := a.call(ctx, "tellStopped", &stopped, 0, 10); err != nil {
		return err
	}
	for _, s := range stopped { // the fetch of the metadata ends well
		if m, ok := s.(map[string]any); !ok || m["errorCode"] != "0" {
			return errors.New(fmt.Sprint("a download has ended: ", s))
		}
	}
	return nil
}
