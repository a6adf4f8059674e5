.DEFAULT_GOAL := help
.PHONY: help install demo deployment-demo test check format bench embedded-model clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | \
		awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,downstream]'
	touch $(STAMP)

install: $(STAMP) ## Install the package and its tools into .venv

demo: $(STAMP) ## Federated editing of the embedded model, with a report
	$(BIN)/collabedit simulate demo --out runs/demo

deployment-demo: $(STAMP) ## SuperLink and SuperNodes with TLS, against the simulation
	$(BIN)/python -m deployment.demo

test: $(STAMP) ## Run the default tests
	$(BIN)/python -m pytest

check: $(STAMP) ## Lint, format, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Run the benchmarks
	$(BIN)/python -m benchmarks.targets
	$(BIN)/python -m benchmarks.payload
	$(BIN)/python -m benchmarks.server
	$(BIN)/python -m benchmarks.mkv

embedded-model: $(STAMP) ## Train the embedded model anew and check its gates
	$(BIN)/python -m embedded_model.train

clean: ## Remove the environment, caches and runs
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
