# `make help` lists what there is. Everything lives in .venv; stamp files make a second run instant.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python3
PYTEST := $(PY) -m pytest
REPORTS := reports
FUZZ_SECONDS ?= 60
PURE := wire routing access $(notdir $(wildcard platformctl/render))
COVERED := $(foreach package,$(PURE),--cov=platformctl.$(package))
# The data plane's pure packages are gated on branch coverage by their own test files; everything else runs without tracing.
PURE_TESTS := $(foreach package,$(PURE),tests/unit/$(package))
OTHER_UNIT_TESTS := $(filter-out $(PURE_TESTS),$(patsubst %/,%,$(filter-out %__pycache__/,$(wildcard tests/unit/*/))) $(wildcard tests/unit/test_*.py))
PROCESS_TESTS := $(wildcard tests/conformance tests/bench tests/integration tests/faults tests/browser)

.PHONY: help demo speedups test test-unit test-second-python test-compiled test-integration lint fmt docs docs-check bench fuzz lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- environment

$(VENV)/.stamp-run: requirements.lock pyproject.toml tools/make-venv
	@python=$$(tools/find-python) && tools/make-venv $(VENV) "$$python" requirements.lock && touch $@

$(VENV)/.stamp-dev: requirements-dev.lock $(VENV)/.stamp-run
	@tools/make-venv $(VENV) $(PY) requirements-dev.lock && touch $@

.venv: $(VENV)/.stamp-dev ## the development environment

speedups: $(VENV)/.stamp-dev ## compile the hot path with mypyc, where there is a C compiler (docs/decisions/0004)
	@$(PY) tools/compile_speedups.py --if-able

lock: $(VENV)/.stamp-dev ## resolve requirements.lock and requirements-dev.lock anew
	@for extra in build dev; do \
	  output=requirements.lock; set -- --extra build; \
	  if [ $$extra = dev ]; then output=requirements-dev.lock; set -- --extra build --extra dev -c requirements.lock; fi; \
	  env -u PIP_FIND_LINKS -u UV_FIND_LINKS $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	    "$$@" pyproject.toml -o $$output || exit 1; \
	done

# ------------------------------------------------------------------------ run

demo: $(VENV)/.stamp-run ## a local hub, two satellites and sample services, verified end to end (KEEP=1 leaves it running)
	@$(PY) -m platformctl demo $(if $(KEEP),--keep)

# --------------------------------------------------------------------- checks

lint: $(VENV)/.stamp-dev ## formatting, lint, types, layers, stale documents
	@$(PY) -m ruff format --check --output-format concise . >$(VENV)/format.log 2>&1 || { cat $(VENV)/format.log; echo "make fmt puts this right"; exit 1; }
	@$(PY) -m ruff check --quiet --output-format concise .
	@$(PY) -m mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-logo > $(VENV)/lint-imports.log 2>&1 || { cat $(VENV)/lint-imports.log; exit 1; }
	@$(MAKE) --no-print-directory docs-check
	@echo "lint: ok"

fmt: $(VENV)/.stamp-dev ## put formatting and import order right
	@$(PY) -m ruff check --quiet --fix . ; $(PY) -m ruff format --quiet .

test: lint test-unit test-second-python test-compiled test-integration ## everything: lint, unit tests on two Pythons, conformance, integration
	@echo "test: ok"

test-unit: $(VENV)/.stamp-dev ## unit tests, with the coverage gate of the pure packages
	@mkdir -p $(REPORTS)
	PLATFORMCTL_PURE=1 $(PYTEST) -q $(PURE_TESTS) $(COVERED) --cov-branch --cov-report=term --cov-fail-under=100 --junitxml=$(REPORTS)/unit-pure.xml
	PLATFORMCTL_PURE=1 $(PYTEST) -q $(OTHER_UNIT_TESTS) --junitxml=$(REPORTS)/unit.xml

test-second-python: $(VENV)/.stamp-dev ## the unit tests on another supported Python, when this machine has one
	@first=$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	if ! second=$$(tools/find-python --other $$first); then \
	  echo "*** NO SECOND PYTHON: the unit tests ran on $$first only. Install 3.13 or 3.11 beside it to run them on both. ***"; \
	  test -z "$$CI" || exit 1; exit 0; \
	fi; \
	version=$$($$second -c 'import sys; print("%d.%d" % sys.version_info[:2])'); dir=.venv-$$version; \
	mkdir -p $(REPORTS); \
	if [ ! $$dir/.stamp -nt requirements-dev.lock ]; then tools/make-venv $$dir "$$second" requirements-dev.lock && touch $$dir/.stamp; fi && \
	echo "unit tests on Python $$version" && \
	PLATFORMCTL_PURE=1 $$dir/bin/python3 -m pytest -q tests/unit -p no:cacheprovider --junitxml=$(REPORTS)/unit-second-python.xml

test-compiled: speedups ## the wire tests once more, on the compiled modules
	@mkdir -p $(REPORTS)
	$(PYTEST) -q tests/unit/wire --junitxml=$(REPORTS)/unit-compiled.xml

test-integration: speedups ## real processes and peers: nginx, redis, curl, a browser, network namespaces
	@tools/test-deps.sh
	@mkdir -p $(REPORTS)
	$(if $(CI),PLATFORMCTL_REQUIRE_NETNS=1) $(PYTEST) -q $(PROCESS_TESTS) --junitxml=$(REPORTS)/integration.xml

fuzz: $(VENV)/.stamp-dev ## fuzz the decoder and the request heads, FUZZ_SECONDS each; the corpus is kept in tests/fuzz/corpus
	@set -e; for target in tests/fuzz/fuzz_*.py; do \
	  name=$$(basename $$target .py); mkdir -p tests/fuzz/corpus/$$name; \
	  echo "fuzz: $$name, $(FUZZ_SECONDS) s"; \
	  $(PY) $$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=tests/fuzz/corpus/$$name/crash- tests/fuzz/corpus/$$name; \
	done

bench: speedups ## the figures of docs/benchmarks.md, side by side with their peers (BENCH_ARGS=…)
	@$(PY) -m tests.bench $(BENCH_ARGS)

# ------------------------------------------------------------------ documents

docs: $(VENV)/.stamp-dev ## write the documents that are generated from the code
	@for generator in tools/gen_*.py; do $(PY) $$generator || exit 1; done

docs-check: $(VENV)/.stamp-dev
	@for generator in tools/gen_*.py; do $(PY) $$generator --check || exit 1; done

clean: ## remove environments, caches and reports
	rm -rf .venv .venv-* reports build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
