# Everything runs in .venv, made by `make install` from the lock file.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin

LOCK   := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.DEFAULT_GOAL := help
.PHONY: help install demo dev check test test-browser test-ray bench up down lock clean

help:            ## list what can be made
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# pip installs uv, as the lock pins it, and uv the rest: in a fifth of the time.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/# via/p' requirements.lock > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

install: $(VENV)/installed  ## install HEAN and its pinned dependencies into .venv
	@echo "Installed. Try:  $(BIN)/hean --help"

check: install   ## formatter, linter, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Most tests wait for something: side by side they take half the time. Many have a deadline, and a busy machine may miss one: who
# failed is asked once more, alone. Those in tests/ray share one Ray; a browser takes the thread it is driven from for itself.
AGAIN  := --last-failed --last-failed-no-failures none
BESIDE := --ignore tests/ray --ignore tests/browser

test: install    ## the test suite, and the notebooks
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile $(BESIDE) || $(BIN)/pytest $(AGAIN) $(BESIDE)
	$(BIN)/pytest tests/ray
	$(BIN)/pytest --nbmake --nbmake-timeout=300 notebooks

test-browser: install  ## the page in a real browser, before an engine that pretends
	$(BIN)/pytest tests/browser

test-ray: install  ## whole engines on Ray, their page in a browser, every part of them killed: minutes, and no part of `make test`
	$(BIN)/pytest tests/ray tests/browser -m engine || $(BIN)/pytest tests/ray tests/browser -m engine $(AGAIN)

demo: install    ## everything at once, with play money: exchange, engine, API and page; Ctrl-C ends it
	$(BIN)/hean demo

dev: install     ## the same, and Prometheus on port 9091 where it is installed
	$(BIN)/hean demo --prometheus cluster/prometheus/prometheus.yml

up: install      ## begin to trade in the sandbox: a Bybit on this machine, play money
	$(BIN)/hean up

down: install    ## end it in order
	$(BIN)/hean down

bench: install   ## speed, as ratios to lower bounds measured in the same run; the exchange under load; the API and its stream
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.engine
	$(BIN)/python -m tests.bench.exchange
	$(BIN)/python -m tests.bench.stream
	$(BIN)/python -m tests.bench.http

lock: install    ## resolve the pinned dependencies anew: all of them, and those an image needs to run
	$(LOCK) --group dev --output-file requirements.lock
	$(LOCK) --group build --constraint requirements.lock --output-file cluster/requirements.lock

clean:           ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
