"""Memory of a 1.1B aligner in 4 bits with sixteen sequences of 2,048 tokens in its cache at once.

`python -m bench.memory make FOLDER` writes a model of TinyLlama's shape with random weights in NF4. `... serve FOLDER`
fills its cache and prints its largest resident set in MB (2^20 bytes). Two processes are needed, because a real engine
loads weights quantised earlier, so memory for quantising must not count. It takes two to three minutes on two idle
cores.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from aligner_proxy.cli.options import prepare_for_torch

SHAPE = "1.1B"
SEQUENCES = 16
TOKENS = 2048


def run(_: argparse.Namespace) -> dict[str, Any]:
    """Return `peak_rss_mb` of the serving process."""
    from aligner_proxy.policy import config

    folder = config.home_folder() / "bench" / "1.1b-nf4"
    if not folder.exists():
        _run_child("make", folder)
    peak = int(_run_child("serve", folder).split()[-1])
    return {"sequences": SEQUENCES, "tokens_each": TOKENS, "peak_rss_mb": peak}


def _run_child(verb: str, folder: Path) -> str:
    command = [sys.executable, "-m", "bench.memory", verb, str(folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def make(folder: Path) -> None:
    """Save random weights, quantised before any forward (a forward would repack them)."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from bench import shapes

    plain = folder.with_name("1.1b")
    shapes.make_model(SHAPE, "cpu", torch.bfloat16).save_pretrained(str(plain))
    quantisation = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    quantised = AutoModelForCausalLM.from_pretrained(str(plain), quantization_config=quantisation, dtype=torch.bfloat16)
    quantised.save_pretrained(str(folder))


def serve(folder: Path) -> int:
    """Prefill all sequences at once; return this process's largest resident set in MB."""
    prepare_for_torch()  # as `aligner-proxy engine` does
    import torch
    from rich.console import Console
    from rich.progress import Progress
    from transformers import AutoModelForCausalLM

    from aligner_proxy.engine.model import cpu_kernels
    from aligner_proxy.engine.model.detector import DetectorHead
    from bench import cache_fill, shapes

    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16)
    cpu_kernels.install(model.eval())
    runner = shapes.make_runner(model, SEQUENCES * TOKENS, DetectorHead.create_for_model(model.config))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("tokens read", total=SEQUENCES * TOKENS)
        cache_fill.fill(runner, SEQUENCES, TOKENS, lambda tokens: progress.advance(bar, tokens))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    done = {"make": make, "serve": serve}[sys.argv[1]](Path(sys.argv[2]))
    if done is not None:
        sys.stdout.write(f"{done}\n")
