# From a fresh clone: `make demo` runs the whole chain, `make test` every check. Both install into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# On all cores; pip would use one. Files for newer Pythons do not compile, and need not.
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib || true
PACKAGED := pyproject.toml constraints.txt LICENSE README.md $(shell find distilkit -name '*.py' -o -name '*.toml' -o -name py.typed)

.PHONY: demo test style types tests test-slow test-lowest docs format

demo: .venv/.installed
	$(BIN)/distilkit demo
	@echo "To type these commands yourself: . $(BIN)/activate"

# The type checker, which uses one core, runs beside the tests.
test: .venv/.installed-dev
	@$(MAKE) --jobs 2 style types tests

style: .venv/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: .venv/.installed-dev
	$(BIN)/mypy

tests: .venv/.installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal

# Kills, sweeps over all architectures, parity with the official scripts: half an hour on two cores.
test-slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow

# The tests on the lowest versions that pyproject.toml allows, in an environment of their own.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt . \
		pytest pytest-randomly pytest-xdist hypothesis
	.venv-lowest/bin/python -m pytest -n auto --dist worksteal

docs: .venv/.installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/generate.py architectures
	$(BIN)/python -m mkdocs build --strict

format: .venv/.installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.venv/.made:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.installed: .venv/.made $(PACKAGED)
	$(PIP:--quiet=) .
	$(COMPILE)
	touch $@

.venv/.installed-dev: .venv/.made $(PACKAGED)
	$(PIP) '.[dev]'
	$(COMPILE)
	touch $@ .venv/.installed
