package ledger

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed schema/*.sql
var schema embed.FS

// migrations returns the steps of the schema, each a file that is never
// changed once it was released.
func migrations() []string {
	names, err := fs.Glob(schema, "schema/*.sql")
	if err != nil {
		panic(fmt.Sprintf("embedded schema: %v", err)) // only a bad pattern
	}
	steps := make([]string, 0, len(names))
	for _, name := range names {
		b, err := schema.ReadFile(name)
		if err != nil {
			panic(fmt.Sprintf("embedded schema: %v", err))
		}
		steps = append(steps, string(b))
	}
	return steps
}
