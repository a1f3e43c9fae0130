# Everything runs in .venv, made by `make install` from the lock file.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install check test test-ray bench up down lock clean

help:            ## list what can be made
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

install: $(VENV)/installed  ## install HEAN and its pinned dependencies into .venv
	@echo "Installed. Try:  $(BIN)/hean --help"

check: install   ## formatter, linter, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install    ## the test suite, and the notebooks
	$(BIN)/pytest
	$(BIN)/pytest --nbmake --nbmake-timeout=300 notebooks

test-ray: install  ## whole engines on Ray, and kills of every part of them: minutes, and no part of `make test`
	$(BIN)/pytest tests/ray -m engine

up: install      ## begin to trade in the sandbox: a Bybit on this machine, play money
	$(BIN)/hean up

down: install    ## end it in order
	$(BIN)/hean down

bench: install   ## speed, as ratios to lower bounds measured in the same run; and ten minutes of the exchange under load
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.engine
	$(BIN)/python -m tests.bench.exchange

lock: install    ## resolve the pinned dependencies anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev pyproject.toml --output-file requirements.lock

clean:           ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
