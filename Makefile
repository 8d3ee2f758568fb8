# Works on a machine with Python 3.11, 3.12 or 3.13, pip and make. PYTHON=python3.12 takes another one;
# RUNTIME=gpu installs onnxruntime-gpu in place of onnxruntime; TORCH_INDEX=URL takes torch from that index.
PYTHON ?= python3
RUNTIME ?= cpu
TORCH_INDEX ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
BIN4 := .venv-transformers4/bin
PIP4 := $(BIN4)/python -m pip --disable-pip-version-check install --quiet
# What depends on the version of transformers: models, graphs, attacks; and optimum, which is not in the other one.
TESTS4 := tests/test_dependencies.py tests/compressor/models tests/compressor/attacks tests/compressor/pruning \
	tests/compressor/training tests/exporters

.PHONY: quickstart test test-transformers4 test-fast check format docs wheel clean

quickstart: .venv/installed ## the main job, end to end; the result is in runs/quickstart
	$(BIN)/compress quickstart --output runs/quickstart

# A file stays in one process, so that its models are made once.
test: check ## all tests, in two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-transformers4: .venv-transformers4/installed ## the tests of models, attacks and graphs with transformers 4.57 and optimum
	$(BIN4)/python -m pytest --numprocesses 2 --dist loadfile $(TESTS4)

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

.venv-transformers4/installed: pyproject.toml constraints-transformers4.txt requirements-assets.txt
	$(PYTHON) -m venv .venv-transformers4
	$(PIP4) --constraint constraints-transformers4.txt $(if $(TORCH_INDEX),--no-deps --index-url '$(TORCH_INDEX)') torch
	$(PIP4) --constraint constraints-transformers4.txt --editable '.[$(RUNTIME),dev,optimum]'
	$(PIP4) --no-deps --require-hashes --requirement requirements-assets.txt
	touch $@

clean: ## remove the environments and the results
	rm -rf .venv .venv-transformers4 runs
