# make run            everything on one machine, to look at (ARGS=--once stops by itself)
# make test           all tests, with the race detector; installs what they need
# make lint           gofmt, go vet, staticcheck
# make cross          the programs for every board that we build for
# make bench          speed and memory, as ratios within one run
# make fuzz           every fuzz target for FUZZTIME
# make build          the programs, into .build/bin

GO       ?= go
BUILD    := .build
VERSION  ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 10s
ARGS     ?=

# Boards with 32 bits are among those that we build for; this is the nearest
# thing that most machines can run.
NARROW   := $(if $(filter amd64,$(shell $(GO) env GOHOSTARCH)),386,$(shell $(GO) env GOHOSTARCH))

# What the tests start besides our own programs, and the C compiler that the
# race detector wants.
PACKAGES := transmission-cli transmission-daemon aria2 python3-libtorrent mktorrent gcc libc6-dev

export CGO_ENABLED := 0

.PHONY: all build run test lint cross bench fuzz debian clean
all: build

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/bin/ ./cmd/...

run: build
	$(BUILD)/bin/bitcdn-demo $(ARGS)

test: debian
	CGO_ENABLED=1 $(GO) test -race -timeout 30m ./...
	GOARCH=$(NARROW) $(GO) test $$($(GO) list ./payments/... ./storage/... ./appliance/... | grep -v foreigntest)
	cd appliance/fetch/goutp && $(GO) vet ./...

# Debian's packages are installed when we may; else we say which are missing.
debian:
	@missing=$$(for p in $(PACKAGES); do \
	    dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
	    echo "make: the tests need these Debian packages; install them as root:" >&2; \
	    echo "    apt-get install --no-install-recommends" $$missing >&2; exit 1; \
	fi

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

cross:
	GOOS=linux GOARCH=amd64       $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/linux-amd64/ ./cmd/bitcdn ./cmd/bitcdnd
	GOOS=linux GOARCH=arm64       $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/linux-arm64/ ./cmd/bitcdn ./cmd/bitcdnd
	GOOS=linux GOARCH=arm GOARM=7 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/linux-armv7/ ./cmd/bitcdn ./cmd/bitcdnd
	GOOS=linux GOARCH=arm GOARM=6 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/linux-armv6/ ./cmd/bitcdn ./cmd/bitcdnd
	@du -m $(BUILD)/linux-*/*

bench:
	$(GO) test -run '^$$' -bench . -benchtime 3x ./appliance/seed ./cmd/bitcdnd ./payments/bsv ./payments/chain/headers ./payments/ledger ./storage/db

fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
	    dir=$$($(GO) list -f '{{.Dir}}' $$pkg); \
	    for target in $$(grep -hos '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
	        echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	    done; done

clean:
	rm -rf $(BUILD)
