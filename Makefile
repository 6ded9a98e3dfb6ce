# Everything runs in .venv, made on first use from pinned versions. Needs Python 3.11 or newer and make, nothing else.
#
#   make demo       render a CT, segment it, measure it: results in demo/
#   make test       lint, types, import arrows, fast tests
#   make test-all   every test, the slow ones too
#   make lint       the checks of `make test` without the tests
#   make clean      remove caches and results; .venv stays
#
# PYTHON=python3.12 picks the interpreter. Without an NVIDIA GPU, the CPU build of torch saves some gigabytes:
#   make test PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu'

PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin

# Isolated builds ignore -c, so the pins of the build backend go in by the environment: pip up to 25.2 reads the first
# name for them, later ones the second. Relative, because pip splits the value at spaces.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all lint clean

demo: .venv/.installed
	$(BIN)/renalseg demo --out demo

test: lint
	$(BIN)/pytest

test-all: lint
	$(BIN)/pytest -m "slow or not slow"

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "renalseg needs Python 3.11 or newer, as in: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Installing into .venv, once: some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@
