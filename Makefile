# SPDX-License-Identifier: BSD-3-Clause
#
# build, demo and test need Go and nothing else. make help lists all there is.

GO        ?= go
PKG       ?= ./...
TESTFLAGS ?=
FUZZTIME  ?= 100000x
BENCH     ?= .
BENCHTIME ?= 1s
KERNELS   ?=
BENCHTCP  ?=
BENCHDPDK ?=
BENCHNETSTACK ?=
BENCHPLAIN ?=
BENCHWIREGUARD ?=

# Tests talk to the kernel: a result from the cache says nothing. Two packages at once: each has namespaces
# of its own, but with more the waits that they bound would measure the machine's load.
GOTEST = $(GO) test -count=1 -p 2
TWO    = $(MAKE) --no-print-directory -k -j2 --output-sync=target

# Build tags that change what is compiled: the checks run with none and with each.
TAGS = mbufdebug soak

# Where the driver works, and where it must build and say that it does not.
LINUX = linux/amd64 linux/arm64 linux/arm linux/386 linux/ppc64le
OTHER = darwin/arm64 windows/amd64 freebsd/amd64

# Modules of their own, for what needs more than the driver's dependencies: what the project delivers, its
# adapters to other libraries, and what only measures and tests it.
PARTS    = metrics cmd/rtap dpdk
ADAPTERS = adapters/netstack adapters/wireguard adapters/gopacket
MODULES  = $(PARTS) $(ADAPTERS) bench test/wire

# The race detector has every process sleep for a second when it ends. Tests start hundreds.
RACE = GORACE=atexit_sleep_ms=20

STATICCHECK = .cache/bin/staticcheck
BENCHSTAT   = .cache/bin/benchstat

.DEFAULT_GOAL := help
.PHONY: help build demo test race debug soak fuzz bench bench-tcp bench-dpdk bench-netstack bench-plain bench-wireguard benchstat lint fmt vet staticcheck cross \
	dpdk dpdk-compat test-dpdk test-kernels clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the command, bin/rtap
	CGO_ENABLED=0 $(GO) build -C cmd/rtap -trimpath -o $(CURDIR)/bin/rtap .

demo: build ## build, and show it working on real traffic in namespaces of its own (root)
	bin/rtap demo

test: ## all tests, within 5 minutes (root: without, what needs it is skipped)
	CGO_ENABLED=0 $(GOTEST) -timeout 5m $(TESTFLAGS) $(PKG)
	@$(TWO) $(MODULES:%=test-in/%)

test-in/%:
	CGO_ENABLED=0 $(GO) test -C $* -count=1 -p 1 -timeout 5m $(TESTFLAGS) ./...

race: ## all tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(RACE) $(GOTEST) -race -timeout 10m $(TESTFLAGS) $(PKG)
	@$(TWO) $(patsubst %,race-in/%,$(PARTS) $(ADAPTERS))

race-in/%:
	CGO_ENABLED=1 $(RACE) $(GO) test -C $* -count=1 -p 1 -race -timeout 10m $(TESTFLAGS) ./...

# What chromium sees is not what the race detector looks for, and takes a minute.
race-in/metrics: TESTFLAGS += -skip '^TestPage'

debug: ## the tests of mbuf with double frees and foreign mbufs caught
	CGO_ENABLED=0 $(GOTEST) -tags mbufdebug -timeout 5m $(TESTFLAGS) ./mbuf/...

soak: ## the long tests, some minutes each (root)
	CGO_ENABLED=0 $(GO) test -count=1 -p 1 -tags soak -run '^TestSoak' -v -timeout 60m $(TESTFLAGS) $(PKG)
	@set -e; for m in $(PARTS) $(ADAPTERS); do CGO_ENABLED=0 $(GO) test -C $$m -count=1 -p 1 -tags soak -run '^TestSoak' -v -timeout 60m $(TESTFLAGS) ./...; done

# A number of inputs, not a time: at the end of a time the fuzzer may call its own deadline a failure.
fuzz: ## every fuzz target for FUZZTIME (100000x: inputs)
	@set -e; for p in $$($(GO) list $(PKG)); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "$$p $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done

bench: ## the benchmarks named by BENCH, for BENCHTIME (1s) each, as benchstat reads them (root)
	CGO_ENABLED=0 $(GO) test -p 1 -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -timeout 30m $(TESTFLAGS) $(PKG)
	@set -e; for m in $(PARTS) $(ADAPTERS); do CGO_ENABLED=0 $(GO) test -C $$m -p 1 -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -timeout 30m $(TESTFLAGS) ./...; done

bench-tcp: build ## rtap and rivals forward a TCP stream in turn (root, iperf3); see BENCHTCP=-help
	$(GO) run -C bench ./tcp -rtap $(CURDIR)/bin/rtap $(BENCHTCP)

bench-dpdk: dpdk ## the DPDK plugin beside net_tap, and beside Go (root, iperf3, Debian); see BENCHDPDK=-help
	$${CC:-gcc} -O2 -Wall -Wextra $$(pkg-config --cflags libdpdk) bench/dpdk/cost/burst.c -o bin/dpdk/burst $$(pkg-config --libs libdpdk)
	CGO_ENABLED=0 $(GO) build -C bench -o $(CURDIR)/bin/dpdk/bench ./dpdk
	bin/dpdk/bench $(BENCHDPDK)

bench-netstack: ## gVisor's stack over rtap and over fdbased, one TCP stream each way (root); see BENCHNETSTACK=-help
	CGO_ENABLED=0 $(GO) build -C adapters/netstack -o $(CURDIR)/bin/bench-netstack ./bench
	bin/bench-netstack $(BENCHNETSTACK)

bench-wireguard: ## wireguard-go over rtap and over its own TUN device (root); see BENCHWIREGUARD=-help
	CGO_ENABLED=0 $(GO) build -C bench -o $(CURDIR)/bin/bench-wireguard ./wireguard
	bin/bench-wireguard $(BENCHWIREGUARD)

bench-plain: ## packetio beside songgao/water, packets of 64 bytes (root); see BENCHPLAIN=-help
	CGO_ENABLED=0 $(GO) build -C bench -o $(CURDIR)/bin/bench-plain ./plain
	bin/bench-plain $(BENCHPLAIN)

benchstat: $(BENCHSTAT) ## build benchstat, to compare outputs of make bench
	@echo $(BENCHSTAT)

lint: fmt vet staticcheck ## gofmt, go vet and staticcheck

fmt:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not gofmt'd:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet $(PKG)
	@set -e; for t in $(TAGS); do echo "$(GO) vet -tags $$t $(PKG)"; $(GO) vet -tags $$t $(PKG); done
	@set -e; for m in $(MODULES); do echo "$(GO) vet -C $$m ./..."; $(GO) vet -C $$m ./...; done

# Without cgo, as the project is built; for other systems too, whose files the first pass does not see.
# There, what only Linux uses counts as unused, and "Linux" begins an error.
staticcheck: export CGO_ENABLED = 0
staticcheck: $(STATICCHECK)
	$(STATICCHECK) $(PKG)
	@set -e; for t in $(TAGS); do echo "$(STATICCHECK) -tags $$t $(PKG)"; $(STATICCHECK) -tags $$t $(PKG); done
	GOOS=darwin $(STATICCHECK) -checks inherit,-U1000,-ST1005 $(PKG)
	@set -e; for m in $(MODULES); do echo "$(STATICCHECK) in $$m"; (cd $$m && $(CURDIR)/$(STATICCHECK) ./...); done

# The tools' versions are pinned by a module of their own: the driver's dependencies stay few.
.cache/bin/%: tools/go.mod tools/go.sum
	$(GO) build -C tools -o $(CURDIR)/$@ $$($(GO) -C tools list tool | grep '/$*$$')

# The adapters for one of each kind, and only vet, which type-checks: to build gVisor takes longer than all the rest.
cross: ## build and vet for every architecture and operating system
	@set -e; export CGO_ENABLED=0 GOARM=7; for t in $(LINUX) $(OTHER); do \
		export GOOS=$${t%/*} GOARCH=$${t#*/}; \
		echo "$$t"; $(GO) build $(PKG); $(GO) vet $(PKG); \
		for m in $(PARTS); do $(GO) build -C $$m -o /dev/null ./...; $(GO) vet -C $$m ./...; done; \
		case $$t in linux/arm64 | darwin/*) \
			for m in $(ADAPTERS); do $(GO) vet -C $$m ./...; done ;; \
		esac; \
	done

dpdk: ## build bin/dpdk/librte_net_rtap.so, the DPDK plugin; installs what that takes (Debian, root)
	dpdk/tools/packages gcc libc6-dev binutils pkg-config libdpdk-dev dpdk-dev dpkg-dev xz-utils debian-archive-keyring
	dpdk/tools/headers .cache/dpdk this
	dpdk/tools/build .cache/dpdk/this/driver bin/dpdk/librte_net_rtap.so

dpdk-compat: ## compile the plugin's C half against DPDK 22.11, 24.11, 25.11 (Debian's) and as 26.03
	dpdk/tools/packages gcc libc6-dev dpkg-dev xz-utils debian-archive-keyring
	dpdk/tools/compat .cache/dpdk bookworm trixie sid

# With -v the time that each takes can be seen.
test-dpdk: dpdk ## Debian's DPDK programs with the plugin, some 5 minutes (root, 512 MB for huge pages)
	CGO_ENABLED=0 RTAP_DPDK_PLUGIN=$(CURDIR)/bin/dpdk/librte_net_rtap.so $(GO) test -C dpdk -count=1 -v -timeout 15m $(TESTFLAGS) ./test

test-kernels: ## the tests on Debian's 6.1, 6.12 and 7.2 kernels under QEMU; see KERNELS=-help
	$(GO) run ./test/kernels $(KERNELS)

clean: ## remove what the targets above have made
	rm -rf bin .cache
