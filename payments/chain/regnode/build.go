package regnode

import (
	"context"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/chain/internal/sidecar"
)

// bsvd is another binary with other pins only.
var bsvd = sidecar.Program{
	Name:    "bsvd",
	Module:  "payments/regtest",
	Package: "github.com/bitcoinsv/bsvd",
	Sources: []string{"go.mod", "go.sum"},
}

// Build makes the node if need be, and returns its path. Start does that itself;
// a program that will start it without a network does it before. binDir is as in
// Options. The error is ErrBuild.
func Build(ctx context.Context, binDir string) (string, error) {
	binary, err := bsvd.Build(ctx, binDir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBuild, err)
	}
	return binary, nil
}
