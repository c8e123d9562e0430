# Two promises: `make demo` installs and runs the main job; `make test` installs and passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO ?= demo
# A process needs up to 2 GiB; the tests of a file share what is slow to make.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: help demo install test test-slow lint format bench audit docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.installed  ## install, make a synthetic archive of 24 studies; score it, link it, write the report
	$(BIN)/cac demo --out $(DEMO)

install: $(VENV)/.installed  ## install the command `cac` into .venv

test: $(VENV)/.installed-dev  ## install with the development tools, then lint and run the tests with coverage
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered -q $(PARALLEL)

test-slow: $(VENV)/.installed-dev  ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.installed-dev  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev  ## measure; each program prints ratios taken side by side
	$(BIN)/python -m bench.bench_index
	$(BIN)/python -m bench.bench_study
	$(BIN)/python -m bench.bench_cascade
	$(BIN)/python -m bench.bench_runtimes
	$(BIN)/python -m bench.bench_networks
	$(BIN)/python -m bench.bench_versions a475147 af5d0cb
	$(BIN)/python -m bench.bench_waits
	$(BIN)/python -m bench.bench_rescore --studies 500
	$(BIN)/python -m bench.bench_scale --studies 1000
	$(BIN)/python -m bench.bench_night --series 20000
	$(BIN)/python -m bench.bench_workers
	$(BIN)/python -m bench.bench_overlap
	$(BIN)/python -m bench.bench_link
	$(BIN)/python -m bench.bench_analysis
	$(BIN)/python -m bench.bench_review
	if command -v Orthanc; then $(BIN)/python -m bench.bench_pacs; fi

audit: $(VENV)/.installed-dev  ## bill of materials (build/sbom.json) and known vulnerabilities of the dependencies
	mkdir -p build
	$(BIN)/pipx run --spec cyclonedx-bom==7.5.0 cyclonedx-py environment --output-reproducible --output-format JSON --output-file build/sbom.json $(BIN)/python
	$(BIN)/python -m pip freeze --exclude-editable > build/frozen.txt
	$(BIN)/pipx run pip-audit==2.10.1 --requirement build/frozen.txt --no-deps --disable-pip --strict

docs: $(VENV)/.installed-dev  ## build the site of the documents into build/site, to be read from disk
	$(BIN)/python docs/site/make.py

clean:  ## remove the environment, the demo and what was built
	rm -rf $(VENV) $(DEMO) build

$(VENV)/.created:
	$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(not ok and "Python 3.11, 3.12 or 3.13 is needed; name one with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.created
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.created
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed
