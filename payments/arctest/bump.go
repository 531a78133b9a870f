package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// bump makes the BUMP (BRC-74) for one transaction of a block with these ids.
func bump(height int64, ids []string, txid string) (string, error) {
	at := slices.Index(ids, txid)
	if at < 0 {
		return "", fmt.Errorf("%s is not in its block", txid)
	}
	row := make([][]byte, len(ids))
	for i, id := range ids {
		b, err := hex.DecodeString(id)
		if err != nil {
			return "", err
		}
		slices.Reverse(b)
		row[i] = b
	}
	if len(row) == 1 {
		return hex.EncodeToString(append(append(number(nil, height), 1, 1, 0, 2), row[0]...)), nil
	}
	var levels []byte
	depth := byte(0)
	for ; len(row) > 1; depth++ {
		var leaves [][]byte
		if depth == 0 {
			leaves = append(leaves, append(append(number(nil, int64(at)), 2), row[at]...))
		}
		sibling := number(nil, int64(at^1))
		if at^1 == len(row) {
			sibling = append(sibling, 1)
		} else {
			sibling = append(append(sibling, 0), row[at^1]...)
		}
		leaves = append(leaves, sibling)
		if at%2 == 1 {
			slices.Reverse(leaves)
		}
		levels = append(levels, byte(len(leaves)))
		levels = append(levels, slices.Concat(leaves...)...)
		if len(row)%2 == 1 {
			row = append(row, row[len(row)-1])
		}
		var above [][]byte
		for pair := range slices.Chunk(row, 2) {
			once := sha256.Sum256(slices.Concat(pair...))
			twice := sha256.Sum256(once[:])
			above = append(above, twice[:])
		}
		row, at = above, at/2
	}
	return hex.EncodeToString(append(append(number(nil, height), depth), levels...)), nil
}

// number appends a variable-length integer below 2^32.
func number(b []byte, n int64) []byte {
	switch {
	case n < 0xfd:
		return append(b, byte(n))
	case n <= 0xffff:
		return append(b, 0xfd, byte(n), byte(n>>8))
	}
	return append(b, 0xfe, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}
