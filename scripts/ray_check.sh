#!/usr/bin/env bash
# Makes .build/ray with Ray Serve, which sees the packages of .venv behind its own (so there is no second torch), and runs
# scripts/ray_check.py there: two engines on a local Ray. Not for CI: Ray alone takes 500 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.build/ray
if [ ! -x "$venv/bin/serve" ]; then
    .venv/bin/python -m venv --clear "$venv"
    "$venv/bin/python" -m pip install -q "${RAY:-ray[serve]==2.60.0}"
fi
purelib='import sysconfig; print(sysconfig.get_paths()["purelib"])'
.venv/bin/python -c "$purelib" >"$("$venv/bin/python" -c "$purelib")/behind.pth"
# On a busy machine Ray and Serve's proxy take longer to start than Ray waits by itself, which then ends them.
export RAY_raylet_start_wait_time_s=300
export RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S=120 RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S=120
PYTHONPATH=$PWD RAY_USAGE_STATS_ENABLED=0 "$venv/bin/python" scripts/ray_check.py
