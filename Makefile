# `make` prints what can be done. Every word sets up what it needs: python3 with pip, make and a package index are enough.

PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready

SEEDS  ?= 200
SEED   ?=
COUNT  ?= 100000
KILLS  ?= 50
LOCOMO ?= shared/data/locomo
TESTS  ?= tests
PYTEST ?= -n 2

.DEFAULT_GOAL := help
.PHONY: help install lock check format test demo serve simulate mutants bench bench-search hostile kill clean

help:                ## print these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY)    ## put everything into .venv (does nothing when nothing has changed)

# pip of the system fills a venv that has none of its own, so Debian's python3-venv is not needed; without a system
# pip, the one that Python carries is used. What was installed has to match the hashes in constraints.txt.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12 install" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear --without-pip .venv
	@set -eu; export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore; \
	if $(PYTHON) -m pip --version >/dev/null 2>&1; then pip="$(PYTHON) -m pip --python $(BIN)/python"; \
	elif $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
	elif $(BIN)/python -m ensurepip >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
	else echo "$(PYTHON) has no pip: install it (on Debian: apt-get install python3-pip)" >&2; exit 1; fi; \
	echo "installing into .venv (about a minute the first time)"; \
	$$pip install --quiet --require-hashes -r constraints.txt; \
	$$pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock:                ## work out constraints.txt again, keeping its pins; UPGRADE=1 for the newest of everything
	@test -x $(BIN)/uv || $(MAKE) --no-print-directory install
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --all-extras \
	    $(if $(UPGRADE),--upgrade) --output-file constraints.txt pyproject.toml
	@if grep -nE '://|^ *--(extra-)?index|^ *--find-links' constraints.txt; then \
	    echo "constraints.txt names an address" >&2; exit 1; fi

check: $(READY)      ## format, lint, import contracts and types; changes nothing
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

format: $(READY)     ## format the code, and mend what ruff can mend safely
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

test: $(READY)       ## every test; narrow it: make test TESTS=tests/crdt PYTEST=-x
	@$(BIN)/python -m pytest $(PYTEST) $(TESTS)

demo: $(READY)       ## a server and two encrypted devices: apart, edited, equal again
	@$(BIN)/pjais demo

serve: $(READY)      ## a server on this machine, with a Postgres of its own
	@$(BIN)/pjais-server serve

simulate: $(READY)   ## devices and a server under faults: SEEDS=200, or one again: SEED=17
	@SEEDS=$(SEEDS) SEED=$(SEED) $(BIN)/python -m tests.simulation

mutants: $(READY)    ## break the code in small ways, and see each one caught
	@$(BIN)/python -m tests.simulation.mutants

bench: $(READY)      ## figures beside their raw limits, as JSON lines
	@$(BIN)/python -m loadtests.bench

bench-search: $(READY)  ## judged search: recall on LoCoMo, by text, meaning and both: LOCOMO=folder
	@LOCOMO=$(LOCOMO) $(BIN)/python -m loadtests.bench.search_quality

hostile: $(READY)    ## random and mutated updates, pushed and pulled: COUNT=100000
	@$(BIN)/python -m tests.hostile $(COUNT) && $(BIN)/python -m tests.hostile_wire $(COUNT)

kill: $(READY)       ## kill devices, servers and Postgres at random, and count what was lost: KILLS=50
	@KILLS=$(KILLS) $(BIN)/python -m tests.journeys.kill

clean:               ## remove what the tools leave; .venv stays
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
