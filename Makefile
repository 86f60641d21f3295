# Every verb does its own set-up in .venv and may be run again at any time, also after an interrupted run.
# PYTHON=/path/to/python3 chooses the interpreter; ARGS='...' is handed to pytest, the demo or the benchmark.
.DEFAULT_GOAL := help
.PHONY: help setup gateway demo test bench lint format lock clean
BIN := .venv/bin

help: ## list the verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## make .venv with everything for development
	@./scripts/setup.sh dev

gateway: ## make .venv with what a gateway and the demo need, and no more
	@./scripts/setup.sh gateway

demo: gateway ## a local model, the gateway in front of it, and the official client: live, about two minutes
	@$(BIN)/python -m demo $(ARGS)

test: setup ## all tests that this machine can run
	@$(BIN)/python -m pytest --durations=10 $(ARGS)

bench: setup ## added latency and engine throughput beside named peers; the last line is JSON
	@$(BIN)/python -m bench $(ARGS)

lint: setup ## ruff, mypy, and the checks of generated files
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: setup ## let ruff format and fix
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lock: ## resolve anew and write both lock files
	@[ -x $(BIN)/uv ] || ./scripts/setup.sh dev
	@./scripts/lock.sh

clean: ## remove caches, not .venv
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .build dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
