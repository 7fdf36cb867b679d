# Grapevine: carries an ordering service's signed blocks to every peer.
# `make help` prints what follows each target.

GO      ?= go
PKGS    := ./...
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.release=$(VERSION) -X main.commit=$(COMMIT)
FUZZTIME ?= 30s
SOAK     ?= 10m

.DEFAULT_GOAL := help
.PHONY: help build dev test race lint fuzz sim soak bench gen dist clean

help: ## print this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-7s %s\n", $$1, $$2}'

build: ## build bin/grapevine, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/grapevine ./cmd/grapevine

dev: build ## build, and run a local network of 3 organisations: blocks flow, a live view shows it
	$(GO) run ./itest/rundev

test: ## all tests that CI runs
	$(GO) vet $(PKGS)
	$(GO) test -timeout 10m $(PKGS)

race: ## the tests under the race detector
	$(GO) test -race -timeout 25m $(PKGS)

lint: ## static analysis; needs the network once, for the tool
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run

fuzz: ## every fuzz target for FUZZTIME each; fails if one made no executions
	$(GO) run ./itest/runfuzz -time $(FUZZTIME)

sim: ## whole networks in virtual time: dissemination, partitions, deaths, elections, catch-up; writes build/sim.json
	$(GO) run ./itest/runsim -o build/sim.json

soak: ## with 24 GB of memory: longer simulations, crash loops, orderers and leaders killed, suspended and cut off under load, every byte of the recorded chains flipped; SOAK=10m for each loop
	@mkdir -p build/soak
	GRAPEVINE_SIM=$(CURDIR)/build/soak GRAPEVINE_SOAK=$(SOAK) GOMEMLIMIT=18GiB $(GO) test -p 1 -count=1 -timeout 170m -run 'Soak|BitFlips' -v ./ledger ./channel ./channel/cast ./membership ./itest ./cmd/grapevine

bench: ## dissemination, ledger, range pull and ordering beside their bare counterparts, peers behind orderers, meeting and idling; writes build/bench.json
	@mkdir -p build
	$(GO) run ./itest/runbench -o build/bench.json
	$(GO) test ./orderer -run '^$$' -bench 'Cluster|RawRaft' -benchtime 20000x -timeout 10m
	$(GO) test ./itest -run '^$$' -bench PeersKeepUp -benchtime 20000x -timeout 10m

gen: ## generate wire/wire.pb.go anew
	$(GO) run github.com/bufbuild/buf/cmd/buf@v1.66.0 generate

dist: ## static binaries for linux and darwin in dist/
	@for p in linux/amd64 linux/arm64 darwin/arm64; do \
	  echo dist/grapevine-$${p%/*}-$${p#*/}; \
	  CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/grapevine-$${p%/*}-$${p#*/} ./cmd/grapevine || exit 1; \
	done

clean: ## remove what was built
	rm -rf bin build dist
