# Each target does its own set-up. `make` alone lists them.

PYTHON ?= python3
ARGS ?=
# Tests wait more than they work; a file's tests stay together. 0 runs them in this process, as --pdb needs.
JOBS ?= 2

BIN := .venv/bin
READY := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq

LOCKED := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --custom-compile-command "make lock"

# Package registries, and folders in which somebody keeps a checkout. Written so that the lines
# here don't match themselves.
UNWANTED := py[p]i\.org|python[h]osted|deb[i]an\.org/|registry\.[n]pm|(^|[^.[:alnum:]])/(hom[e]|Us[e]rs|ro[o]t|wor[k])/[[:alnum:].]

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint format bench bench-peers bench-endurance bench-capacity capacity-page soak lock k8s reference web clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 17

demo: $(READY) ## the whole way of an event on this machine, in under 20 seconds
	@$(BIN)/notifier demo $(ARGS)

test: $(READY) ## all tests, two at a time; make test ARGS="-k lanes" passes on what pytest understands
	@$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

test-fast: $(READY) ## the tests that take milliseconds
	@$(BIN)/pytest -m "not slow" $(ARGS)

lint: $(READY) ## style, format, types, layers, and what may not stand in a commit
	@echo "ruff: style" && $(BIN)/ruff check --quiet --output-format concise .
	@echo "ruff: format" && $(BIN)/ruff format --quiet --diff .
	@echo "mypy" && $(BIN)/mypy --no-error-summary
	@echo "import-linter" && said=$$($(BIN)/lint-imports --no-logo) || { echo "$$said"; exit 1; }
	@echo "addresses and paths" && ! git grep -nIE '$(UNWANTED)' -- . ':!*.svg'

format: $(READY) ## put the code into the one format and mend what can be mended
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

bench: $(READY) ## the figures of this machine, beside the bare loop; also in .bench/results.json
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(READY) ## ours beside BullMQ, taskiq, dramatiq, arq, saq and streaq; installs them into .peers
	@$(BIN)/python -m benchmarks.peers $(ARGS)

bench-endurance: $(READY) ## a backlog of 500,000, a million events through one worker, bytes for each event
	@$(BIN)/python -m benchmarks.endurance $(ARGS)

bench-capacity: $(READY) ## processor's time and memory of the server for each thing
	@$(BIN)/python -m benchmarks.capacity $(ARGS)

capacity-page: $(READY) ## docs/reference/capacity.md from the figures in .bench/results.json
	@$(BIN)/python -m benchmarks.capacity_page $(ARGS)

soak: $(READY) ## ten minutes of faults of all kinds, 100 take-overs, each failpoint at three calls, three waves of load, the scripts' model: 45 minutes
	@$(BIN)/python -m tests.soak
	@NOTIFIER_FAILPOINT_HITS=3 $(BIN)/pytest -q tests/faults/test_failpoints.py $(ARGS)
	@NOTIFIER_SCALE_WAVES=3 NOTIFIER_SCALE_SECONDS=60 NOTIFIER_SCALE_SPEED=20 $(BIN)/pytest -q tests/deploy/test_scaling.py
	@NOTIFIER_SOAK=1 NOTIFIER_MODEL_EXAMPLES=150 $(BIN)/pytest -q tests/model/test_scripts_model.py $(ARGS)
	@NOTIFIER_SCHEMATHESIS_CASES=300 $(BIN)/pytest -q tests/api/test_schemathesis.py $(ARGS)

lock: $(READY) ## all locks from pyproject.toml; make lock ARGS=--upgrade takes newer releases
	@echo "Writing requirements.lock, and of what it chose requirements-service.lock; requirements-image.lock"
	@$(LOCKED) --all-extras --output-file requirements.lock $(ARGS) pyproject.toml
	@$(LOCKED) --extra service --extra otel --constraint requirements.lock \
	  --output-file requirements-service.lock pyproject.toml
	@$(LOCKED) --group image --no-annotate --output-file requirements-image.lock $(ARGS)

k8s: ## what k8s/ takes from templates/ and observability/: run it when a template comes or goes, or a rule changes
	@$(PYTHON) k8s/templates_map.py
	@$(PYTHON) k8s/alert_rules.py

reference: $(READY) ## docs/reference/settings.md from the settings in the code
	@$(BIN)/python -m docs.settings_page --write

web: ## notifier/web/notifier-inbox.js from web/inbox; takes Node.js, and esbuild from npm
	@[ -d .peers/node_modules/esbuild ] || npm install --prefix .peers --no-save --no-audit --no-fund \
	  --no-package-lock --loglevel=error esbuild@0.25.12
	@node web/build.mjs

clean: ## remove what set-up, tests and builds made, except the data in .notifier
	@rm -rf .venv .peers .bench build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || \
	  { echo "Python 3.11 or later is needed, and $(PYTHON) is not one. Name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into .venv (about a minute the first time)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@
