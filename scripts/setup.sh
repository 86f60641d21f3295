#!/usr/bin/env bash
# Makes .venv ready: `scripts/setup.sh gateway` (gateway and demo) or `scripts/setup.sh dev` (also tests, lint, training).
# Safe to run again: does nothing when ready, goes on after an interruption, rebuilds an environment that is broken.
# PYTHON names another interpreter. Everything is installed by hash. Only torch may be the machine's own build (a version
# like 2.13.0+cpu, from where pip is pointed at): then it is named, and installed by TORCH_SHA256 where that is set.
# TORCH=cpu points pip at PyTorch's builds for CPUs, which bring none of the 5.8 GB of CUDA packages.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-dev}
venv=.venv
log=.build/setup.log
cpu_builds=https://download.pytorch.org/whl/cpu
[ "${TORCH:-}" != cpu ] || export PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL:+$PIP_EXTRA_INDEX_URL }$cpu_builds"
supported='import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12), (3, 13)})'

lock_of() { [ "$1" = dev ] && echo requirements-dev.lock || echo requirements.lock; }
say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# Ready means made from exactly these files. Stamps are written last: an interrupted run is not taken for a finished one.
fingerprint() { cat "$(lock_of "$1")" requirements-torch.lock pyproject.toml plugins/pyproject.toml plugins/{embedded,fleet,grounding,review}/pyproject.toml scripts/{setup,install_lock}.sh | cksum; }
healthy() { "$venv/bin/python" -c "import pip; $supported" 2>/dev/null; }
ready() { [ "$(cat "$venv/.ready-$1" 2>/dev/null)" = "$(fingerprint "$1")" ] && healthy; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c "$supported" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3 make setup"
}

create() {
    local python
    python=$(find_python) || exit 1
    say "making $venv with $("$python" -V)"
    rm -rf "$venv"
    "$python" -m venv "$venv" || {
        rm -rf "$venv"
        die "'$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"
    }
}

# One line a step; what pip prints is in $log.
pip_install() { # LABEL ARGUMENTS...
    local label=$1
    shift
    "$venv/bin/python" scripts/pip_install.py "$log" "setup: $label" "$@"
}

# What pip would take as torch on this machine: nothing is printed where that is the registry's wheel, which our lock file
# has; else the requirement with the hash that the wheel must have.
own_torch() {
    local report=.build/torch-report.json
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --dry-run --ignore-installed --no-deps \
        --report "$report" "$(grep -oE '^torch==[0-9.]+' requirements-torch.lock)" >>"$log" 2>&1 || return 0
    "$venv/bin/python" - "$report" "${TORCH_SHA256:-}" <<'EOF'
import json
import sys

(torch,) = json.load(open(sys.argv[1]))["install"]
version = torch["metadata"]["version"]
if "+" in version:
    there = torch["download_info"]["archive_info"]["hashes"]["sha256"]
    print(f"torch=={version} --hash=sha256:{sys.argv[2] or there}")
EOF
}

install_torch() {
    local own
    own=$(own_torch) || return 1
    if [ -z "$own" ]; then
        pip_install "2/3 torch and its CUDA packages from requirements-torch.lock, hashes checked" \
            --require-hashes --no-deps -r requirements-torch.lock
        return
    fi
    echo "$own" >.build/torch-own.txt
    [ -n "${TORCH_SHA256:-}" ] || say "${own%% *} is this machine's own build: its hash is in no lock file of ours"
    pip_install "2/3 $own" --require-hashes --no-deps -r .build/torch-own.txt || return 1
    # The registry's torch brings Triton along. Here it only interprets the kernels, in tests.
    [ "$profile" = gateway ] || [ "$(uname -s)" != Linux ] && return 0
    awk '/^triton==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements-torch.lock >.build/triton.txt
    pip_install "2/3 Triton, for tests of the kernels" --require-hashes --no-deps -r .build/triton.txt
}

install() {
    ./scripts/install_lock.sh "$venv" "$(lock_of "$profile")" "$log" "setup: 1/3 packages from $(lock_of "$profile"), hashes checked" &&
        install_torch &&
        pip_install "3/3 aligner-proxy itself, its plugins and weights, editable" --no-deps --no-build-isolation \
            --editable . --editable ./plugins --editable ./plugins/embedded --editable ./plugins/fleet \
            --editable ./plugins/grounding --editable ./plugins/review
}

case $profile in gateway | dev) ;; *) die "usage: scripts/setup.sh gateway|dev" ;; esac
ready "$profile" && exit 0
started=$SECONDS
fresh=no
mkdir -p "$(dirname "$log")"
: >"$log"
healthy || { create && fresh=yes; }
if ! install; then
    [ "$fresh" = no ] || die "pip failed (above, and in $log); run it again, what is downloaded stays in pip's cache"
    say "the environment may be half-made; making it anew"
    create
    install || die "pip failed (above, and in $log); run it again, what is downloaded stays in pip's cache"
fi
[ "$profile" = dev ] && fingerprint dev >"$venv/.ready-dev"
fingerprint gateway >"$venv/.ready-gateway" # dev holds everything that gateway does, in the same versions
say "ready in $((SECONDS - started)) s, $(du -sh "$venv" | cut -f1) in $venv"
