# Everything a developer needs: `make run`, `make test`, `make check`, `make bench`.
# Arguments for the proxy or the benchmark go through ARGS: make run ARGS="--port 8080"

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(shell command -v python3.11 || command -v python3)
UV := $(or $(wildcard $(BIN)/uv),uv)
# Twice the cores that are asked for: many tests wait for a clock or a socket. Stolen work comes in runs of neighbours, which share what
# their module has set up.
WORKERS := 4
ARGS :=

RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --group pyproject.toml:build

.PHONY: install install-dev run test test-long check format bench docs prices lock

install: $(RUNTIME)

install-dev: $(DEV)

# The development lock holds every pin of the runtime lock, so the one serves for both.
$(RUNTIME): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

run: $(RUNTIME)
	@exec $(BIN)/llm-proxy $(ARGS)

test: $(DEV)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not long" $(ARGS)

test-long: $(DEV)
	$(BIN)/python -m pytest -q -m long $(ARGS)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src
	$(BIN)/lint-imports --no-logo

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV)
	$(BIN)/python -m benchmarks $(ARGS)

# What people read about options and commands is made from their declarations.
docs: $(DEV)
	$(BIN)/python -c "from llm_proxy.config.reference import reference_markdown; from llm_proxy.option_groups import GROUPS; \
	print(reference_markdown(GROUPS), end='')" > docs/reference/options.md
	$(BIN)/python -c "from llm_proxy.commands.reference import markdown; from llm_proxy.option_groups import GROUPS; \
	print(markdown(GROUPS), end='')" > docs/reference/commands.md
	$(BIN)/llm-proxy config example > config/config.example.yaml

# The packaged price data, made from two maintained sets: ARGS are their wheels (docs/decisions/0018-prices.md).
prices: $(DEV)
	$(BIN)/python -m tools.prices $(ARGS)

lock:
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --constraint requirements.lock --extra dev --output-file requirements-dev.lock
