# Two commands: `make start` opens the labs, `make test` checks everything. `make lint` reads the code.
# A first run installs into .venv, a second one starts in seconds and needs no network.
# With another Python: make start PYTHON=python3.12

PYTHON ?= python3
NOTEBOOKS := $(wildcard solutions/*/*.ipynb)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# $(call timed,what,command): runs the command, says how long it took, and ends as the command ended.
define timed
@echo "── $(1)"; began=$$(date +%s); $(2); ended=$$?; \
	echo "── $(1): $$(( $$(date +%s) - began )) s"; exit $$ended
endef

.PHONY: start test units notebooks proofs lint
.NOTPARALLEL: # two cores: one part after the other

start: .venv/installed
	@compresslab start

test: units notebooks proofs

units: .venv/installed-test
	$(call timed,unit tests and contract,python -m pytest)

# The notebooks run one after the other. Their libraries' warnings are not ours, so they are no errors here.
notebooks: .venv/installed-test
	@test -n "$(NOTEBOOKS)" || { echo "solutions/ holds no notebook: run compresslab build"; exit 1; }
	$(call timed,solution notebooks,python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=300 \
		-p no:cacheprovider -o addopts=-q -o filterwarnings=default --durations=3 $(NOTEBOOKS))

proofs: .venv/installed-test
	$(call timed,author checks,compresslab verify)

lint: .venv/installed-test
	@ruff check && ruff format --check && mypy

# What is installed is remembered as the pyproject.toml that asked for it: a new date alone installs nothing.
.venv/installed: pyproject.toml | .venv/bin/pip
	@cmp -s pyproject.toml $@ || { echo "Installing into .venv (1.8 GB, some minutes the first time) ..."; \
		python -m pip install --disable-pip-version-check -e .; }
	@cp pyproject.toml $@

.venv/installed-test: pyproject.toml | .venv/bin/pip
	@cmp -s pyproject.toml $@ || { echo "Installing into .venv (1.8 GB, some minutes the first time) ..."; \
		python -m pip install --disable-pip-version-check -e ".[test]"; }
	@cp pyproject.toml $@ && cp pyproject.toml .venv/installed

.venv/bin/pip:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
		echo "compresslab needs Python 3.11 or newer; PYTHON is $(PYTHON), $$($(PYTHON) --version 2>&1)."; \
		echo "Name one that you have, such as: make start PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv
