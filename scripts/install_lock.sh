#!/usr/bin/env bash
# Installs what a lock file pins, by hash, into an environment: scripts/install_lock.sh VENV LOCK LOG LABEL
# By uv, which takes a fifth of pip's time; where uv cannot be had or cannot install (it does not read pip's configuration, such
# as a mirror), by pip. PIP=only leaves uv out.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 lock=$2 log=$3 label=$4
tools=.build/uv

# uv itself comes by the hash of our own lock file, once, beside the environments.
make_uv() {
    [ -x "$tools/bin/uv" ] && return
    awk '/^uv==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements-dev.lock >.build/uv.txt
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
        --target "$tools" -r .build/uv.txt >>"$log" 2>&1
}

mkdir -p .build
if [ "${PIP:-}" != only ] && make_uv; then
    [ -t 2 ] && quiet='' || { quiet=--quiet && printf '%s\n' "$label" >&2; }
    if "$tools/bin/uv" pip install $quiet --system-certs --python "$venv/bin/python" --no-deps --require-hashes -r "$lock" 2> >(tee -a "$log" >&2); then
        exit 0
    fi
    printf '%s\n' "$label: not by uv (above); by pip" >&2
fi
"$venv/bin/python" scripts/pip_install.py "$log" "$label" --require-hashes --no-deps -r "$lock"
