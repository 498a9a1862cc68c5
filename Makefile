# Two commands: `make start` opens the labs, `make test` checks everything. `make lint` reads the code, `make format`
# formats it.
# `make check LAB=03` marks your copy of a lab as the grader would.
# A first run installs into .venv, a second one starts in seconds and needs no network.
# With another Python: make start PYTHON=python3.12
# Tests run in two processes; on a larger machine: make test JOBS=4

PYTHON ?= python3
JOBS ?= 2
NOTEBOOKS := $(wildcard solutions/*/*.ipynb)
PROOFS := tests/checks/test_proofs.py
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# OpenMP reads it when torch is imported; compresslab/jobs/openmp.py says why.
export OMP_WAIT_POLICY ?= PASSIVE

# $(call timed,what,cap,command): runs the command, says how long it took and how long it may take on two quiet
# cores, and ends as the command ended.
define timed
@echo "── $(1)"; began=$$(date +%s); $(3); ended=$$?; \
	echo "── $(1): $$(( $$(date +%s) - began )) s (cap: $(2) s)"; exit $$ended
endef

# $(call install,what): installs into .venv, unless just that was asked for before.
define install
@cmp -s pyproject.toml $@ || { echo "Installing into .venv (1.8 GB, some minutes the first time) ..."; \
	began=$$(date +%s); python -m pip install --disable-pip-version-check -e $(1) || exit; \
	echo "── installing: $$(( $$(date +%s) - began )) s (cap: 240 s)"; }
endef

.PHONY: start check test units alone notebooks proofs lint format
.NOTPARALLEL: # each part has both cores for itself

start: .venv/installed
	@compresslab start

check: .venv/installed
	@test -n "$(LAB)" || { echo "LAB is missing; name the lab to check, such as: make check LAB=03"; exit 2; }
	@compresslab check $(LAB)

test: units alone notebooks proofs

units: .venv/installed-test
	$(call timed,unit tests and contract,360,python -m pytest -n $(JOBS) --dist loadfile -m "not alone" \
		--ignore=$(PROOFS))

alone: .venv/installed-test
	$(call timed,hostile tests and tests of limits,180,python -m pytest -m alone)

# Two notebooks at a time, each in one kernel with one thread: two threads each would wait for each other. Their
# libraries' warnings are not ours, so they are no errors here.
notebooks: .venv/installed-test
	@test -n "$(NOTEBOOKS)" || { echo "solutions/ holds no notebook: run compresslab build"; exit 1; }
	$(call timed,solution notebooks,480,OMP_NUM_THREADS=1 python -m pytest -n $(JOBS) --dist loadscope --nbval-lax --nbval-current-env \
		--nbval-cell-timeout=600 -p no:cacheprovider -o addopts=-q -o filterwarnings=default --durations=3 $(NOTEBOOKS))

# All that compresslab verify finds in the labs, on more seeds: the rest of it is tests/test_labs.py, a unit test.
proofs: .venv/installed-test
	$(call timed,proofs and planted mistakes,180,python -m pytest -n $(JOBS) --dist worksteal $(PROOFS))

lint: .venv/installed-test
	@ruff check && ruff format --check && mypy

format: .venv/installed-test
	@ruff check --fix && ruff format

# What is installed is remembered as the pyproject.toml that asked for it: a new date alone installs nothing.
.venv/installed: pyproject.toml | .venv/bin/pip
	$(call install,.)
	@cp pyproject.toml $@

.venv/installed-test: pyproject.toml | .venv/bin/pip
	$(call install,".[test]")
	@cp pyproject.toml $@ && cp pyproject.toml .venv/installed

.venv/bin/pip:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
		echo "compresslab needs Python 3.11 or newer; PYTHON is $(PYTHON), $$($(PYTHON) --version 2>&1)."; \
		echo "Name one that you have, such as: make start PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv
