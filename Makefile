# `make demo` and `make test` need nothing but Python 3.11 or 3.12 with venv; see README.md for the plain pip equivalents.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip>=24'

# One stamp per set of extras, renewed when the requirements change.
$(VENV)/.mvtool-all: $(BIN)/python setup.cfg
	$(BIN)/python -m pip install -e '.[all]'
	@touch $@

$(VENV)/.mvtool-dev: $(BIN)/python setup.cfg
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@ $(VENV)/.mvtool-all

demo: $(VENV)/.mvtool-all  ## Convert, verify and run a MoViNet on the bundled video
	$(BIN)/mvtool demo

test: $(VENV)/.mvtool-dev  ## Run the tests, without the slow ones
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: $(VENV)/.mvtool-dev  ## Run all tests, as CI does
	$(BIN)/python -m pytest -m "slow or not slow" $(PYTEST_ARGS)

check: $(VENV)/.mvtool-dev  ## Lint, format check, types of an installed copy, layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types build/lib
	$(BIN)/python -m pip install --quiet --no-deps --target build/types .
	$(BIN)/mypy build/types/mvtool tests
	$(BIN)/python -m pytest tests/test_layout.py tests/test_imports.py

format: $(VENV)/.mvtool-dev  ## Format the sources and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and everything built
	rm -rf $(VENV) build dist mvtool.egg-info mvtool-demo .mypy_cache .ruff_cache .pytest_cache
