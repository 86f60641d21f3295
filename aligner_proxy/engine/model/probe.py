"""`python -m aligner_proxy.engine.model.probe`: what can torch do here, and do the 4-bit kernels really work?

Prints one JSON object. It is a process of its own because a kernel built for another machine may end it.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_TOLERANCE = 0.12
"""Relative error that four bits may cost on a random matrix; a broken kernel is off by more than one."""


def cpu_flags() -> list[str]:
    """What of the instruction sets that matter here this CPU has; empty where the system does not tell."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    return [flag for flag in _CPU_FLAGS if flag in words]


def device() -> dict[str, Any]:
    """Where an engine would compute."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return {"device": "cuda", "name": properties.name, "memory_gb": round(properties.total_memory / 2**30, 1)}
    return {"device": "cpu", "name": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


def nf4_error(where: str) -> float:
    """Relative error of one quantised layer against the plain one, by the kernels that an engine uses."""
    # Imported by name: its own types call its layers untyped.
    bnb: Any = importlib.import_module("bitsandbytes")
    torch.manual_seed(0)
    plain = torch.nn.Linear(256, 256, bias=False)
    layer = bnb.nn.Linear4bit(256, 256, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(4, 256)
    with torch.no_grad():
        expected = plain(x)
        got = layer.to(where)(x.to(where)).cpu()
    return float((got - expected).norm() / expected.norm())


def probe() -> dict[str, Any]:
    """Everything as plain data; `nf4` is the error of the kernels, or what they raised."""
    result = {"torch": torch.__version__, **device(), "cpu_flags": cpu_flags()}
    try:
        error = nf4_error(result["device"])
    except Exception as failure:  # noqa: BLE001 - whatever third-party kernels raise is the finding
        return {**result, "nf4_works": False, "nf4": f"{type(failure).__name__}: {failure}"[:300]}
    return {**result, "nf4_works": error < _TOLERANCE, "nf4": round(error, 4)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()) + "\n")
