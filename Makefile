# Everything starts here. On a fresh machine with Python 3.11+ and make: `make demo`, `make test`.
# `make` creates its own environment in .venv from the hashed lock file; nothing else is asked for.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := uv==0.13.9
ROOT   ?= artifacts
export ZSBIR_ROOT := $(ROOT)

.PHONY: help env demo search test test-rest test-all test-long coverage mutants check bench site reference ui lock clean images sbom audit

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

env: $(READY) ## the environment .venv, from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; try make PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(UV)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	$(BIN)/python -c "import torch, torchvision; from torchvision.ops import nms"
	touch $(READY)

demo: $(READY) ## the whole pipeline on drawn data: a few minutes on two cores; DATA=real fetches photos and drawings
	PATH="$(CURDIR)/$(BIN):$$PATH" sh infra/demo.sh

search: $(READY) ## a page to draw on, with what the demo made; DATA=real as there, PORT=8280
	PATH="$(CURDIR)/$(BIN):$$PATH" sh infra/search.sh

# COVER=1 measures line and branch coverage of what a target runs, in all its processes.
export COVERAGE_FILE := $(CURDIR)/.coverage/data
PYTEST = $(BIN)/$(if $(COVER),coverage run -m,python -m) pytest

# Several processes, each with whole files of tests, since those share servers. WORKERS=0: one, for a debugger.
WORKERS ?= auto
SPREAD = -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY) ## what a person runs: minutes; ARGS=... goes to pytest, WORKERS=0 keeps to one process
	$(PYTEST) $(SPREAD) -m "everyday or not (slow or long)" $(ARGS)

test-rest: $(READY) ## what `make test` leaves out of `make test-all`
	$(PYTEST) $(SPREAD) -m "slow and not (everyday or long)" $(ARGS)

test-all: $(READY) ## everything but test-long, with coverage by room
	rm -rf .coverage
	$(MAKE) COVER=1 test test-rest
	$(MAKE) coverage

test-long: $(READY) ## what takes minutes by nature: fuzzing, a hundred kills, blackouts, load
	$(PYTEST) -m long --timeout 3600 $(ARGS)

coverage: $(READY) ## line and branch coverage of the last measured run, by room
	$(BIN)/python tests/rooms.py

mutants: $(READY) ## change the code in 300 places and see which changes the unit tests notice: up to an hour
	$(BIN)/python tests/mutation/run.py

check: $(READY) ## format, lint, types, the calls in tests, import contracts, the Dockerfile, the site with its links
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/python -m pytest -q tests/docs/test_site.py -m "not slow"

site: $(READY) ## the documentation as a site with a search, in site/
	PYTHONPATH=tests $(BIN)/python -m documentation.site

reference: $(READY) ## make docs/reference anew from the code
	PYTHONPATH=.:tests $(BIN)/python -m documentation.pages

bench: $(READY) ## measurements: ratios within one run
	$(BIN)/python -m pytest -o python_files='bench_*.py' -s tests/bench

ui: $(READY) ## the MLflow UI on what was trained under ROOT, behind a password
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true $(BIN)/python -m services.jobs.local.tracking_server --root "$(ROOT)" --port $(or $(PORT),5000)

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

lock: ## compile requirements.lock anew from pyproject.toml, and of it what the images hold
	$(COMPILE) --extra dev -o requirements.lock pyproject.toml
	$(COMPILE) -c requirements.lock -o docker/train.lock pyproject.toml
	$(COMPILE) -c requirements.lock -o docker/services.lock docker/services.in

images: ## the container images, with docker, podman or buildah: docker/README.md
	docker/build.sh

sbom: $(READY) ## the Python packages of an installation and of the images: build/sbom-*.cdx.json (CycloneDX), from the lock files
	mkdir -p build
	for lock in requirements docker/train docker/services; do \
	  $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file build/sbom-$$(basename $$lock).cdx.json $$lock.lock || exit 1; \
	done

audit: $(READY) ## known weaknesses of locked packages, where an advisory service is reachable
	$(BIN)/python infra/audit.py

clean: ## remove the environment; artifacts stay
	rm -rf $(VENV)
