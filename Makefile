# `make help` lists what there is. Needs Python ≥ 3.11, make and git; everything else goes into .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tools call each other: snakefmt needs shfmt.
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help reproduce tiny test coverage test-frameworks test-metadata lint drill fuzz report ui services services-stop docs lock schema clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-13s %s\n", $$1, $$2}'

reproduce: $(VENV)/run.installed ## Run the default experiment: tables, figures, report, MLflow runs
	@$(BIN)/leakpipe check params.yaml
	$(BIN)/snakemake
	@echo "Open results/default/report.html; the tables and figures lie beside it; make ui browses the MLflow runs."

tiny: $(VENV)/run.installed ## Run the smallest experiment that has every stage, and verify its results
	$(BIN)/snakemake --configfile params.yaml tests/drills/tiny.yaml
	$(BIN)/leakpipe verify results/tiny

test: $(VENV)/test.installed lint ## Lint, check types, run all tests
	$(BIN)/pytest -n 2

coverage: $(VENV)/test.installed ## Run all tests and list the lines that none of them reaches; takes a quarter longer
	$(BIN)/pytest -n 2 --cov --cov-report=term-missing

test-frameworks: .venv-frameworks/installed ## Try captures and filters against real NVFlare and Flower, in an environment of their own
	.venv-frameworks/bin/pytest tests/frameworks tests/unit/test_framework_filters.py

test-metadata: $(VENV)/test.installed $(VENV)/metadata.installed ## Ask other people's validators: crate, Croissant, recipes, licences
	$(BIN)/pytest tests/metadata

lint: $(VENV)/test.installed ## Lint and check types only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow src
	$(BIN)/python tests/lint_workflow.py

drill: $(VENV)/test.installed ## Break runs on purpose and see them mend (docs/reliability.md); some drills need root
	$(BIN)/python -m tests.drills

fuzz: $(VENV)/test.installed ## Read spoilt inputs of six kinds: INPUTS=100000 takes about an hour
	LEAKPIPE_FUZZ=$(or $(INPUTS),100000) $(BIN)/pytest -q tests/fuzz

report: $(VENV)/run.installed ## Write Snakemake's own report (DAG, run times, figures) to report.html
	$(BIN)/snakemake --report report.html

ui: $(VENV)/run.installed ## Browse the MLflow runs at http://127.0.0.1:5000
	@$(BIN)/python -m leakpipe.tracking.store
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui \
		--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --host 127.0.0.1 --port 5000

services: $(VENV)/postgres.installed ## Start an MLflow server on PostgreSQL at http://127.0.0.1:5001
	services/services.sh start

services-stop: ## Stop it; what was logged stays in .services
	services/services.sh stop

docs: $(VENV)/docs.installed ## Build the documentation site into site/ (open site/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(VENV)/test.installed ## Resolve the newest versions of all dependencies into requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --all-extras --upgrade --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

schema: $(VENV)/test.installed ## Regenerate workflow/schemas/params.schema.json from leakpipe.params.experiment
	$(BIN)/pytest -q tests/unit/test_params.py --fix

clean: ## Remove results, logs and caches; keep .venv and mlflow.db
	rm -rf results/*/ logs benchmarks .leakpipe report.html site .snakemake .coverage .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "leakpipe needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.installed: $(BIN)/python requirements.lock pyproject.toml
	$(BIN)/pip install --quiet --constraint requirements.lock --editable .
	@touch $@

# Optional extras: docs, metadata, postgres.
$(VENV)/%.installed: $(BIN)/python requirements.lock pyproject.toml
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[$*]'
	@touch $@

# Flower wants an older protobuf and starlette than requirements.lock has, so the pipeline is not installed beside it.
.venv-frameworks/installed: pyproject.toml
	$(PYTHON) -m venv .venv-frameworks
	.venv-frameworks/bin/pip install --quiet 'nvflare[PT]>=2.9,<2.10' 'flwr[simulation]>=1.42,<2' msgpack numpy \
		pydantic pytest safetensors scikit-image scipy
	.venv-frameworks/bin/pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/test.installed: $(BIN)/python requirements.lock pyproject.toml
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[test]'
	@touch $@ $(VENV)/run.installed
