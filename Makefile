# Every command of a working day; `make` alone lists them. All of them install what is missing first.
# A target's text after "##" is its line in the list.

# Two GiB of memory for each compiler: what one translation unit with torch headers may take.
JOBS ?= $(shell awk -v cores=$$(nproc) '/MemTotal/ {n = int($$2 / 2097152); print (n < 1) ? 1 : (n < cores) ? n : cores}' /proc/meminfo)
ONLY ?=
MINUTES ?= 6
SECONDS ?= 60
TEXT ?=
PREFIX ?= /usr/local
PRESET ?= release
ARGS ?=
PYTHON := .venv/bin/python3
# Lets one compiler cache serve every checkout: paths below the project count as relative.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

# $(call build,PRESET[,TARGET]): configures once (ninja repeats it when a CMakeLists.txt changes), then builds.
define build
@test -f build/$(1)/build.ninja || cmake --preset $(1)
@cmake --build --preset $(1) -j $(JOBS) $(if $(2),--target $(2))
endef

.DEFAULT_GOAL := help
.PHONY: help setup build program install package test quickstart bench bench-ops scaling sanitize threads soak harness fuzz format lint clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install missing system packages and the Python environment .venv
	@scripts/setup.sh

build: setup  ## program and tests, optimised: build/release/switchyard
	$(call build,$(PRESET))

program:  ## the program alone, with no more installed than it needs
	@scripts/setup.sh program
	$(call build,release,switchyard)

install: build  ## program, headers, libraries and CMake package into PREFIX=/usr/local
	@cmake --install build/release --prefix "$(PREFIX)"

package:  ## build/switchyard-VERSION-linux-ARCH.tar.zst: the program with its libraries, for machines that have neither
	@scripts/setup.sh program package
	$(call build,package,switchyard)
	@scripts/package.sh build/package build

test: build  ## all tests; ONLY=ops runs those of tests/ops
	@ctest --preset $(PRESET) --no-tests=error $(if $(ONLY),-R '^$(ONLY)$$')

quickstart:  ## train a sparse model and its dense twin on text, compare them; TEXT="files or folders" MINUTES=6
	@scripts/setup.sh program quickstart
	@MINUTES="$(MINUTES)" scripts/quickstart.sh $(TEXT)

bench: build  ## speed beside HF transformers and CTranslate2 in the same run; ARGS="--help" lists options
	@$(PYTHON) tools/bench_peers.py $(ARGS)

bench-ops: setup  ## each operation by the kernels, by plain ATen and as ATen offers it; ARGS="--only attention"
	@cmake --preset release -DSWITCHYARD_BENCH=ON >/dev/null
	$(call build,release,ops_bench)
	@$(PYTHON) tools/bench_ops.py $(ARGS)

sanitize: setup  ## all tests of the C++ code under AddressSanitizer and UndefinedBehaviorSanitizer
	$(call build,asan)
	@ctest --preset asan --no-tests=error -LE parity $(if $(ONLY),-R '^$(ONLY)$$')

threads: setup  ## tests of ranks under ThreadSanitizer; what libtorch does is listed in cmake/sanitizers/thread.supp
	@test -f build/tsan/build.ninja || cmake --preset tsan
	@cmake --build --preset tsan -j $(JOBS) --target parallel_test
	@ctest --preset tsan --no-tests=error -R '^parallel$$'

soak: setup  ## kill a run of two ranks 200 times under torchrun, compare its weights with an undisturbed one's; ARGS="--kills 20"
	$(call build,release,switchyard)
	@$(PYTHON) scripts/soak.py $(ARGS)

scaling: program  ## weak and strong scaling, measured on 1, 2, 4 processes and simulated to 2,048 devices; TEXT="files or folders"
	@test -n "$(TEXT)" || { echo 'make scaling TEXT="files or folders of text"'; exit 2; }
	@$(PYTHON) scripts/scaling.py --text $(TEXT) --out runs/scaling $(ARGS)

harness: setup  ## EleutherAI's lm-evaluation-harness against serve and through transformers: the same numbers; ARGS="--model DIR"
	$(call build,release,switchyard)
	@$(PYTHON) scripts/harness.py $(ARGS)

fuzz: setup  ## readers of foreign files against random input, SECONDS=60 each; ONLY=t5x runs one (fuzz/)
	@scripts/setup.sh fuzz
	$(call build,fuzz)
	@scripts/fuzz.sh $(SECONDS) $(ONLY)

format:  ## clang-format every C++ file in place
	@scripts/setup.sh lint
	@scripts/lint.sh format

lint:  ## folder dependencies, formatting, clang-tidy on files changed since the last commit; ALL=1 on all
	@scripts/setup.sh lint
	@scripts/lint.sh $(if $(ALL),all,changed)

clean:  ## remove build products; keeps .venv
	@rm -rf build
