package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// fault is an answer that a test wants in the place of the true one.
type fault struct {
	Request string // the beginning of "METHOD /path" of the requests that it is for
	Times   int    // how often; 0 means always
	Status  int
	Header  map[string]string
	Body    string
	Hang    bool // no answer at all, until the client goes
	After   bool // let the request do its work before
}

type faults struct {
	mu   sync.Mutex
	list []*fault
}

// set replaces all faults.
func (f *faults) set(w http.ResponseWriter, r *http.Request) {
	var list []*fault
	if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = list
}

func (f *faults) next(request string) (fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, one := range f.list {
		if !strings.HasPrefix(request, one.Request) {
			continue
		}
		if one.Times == 1 {
			f.list = slices.Delete(f.list, i, i+1)
		} else if one.Times > 1 {
			one.Times--
		}
		return *one, true
	}
	return fault{}, false
}

// discard is where the true answer goes.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func (f *faults) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one, ok := f.next(r.Method + " " + r.URL.Path)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		if one.After {
			next.ServeHTTP(discard{make(http.Header)}, r)
		}
		if one.Hang {
			_, _ = io.Copy(io.Discard, r.Body) // only then is the client's end noticed
			<-r.Context().Done()
			return
		}
		for name, value := range maps.All(one.Header) {
			w.Header().Set(name, value)
		}
		w.WriteHeader(one.Status)
		_, _ = io.WriteString(w, one.Body)
	})
}
