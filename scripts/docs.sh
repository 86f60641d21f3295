#!/usr/bin/env bash
# Builds the site of docs/ into .build/site and fails on a warning, such as a dead link. What builds it is installed by hash
# into .build/docs-venv, since it shares no version with the gateway; made once, and again when requirements-docs.lock changes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
venv=.build/docs-venv
lock=requirements-docs.lock
stamp=$(cksum <"$lock")

if [ "$(cat "$venv/.ready" 2>/dev/null)" != "$stamp" ]; then
    mkdir -p .build
    rm -rf "$venv"
    "$python" -m venv "$venv"
    ./scripts/install_lock.sh "$venv" "$lock" .build/docs.log "docs: packages from $lock, hashes checked"
    echo "$stamp" >"$venv/.ready"
fi
# Not --quiet: mkdocs then overlooks its warnings, under --strict as well.
NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --strict 2>&1 | { grep -v '^INFO' || true; }
echo "docs: $(find .build/site -name '*.html' | wc -l) pages in .build/site"
