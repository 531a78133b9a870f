// Script32 shows what the library does on 32 bits with a push that claims
// 0xf0000000 bytes. It prints one line for each of its methods.
package main

import (
	"fmt"

	"github.com/libsv/go-bt/v2/bscript"
)

func main() {
	push := []byte{0x4e, 0x00, 0x00, 0x00, 0xf0}
	report("DecodeParts", func() { _, _ = bscript.DecodeParts(push) })
	report("ToASM", func() { _, _ = bscript.NewFromBytes(push).ToASM() })
	report("ScriptType", func() { _ = bscript.NewFromBytes(push).ScriptType() })
}

func report(name string, call func()) {
	defer func() {
		if recover() != nil {
			fmt.Println(name, "panics")
		}
	}()
	call()
	fmt.Println(name, "returns")
}
