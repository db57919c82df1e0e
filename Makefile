# Every target sets up what it needs. `make up ARGS="--ports next"` passes arguments on.
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help up drill test check generate format bench clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)/.installed ## Set up and start the whole stack here; Ctrl-C stops it
	@exec $(BIN)/sage-obs up $(ARGS)

drill: $(VENV)/.installed ## Deploy a bad release and watch it being rolled back
	@exec $(BIN)/sage-obs drill bad-release $(ARGS)

test: $(VENV)/.installed-dev ## Set up and run every test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not system" $(ARGS)
	$(BIN)/python -m pytest -m system $(ARGS)

check: $(VENV)/.installed-dev ## Lint, types, import directions, drift of the rendered files, promtool
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sage-obs dashboards export --check
	$(BIN)/sage-obs alerts export --check
	$(BIN)/sage-obs runbook export --check
	$(BIN)/sage-obs dashboards lint
	$(BIN)/sage-obs alerts lint
	$(BIN)/sage-obs runbook lint

generate: $(VENV)/.installed-dev ## Render dashboards, alerts and runbook pages anew
	$(BIN)/sage-obs dashboards export --force
	$(BIN)/sage-obs alerts export --force
	$(BIN)/sage-obs runbook export --force
	$(BIN)/python tools/telemetry_reference.py
	$(BIN)/python tools/boards_reference.py

format: $(VENV)/.installed-dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)-bench/.installed ## Measure the layer beside its peers; prints the tables of benchmarks/README.md
	$(VENV)-bench/bin/python benchmarks/instrumentation.py
	$(VENV)-bench/bin/python benchmarks/logs.py
	$(VENV)-bench/bin/python benchmarks/metrics.py
	$(VENV)-bench/bin/python benchmarks/profiling.py
	$(VENV)-bench/bin/python benchmarks/agent.py

clean: ## Remove the virtual environment and the state folder
	rm -rf $(VENV) $(VENV)-bench .sage-obs

$(VENV)/.installed: pyproject.toml tools/setup.sh
	@tools/setup.sh $(VENV)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml tools/setup.sh
	@tools/setup.sh $(VENV) dev
	@touch $(VENV)/.installed $@

$(VENV)-bench/.installed: pyproject.toml tools/setup.sh
	@tools/setup.sh $(VENV)-bench bench
	@touch $@
