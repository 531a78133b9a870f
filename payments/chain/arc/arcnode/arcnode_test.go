package arcnode_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/chain/arc/arcnode"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
)

func TestServers(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	s := arcnode.ForTest(t, n, arcnode.Options{})
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get(s.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	check := func(path string, status int, part string) {
		t.Helper()
		if code, body := get(path); code != status || !strings.Contains(body, part) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	none := strings.Repeat("0", 64)
	check("/v1/policy", 200, `"miningFee":{"bytes":501,"satoshis":5}`)
	check("/v1/tx/"+none, 404, `"status":404`)
	check("/policy", 404, "")
	s.SetDialect(t, arcnode.Arcade)
	check("/v1/policy", 404, "")
	check("/policy", 200, `"miningFee":{"bytes":501,"satoshis":5}`)
	check("/tx/"+none, 404, `"error":"transaction not found"`)
	s.SetDialect(t, arcnode.None)
	check("/policy", 404, "")
	s.Faults(t, arcnode.Fault{Request: "GET /x", Times: 2, Status: 418, Body: "teapot"})
	check("/x", 418, "teapot")
	check("/y", 404, "")
	check("/x", 418, "teapot")
	check("/x", 404, "")
}
