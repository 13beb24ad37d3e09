# `make results` and `make test` do everything on a fresh machine: environment, locked install, then the work itself.
PYTHON ?= python3
BIN := .venv/bin
CORES ?= all
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: results test lint format schema clean

results: $(BIN)/.installed
	if [ -t 1 ]; then snakemake --logger rich --cores $(CORES); else snakemake --cores $(CORES); fi

test: $(BIN)/.installed
	pytest

lint: $(BIN)/.installed
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile rules
	snakemake --lint

format: $(BIN)/.installed
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

schema: $(BIN)/.installed
	python -m prefdelta.config > config/schema.json

# The constraints pin every package. Where pip would take a CUDA build of torch that you don't need, set
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu first.
$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0 --constraint constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
