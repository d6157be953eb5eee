# Everything runs in .venv, which is set up from requirements.lock when a target first needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test check bench setup

quickstart: $(READY)  ## set up, then run the study that shows the effect (a few minutes on 2 cores)
	$(BIN)/showhow run search_spaces/quickstart.toml

test: $(READY)  ## set up, then run all tests
	$(BIN)/pytest

check: $(READY)  ## lint, types, import directions, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit

bench: $(READY)  ## the benchmarks in their short form, with the peers they are measured beside
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/requirements.lock
	$(BIN)/python -m benchmarks

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ShowHow needs Python 3.11 or newer; name one with: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)
