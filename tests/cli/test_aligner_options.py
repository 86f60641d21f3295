"""What is set before torch is imported, seen in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(120)
def test_an_engine_does_not_load_torchs_compiler() -> None:
    program = """
import sys
from aligner_proxy.cli.aligner_options import before_torch
before_torch()
import aligner_proxy.engine.weights, bitsandbytes
assert bitsandbytes.nn.Linear4bit
print("torch._inductor.compile_fx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False"]
