#!/usr/bin/env bash
# Installs the newest clients of docs/guides/recipes.md and tries them on the real gateway, set up as the page says: Python clients
# (.build/recipe-clients, 420 MB), coding agents of npm (.build/recipe-agents, 740 MB; left out where there is no npm), and Open WebUI
# without torch (.build/open-webui, 1.1 GB). Four minutes. Not for CI: they change from week to week. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
clients=.build/recipe-clients agents=.build/recipe-agents webui=.build/open-webui
make_venv() {
    "$python" -m venv --clear "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

make_venv "$clients" openai anthropic langchain-openai langchain-anthropic llama-index-llms-openai-like openai-agents
"$clients/bin/python" -m pip list --disable-pip-version-check --format freeze | grep -E '^(langchain|llama-index|openai|anthropic)'

if command -v npm >/dev/null; then
    mkdir -p "$agents"
    npm install --prefix "$agents" --no-save --no-audit --no-fund --loglevel=error --ignore-scripts \
        @anthropic-ai/claude-code @openai/codex @continuedev/cli
    node "$agents/node_modules/@anthropic-ai/claude-code/install.cjs" # its only script: it puts the program in its place
    npm ls --prefix "$agents" --depth 0 | grep -E '(claude-code|codex|cli)@[0-9]'
fi

# Torch would come with what reads documents, pictures and speech by a model; nobody here asks for that.
make_venv "$webui" --no-deps open-webui
"$webui/bin/python" -c 'import importlib.metadata; print(*importlib.metadata.requires("open-webui"), sep="\n")' | grep -v 'extra ==' |
    grep -vE '^(accelerate|einops|faster-whisper|opencv-python-headless|pandas|pyarrow|rapidocr|sentence-transformers|transformers)==' \
        >.build/open-webui.txt
"$webui/bin/python" -m pip install --quiet --disable-pip-version-check -r .build/open-webui.txt typer 2>&1 |
    grep -v -e 'which is not installed' -e 'dependency resolver' || true
"$webui/bin/python" -m pip list --disable-pip-version-check --format freeze | grep '^open-webui'

exec "$python" -m pytest -q -rs -p no:cacheprovider tests/clients/test_recipe_clients.py tests/clients/test_coding_agents.py \
    tests/clients/test_open_webui.py "$@"
