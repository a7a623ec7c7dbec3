# tlstm: everything from a fresh machine. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
# smoke: minutes on two CPU cores; short: one GPU, tens of minutes a figure; paper: the paper's
# sizes. Without it, the machine decides.
SCALE ?=
# Where records are collected and drawn, beside the committed ones; git ignores it. The committed
# ones themselves are in results/
RESULTS ?= runs/results
# Further arguments of the sweeps, such as ARGUMENTS="seed=1 --jobs 4"
ARGUMENTS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COPY := $(BIN)/python -m tlstm.results copy --results $(RESULTS)
COLLECT := $(COPY) && $(BIN)/python -m tlstm.results collect --results $(RESULTS)
DRAW := $(BIN)/python -m tlstm.figures --results $(RESULTS)
SWEEP := $(BIN)/python -m tlstm.sweep $(if $(SCALE),scale=$(SCALE)) $(ARGUMENTS)

.PHONY: help setup test test-slow test-gpu lint reproduce bench figures report report-picture lock clean \
	reproduce-fig3 reproduce-fig4 reproduce-fig5 reproduce-fig6 \
	reproduce-table1 reproduce-table2 reproduce-table3
.NOTPARALLEL:  # a sweep takes all of the machine

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
	$(BIN)/python -m pytest -n auto --dist loadgroup -m 'not slow'

test-slow: $(READY)  ## the tests that take longer: kills, compilers, browsers
	$(BIN)/python -m pytest -n auto --dist loadgroup -m slow

test-gpu: $(READY)  ## the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

lint: $(READY)  ## mend what can be mended of style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The paper's figures and tables that are made of runs. Tables 2 and 3 show their figure's runs too
SWEPT := fig3 fig4 fig5 table1 table2 table3
ALSO_table2 := fig4
ALSO_table3 := fig5
reproduce-fig3:    ## Figure 3, Wikipedia: train what is missing, then draw (SCALE=smoke|short|paper)
reproduce-fig4:    ## Figure 4: addition and memorization
reproduce-fig5:    ## Figure 5: sequential and permuted MNIST
reproduce-table1:  ## Table 1: the large model on Wikipedia
reproduce-table2:  ## Table 2: Figure 4's runs, Grid LSTM, more seeds
reproduce-table3:  ## Table 3: Figure 5's runs, Grid LSTM, more seeds

# Runs that failed (exit code 1) do not keep what there is from being drawn
$(SWEPT:%=reproduce-%): reproduce-%: $(READY)
	@$(SWEEP) $(wildcard $(patsubst %,sweeps/%*.yaml,$(ALSO_$*) $*)); swept=$$?; \
		[ $$swept -le 1 ] || exit $$swept; \
		$(COLLECT) $(ALSO_$*) $* && $(DRAW) $(ALSO_$*) $* && \
		echo 'See $(RESULTS)/$*/README.md; `make report` makes one page of all.' && exit $$swept

reproduce-fig6: $(READY)  ## Figure 6: what the memory cells of the best runs that are there hold
	@$(COPY) && $(BIN)/python -m tlstm.memory_cells --results $(RESULTS); stored=$$?; \
		[ $$stored -le 1 ] || exit $$stored; \
		$(DRAW) fig6 && exit $$stored

reproduce: $(READY)  ## every figure and table, one after the other
	@$(MAKE) --no-print-directory --keep-going $(SWEPT:%=reproduce-%) reproduce-fig6

bench: $(READY)  ## runtime beside the peers: measure on this machine (minutes), then draw
	@# Competitors that failed (exit code 1) do not keep what there is from being drawn
	@$(BIN)/python -m tlstm.bench $(ARGUMENTS); measured=$$?; \
		[ $$measured -le 1 ] || exit $$measured; \
		$(COLLECT) runtime && $(DRAW) runtime && exit $$measured

figures: $(READY)  ## draw every figure and the report again from the committed records; trains nothing
	$(BIN)/python -m tlstm.figures
	$(BIN)/python -m tlstm.report

report: $(READY)  ## one page of all records, runs/results/report.html (seconds)
	@$(COPY)
	$(BIN)/python -m tlstm.report --results $(RESULTS)

report-picture: $(READY)  ## a picture of the committed records' page (needs Chromium)
	$(BIN)/python -m tlstm.report
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1300,1000 \
		--virtual-time-budget=20000 --screenshot=results/report.png file://$(CURDIR)/results/report.html

lock: $(READY)  ## write the installed versions to .constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable > .constraints.txt

clean:  ## remove .venv and caches; runs/ and results/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
