#!/usr/bin/env bash
# Does the gateway still do on LiteLLM's newest release what docs/reference/conformance.md says? Not for CI: a release may fail it.
# Makes .build/early-warning anew with that release and what the guardrail needs beside it (no torch: the engine is not in
# the proxy), and runs tests/conformance of .venv against the proxy there. LITELLM names another release, e.g.
# 'litellm[proxy]==1.110.2'. Where the index that pip uses lacks what the release asks for, RELAX names packages that may
# have any version ('certifi litellm-enterprise'), and OMIT packages that are left out. Arguments go to pytest. Versions
# 1.82.7, 1.82.8 and 1.107.0 were backdoored and are never taken.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
venv=.build/early-warning
litellm=${LITELLM:-litellm[proxy]}
backdoored='litellm!=1.82.7,!=1.82.8,!=1.107.0'

# What the guardrail needs: by name, because LiteLLM decides which versions, or with our bounds.
needs() {
    "$python" - "$1" <<'EOF'
import re
import sys
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
needs, extras = project["dependencies"], project["optional-dependencies"]
name = re.compile(r"[A-Za-z0-9-]+")
ours = [need for need in needs + extras["fleet"] if name.match(need)[0] != "litellm"]
print("\n".join(ours if sys.argv[1] == "bounds" else [name.match(need)[0] for need in ours]))
EOF
}

# What the release says it needs, less the bounds of what RELAX names and less what OMIT names.
its_needs() {
    RELAX=${RELAX:-} OMIT=${OMIT:-} "$venv/bin/python" - <<'EOF'
import os
import re
from importlib.metadata import requires

relaxed, omitted = os.environ["RELAX"].split(), os.environ["OMIT"].split()
for need in requires("litellm") or []:
    wanted, _, condition = need.partition(";")
    if "extra" in condition and not re.search(r"extra\s*==\s*[\"']proxy[\"']", condition):
        continue
    name = re.match(r"[A-Za-z0-9._-]+(\[[^]]*\])?", wanted)[0]
    if name in omitted:
        continue
    condition = re.sub(r"(?:and\s*)?extra\s*==\s*[\"']proxy[\"']", "", condition).strip()
    print(name if name in relaxed else wanted.strip(), f"; {condition}" if condition else "")
EOF
}

rm -rf "$venv"
"$python" -m venv "$venv"
needs names >"$venv/names.txt"
needs bounds >"$venv/bounds.txt"
pip=("$venv/bin/python" -m pip install --disable-pip-version-check --quiet)
# Alone first, so that the newest is the newest: where its needs cannot be met, pip shall fail and not take an older one.
"${pip[@]}" --no-deps "$litellm" "$backdoored"
version=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("litellm"))')
pin=$(sed -nE 's/.*"litellm\[proxy\]==([^"]+)".*/\1/p' pyproject.toml)
[ "$version" = "$pin" ] && beside="which is the pinned one" || beside="and $pin is pinned"
echo "early warning: litellm $version, $beside"
its_needs >"$venv/its.txt"
# A bound of ours that this release does not keep to would have to move together with the pin.
"${pip[@]}" -r "$venv/its.txt" -r "$venv/bounds.txt" || {
    echo "early warning: a bound in pyproject.toml does not fit this release (above)"
    "${pip[@]}" -r "$venv/its.txt" -r "$venv/names.txt"
}
LITELLM_COMMAND=$PWD/$venv/bin/litellm exec "$python" -m pytest -q -p no:cacheprovider tests/conformance "$@"
