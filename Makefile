# Everything here works on a machine with Python 3.11 or newer and make. PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo picture test check prove bench format run clean
help:             ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' Makefile

demo: $(VENV)/.run    ## a synthetic night lands file by file and becomes five products
	@$(BIN)/nirid demo --folder demo --picture demo/demo.png

picture: $(VENV)/.run ## the picture of the README, made anew by the demo
	@$(BIN)/nirid demo --folder demo --picture docs/demo.png

test: $(VENV)/.test   ## the whole test suite, in as many processes as there are cores, four at most
	$(BIN)/pytest --numprocesses=auto --maxprocesses=4

check: $(VENV)/.dev   ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory test

prove: $(VENV)/.test  ## that nothing is lost or done twice: within the hour, 10,000 crash points and more
	@$(BIN)/python -m tests.prove

bench: $(VENV)/.test  ## how right it is and what it costs: tables, and the figures as JSON in run/bench
	@$(BIN)/python -m bench

format: $(VENV)/.dev  ## bring the sources into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

run: $(VENV)/.run     ## the daemon in this folder, with config/nirid.dev.toml
	@mkdir -p run/drop
	@$(BIN)/nirid --config config/nirid.dev.toml run

clean:              ## forget the environment and what was made in this folder
	rm -rf $(VENV) demo run

# One environment; each stamp says which extras are in it and is older than a changed pyproject.toml.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; PYTHON=... names one" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[web]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(VENV)/.run $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.run $(VENV)/.test $@
