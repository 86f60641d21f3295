"""Compiled for GPUs that are not here, the kernels keep to their registers and decode weights in few instructions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="comes with torch for CUDA, and with the packages for development")
ROOT = Path(__file__).parents[3]
NEWEST = 90
MAX_STACK = 32
"""Bytes that may be spilled on other GPUs than the newest."""
MAX_INSTRUCTIONS = 8.0
MAX_LOGIC = 3.6
"""For each weight, in a product with up to 32 rows."""


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("capability", [NEWEST, 80, 86, 89])
def test_kernels_spill_nothing_and_decode_quickly(capability: int) -> None:
    command = [sys.executable, "-m", "tests.engine.gpu.compile_kernels", str(capability)]
    compiled = {"TRITON_INTERPRET": "0"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | compiled)
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout)
    assert {name.split()[0] for name in results} >= {"normalise", "attend", "multiply", "unpack", "choose"}
    most = 0 if capability == NEWEST else MAX_STACK
    spilled = {name: found["stack"] for name, found in results.items() if found["stack"] > most}
    assert not spilled
    assert max(found["reg"] for found in results.values()) <= 255
    for rows in (16, 32):
        found = results[f"multiply {rows} sm_{capability}"]
        assert found["instructions"] <= MAX_INSTRUCTIONS, found
        assert capability != NEWEST or found["logic"] <= MAX_LOGIC, found
