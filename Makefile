# Every target is complete on its own: the environment in .venv is made from uv.lock by whichever comes first.
# ARGS= is handed on: make run ARGS="--config my.toml", make test ARGS="-k store".

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test lint hil vm boot deb package-test fuzz faults scenarios bench soak attack accuracy docs

BIN := .venv/bin
ARGS ?=
MINUTES ?= 10
INPUTS ?= 1000000
SEEDS ?= 1000
# named for the checkout's place: one that was moved makes its environment anew
READY := .venv/ready-$(firstword $(shell pwd | cksum))
WARM := .cache/numba/compiled
GUEST := .cache/vm/disk.raw
BOOT := .cache/boot/disk.raw
HIL := $(BIN)/python -m hw.twin.usb --or-skip -- $(BIN)/python -m pytest -q --ignore tests/hil/vm --ignore tests/hil/boot
export NUMBA_CACHE_DIR := $(CURDIR)/.cache/numba

help:
	@echo "make run       the simulated instrument; prints its URL"
	@echo "make test      linters, types, import layers, tests"
	@echo "make lint      the checks without the tests"
	@echo "make hil       emulated USB devices on an emulated bus, and their independent referees"
	@echo "make vm        emulated USB devices in a Debian guest, with the kernel's own drivers; as root on Debian"
	@echo "make boot      the installed package in a Debian guest: boot, USB, watchdog, full disk, power cuts; as root on Debian"
	@echo "make deb       the Debian package, into dist/"
	@echo "make package-test  the package's whole life on a clean Debian 12 under its own systemd; as root on Debian"
	@echo "make fuzz      damaged inputs for every parser, INPUTS= of them"
	@echo "make faults    the store killed, cut, flipped and refused; ARGS=\"--seed N --share 0.1 kills cuts flips refusals\""
	@echo "make bench     figures beside their goals"
	@echo "make soak      a camera's full rate on the whole daemon, MINUTES= for each load"
	@echo "make attack    10,000 idle connections, 100,000 bad requests, and whatever the API's document allows"
	@echo "make scenarios the whole daemon on a clock of its own, SEEDS= of them; ARGS='--first N --count ACTIONS --jobs 2'"
	@echo "make accuracy  regenerate docs/accuracy.md from scenes whose truth is known"
	@echo "make docs      regenerate the reference pages"

$(READY): pyproject.toml uv.lock packaging/environment
	@./packaging/environment
	@touch $@

$(WARM): $(READY) $(wildcard kernels/*.py) packaging/compile_kernels.py daemon/warmup.py daemon/engine/warm.py
	@echo "compiling the kernels"
	@rm -rf .cache/numba && mkdir -p .cache/numba # a kernel that calls another is not compiled anew when that changes
	@$(BIN)/python packaging/compile_kernels.py
	@touch $@

run: $(WARM)
	@$(BIN)/photometryd --simulate $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

test: lint $(WARM)
	@./packaging/environment --for-tests
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore tests/hil $(ARGS)
	@$(if $(ARGS),,$(HIL) -m "not slow" tests/hil) # what ARGS= choose is not among these

hil: $(WARM)
	@./packaging/environment --for-hil
	@$(HIL) $(or $(ARGS),tests/hil)

$(GUEST): tests/hil/vm/image systemd/70-photometryd.rules systemd/photometryd.sysusers
	@./packaging/environment --for-vm
	@echo "building the guest"
	@tests/hil/vm/image $(@D)

vm: $(READY) $(GUEST)
	@PHOTOMETRYD_GUEST=$(CURDIR)/$(dir $(GUEST)) $(BIN)/python -m pytest -q $(or $(ARGS),tests/hil/vm)

$(BOOT): tests/hil/vm/image tests/hil/boot/settings.toml pyproject.toml uv.lock \
		$(shell find daemon hw kernels packaging systemd -type f -not -name "*.pyc")
	@./packaging/environment --for-package
	@./packaging/environment --for-vm
	@echo "building the package and a guest with it"
	@rm -f $(@D)/photometryd_*.deb && packaging/debian-package --out $(@D)
	@tests/hil/vm/image $(@D) $(@D)/photometryd_*.deb tests/hil/boot/settings.toml .cache/vm

boot: $(READY) $(BOOT)
	@PHOTOMETRYD_INSTALLED_GUEST=$(CURDIR)/$(dir $(BOOT)) $(BIN)/python -m pytest -q -s $(or $(ARGS),tests/hil/boot)

deb: $(READY)
	@./packaging/environment --for-package
	@packaging/debian-package $(ARGS)

package-test: $(READY)
	@./packaging/environment --for-package tests
	@PHOTOMETRYD_PACKAGE_TEST=1 $(BIN)/python -m pytest -q -s $(or $(ARGS),tests/packaging/test_package.py)

fuzz: $(WARM)
	@$(BIN)/python -m tests.fuzz --inputs $(INPUTS) $(ARGS)

faults: $(READY)
	@$(BIN)/python -m tests.faults $(ARGS)

bench: $(WARM)
	@./packaging/environment --for-bench
	@$(BIN)/python -m tests.bench $(ARGS)

accuracy: $(WARM)
	@$(BIN)/python -m tests.accuracy $(or $(ARGS),--page docs/accuracy.md --jobs 2)

soak: $(WARM)
	@$(BIN)/python -m tests.bench sustained --minutes $(MINUTES)

attack: $(WARM)
	@./packaging/environment --for-tests
	@ATTACK_IDLE=10000 ATTACK_MUTATIONS=100000 ATTACK_EXAMPLES=50 $(BIN)/python -m pytest -q -s --timeout 7200 \
		$(or $(ARGS),tests/daemon/api/test_hostile.py tests/daemon/api/test_contract.py)

scenarios: $(WARM)
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.scenarios --seeds $(SEEDS) $(ARGS)

docs: $(READY)
	@$(BIN)/python -m daemon.reference docs
