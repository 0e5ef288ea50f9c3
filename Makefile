# The commands of the project. A bare machine needs make and Python 3.11 or 3.12 with venv.

.DEFAULT_GOAL := help
.PHONY: help up down loop test test-feast tests-without-ray tests-with-ray check check-types check-the-rest bench env lock
SHELL := /bin/sh

# The first Python that fits; PYTHON=/path/to/python chooses another.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
FEAST := $(VENV)/own/feast

# Put before what fetches packages: the certificates that this machine trusts count, where it has any.
TRUSTING = certificates="$$(sh .ci/system-certificates "$(PYTHON)")"; if [ -n "$$certificates" ]; then \
  export UV_SYSTEM_CERTS="$${UV_SYSTEM_CERTS:-true}" PIP_CERT="$${PIP_CERT:-$$certificates}"; fi;

# Bytecode stays out of the source tree. Without any, each of the many processes compiles its libraries anew.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache
unexport PYTHONDONTWRITEBYTECODE
# No library reports home, whichever command imports it.
export DO_NOT_TRACK := true
# Threads that wait by spinning take the cores from everything else on a small machine: those of OpenMP, and
# those of OpenBLAS (2 to the power of so many cycles; 26 unless said), on which numpy multiplies matrices.
export OMP_WAIT_POLICY := passive
export OPENBLAS_THREAD_TIMEOUT := 4
export MLFLOW_DISABLE_TELEMETRY := true
export DAGSTER_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

up: env ## Start everything, build the graph, deploy (DETACH=1: return once the model answers)
	@exec $(BIN)/mlops up $(if $(filter-out 0,$(DETACH)),--detach)

down: ## Stop everything that `make up` started
	@if [ -x $(BIN)/mlops ]; then exec $(BIN)/mlops down; else echo "Nothing was running."; fi

loop: env ## The whole loop on a virtual clock, as a story (FULL=1: April to December, KEEP=1: stays up)
	@exec $(BIN)/python -m demo $(if $(filter-out 0,$(FULL)),--full) $(if $(filter-out 0,$(KEEP)),--keep)

# Tests of a real Ray mostly wait, so they run beside the others: in one process, because they share a cluster.
test: env ## All tests, those without Ray on every core (ARGS="..." goes to pytest instead)
ifdef ARGS
	@exec $(BIN)/python -m pytest $(ARGS)
else
	@$(MAKE) --no-print-directory --jobs=2 --keep-going tests-without-ray tests-with-ray; status=$$?; cat $(VENV)/ray.log; exit $$status
endif

tests-without-ray:
	@exec $(BIN)/python -m pytest -m "not ray" --numprocesses=auto --dist=loadfile

# Shown when all is done, so that the lines of the two do not mix.
tests-with-ray:
	@echo "What runs on a real Ray is written to $(VENV)/ray.log and shown at the end."
	@exec $(BIN)/python -m pytest -m ray >$(VENV)/ray.log 2>&1

# Feast takes older packages than the rest, so it is in an environment of its own.
test-feast: $(FEAST)/installed ## The tests of online features in Feast
	@exec $(FEAST)/bin/python -m pytest $(or $(ARGS),mlops_assets_tests/serve/online/test_feast.py)

$(FEAST)/installed: requirements-feast.lock pyproject.toml $(INSTALLED)
	@echo "Installing Feast and what goes with it into $(FEAST)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(FEAST)
	@$(TRUSTING) $(BIN)/uv pip install --python $(FEAST)/bin/python --require-hashes $$([ -t 2 ] || echo --quiet) -r requirements-feast.lock
	@$(BIN)/uv pip install --python $(FEAST)/bin/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Types take as long as all the rest.
check: env ## ruff, format, types, import contracts, declarations, text rules
	@$(MAKE) --no-print-directory --jobs=2 --keep-going check-types check-the-rest
	@echo "All checks passed."

check-types:
	@echo "mypy" && $(BIN)/mypy --no-error-summary

check-the-rest:
	@echo "ruff check" && $(BIN)/ruff check --quiet
	@echo "ruff format --check" && $(BIN)/ruff format --check --quiet
	@echo "import contracts" && $(BIN)/lint-imports --no-cache >$(VENV)/contracts.log || { cat $(VENV)/contracts.log; exit 1; }
	@echo "declarations" && DAGSTER_HOME= $(BIN)/dg check defs --no-check-yaml >$(VENV)/declarations.log 2>&1 || { cat $(VENV)/declarations.log; exit 1; }
	@echo "text" && sh .ci/text

bench: env ## The benchmarks, as a table
	@exec $(BIN)/python -m bench

env: $(INSTALLED) ## Create or update .venv from the hashed lock

# uv comes from the lock too: its lines are cut out and pip checks their hashes.
$(INSTALLED): requirements.lock pyproject.toml
	@sh .ci/require-python "$(PYTHON)"
	@if [ ! -x $(BIN)/python ] || [ ! -x $(BIN)/pip ]; then echo "Creating $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv --clear $(VENV); fi
	@sed -n '/^uv==/,/^[^ ]/{/^uv==/p;/^ *--hash/p;}' requirements.lock > $(VENV)/uv.lock
	@if ! $(BIN)/uv --version 2>/dev/null | grep -qF "$$(sed -n 's/^uv==\([^ ]*\).*/\1/p' $(VENV)/uv.lock)"; then \
	  echo "Installing uv"; $(TRUSTING) $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock; fi
	@echo "Installing the locked packages (about 1.5 GB the first time)"
	@$(TRUSTING) $(BIN)/uv pip install --python $(BIN)/python --require-hashes $$([ -t 2 ] || echo --quiet) -r requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

lock: env ## Resolve both locks anew from pyproject.toml; that with Feast differs as little as it can
	@$(TRUSTING) $(BIN)/uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --extra dev pyproject.toml -o requirements.lock
	@cp requirements.lock requirements-feast.lock
	@$(TRUSTING) $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --extra dev --extra feast pyproject.toml -o requirements-feast.lock
