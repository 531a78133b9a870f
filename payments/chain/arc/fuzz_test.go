package arc_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Whatever a service answers: what is made of it is one of the things that the
// interface promises, and consistent.
func FuzzAnswer(f *testing.F) {
	txid := bsv.Txid{1}
	proof, err := chain.NewProof(5, chain.Hash{}, []bsv.Txid{{2}, txid, {3}}, 1)
	if err != nil {
		f.Fatal(err)
	}
	path := hex.EncodeToString(proof.BUMP(txid))
	for _, body := range []string{
		``, `{}`, `null`, policy,
		object(f, map[string]any{"txid": txid, "txStatus": "MINED", "blockHeight": 5, "blockHash": chain.Hash{9}.String(), "merklePath": path}),
		object(f, map[string]any{"txid": txid, "txStatus": "MINED", "merklePath": path}),
		object(f, map[string]any{"txid": txid, "txStatus": "MINED", "blockHeight": 5}),
		object(f, map[string]any{"txid": txid, "txStatus": "DOUBLE_SPEND_ATTEMPTED", "competingTxs": []any{bsv.Txid{4}}}),
		object(f, map[string]any{"txid": txid, "txStatus": "REJECTED", "extraInfo": "arc error 4", "status": 476}),
		object(f, map[string]any{"txid": txid, "txStatus": "SEEN_ON_NETWORK", "status": 463}),
		object(f, map[string]any{"error": "x", "reason": "arc error 466", "status": 466}),
		strings.Repeat(`{"policy":`, 100),
	} {
		for _, code := range []uint16{200, 202, 400, 409, 466} {
			f.Add(code, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, code uint16, body []byte) {
		s, err := arc.ReadStatus(int(code), body, txid)
		switch {
		case err != nil && !errors.Is(err, arc.ErrProtocol) && !errors.Is(err, chain.ErrUnavailable):
			t.Errorf("status: %v", err)
		case err == nil && s.State == chain.Mined:
			if s.Proof != nil && (s.Proof.Height != s.Height || s.Proof.Block != s.Block) || s.Proof == nil && s.Block.IsZero() && s.Height == 0 {
				t.Errorf("%+v", s)
			}
			if s.Proof != nil {
				if _, err := s.Proof.Root(txid); err != nil {
					t.Errorf("%+v: %v", s.Proof, err)
				}
			}
		case s.Proof != nil || s.Height != 0 || !s.Block.IsZero():
			t.Errorf("%+v", s)
		}
		rejected := new(chain.Rejected)
		err = arc.ReadSubmitted(int(code), body, txid)
		switch {
		case errors.As(err, &rejected):
			if len(rejected.Text) > chain.MaxRejectText {
				t.Errorf("%d bytes of text", len(rejected.Text))
			}
		case err != nil && !errors.Is(err, arc.ErrProtocol) && !errors.Is(err, chain.ErrUnavailable):
			t.Errorf("broadcast: %v", err)
		}
		rate, err := arc.ReadPolicy(body)
		if err == nil && (rate <= 0 || rate > money.MaxFeeRate) || err != nil && !errors.Is(err, arc.ErrProtocol) {
			t.Errorf("fee: %d, %v", rate, err)
		}
	})
}

// Whatever comes in a stream of events: it is read to its end, and no event is
// larger than its cap.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(": keepalive\n\n" + statusEvent("7", bsv.Txid{1})))
	f.Add([]byte("data: a\ndata: b\r\n\r\nid\nevent\n\ndata\n\n"))
	f.Add([]byte(":\n:\n\n\n\ndata:\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, events := 0, 0
		err := arc.ReadEvents(b, func() { lines++ }, func(id, kind, data string) {
			events++
			if kind == "" && !strings.Contains(string(b), "event") || len(data) > len(b) || strings.Contains(id+kind, "\n") {
				t.Errorf("%q %q %q", id, kind, data)
			}
		})
		if !errors.Is(err, chain.ErrUnavailable) && !errors.Is(err, arc.ErrProtocol) || events > lines {
			t.Error(err, lines, events)
		}
	})
}
