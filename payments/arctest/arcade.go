package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/bitcdn/bitcdn/payments/arctest/arcadeapi"
)

// arcade answers as Arcade does: it takes what passes its own checks, and what
// the network says comes later. It keeps what it refuses.
type arcade struct{ *store }

var _ arcadeapi.StrictServerInterface = arcade{}

// immutable is how deep a block is that Arcade takes for final here.
const immutable = 4

func (a arcade) GetPolicy(context.Context, arcadeapi.GetPolicyRequestObject) (arcadeapi.GetPolicyResponseObject, error) {
	return arcadeapi.GetPolicy200JSONResponse{
		Timestamp: time.Now().UTC(),
		Policy: arcadeapi.Policy{
			Maxscriptsizepolicy: 100_000_000, Maxtxsigopscountspolicy: 4_294_967_295, Maxtxsizepolicy: 100_000_000,
			MiningFee:               arcadeapi.FeeAmount{Satoshis: feeSatoshis, Bytes: feeBytes},
			StandardFormatSupported: true,
		},
	}, nil
}

func (a arcade) GetHealth(context.Context, arcadeapi.GetHealthRequestObject) (arcadeapi.GetHealthResponseObject, error) {
	return arcadeapi.GetHealth200JSONResponse{Healthy: true, Version: "v0.8.0", Status: "ok"}, nil
}

// status is the entry's in Arcade's words, which has none for a block that was
// replaced.
func (e entry) arcade() arcadeapi.Status {
	switch {
	case e.status == "MINED_IN_STALE_BLOCK":
		return arcadeapi.SEENONNETWORK
	case e.status == "MINED" && e.place.depth >= immutable:
		return arcadeapi.IMMUTABLE
	}
	return arcadeapi.Status(e.status)
}

func (a arcade) GetTransaction(ctx context.Context, r arcadeapi.GetTransactionRequestObject) (arcadeapi.GetTransactionResponseObject, error) {
	e, ok, err := a.refresh(ctx, r.Txid)
	if err != nil {
		return arcadeapi.GetTransaction500JSONResponse{Error: "internal error"}, nil
	}
	if !ok {
		return arcadeapi.GetTransaction404JSONResponse{Error: "transaction not found"}, nil
	}
	s := arcadeapi.GetTransaction200JSONResponse{Txid: e.txid, TxStatus: e.arcade(), Timestamp: e.changed.UTC()}
	if e.place.block != "" {
		s.BlockHash, s.BlockHeight, s.MerklePath = &e.place.block, &e.place.height, &e.place.path
	}
	if e.extra != "" {
		s.ExtraInfo = &e.extra
	}
	if e.code != 0 {
		s.Status = &e.code
	}
	if len(e.competing) > 0 {
		s.CompetingTxs = ptr(slices.Clone(e.competing))
	}
	return s, nil
}

func (a arcade) SubmitTransaction(ctx context.Context, r arcadeapi.SubmitTransactionRequestObject) (arcadeapi.SubmitTransactionResponseObject, error) {
	var rawTx *string
	var body []byte
	if r.JSONBody != nil {
		rawTx = &r.JSONBody.RawTx
	}
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	tx, err := parse(rawTx, r.TextBody, body)
	if err != nil {
		return arcadeapi.SubmitTransaction400JSONResponse{Error: "failed to parse transaction"}, nil
	}
	txid := tx.TxID()
	if token := r.Params.XCallbackToken; token != nil {
		a.update(tx, txid, func(e *entry) { e.token = *token })
	}
	taken := func(e entry) arcadeapi.SubmitTransactionResponseObject {
		return arcadeapi.SubmitTransaction202JSONResponse{Txid: txid, Status: http.StatusAccepted, TxStatus: e.arcade()}
	}
	if e, _, err := a.refresh(ctx, txid); err != nil {
		return arcadeapi.SubmitTransaction500JSONResponse{Error: "internal error"}, nil
	} else if e.forced || e.place.known {
		return taken(e), nil
	}
	refused := new(rejection)
	if err := a.validate(ctx, tx); errors.As(err, &refused) && refused.code != 460 {
		reason, title := refused.extra, titles[refused.code]
		a.update(tx, txid, func(e *entry) { e.status, e.extra, e.code = "REJECTED", reason, refused.code })
		return arcadeapi.SubmitTransaction400JSONResponse{
			Error: "transaction failed validation", Reason: &reason, Txid: &txid,
			Status: &refused.code, Title: &title, Detail: &title, Type: ptr("about:blank"),
		}, nil
	} else if err != nil && refused.code != 460 { // parents are the network's to look for
		return arcadeapi.SubmitTransaction500JSONResponse{Error: "internal error"}, nil
	}
	received := a.update(tx, txid, func(e *entry) { e.status, e.extra, e.code, e.competing = "RECEIVED", "", 0, nil })
	go func() {
		ctx := context.WithoutCancel(ctx) // the answer is given, the work goes on
		refused := new(rejection)
		competing, err := a.network(ctx, tx)
		switch {
		case len(competing) > 0:
			a.conflict(tx, competing, err.Error())
		case errors.As(err, &refused):
			a.update(nil, txid, func(e *entry) { e.status, e.extra, e.code = "REJECTED", refused.extra, refused.code })
		case err != nil:
			a.update(nil, txid, func(e *entry) { e.status, e.extra = "PENDING_RETRY", err.Error() })
		default:
			_, _, _ = a.refresh(ctx, txid)
		}
	}()
	return taken(received), nil
}

func (a arcade) StreamEvents(ctx context.Context, r arcadeapi.StreamEventsRequestObject) (arcadeapi.StreamEventsResponseObject, error) {
	var since time.Time
	if id := r.Params.LastEventID; id != nil {
		if nanoseconds, err := strconv.ParseInt(*id, 10, 64); err == nil {
			since = time.Unix(0, nanoseconds)
		}
	}
	from, to := io.Pipe()
	told, leave := a.subscribe()
	go func() {
		defer leave()
		// The comment is what sends the head of the answer.
		_, err := io.WriteString(to, ": connected\n\n")
		for err == nil {
			for _, e := range a.since(r.Params.CallbackToken, since) {
				since = e.changed
				if _, err = to.Write(e.event()); err != nil {
					break
				}
			}
			select {
			case <-told:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		_ = to.CloseWithError(err)
	}()
	return arcadeapi.StreamEvents200TexteventStreamResponse{Body: from}, nil
}

func (e entry) event() []byte {
	data := map[string]any{"txid": e.txid, "txStatus": e.arcade(), "timestamp": e.changed.UTC()}
	if e.place.block != "" {
		data["blockHash"], data["blockHeight"], data["merklePath"] = e.place.block, e.place.height, e.place.path
	}
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // it holds nothing that could fail
	}
	return fmt.Appendf(nil, "id: %d\nevent: status\ndata: %s\n\n", e.changed.UnixNano(), text)
}
