#!/usr/bin/env bash
# Makes .build/recipe-clients with the newest Python clients of docs/guides/recipes.md, in an environment of their own, and tries
# them on the real gateway (tests/clients/test_recipe_clients.py). Not for CI: they change from week to week, and take minutes.
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
venv=.build/recipe-clients
"$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    openai anthropic langchain-openai langchain-anthropic llama-index-llms-openai-like openai-agents
"$venv/bin/python" -m pip list --disable-pip-version-check --format freeze | grep -E '^(langchain|llama-index|openai|anthropic)'
exec "$python" -m pytest -q -p no:cacheprovider tests/clients/test_recipe_clients.py "$@"
