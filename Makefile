# tlstm: everything from a fresh machine. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
# smoke: minutes on two CPU cores; paper: the paper's sizes. Without it, the machine decides.
SCALE ?=
# Further arguments of the sweeps, such as ARGUMENTS="seed=1 --jobs 4"
ARGUMENTS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SWEEP := $(BIN)/python -m tlstm.sweep $(if $(SCALE),scale=$(SCALE)) $(ARGUMENTS)

.PHONY: help setup test test-gpu lint reproduce-fig4 bench figures report report-picture lock clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY)  ## make .venv with the versions that are tested together (about 3 min, 6 GB)

$(READY): pyproject.toml .constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'error: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...' >&2; exit 2; }
	@echo 'Setting up $(VENV): about 3 minutes and 6 GB, most of it torch. This happens once.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint .constraints.txt --editable '.[dev]'
	@touch $@

test: $(READY)  ## lint, type-check and test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-gpu: $(READY)  ## the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

lint: $(READY)  ## mend what can be mended of style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

reproduce-fig4: $(READY)  ## Figure 4 and its table: train what is missing, then draw (SCALE=smoke|paper)
	@# Runs that failed (exit code 1) do not keep what there is from being drawn
	@$(SWEEP) sweeps/fig4-addition.yaml sweeps/fig4-memorization.yaml; swept=$$?; \
		[ $$swept -le 1 ] || exit $$swept; \
		$(BIN)/python -m tlstm.results collect fig4 && \
		$(BIN)/python -m tlstm.figures fig4 && exit $$swept

bench: $(READY)  ## runtime beside the peers: measure on this machine (minutes), then draw
	@# Competitors that failed (exit code 1) do not keep what there is from being drawn
	@$(BIN)/python -m tlstm.bench $(ARGUMENTS); measured=$$?; \
		[ $$measured -le 1 ] || exit $$measured; \
		$(BIN)/python -m tlstm.results collect runtime && \
		$(BIN)/python -m tlstm.figures runtime && exit $$measured

figures: $(READY)  ## draw every figure and the report again from the committed records; trains nothing
	$(BIN)/python -m tlstm.figures
	$(BIN)/python -m tlstm.report

report: $(READY)  ## the report page, results/report.html, from the committed records (seconds)
	$(BIN)/python -m tlstm.report

report-picture: report  ## its picture in the README (needs Chromium)
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1300,1000 \
		--virtual-time-budget=20000 --screenshot=results/report.png file://$(CURDIR)/results/report.html

lock: $(READY)  ## write the installed versions to .constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable > .constraints.txt

clean:  ## remove .venv and caches; runs/ and results/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
