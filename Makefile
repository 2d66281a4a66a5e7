# Every target sets up what it needs; python3 >= 3.11 and make are enough to start.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CORPUS ?= phantom
DATA_ROOT ?=
SEEDS ?= 0
NPROC ?= 2
PYTHON := .venv/bin/python
export PYTHONSAFEPATH := 1
export TOKENIZERS_PARALLELISM := false

help: ## list the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /:/' | awk -F: '{printf "  %-26s%s\n", $$1, $$2}'

# compiled once: where PYTHONDONTWRITEBYTECODE is set, every start would compile torch anew
.venv/ready: requirements.lock pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0])'
	python3 -m venv --clear .venv
	.venv/bin/python -m pip install --quiet uv
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python -r requirements.lock
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -e .
	@touch $@

setup: .venv/ready ## create .venv with the exact versions of requirements.lock

phantom: setup ## write the phantom corpus (small) and print where its contact sheet lies
	$(PYTHON) -m common.data phantom --out data/phantom-small --size small --workers $(NPROC)

verify: setup ## check the corpora below DATA_ROOT for missing and corrupt files
	$(PYTHON) -m common.data verify --data-root $(or $(DATA_ROOT),$(if $(filter phantom,$(CORPUS)),data/phantom-small)) --workers $(NPROC)

list: setup ## list the tables that can be reproduced
	$(PYTHON) -m benchmarks.reproduce --list

compare: setup ## every paper on one protocol matrix, with paired tests [CORPUS= DATA_ROOT= SEEDS=]
	$(PYTHON) -m benchmarks.reproduce compare --corpus $(CORPUS) --data-root "$(DATA_ROOT)" --seeds $(SEEDS) --cores $(NPROC) --probe linear/cached-features
	$(PYTHON) -m benchmarks.compare --results runs/$(CORPUS)/results$(if $(filter real,$(CORPUS)),-cached-features) --seeds $(SEEDS)

reproduce-%: setup ## reproduce a table, paper or all, e.g. reproduce-gloria-table2 [CORPUS= DATA_ROOT= SEEDS=0,1,2]
	$(PYTHON) -m benchmarks.reproduce $* --corpus $(CORPUS) --data-root "$(DATA_ROOT)" --seeds $(SEEDS) --cores $(NPROC)

pretrain-%: setup ## pre-train a paper on the phantom corpus, e.g. pretrain-gloria
	$(PYTHON) -m common.data phantom --out data/phantom-small --size small --datasets $(if $(filter gloria,$*),chexpert,mimic) --workers $(NPROC)
	.venv/bin/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no $*/pretrain.py phantom

tables: setup ## render every table from the committed results, and the paper cards
	$(PYTHON) -m benchmarks.render
	$(PYTHON) -m benchmarks.cards

speed: setup ## measure the losses, loaders and training step against plain loops, as ratios
	$(PYTHON) -m benchmarks.speed

speed-presets: setup ## time training steps of the published sizes (meant for a GPU), on the phantom corpus
	$(PYTHON) -m common.data phantom --out data/phantom-small --size small --datasets chexpert mimic --workers $(NPROC)
	$(PYTHON) -m benchmarks.speed.presets

test: setup ## run all tests
	$(PYTHON) -m pytest -n $(NPROC)

test-fast: setup ## run the tests that launch nothing and train nothing
	$(PYTHON) -m pytest -n $(NPROC) -m "not slow"

lint: setup ## ruff and codespell
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/codespell

type: setup ## mypy
	.venv/bin/mypy

format: setup ## let ruff rewrite the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

check: lint type test ## what a change must pass

clean: ## delete the phantom corpora with their runs and unrecorded results, and caches
	rm -rf runs/phantom runs/phantom-* data/phantom-* .snakemake .pytest_cache .ruff_cache .mypy_cache

.PHONY: compare help setup phantom verify list tables speed speed-presets test test-fast lint type format check clean
