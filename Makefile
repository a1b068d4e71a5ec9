# The project's commands; each sets up what it needs first, in .venv, and is safe to repeat.
PYTHON ?= python3
ZANTARA := .venv/bin/zantara
# What the generated TypeScript client is tested with; only where npm is.
TYPESCRIPT := 5.9.3
# Libraries that use every core for tiny matrices are slower and less repeatable than one thread.
export OPENBLAS_NUM_THREADS ?= 2
export DO_NOT_TRACK := 1
# One run is a dozen Python processes; without cached bytecode each compiles the libraries anew (pandera: 3.5 s against 0.8).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test ui models docs bench
.DEFAULT_GOAL := help

help: ## what can be done here
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

run: .installed-base ## run the whole pipeline: on the simulated shop, or EVENTS=path [FORMAT=name] [ITEMS=file] [CONSENT=file]
	@$(ZANTARA) run $(if $(EVENTS),--events "$(EVENTS)",--simulated-shop) $(if $(FORMAT),--format "$(FORMAT)") $(if $(ITEMS),--items "$(ITEMS)") $(if $(CONSENT),--consent "$(CONSENT)")

test: .installed-test ## lint, types, layers, dbt parse, definitions, all tests
	@.venv/bin/python -m tests.floor
	@.venv/bin/pytest -n 2 --dist loadgroup

ui: .installed-base ## Dagster on loopback
	@$(ZANTARA) ui

models: .installed-base ## MLflow on loopback
	@$(ZANTARA) models

docs: .installed-base ## dbt docs and column lineage, a page each
	@$(ZANTARA) docs

bench: .installed-test ## speed and memory as ratios
	@.venv/bin/python -m tests.bench

.venv/bin/uv:
	@$(PYTHON) tools/check_machine.py
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check uv

.installed-base: .venv/bin/uv requirements.lock pyproject.toml
	@test -e .installed-test || .venv/bin/uv pip sync --quiet requirements.lock
	@test ! -e .installed-test || .venv/bin/uv pip sync --quiet requirements-test.lock
	@.venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.installed-test: .venv/bin/uv requirements-test.lock pyproject.toml
	@.venv/bin/uv pip sync --quiet requirements-test.lock
	@.venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@grep -qs '"version": "$(TYPESCRIPT)"' .venv/node/node_modules/typescript/package.json || ! command -v npm >/dev/null || \
		{ mkdir -p .venv/node && npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --fetch-retries=0 \
			--loglevel=silent --prefix .venv/node typescript@$(TYPESCRIPT) >/dev/null; } || \
		echo "npm could not install typescript@$(TYPESCRIPT); the tests that need it will be skipped"
	@touch .installed-base $@
