# make demo    train, evaluate and draw a dense and a sparse detector under output/demo
# make test    lint, formatting, the direction of imports, types and tests
# make fuzz    10,000 changed files for every reader: about an hour; CASES=1000 for fewer
# make kill    kill training, compression and export 20 times each, and all that starts processes
# make docs    the guides and the reference, into site/
# make setup   what both need: .venv with the pinned versions of constraints.txt
#
# The first run of any of them installs; PYTHON=... chooses the interpreter for it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: setup demo test fuzz kill docs

setup: .venv/.installed

.venv/.installed: setup.py pyproject.toml constraints.txt tools/install/install_detectron2.py tools/install/detectron2_mends.py
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or \
	sys.exit(f"setup: {sys.executable} is Python {sys.version.split()[0]}, and constraints.txt is for \
	3.10 to 3.13: install one of them, such as 3.11, and name it by PYTHON=python3.11")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install torch torchvision
	$(BIN)/python tools/install/install_detectron2.py
	$(BIN)/python -m pip install --editable ".[dev]"
	@touch $@
	@echo "setup: done, everything is in .venv"

demo: setup
	$(BIN)/python tools/quickstart.py --output output/demo

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

CASES ?= 10000

fuzz: setup
	cd tests && PYTHONPATH=..:. ../$(BIN)/python -m fuzz --cases $(CASES) --keep ../output/fuzz

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -n 3 --dist loadfile --durations=10 tests

kill: setup
	SPARSEDET_KILLS=20 $(BIN)/python -m pytest -q -rs --durations=10 -m "thorough or not thorough" tests/kill
