package node_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/node"
)

func TestConsolidation(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]struct {
		rule chain.Consolidation
		err  error
	}{
		`{"minconsolidationfactor":20,"maxconsolidationinputscriptsize":150,"minconfconsolidationinput":6,"minconsolidationinputmaturity":6}`: {
			rule: chain.Consolidation{Factor: 20, Confirmations: 6, MaxScript: 150}},
		`{"minconsolidationfactor":20,"maxconsolidationinputscriptsize":150,"minconfconsolidationinput":5}`: {
			rule: chain.Consolidation{Factor: 20, Confirmations: 5, MaxScript: 150}},
		`{"minconsolidationfactor":20,"maxconsolidationinputscriptsize":150,"minconsolidationinputmaturity":0}`: {
			rule: chain.Consolidation{Factor: 20, MaxScript: 150}},
		`{"minconsolidationfactor":0,"maxconsolidationinputscriptsize":150,"minconsolidationinputmaturity":6}`: {},
		`{"minconsolidationfactor":20,"maxconsolidationinputscriptsize":150}`:                                  {},
		`{"minminingtxfee":0.000005}`:                                     {},
		`{"minconsolidationfactor":-1,"minconsolidationinputmaturity":6}`: {err: node.ErrProtocol},
		`{"minconsolidationfactor":20,"minconsolidationinputmaturity":99999999999,"maxconsolidationinputscriptsize":150}`:       {err: node.ErrProtocol},
		`{"minconsolidationfactor":20,"minconsolidationinputmaturity":6,"maxconsolidationinputscriptsize":9223372036854775807}`: {err: node.ErrProtocol},
		"bsvd": {err: chain.ErrUnsupported},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			call := request(t, r)
			answer := map[string]any{"result": map[string]any{}, "error": nil, "id": 1}
			switch {
			case settings == "bsvd" && call.Method != "version", settings != "bsvd" && call.Method == "version":
				answer["error"] = &node.Error{Code: -32601, Message: "Method not found"}
				w.WriteHeader(http.StatusInternalServerError)
			case call.Method == "getsettings":
				answer["result"] = json.RawMessage(settings)
			}
			if err := json.NewEncoder(w).Encode(answer); err != nil {
				t.Error(err)
			}
		}))
		t.Cleanup(server.Close)
		b, err := node.Dial(strings.Replace(server.URL, "http://", "http://user:secret@", 1), node.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.Consolidation(t.Context()); got != want.rule || !errors.Is(err, want.err) {
			t.Errorf("%s: %+v, %v; want %+v, %v", settings, got, err, want.rule, want.err)
		}
	}
}
