# Every target installs what it needs into .venv first; `make help` lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run figures docs docs-figures docs-tables test test-slow test-faults test-cluster mutate lint clean

# Python compiles a module when it is first imported and keeps the result in __pycache__, also where the environment says
# otherwise: without that each of the many processes of the tests and of `figures` would compile torch anew.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3
FIDELITY ?= full
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet install --no-compile --constraint $(CONSTRAINTS)

help:  ## list the targets
	@echo "usage: make TARGET [ARGS='...'] [PYTHON=python3.12]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s%s\n", $$1, $$2 }' Makefile

run: .venv/installed  ## run an experiment: make run ARGS='experiment=NAME key=value'
	@$(BIN)/python run.py $(ARGS)

figures: .venv/installed  ## reproduce the reports on one page, outputs/report/index.html; FIDELITY=quick: a small one
	@$(BIN)/python run.py task=reproduce fidelity=$(FIDELITY) $(ARGS)

docs: .venv/installed  ## build the documentation site into site/; every warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict

docs-tables: .venv/installed  ## write the tables of parts and experiments in docs/ from the YAML files
	@$(BIN)/python docs/tables.py

docs-figures: .venv/installed  ## write the figures that README.md and docs/ show
	@$(BIN)/python -m docs.figures $(ARGS)

test: .venv/installed  ## run the tests but for the slow ones; ARGS goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist loadfile $(ARGS)

test-slow: .venv/installed  ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

test-faults: .venv/installed  ## run all tests in tests/faults, the slow ones too, and write docs/reliability.md
	rm -f .faults.jsonl
	VI_FAULTS_TALLY=$(CURDIR)/.faults.jsonl $(BIN)/python -m pytest tests/faults $(ARGS)
	$(BIN)/python tests/faults/table.py .faults.jsonl

test-cluster: .venv/installed  ## try launchers, trackers and the search: joblib, Ray, Slurm, MLflow, TensorBoard, optuna
	@$(PIP) --no-build-isolation --editable '.[ray,slurm,search,mlflow,tensorboard]' || \
		echo "not all packages can be installed: what needs them is skipped" >&2
	$(BIN)/python -m pytest tests/cli/test_launchers.py tests/cli/test_trackers.py tests/cli/test_search.py $(ARGS)
	$(BIN)/python -m tests.cluster

mutate: .venv/installed  ## break important lines one by one, in a copy, and name the tests that notice; ARGS='words'
	$(BIN)/python tests/mutate.py $(ARGS)

lint: .venv/installed  ## check style, format and types
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/python -m pyright

clean:  ## remove .venv, caches and build artefacts; outputs/ and data/ stay
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Touched last, so that an interrupted installation is taken up again. setuptools comes first and builds the project
# without isolation: the build, too, then uses the version that constraints.txt names. The install is editable in the
# default mode, whose import hook knows that conf/ and experiments/ are parts of vi_core; the "compat" mode does not.
# Python compiles what is imported, so --no-compile halves the time.
.venv/installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not; try make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into .venv: a few minutes the first time" >&2
	@$(PYTHON) -m venv .venv
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation --editable '.[dev,docs]'
	@touch $@
