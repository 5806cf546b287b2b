# make run    build and start everything, print the address to open: needs Go, nothing else
# make test   install what is missing (when it may), then run all tests
# make check  what a change must pass: format, vet, lint, race tests, SDK types, tests, size and freshness
# make help   the rest

GO       ?= go
FUZZTIME ?= 20000x
CHURN    ?= 30s
LOAD     ?= --conns 1000 --rate 200 --joins 10 --duration 1m --sources 100
ARGS     ?=
# what `ieum version` says; a build without git keeps what Go knows
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
# what make test could not install, for the tests to say (see e2e/setup.sh)
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help run run-cluster build build-bench sdk setup test check fmt vet lint lint-more race examples fuzz churn load sdk-check fresh e2e soak bench bench-signal bench-cluster bench-relay bench-call bench-compare clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | sort | expand -t 14

run: build ## build and start a server for trying; ARGS="--listen :7102 --tls-self-signed" to try it from a phone
	./bin/ieum serve --dev $(ARGS)

run-cluster: build ## three nodes and a load balancer on this machine, to kill one of; ARGS="--listen 127.0.0.1:7200"
	$(GO) build -trimpath -o bin/threenodes ./e2e/threenodes
	@./bin/threenodes $(ARGS)

# without C the program needs no library of the system, whose pages would be 1.6 MB of its memory
build: ## bin/ieum; the built SDK is committed, so Go is enough
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.buildVersion=$(VERSION)' -o bin/ieum ./cmd/ieum

build-bench: build ## bin/ieum-bench, the load generators, beside bin/ieum
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ieum-bench ./cmd/ieum-bench

sdk: ## rebuild the SDK into web/dist
	GO=$(GO) sh sdk/build.sh

setup: ## install Debian packages and npm packages that tests need, as far as this user may
	sh e2e/setup.sh

# load mostly waits, at a fixed rate, so the other long ones run beside it
test: setup check ## everything
	$(MAKE) -j 2 --output-sync=line load stress
	$(MAKE) e2e

.PHONY: stress
stress:
	$(MAKE) fuzz
	$(MAKE) churn

check: fmt vet lint race examples sdk-check fresh ## what a change must pass

fmt: ## gofmt finds nothing to change
	@out=$$(gofmt -l cmd internal web e2e examples); test -z "$$out" || { echo "not formatted: $$out"; exit 1; }

vet: ## go vet; for macOS and Windows, that everything compiles there, with the tests
	$(GO) vet ./...
	$(GO) run ./.ci/typecheck darwin windows

# .errcheck has what may fail unnoticed: what is printed for people
lint: ## staticcheck and errcheck
	$(GO) tool staticcheck ./...
	$(GO) tool errcheck -ignoretests -exclude .errcheck ./...

# a longer list, with a tool that is too large for every run; settings in .golangci.yml
lint-more: ## golangci-lint with .golangci.yml
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...

# checkptr ends the process at what bbolt reads in a damaged file; the store turns that into an error
# PACKAGES: at a time, one more than there are cores, since the tests of some mostly wait
# THINNED: packages whose tests leave cases out with the race detector (underRace), and run them all without it
race: THINNED = ./cmd/ieum ./internal/signaling
race: PACKAGES = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
race: ## Go tests with the race detector
	$(GO) test -race -p $(PACKAGES) -gcflags=go.etcd.io/bbolt/...=-d=checkptr=0 -timeout 10m ./...
	$(GO) test -timeout 5m $(THINNED)

examples: ## build the clients of examples/ and run them against a server of this tree
	cd examples && $(GO) vet ./... && $(GO) test ./...

# every fuzz target, two at a time with one worker each. A number of inputs and not a time: at the
# end of a time, Go's coordinator now and then reports its own deadline as a failure. They start from
# the inputs in testdata/fuzz, which cover what fuzzing has reached so far and run with the tests; an
# input that fails is written there too
fuzz: ## FUZZTIME=20000x: so many inputs for each fuzz target
	@grep -rn --include='*_test.go' '^func Fuzz' cmd internal web | \
		sed -E 's|^(.*)/[^/]*:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*|./\1 \2|' | \
		xargs -P 2 -n 2 sh -c '\
		out=$$($(GO) test -run "^$$" -fuzz "^$$1$$" -fuzztime $(FUZZTIME) -parallel 1 "$$0") || { echo "$$0 $$1: $$out"; exit 1; }; \
		echo "$$0 $$1: $$(echo "$$out" | tail -1)"'

# with each of the relay's two drivers; too long for the race detector
churn: ## a million packets of junk at the relay, and CHURN=30s of a thousand clients that come and go
	IEUM_SOAK=1 IEUM_CHURN=$(CHURN) $(GO) test -timeout 30m -run '^Test(ClientsComeAndGo|JunkLeaves.*)$$' ./internal/relay

load: build ## users at a fixed rate: nothing may be lost, out of order, closed or left behind; LOAD="--conns 1000 --rate 200 …", flags of ieum-bench mix
	IEUM_LOAD="$(LOAD)" $(GO) test -count=1 -v -timeout 30m -run '^TestNothingIsLostUnderLoad$$' ./cmd/ieum-bench

sdk-check: ## SDK types, tests and size
	@if command -v npm >/dev/null; then cd sdk && npm run --silent check; else echo "SKIPPED: SDK types and tests (no Node)"; fi

fresh: ## the committed web/dist must equal a fresh build
	@rm -rf bin/dist && GO=$(GO) sh sdk/build.sh bin/dist && diff -r bin/dist web/dist && echo "web/dist is fresh"

e2e: build ## whole-system tests in real browsers, and with npm's Socket.IO clients
	sh e2e/run.sh alone
	sh e2e/run.sh others
	sh e2e/socketio/run.sh
	sh e2e/turn/run.sh
	sh e2e/run.sh waiting

soak: ## long runs: an hour of fuzzing, ten minutes of 10,000 users and of the relay's clients, the long browser tests
	$(MAKE) churn CHURN=5m
	$(MAKE) load LOAD="--conns 10000 --rate 2000 --joins 100 --duration 10m --sources 1000"
	$(MAKE) fuzz FUZZTIME=1000000x
	IEUM_SOAK=1 $(GO) test -count=1 -timeout 60m -run "^Test(AnswersOfThree|NodesThatAre|TwoOfThree)" ./cmd/ieum
	IEUM_SOAK=1 CHROMIUM=/usr/bin/chromium sh e2e/run.sh

bench: bench-signal bench-cluster bench-relay bench-call ## all benchmarks

bench-signal: build-bench ## our signaling server and two npm servers in turn, as a table; BENCH="--rounds 5 --conns 1000"
	cd bench && npm ci --ignore-scripts --no-audit --no-fund --silent
	@node bench/signal.mjs $(BENCH)

bench-cluster: build-bench ## three nodes of a cluster beside one server, as a table (Linux); BENCH="--rounds 3 --conns 1000"
	@GO=$(GO) node bench/cluster.mjs $(BENCH)

bench-relay: build-bench ## our relay and coturn in turn, as a table (Linux, root, coturn); BENCH="--rounds 5 --duration 2s --shapes up,idle"
	@node bench/relay.mjs $(BENCH)

bench-call: build setup ## our calls, PeerJS's and simple-peer's in browsers in turn, as a table (Linux, root); BENCH="--rounds 7 --cases warm,cut"
	cd bench && npm ci --ignore-scripts --no-audit --no-fund --silent
	$(GO) build -trimpath -o bin/netlab ./e2e/netlab
	@node bench/call.mjs $(BENCH)

bench-compare: ## the Go benchmarks of this tree beside those of a commit; fails if one allocates more; BASE=HEAD~1 COUNT=6 BENCH=Fanout
	@GO=$(GO) BENCH='$(BENCH)' sh bench/compare.sh $(BASE)

clean: ## remove what was built
	rm -rf bin e2e/.work
