package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/bitcdn/bitcdn/payments/arctest/arcapi"
)

// arc answers as ARC does: it waits for the network's answer, and tells what it
// refuses before it asks the network by codes of its own.
type arc struct{ *store }

var _ arcapi.StrictServerInterface = arc{}

func (a arc) GETPolicy(context.Context, arcapi.GETPolicyRequestObject) (arcapi.GETPolicyResponseObject, error) {
	formats := true
	return arcapi.GETPolicy200JSONResponse{
		Timestamp: time.Now().UTC(),
		Policy: arcapi.Policy{
			Maxscriptsizepolicy: 100_000_000, Maxtxsigopscountspolicy: 4_294_967_295, Maxtxsizepolicy: 100_000_000,
			MiningFee:               arcapi.FeeAmount{Satoshis: feeSatoshis, Bytes: feeBytes},
			StandardFormatSupported: &formats,
		},
	}, nil
}

func (a arc) GETHealth(context.Context, arcapi.GETHealthRequestObject) (arcapi.GETHealthResponseObject, error) {
	healthy, version := true, "v1.4.0"
	return arcapi.GETHealth200JSONResponse{Healthy: &healthy, Version: &version}, nil
}

func (a arc) GETTransactionStatus(ctx context.Context, r arcapi.GETTransactionStatusRequestObject) (arcapi.GETTransactionStatusResponseObject, error) {
	e, ok, err := a.refresh(ctx, r.Txid)
	if err != nil {
		return arcapi.GETTransactionStatus409JSONResponse(problem(409, err.Error(), r.Txid)), nil
	}
	if !ok {
		return arcapi.GETTransactionStatus404JSONResponse(problem(404, "transaction not found", "")), nil
	}
	s := arcapi.GETTransactionStatus200JSONResponse{
		Timestamp: e.changed.UTC(), Txid: e.txid, TxStatus: arcapi.TransactionStatusTxStatus(e.status),
		BlockHash: &e.place.block, BlockHeight: ptr(uint64(e.place.height)), ExtraInfo: &e.extra,
	}
	if e.place.path != "" {
		s.MerklePath = &e.place.path
	}
	if len(e.competing) > 0 {
		s.CompetingTxs = ptr(slices.Clone(e.competing))
	}
	return s, nil
}

func (a arc) POSTTransaction(ctx context.Context, r arcapi.POSTTransactionRequestObject) (arcapi.POSTTransactionResponseObject, error) {
	e, err := a.submit(ctx, r)
	refused := new(rejection)
	if errors.As(err, &refused) {
		return refused.response(), nil
	}
	if err != nil {
		return arcapi.POSTTransaction409JSONResponse(problem(409, err.Error(), "")), nil
	}
	answer := arcapi.POSTTransaction200JSONResponse{
		Timestamp: e.changed.UTC(), Status: http.StatusOK, Title: "OK",
		Txid: e.txid, TxStatus: arcapi.TransactionResponseTxStatus(e.status),
		BlockHash: &e.place.block, BlockHeight: ptr(uint64(e.place.height)), ExtraInfo: &e.extra, MerklePath: &e.place.path,
	}
	if len(e.competing) > 0 {
		answer.CompetingTxs = ptr(slices.Clone(e.competing))
	}
	return answer, nil
}

func (a arc) submit(ctx context.Context, r arcapi.POSTTransactionRequestObject) (entry, error) {
	var rawTx *string
	var body []byte
	if r.JSONBody != nil {
		rawTx = &r.JSONBody.RawTx
	}
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return entry{}, err
		}
	}
	tx, err := parse(rawTx, r.TextBody, body)
	if err != nil {
		return entry{}, err
	}
	if e, _, err := a.refresh(ctx, tx.TxID()); err != nil || e.forced || e.place.known {
		return e, err
	}
	if err := a.validate(ctx, tx); err != nil {
		return entry{}, err
	}
	competing, err := a.network(ctx, tx)
	if len(competing) > 0 {
		// What is spent by a mined transaction is an answer of the network; a
		// conflict with one that waits is a code of its own.
		e := a.conflict(tx, competing, err.Error())
		for _, rival := range competing {
			if at, err := a.node.find(ctx, rival); err == nil && at.block != "" {
				return e, nil
			}
		}
	}
	if err != nil {
		return entry{}, err
	}
	a.update(tx, tx.TxID(), func(e *entry) { e.status, e.extra = "SEEN_ON_NETWORK", "" })
	e, _, err := a.refresh(ctx, tx.TxID())
	return e, err
}

func ptr[T any](v T) *T { return &v }

// titles are ARC's, of its codes.
var titles = map[int]string{
	400: "Bad request", 404: "Not found", 409: "Generic error", 460: "Not extended format",
	461: "Malformed transaction", 462: "Invalid inputs", 463: "Malformed transaction", 464: "Invalid outputs",
	465: "Fee too low", 466: "Conflicting tx found", 476: "Transaction not final",
}

func problem(code int, extra, txid string) arcapi.ErrorFields {
	f := arcapi.ErrorFields{
		Type:   fmt.Sprintf("https://bitcoin-sv.github.io/arc/#/errors?id=_%d", code),
		Title:  titles[code],
		Status: code,
		Detail: titles[code],
	}
	if extra != "" {
		f.ExtraInfo = &extra
	}
	if txid != "" {
		f.Txid = &txid
	}
	return f
}

func (r *rejection) response() arcapi.POSTTransactionResponseObject {
	f := problem(r.code, r.extra, "")
	switch r.code {
	case 400:
		return arcapi.POSTTransaction400JSONResponse(f)
	case 460:
		return arcapi.POSTTransaction460JSONResponse(f)
	case 461:
		return arcapi.POSTTransaction461JSONResponse(f)
	case 462:
		return arcapi.POSTTransaction462JSONResponse(f)
	case 464:
		return arcapi.POSTTransaction464JSONResponse(f)
	case 465:
		return arcapi.POSTTransaction465JSONResponse(f)
	case 466:
		return arcapi.POSTTransaction466JSONResponse(f)
	}
	f.Status = 463 // ARC has no code for the others
	return arcapi.POSTTransaction463JSONResponse(f)
}
