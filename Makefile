# Everything starts here. On a fresh machine with Python 3.11+ and make: `make demo`, `make test`.
# `make` creates its own environment in .venv from the hashed lock file; nothing else is asked for.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ROOT   ?= artifacts
export ZSBIR_ROOT := $(ROOT)

.PHONY: help env demo test check bench ui lock clean

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

env: $(READY) ## the environment .venv, from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; try make PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	$(BIN)/python -c "import torch, torchvision; from torchvision.ops import nms"
	touch $(READY)

demo: $(READY) ## the whole pipeline on drawn data: a few minutes on two cores
	PATH="$(CURDIR)/$(BIN):$$PATH" sh infra/demo.sh

test: $(READY) ## all tests; those on real data skip with the reason where there is none
	$(BIN)/python -m pytest

check: $(READY) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY) ## measurements: ratios within one run
	$(BIN)/python -m pytest -o python_files='bench_*.py' -s tests/bench

ui: $(READY) ## the MLflow UI on what was trained under ROOT
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow server --backend-store-uri "sqlite:///$(abspath $(ROOT))/mlflow.db" --host 127.0.0.1 --port $(or $(PORT),5000) --workers 1

lock: ## compile requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra dev -o requirements.lock pyproject.toml

clean: ## remove the environment; artifacts stay
	rm -rf $(VENV)
