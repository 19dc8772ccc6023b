# make help lists the targets. Every target makes .venv first, with the versions of requirements.lock.
.DEFAULT_GOAL := help
.PHONY: help repro commands versions runs folders provenance verify test page-test fault-test record-test gpu-test \
    portable-test slurm-test mutants slurm-resume lint bench coverage adopt-dvc adopt-snakemake
SHELL := /bin/bash
ENGINE ?= dvc
PROFILE ?= quick
PYTHON ?= python3
VENV := .venv/.installed
SLURM := .venv/.slurm
RUN := source .venv/bin/activate &&

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "laqfi needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,test]'
	@touch $@

$(SLURM): $(VENV)
	.venv/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[slurm]'
	@touch $@

repro: $(VENV) ## run the active profiles: ENGINE=dvc (default) or ENGINE=snakemake
ifeq ($(ENGINE),dvc)
	@$(RUN) python workflow/alone.py dvc repro
else ifeq ($(ENGINE),snakemake)
	@$(RUN) python workflow/alone.py snakemake
else
	$(error ENGINE is '$(ENGINE)', allowed is dvc or snakemake)
endif
	@$(RUN) PYTHONPATH=workflow python -c 'from stages import load, resolved; \
	    [print(f"report: reports/{name}/report.html") for name in resolved(load()["params"])["active"]]'

commands: $(VENV) ## print the stage commands of PROFILE in order, to run them without DVC or Snakemake
	@$(RUN) python workflow/commands.py $(PROFILE)

versions: $(VENV) ## record the installed versions that results depend on: workflow/versions.yaml
	@$(RUN) python workflow/versions.py

runs: $(VENV) ## record what the active profiles of params.yaml run, for a plain dvc repro: workflow/runs.yaml
	@$(RUN) python workflow/active_runs.py

folders: $(VENV) ## record what is in the folders that params.yaml names, for a plain dvc repro: workflow/folders.yaml
	@$(RUN) python workflow/folders.py

provenance: $(VENV) ## write which commit, parameters, versions and device made the results of PROFILE
	@$(RUN) python workflow/provenance.py $(PROFILE)

verify: $(VENV) ## run the committed PROFILE anew and say whether it gives the published results byte for byte
	@$(RUN) python workflow/verify.py $(PROFILE)

test: $(VENV) ## all tests
	@$(RUN) python -m pytest --numprocesses logical --maxprocesses 4 --dist loadgroup

page-test: $(VENV) ## the report's page in headless Chromium, and its figures and tables (Debian: chromium)
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	    { echo 'error: needs chromium (Debian: apt-get install chromium)'; exit 1; }
	@$(RUN) python -m pytest tests/page tests/unit/test_page.py tests/unit/test_plots.py

fault-test: $(VENV) ## tests with kill -9, full disks and damaged files, under both engines: some minutes
	@$(RUN) python -m pytest tests/faults tests/records/test_damaged_record.py tests/records/test_places.py

record-test: $(VENV) ## 1,000 random walks of edits, runs and accidents: no stale file is called current; hours
	@$(RUN) python -m pytest tests/records/test_records.py --walks 1000 --numprocesses logical --maxprocesses 4

gpu-test: $(VENV) ## tests of what only a GPU can show; skipped where there is none
	@$(RUN) python -m pytest tests/gpu

portable-test: $(VENV) ## the tiny profile on emulated processors gives the same bytes (Debian: qemu-user): half an hour
	@command -v qemu-x86_64 >/dev/null || { echo 'error: needs qemu-x86_64 (Debian: apt-get install qemu-user)'; exit 1; }
	@$(RUN) python -m pytest --capture=no tests/portable

mutants: $(VENV) ## 300 small faults put into src/laqfi one by one: unit tests must notice 85 %; an hour or more
	.venv/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,mutants]'
	@$(RUN) python tests/mutants/run.py

slurm-test: $(SLURM) ## tests on a private SLURM cluster, which is started and stopped (Debian: slurm-wlm and munge)
	@$(RUN) python -m pytest tests/slurm

slurm-resume: $(SLURM) ## go on with a run on SLURM whose head process was killed: end the jobs it left, then run
	@until jobs=$$(set -o pipefail; squeue --me --noheader --format='%i|%Z' | \
	    awk -F '|' '$$2 == "$(CURDIR)" {print $$1}') && [ -z "$$jobs" ]; do scancel $$jobs; sleep 2; done
	@$(RUN) snakemake --unlock
	@$(RUN) snakemake --workflow-profile workflow/profiles/slurm

lint: $(VENV) ## style and workflow checks, nothing is changed
	@$(RUN) ruff check && ruff format --check && lint-imports --no-logo && snakefmt --check workflow && snakemake --lint

bench: $(VENV) ## memory and speed, and others' quantizers beside ours (after the profile quick): reports/bench
	.venv/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,test,bench]'
	@$(RUN) python bench/evidence.py --out reports/bench && python bench/bench.py --out reports/bench
	@$(RUN) python bench/head_to_head.py --data data/quick --out reports/bench

coverage: $(VENV) ## how often the reports' intervals hold the truth, counted: reports/coverage, a quarter of an hour
	@$(RUN) python studies/intervals.py --out reports/coverage --docs docs/coverage.md

adopt-snakemake: $(VENV) ## tell DVC which results of Snakemake are current
	@$(RUN) python workflow/adopt.py snakemake

adopt-dvc: $(VENV) ## tell Snakemake that the results of DVC are current, if they are
	@$(RUN) python workflow/adopt.py dvc
