// Command arctest is the server side of ARC or Arcade, for tests: what the
// clients of those services see, in front of a node of its own.
//
// The two interfaces are generated from arc.yaml and arcade.yaml by oapi-codegen
// when the program is built; payments/chain/arc/arcnode does that, and nothing
// generated is kept in the repository. The program shares no code with the
// backend that it tests.
//
// It listens on a free port of loopback and writes its URL to standard output.
// The environment says the rest: ARCTEST_NODE is the node's URL,
// http://user:password@host:port, ARCTEST_DIALECT is arc or arcade, ARCTEST_KEY
// is the key that it asks for, none where it is empty.
package main

import (
	"context"
	"crypto/subtle"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/payments/arctest/arcadeapi"
	"github.com/bitcdn/bitcdn/payments/arctest/arcapi"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "arctest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	node, err := newNode(os.Getenv("ARCTEST_NODE"))
	if err != nil {
		return err
	}
	s := newStore(node)
	go s.poll(ctx)
	dialects := map[string]http.Handler{
		"arc":    arcapi.Handler(arcapi.NewStrictHandler(arc{s}, nil)),
		"arcade": arcadeapi.Handler(arcadeapi.NewStrictHandler(arcade{s}, nil)),
	}
	var dialect atomic.Value
	dialect.Store(os.Getenv("ARCTEST_DIALECT"))
	f := new(faults)

	root := http.NewServeMux()
	root.HandleFunc("PUT /control/faults", f.set)
	root.HandleFunc("PUT /control/status", s.force)
	root.HandleFunc("PUT /control/dialect/{name}", func(w http.ResponseWriter, r *http.Request) {
		dialect.Store(r.PathValue("name"))
	})
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, ok := dialects[dialect.Load().(string)]; ok {
			h.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	})
	root.Handle("/", f.handler(authorised(os.Getenv("ARCTEST_KEY"), api)))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	server := &http.Server{Handler: root, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(os.Stderr, "", 0)}
	return server.Serve(l)
}

// authorised asks for a bearer key.
func authorised(key string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if key != "" && subtle.ConstantTimeCompare([]byte(given), []byte(key)) != 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
