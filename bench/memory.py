"""How much memory does a 1.1B aligner in 4 bits take, with sixteen answers of 2,048 tokens in it at once?

`python -m bench.memory make FOLDER` writes a model of TinyLlama's shapes with random weights in NF4, `... serve FOLDER`
reads all sequences with it by the engine's own scheduler and prints its largest resident set in MB. Two processes,
because an engine loads what was quantised before, and what that took is not its memory. Nothing is decoded: decoding
takes no more memory than reading, and the reading alone takes two minutes on two idle cores.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from aligner_proxy.cli.aligner_options import before_torch

SEQUENCES, TOKENS, VOCABULARY = 16, 2048, 32_000
SHAPE: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "vocab_size": VOCABULARY,
}
"""TinyLlama-1.1B."""


def run() -> dict[str, Any]:
    """`peak_rss_mb` of the serving process."""
    from aligner_proxy import config

    folder = config.home() / "bench" / "1.1b-nf4"
    if not folder.exists():
        _child("make", folder)
    peak = int(_child("serve", folder).split()[-1])
    return {"sequences": SEQUENCES, "tokens_each": TOKENS, "peak_rss_mb": peak}


def _child(verb: str, folder: Path) -> str:
    command = [sys.executable, "-m", "bench.memory", verb, str(folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def make(folder: Path) -> None:
    """Random weights, quantised and saved before any forward (which would repack them)."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

    plain = folder.with_name("1.1b")
    torch.manual_seed(0)
    with torch.device("cpu"):
        plain_model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE))
        plain_model.to(torch.bfloat16).save_pretrained(str(plain))
    wanted = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    quantised = AutoModelForCausalLM.from_pretrained(str(plain), quantization_config=wanted, dtype=torch.bfloat16)
    quantised.save_pretrained(str(folder))


def serve(folder: Path) -> int:
    """Read all sequences at once; the largest resident set of this process in MB."""
    before_torch()  # as `aligner-proxy engine` does
    import torch
    from rich.console import Console
    from rich.progress import Progress
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM

    from aligner_proxy.engine import packed
    from aligner_proxy.engine.detector import DetectorHead
    from aligner_proxy.engine.runner import ModelRunner
    from aligner_proxy.engine.scheduler import Job, Scheduler
    from aligner_proxy.engine.sequence import Ask, Sequence, Step, Work
    from aligner_proxy.engine.tokens import PromptTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16)
    packed.shorten(model.eval())
    unread = PromptTokenizer(Tokenizer(models.BPE()), frozenset({2}))
    runner = ModelRunner(model, unread, DetectorHead.over(model.config), SEQUENCES * TOKENS)
    rng, ends = Random(0), list[object]()

    def read() -> Work:
        step: Step = yield Ask([rng.randrange(3, VOCABULARY) for _ in range(TOKENS)], prompt=True)
        return step

    scheduler = Scheduler(runner.pool, budget=runner.step_tokens, most=SEQUENCES)
    for number in range(SEQUENCES):
        job = Job(str(number), read(), ends.append, sequence=Sequence())
        job.advance()
        scheduler.add(job)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("tokens read", total=SEQUENCES * TOKENS)
        while scheduler.waiting or any(job.sequence.remaining for job in scheduler.running):
            feeds = [feed for feed in scheduler.schedule(0.0) if feed.stop > feed.start]
            for feed, chosen in zip(feeds, runner.run(feeds), strict=True):
                # Settled, but not advanced to its end: who has been read keeps his blocks while the others are read.
                scheduler.settle(feed, chosen)
                progress.advance(bar, feed.stop - feed.start)
    if sum(len(job.sequence.blocks) for job in scheduler.running) < runner.pool.count:
        raise RuntimeError("not all sequences were in the cache at once")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    done = {"make": make, "serve": serve}[sys.argv[1]](Path(sys.argv[2]))
    if done is not None:
        sys.stdout.write(f"{done}\n")
