package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Tip implements chain.Backend.
func (b *Backend) Tip(ctx context.Context) (chain.Header, error) {
	var hash string
	if err := b.rpc.call(ctx, &hash, "getbestblockhash"); err != nil {
		return chain.Header{}, fmt.Errorf("ask the node for its tip: %w", err)
	}
	h, _, err := b.header(ctx, hash)
	return h, err
}

// Header implements chain.Backend.
func (b *Backend) Header(ctx context.Context, height uint32) (chain.Header, error) {
	if height > math.MaxInt32 {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
	}
	var hash string
	err := b.rpc.call(ctx, &hash, "getblockhash", height)
	if refused := new(Error); errors.As(err, &refused) && strings.Contains(refused.Message, "out of range") {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
	}
	if err != nil {
		return chain.Header{}, fmt.Errorf("ask the node for block %d: %w", height, err)
	}
	h, best, err := b.header(ctx, hash)
	if err == nil && (!best || h.Height != height) {
		err = fmt.Errorf("block %d was replaced meanwhile: %w", height, chain.ErrUnavailable)
	}
	return h, err
}

// header reads the header with this hash, and whether it is in the best chain.
// It has that hash.
func (b *Backend) header(ctx context.Context, hash string) (h chain.Header, best bool, err error) {
	var answer struct {
		MerkleRoot, PreviousBlockHash, Bits string
		Height, Time, Nonce, Version        int64
		Confirmations                       int64
	}
	wrong := func(err error) (chain.Header, bool, error) {
		return chain.Header{}, false, fmt.Errorf("header of block %.64s: %w: %w", hash, ErrProtocol, err)
	}
	if err := b.rpc.call(ctx, &answer, "getblockheader", hash, true); err != nil {
		return chain.Header{}, false, fmt.Errorf("ask the node for block %.64s: %w", hash, err)
	}
	bits, err := strconv.ParseUint(answer.Bits, 16, 32)
	if err != nil {
		return wrong(err)
	}
	for _, field := range []struct{ value, least, most int64 }{
		{answer.Height, 0, math.MaxInt32},
		{answer.Time, 0, math.MaxUint32},
		{answer.Nonce, 0, math.MaxUint32},
		{answer.Version, math.MinInt32, math.MaxInt32},
	} {
		if field.value < field.least || field.value > field.most {
			return wrong(fmt.Errorf("a field of it is %d: %w", field.value, chain.ErrHeader))
		}
	}
	h = chain.Header{
		Height:  uint32(answer.Height),
		Time:    time.Unix(answer.Time, 0).UTC(),
		Version: int32(answer.Version),
		Bits:    uint32(bits),
		Nonce:   uint32(answer.Nonce),
	}
	var errPrev, errHash, errRoot error
	if answer.PreviousBlockHash != "" { // bitcoin-sv leaves it out of the first block
		h.Prev, errPrev = chain.ParseHash(answer.PreviousBlockHash)
	}
	h.Hash, errHash = chain.ParseHash(hash)
	h.MerkleRoot, errRoot = chain.ParseHash(answer.MerkleRoot)
	if err := errors.Join(errPrev, errHash, errRoot); err != nil {
		return wrong(err)
	}
	if err := h.CheckHash(); err != nil {
		return wrong(err)
	}
	return h, answer.Confirmations > 0, nil
}

// FeeRate implements chain.Backend: the rate below which the node does not
// relay (bsvd) or mine (bitcoin-sv), but not less than Options.FeeFloor.
func (b *Backend) FeeRate(ctx context.Context) (money.FeeRate, error) {
	d, err := b.dialect(ctx)
	if err != nil {
		return 0, err
	}
	method := "getinfo"
	if d == bitcoinSV {
		method = "getsettings"
	}
	var answer struct{ RelayFee, MinMiningTxFee json.Number }
	if err := b.rpc.call(ctx, &answer, method); err != nil {
		return 0, fmt.Errorf("ask the node for its fee: %w", err)
	}
	coins := answer.RelayFee
	if d == bitcoinSV {
		coins = answer.MinMiningTxFee
	}
	rate := chain.DefaultFeeRate
	if coins != "" {
		fee, err := satoshis(coins, true)
		if err != nil || fee > money.Satoshis(money.MaxFeeRate) {
			return 0, fmt.Errorf("fee of the node: %w", errors.Join(ErrProtocol, err))
		}
		if fee > 0 {
			rate = money.FeeRate(fee)
		}
	}
	return max(rate, b.floor), nil
}
