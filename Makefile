# howdah. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

# Two packages at once suits two cores: most of a test's time is spent waiting for PostgreSQL and Consul.
P ?= 2
TIMEOUT ?= 30m
FUZZTIME ?= 10s
# How many seeds the simulator runs.
SEEDS ?= 2000
# What `make integ` runs; ARGS goes to the demo and the benchmark.
INTEG ?= ./bench/... ./sidecar/local/...
ARGS ?=
# Which clients `make clients` tests; all if empty.
CLIENTS ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# npm's packages for the tests with real clients.
NODE_MODULES := router/clienttest/testdata/node/node_modules/.package-lock.json

.PHONY: help build demo test sim integ clients bench campaign lint tools fuzz prerequisites prerequisites-clients bin/howdah

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: bin/howdah ## bin/howdah, a static binary

# Go knows better than make whether anything changed. The version comes from here and not from -buildvcs, which
# fails where git does not trust the owner of the clone.
bin/howdah:
	@mkdir -p bin
	CGO_ENABLED=0 go build -buildvcs=false -ldflags '-X howdah/cmd.stamped=$(VERSION)' -o $@ .

demo: ## three members and a router on this machine; ARGS='--fresh' starts anew
	@tools/prerequisites.sh postgres
	@$(MAKE) --no-print-directory build
	@bin/howdah demo $(ARGS)

tools: bin/consul bin/staticcheck ## Consul (6 minutes the first time) and staticcheck into bin/

# Three of Consul's own modules are not in the checksum database; tools/go.sum has their hashes.
bin/consul: tools/go.mod tools/go.sum
	@mkdir -p bin
	@echo "building Consul from source: about 6 minutes on two cores the first time"
	cd tools && GONOSUMDB='github.com/hashicorp/consul/*' go build -o ../bin/consul github.com/hashicorp/consul
	@touch $@

# A module of its own, so that its dependencies do not move Consul's.
bin/staticcheck: tools/staticcheck/go.mod tools/staticcheck/go.sum
	@mkdir -p bin
	cd tools/staticcheck && go build -o ../../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	@touch $@

prerequisites:
	@tools/prerequisites.sh gcc postgres

prerequisites-clients:
	@tools/prerequisites.sh node java jdbc psycopg

# Their own install scripts are not wanted, and there are none.
$(NODE_MODULES): router/clienttest/testdata/node/package-lock.json | prerequisites-clients
	cd router/clienttest/testdata/node && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

lint: bin/staticcheck ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); \
	  [ -z "$$unformatted" ] || { echo "not formatted; run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	bin/staticcheck ./...

# The simulator and the check against PostgreSQL's grammar are one thread each: the race detector would only make them slow,
# and that grammar, half a million lines of C, be compiled twice. lint has compiled it as the second line wants it.
test: prerequisites prerequisites-clients $(NODE_MODULES) tools build lint ## everything, with the race detector; as root installs what is missing
	@mkdir -p .cache
	{ go test -timeout $(TIMEOUT) ./sidecar/sim -seeds $(SEEDS) && \
	  CGO_ENABLED=1 go test -timeout $(TIMEOUT) ./router/route/statement/grammartest && \
	  CGO_ENABLED=1 go test -race -p $(P) -timeout $(TIMEOUT) $$(go list ./... | grep -v -e '/sidecar/sim$$' -e '/grammartest$$'); } 2>&1 | tee .cache/test.log
	@awk '/^ok / {n++} END {printf "make test: %d packages passed, none failed\n", n}' .cache/test.log

sim: ## the simulator alone, for SEEDS seeds
	go test -timeout 24h ./sidecar/sim -run TestSeeds -seeds $(SEEDS) -v

integ: prerequisites tools build ## the tests with whole clusters only
	CGO_ENABLED=1 go test -race -count=1 -p 1 -timeout $(TIMEOUT) $(INTEG)

clients: prerequisites prerequisites-clients $(NODE_MODULES) ## the router with real clients only; CLIENTS='psycopg jdbc'
	CGO_ENABLED=1 HOWDAH_TEST_CLIENTS='$(CLIENTS)' go test -race -count=1 -timeout $(TIMEOUT) ./router/clienttest

bench: prerequisites tools build ## failover times of a real cluster; ARGS='-n 5'
	go run ./bench failover $(ARGS)

campaign: prerequisites tools build ## faults on hosts made of network namespaces (root); ARGS='-faults 30 -seed 7'
	go run ./bench campaign $(ARGS)

fuzz: ## every fuzz test for FUZZTIME each
	@for package in $$(go list ./...); do \
	  for name in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$name"; go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done
