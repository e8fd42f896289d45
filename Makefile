# make demo    train, evaluate and draw a dense and a sparse detector under output/demo
# make test    lint and tests
# make setup   what both need: .venv with the pinned versions of constraints.txt
#
# The first run of any of them installs; PYTHON=... chooses the interpreter for it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: setup demo test

setup: .venv/.installed

.venv/.installed: setup.py constraints.txt tools/install/install_detectron2.py tools/install/detectron2_mends.py
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install torch torchvision
	$(BIN)/python tools/install/install_detectron2.py
	$(BIN)/python -m pip install --use-pep517 --editable ".[test,convert]"
	@touch $@
	@echo "setup: done, everything is in .venv"

demo: setup
	$(BIN)/python tools/quickstart.py --output output/demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q --durations=10 tests
