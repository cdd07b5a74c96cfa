# Everything here is a short name for a command that works without make.

.DEFAULT_GOAL := help
.PHONY: help build image test race sim fuzz lint fmt bench bench-scale pgo interop chaos fleet nats etcd-common tour generate ci

SEEDS ?= 200
FIRST ?= 1
CHAOS_FOR ?= 30m
FLEET_FOR ?= 20m

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/latchkey
	CGO_ENABLED=0 go build -trimpath -o bin/latchkey ./cmd/latchkey

image: ## build the container image latchkey
	mkdir -p bin/image/data
	CGO_ENABLED=0 GOOS=linux go build -trimpath -ldflags='-s -w' -o bin/image/latchkey ./cmd/latchkey
	docker build -f deploy/Dockerfile -t latchkey bin/image

test: ## run the tests, as a new user would
	go test ./...

race: ## run the tests under the race detector
	go test -race ./...

sim: ## run simulation seeds: make sim SEEDS=2000, or one of them: make sim SEED=17
	go test ./server/internal/sim -count=1 -timeout=30m $(if $(SEED),-v -seed=$(SEED),-seeds=$(SEEDS) -first=$(FIRST))

fuzz: ## fuzz what reads bytes from outside: make fuzz FUZZ_TIME=5m
	.ci/run fuzz

lint: ## check formatting, vet and staticcheck, here and in interop/
	.ci/run format vet staticcheck

fmt: ## format every Go file
	gofmt -w $$(git ls-files '*.go')

bench: ## measure against etcd on this machine (interop/bench)
	cd interop && go run ./bench

bench-scale: ## measure a million keys, leases and watches against etcd: make bench-scale SCALE=0.1
	cd interop && go run ./bench -pairs 1 -scenario scale -scale $(or $(SCALE),1)

pgo: ## profile the servers under a mixed load, for the compiler: cmd/latchkey/default.pgo
	rm -rf bin/pgo
	cd interop && go run ./bench -only latchkey -pairs 1 -profile ../bin/pgo -scenario put1,put64,put512,get64,sget64,cas64,lease64,mutex64,fan1000,typed-put64,typed-put512,typed-get64,typed-cas64
	go tool pprof -proto bin/pgo/m[0-9]-[0-9].pb.gz > cmd/latchkey/default.pgo

interop: ## run the official etcd client and tools against latchkey
	cd interop && go test ./...

chaos: ## half an hour of faults for one of every recipe: make chaos CHAOS_FOR=5m SEED=17
	cd interop && go test -tags chaos -run 'TestChaos$$' -count=1 -v -timeout=0 -artifacts -chaos.for=$(CHAOS_FOR) $(if $(SEED),-chaos.seed=$(SEED)) .

fleet: ## twenty minutes of faults for a fleet with a queue and a topic: make fleet FLEET_FOR=1m SEED=17
	cd interop && go test -tags chaos -run 'TestFleet$$' -count=1 -v -timeout=0 -fleet.for=$(FLEET_FOR) $(if $(SEED),-chaos.seed=$(SEED)) .

nats: ## measure NATS JetStream as interop/bench measures queues and topics
	cd interop/nats && go run .

etcd-common: ## run etcd's own suite tests/common against latchkey and etcd
	cd interop/common && go run .

tour: ## watch a three-member cluster lose its leader
	go run ./examples/tour

generate: ## write the Go code of api/*.proto anew (needs protoc)
	api/generate.sh

ci: ## run everything that a change must pass
	.ci/run
