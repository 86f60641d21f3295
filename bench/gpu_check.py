"""`python -m bench.gpu_check [--shapes 1.1B 7B 13B] [--device cuda:0] [--docs PAGE]` (`make gpu-check`).

Checks equality, speed and memory of the engine on a GPU, with random weights in Llama's shapes.

- equality: in fp32 (without TF32), with four layers of the shape: drafts verified at edit rates of 0 to 100 % against
  `generate`, alone and in a batch under three adapters, and the detector's verdicts there (`equality.py`);
- speed: in NF4, with a prompt of 512 tokens and an answer of 256, forced (`forced_decoding.py`): ratio to `generate`,
  and forwards;
- memory: in NF4, with 16 sequences of 2,048 tokens in the cache at once: peak of allocated memory.

Prints its section of the document and writes it there. Without CUDA it says so, writes nothing and exits with 1.
`--rehearse` runs everything on the CPU in a tiny shape and writes nothing, so that no GPU time is lost to mistakes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from aligner_proxy.engine.model.cost import load_or_measure_costs
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.blocks import BLOCK
from bench import cache_fill, equality, shapes
from bench.device_time import free_memory, time_work
from bench.equality import RATES, WORDS
from bench.forced_decoding import edit_tokens, force_engine, force_model

BEGIN = "<!-- gpu-check -->"
END = "<!-- end of gpu-check -->"
REHEARSAL = {"shapes": ["tiny"], "device": "cpu", "cases": 8, "rounds": 1, "sequences": 3, "tokens": 40, "answer": 16}


def main(arguments: list[str] | None = None) -> int:
    """Check every shape; return 1 if the device is missing or something was not equal."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=list(shapes.SHAPES), default=["1.1B", "7B", "13B"])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--cases", type=int, default=20, help="answers compared, of each shape")
    parser.add_argument("--rounds", type=int, default=3, help="answers timed at each edit rate")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--answer", type=int, default=256)
    parser.add_argument("--docs", type=Path, default=Path("docs/reference/benchmarks.md"))
    parser.add_argument("--rehearse", action="store_true", help="all steps on the CPU in a tiny shape; writes nothing")
    options = parser.parse_args(arguments)
    if options.rehearse:
        options = argparse.Namespace(**vars(options) | REHEARSAL)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("gpu-check needs a CUDA device and found none; nothing was measured or written\n")
        return 1
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = [check(shape, options) for shape in options.shapes]
    device = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device
    text = render_section(rows, device, options)
    if not options.rehearse:
        write(options.docs, text)
    sys.stdout.write(text)
    return int(any(min(row["equal"]) < row["cases"] for row in rows))


def check(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row: equality, then memory and speed on the same weights."""
    comparison = equality.compare(shape, options.device, options.cases, min(64, options.answer))
    equal = comparison.alone, comparison.together
    _reset_memory()
    model = shapes.make_model(shape, options.device, torch.bfloat16, four_bits=True)
    _reset_memory()
    weights = torch.cuda.memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    runner = shapes.make_runner(model, options.sequences * (options.tokens + BLOCK))
    cache_fill.fill(runner, options.sequences, options.tokens)
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    row = {"shape": shape, "equal": equal, "cases": options.cases, "weights_gb": weights, "peak_gb": peak}
    runner.costs = load_or_measure_costs(runner, Path("/dev/null/not-kept"))
    row |= {"rates": {rate: measure_speed(runner, model, rate, options) for rate in RATES}}
    del model, runner
    _reset_memory()
    return row


def measure_speed(runner: ModelRunner, model: Any, rate: float, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of our engine and of `generate` at an edit rate (medians of rounds in turns), and our forwards."""
    ours = list[float]()
    theirs = list[float]()
    forwards = list[int]()
    for number in range(options.rounds + 1):  # the first round is a warm-up
        rng = Random(number)
        prompt = rng.choices(WORDS, k=2 * options.answer)
        answer = rng.choices(WORDS, k=options.answer)
        target = [*edit_tokens(answer, rate, rng, WORDS), shapes.EOS]
        with force_engine(runner, len(prompt), target, ()) as count:
            seconds, ids = time_work(partial(equality.write, runner, prompt, answer, len(target)))
        if ids != target:
            raise RuntimeError("the engine did not write what it was told")
        slow, _ = time_work(partial(_generate, model, prompt, target, options.device))
        if number:
            ours.append(seconds)
            theirs.append(slow)
            forwards.append(count.generating)
    ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
    return {
        "ms": 1000 * statistics.median(ours),
        "generate_ms": 1000 * statistics.median(theirs),
        "ratio": ratio,
        "forwards": statistics.mean(forwards),
    }


@torch.inference_mode()
def _generate(model: Any, prompt: list[int], target: list[int], device: str) -> Any:
    ids = torch.tensor([prompt], device=device)
    with force_model(model, len(prompt), target):
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=len(target), do_sample=False)


def render_section(rows: list[dict[str, Any]], device: str, options: argparse.Namespace) -> str:
    """Render the section of the document."""
    head = [
        f"{datetime.now(UTC):%Y-%m-%d}, {device}, `make gpu-check`: random weights, NF4, "
        f"{2 * options.answer} tokens of",
        f"prompt, an answer of {options.answer}; the most memory is that of {options.sequences} sequences of",
        f"{options.tokens} tokens.",
        "",
        "| shape | equal in fp32, alone | in company | weights, GB | most, GB | "
        + " | ".join(f"{rate:.0%}: over `generate` (ms, forwards)" for rate in RATES)
        + " |",
        "|" + "---|" * (5 + len(RATES)),
    ]
    body = []
    for row in rows:
        cells = [f"{s['ratio']:.1f} ({s['ms']:.0f}, {s['forwards']:.0f})" for s in row["rates"].values()]
        memory = [f"{row[key]:.2f}" if row[key] else "-" for key in ("weights_gb", "peak_gb")]
        equal = [f"{number} of {row['cases']}" for number in row["equal"]]
        body.append("| " + " | ".join([row["shape"], *equal, *memory, *cells]) + " |")
    return "\n".join([*head, *body]) + "\n"


def write(docs: Path, text: str) -> None:
    """Write the section between its markers in the document; raises ValueError without markers."""
    before, _, rest = docs.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{docs} has no section for gpu-check; it stands between {BEGIN} and {END}")
    docs.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def _reset_memory() -> None:
    free_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    sys.exit(main())
