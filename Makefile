# Works on a machine with Python 3.11 or 3.12, pip and make. PYTHON=python3.12 takes another one;
# RUNTIME=gpu installs onnxruntime-gpu in place of onnxruntime; TORCH_INDEX=URL takes torch from that index.
PYTHON ?= python3
RUNTIME ?= cpu
TORCH_INDEX ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: quickstart test test-fast check format docs wheel clean

quickstart: .venv/installed ## the main job, end to end; the result is in runs/quickstart
	$(BIN)/compress quickstart --output runs/quickstart

# A file stays in one process, so that its models are made once.
test: check ## all tests, in two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-fast: check ## linters, and the tests that need no trained model: two to three minutes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not model and not slow"

check: .venv/installed-dev ## lint, format, layers, types, documentation site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports pyproject.toml
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --quiet

format: .venv/installed-dev ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-dev ## write the reference pages and the site anew; the site is in site/
	$(BIN)/python -m typer cli.py utils docs --name compress --output docs/reference/cli.md
	$(BIN)/python docs/tools/schema_pages.py
	$(BIN)/mkdocs build --strict --quiet

wheel: .venv/installed ## build the wheel into dist/
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

# torch comes first and alone, so that its pinned build is what everything else finds.
.venv/installed: pyproject.toml constraints.txt requirements-assets.txt
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url '$(TORCH_INDEX)') torch
	$(PIP) --constraint constraints.txt --editable '.[$(RUNTIME)]'
	$(PIP) --no-deps --require-hashes --requirement requirements-assets.txt
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --constraint constraints.txt --editable '.[$(RUNTIME),dev]'
	touch $@

clean: ## remove the environment and the results
	rm -rf .venv runs
