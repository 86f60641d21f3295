#!/usr/bin/env bash
# Installs the newest clients of docs/guides/recipes.md and tries them on the real gateway, set up as the page says: Python clients
# (.build/recipe-clients, 420 MB), coding agents and LibreChat's packages of npm (.build/recipe-agents, 1.3 GB; left out where there is no
# npm), and Open WebUI without torch (.build/open-webui, 1.1 GB). Five minutes. Not for CI: they change from week to week.
# N8N=1 tries n8n, too (.build/n8n, 3 GB, eight minutes): N8N_VERSION with a Node of its own. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
clients=.build/recipe-clients agents=.build/recipe-agents webui=.build/open-webui n8n=.build/n8n
make_venv() {
    "$python" -m venv --clear "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

make_venv "$clients" openai anthropic langchain-openai langchain-anthropic llama-index-llms-openai-like openai-agents
"$clients/bin/python" -m pip list --disable-pip-version-check --format freeze | grep -E '^(langchain|llama-index|openai|anthropic)'

if command -v npm >/dev/null; then
    mkdir -p "$agents"
    npm install --prefix "$agents" --no-save --no-audit --no-fund --loglevel=error --ignore-scripts \
        @anthropic-ai/claude-code @openai/codex @continuedev/cli @librechat/agents librechat-data-provider js-yaml
    node "$agents/node_modules/@anthropic-ai/claude-code/install.cjs" # its only script: it puts the program in its place
    npm ls --prefix "$agents" --depth 0 | grep -E '(claude-code|codex|cli|agents|data-provider)@[0-9]'
fi

if [ "${N8N:-}" = 1 ]; then
    # Of its scripts one compiles its database, for which Node's headers are needed (Debian's libnode-dev).
    mkdir -p "$n8n"
    # Its packages contradict each other in what they want beside them, on which npm would compute for half an hour.
    npm install --prefix "$n8n" --no-save --no-audit --no-fund --loglevel=error --ignore-scripts --legacy-peer-deps \
        "n8n@${N8N_VERSION:-2.39.10}" "node-linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')@24"
    ln -sf ../"$(basename "$n8n"/node_modules/node-linux-*)"/bin/node "$n8n/node_modules/.bin/node"
    (cd "$n8n/node_modules/sqlite3" && node ../node-gyp/bin/node-gyp.js rebuild --nodedir=/usr --silent)
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
    tests/clients/test_open_webui.py tests/clients/test_librechat.py tests/clients/test_n8n.py "$@"
