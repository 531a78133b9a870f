package arcnode

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bitcdn/bitcdn/payments/chain/internal/sidecar"
)

var arctest = sidecar.Program{
	Name:     "arctest",
	Module:   "payments/arctest",
	Package:  ".",
	Sources:  []string{"go.mod", "go.sum", "*.yaml", "*.go"},
	Generate: generate,
}

// generate makes the server's interfaces from their descriptions, and has the
// compiler see them in the module.
func generate(ctx context.Context, source, scratch string) ([]string, error) {
	replace := make(map[string]string)
	for _, dialect := range []Dialect{ARC, Arcade} {
		name := string(dialect)
		generated := filepath.Join(scratch, name+"api.go")
		if err := sidecar.Go(ctx, source, "tool", "oapi-codegen",
			"-config", name+".config.yaml", "-o", generated, name+".yaml"); err != nil {
			return nil, fmt.Errorf("generate the interface of %s: %w", name, err)
		}
		replace[filepath.Join(source, name+"api", "api.go")] = generated
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	overlay := filepath.Join(scratch, "overlay.json")
	return []string{"-overlay", overlay}, os.WriteFile(overlay, text, 0o644)
}
