"""`python -m aligner_proxy.engine.model.probe [FOLDER [GGUF]]`: reports what torch and its kernels can do here.

Prints one JSON object. It runs as a separate process, because a kernel built for another machine may crash it. On a
GPU it also reports whether our own kernels run, and how the aligner whose config is in FOLDER would run there.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from aligner_proxy.engine.weights import memory

_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instruction sets that the speed of the CPU kernels depends on, as Linux names them."""
_TOLERANCE = 0.12
"""Largest relative error that four bits may cause on a random matrix; the error of a broken kernel is above 1."""


def find_cpu_flags() -> list[str]:
    """Return which of `_CPU_FLAGS` this CPU has; empty if the system does not report them."""
    info_file = Path("/proc/cpuinfo")
    reported_words = set(info_file.read_text().split()) if info_file.exists() else set()
    return [flag for flag in _CPU_FLAGS if flag in reported_words]


def describe_device() -> dict[str, Any]:
    """Return the device on which an engine would compute, its name, and a GPU's memory or a CPU's threads."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return {"device": "cuda", "name": properties.name, "memory_gb": round(properties.total_memory / 2**30, 1)}
    return {"device": "cpu", "name": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


def measure_nf4_error(device: str) -> float:
    """Return the relative error of a quantised layer against the plain one, with the kernels that an engine uses."""
    # imported by name, because its type hints leave its layers untyped
    bnb: Any = importlib.import_module("bitsandbytes")
    torch.manual_seed(0)
    plain = torch.nn.Linear(256, 256, bias=False)
    layer = bnb.nn.Linear4bit(256, 256, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    layer.load_state_dict(plain.state_dict())
    inputs = torch.randn(4, 256)
    with torch.no_grad():
        expected = plain(inputs)
        output = layer.to(device)(inputs.to(device)).cpu()
    return float((output - expected).norm() / expected.norm())


def examine_aligner(folder: str, gguf: str | None = None) -> dict[str, Any]:
    """Examine whether our own kernels can compute the aligner in `folder` (with the file `gguf`, if given).

    Returns `obstacle` (why they cannot, or None), `sizes` (None if the config does not tell them) and `head_states`
    (states that a detector head reads of each token); or only `error`, if the config cannot be read.
    """
    from transformers import AutoConfig

    from aligner_proxy.engine.gpu.stack import find_config_obstacle
    from aligner_proxy.engine.model.detector import DEPTHS

    options = {"gguf_file": gguf} if gguf else {}
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        return {"error": str(error).partition("\n")[0]}
    sizes = memory.read_sizes(config.to_dict())
    findings = {"obstacle": find_config_obstacle(config), "sizes": asdict(sizes) if sizes else None}
    return findings | {"head_states": len(DEPTHS) + 1}


def probe(*aligner: str) -> dict[str, Any]:
    """Probe this machine, and how the `aligner` (its folder, and perhaps its GGUF file) would run; return plain data.

    `nf4` is the relative error of the 4-bit kernels, or the exception that they raised; `missing` is what a GPU lacks
    for our own kernels, or None.
    """
    result = {"torch": torch.__version__, **describe_device(), "cpu_flags": find_cpu_flags()}
    if result["device"] == "cuda":
        from aligner_proxy.engine.model import acceleration

        result["missing"] = acceleration.find_missing_part() or acceleration.try_kernel()
        result["aligner"] = examine_aligner(*aligner) if aligner else None
    try:
        error = measure_nf4_error(result["device"])
    except Exception as failure:  # noqa: BLE001 - whatever third-party kernels raise is the finding
        return {**result, "nf4_works": False, "nf4": f"{type(failure).__name__}: {failure}"[:300]}
    return {**result, "nf4_works": error < _TOLERANCE, "nf4": round(error, 4)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(*sys.argv[1:])) + "\n")
