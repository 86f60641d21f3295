"""Prompt form of released weights: the raw prompt or their trainer's chat form, by the loss on known pairs.

    python -m models.evaluate.prompt_form MetaAligner/MetaAligner-HH-RLHF-1.1B --family hh-rlhf \\
        --pairs runs/data/better.jsonl

MetaAligner was trained with FastChat, which wraps every sample, and its inference code feeds the raw prompt; whether
its authors patched the trainer is not known. Loss is the mean cross-entropy (nats a token) of the targets; the interval
is of the mean difference pair by pair. The name that wins goes into `aligner.template`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any, get_args

import torch
import torch.nn.functional as F
from rich.progress import track

from aligner_proxy.prompts import Template, find_template
from models.data.pairs import Pair, PairError, read_pairs
from models.reporting import output
from models.train.base_model import Precision, load_base
from models.train.features import encode

FAMILIES = ("hh-rlhf", "ultrafeedback", "imhi")
WRAPPED = "-vicuna"


@dataclass(frozen=True, slots=True)
class FormLosses:
    """Mean losses (nats a token) of both forms over the same pairs."""

    raw: float
    wrapped: float
    difference: float
    """Mean of raw minus wrapped: positive where the wrapped form is better."""
    half: float
    """Half of the 95 % interval of the difference."""
    n: int

    def choose_template(self, family: str) -> str | None:
        """The template whose loss is lower; None while the interval of the difference includes 0."""
        if abs(self.difference) <= self.half:
            return None
        return family + (WRAPPED if self.difference > 0 else "")


def compare_losses(raw: Sequence[float], wrapped: Sequence[float]) -> FormLosses:
    """Compare the losses of the raw and the wrapped form, pair by pair."""
    apart = [one - other for one, other in zip(raw, wrapped, strict=True)]
    half = 1.96 * stdev(apart) / sqrt(len(apart)) if len(apart) > 1 else float("inf")
    return FormLosses(mean(raw), mean(wrapped), mean(apart), half, len(apart))


@torch.inference_mode()
def loss(model: Any, tokenizer: Any, family: Template, pair: Pair) -> float:
    """Mean cross-entropy (nats a token) of the pair's target, given its prompt."""
    example = encode(pair, tokenizer, family, whole=True)
    start = next(i for i, weight in enumerate(example.weights) if weight)
    ids = torch.tensor([example.ids], device=model.device)
    logits = model(ids, use_cache=False).logits[0, start - 1 : -1].float()
    return float(F.cross_entropy(logits, ids[0, start:]))


def measure(model: Any, tokenizer: Any, family: str, pairs: Sequence[Pair]) -> FormLosses:
    """Measure both forms on all pairs."""
    forms = find_template(family), find_template(family + WRAPPED)
    model.train(mode=False)
    losses = [[loss(model, tokenizer, form, pair) for form in forms] for pair in track(pairs, "pairs", transient=True)]
    return compare_losses([raw for raw, _ in losses], [wrapped for _, wrapped in losses])


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluate.prompt_form",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="hub id or folder")
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="pairs that it was trained on, or such as those")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--precision", choices=get_args(Precision), default="bf16")
    arguments = parser.parse_args(argv)
    try:
        pairs = list(islice(read_pairs(arguments.pairs), arguments.limit))
    except PairError as problem:
        sys.exit(str(problem))
    if len(pairs) < 2:
        sys.exit(f"{arguments.pairs}: two pairs at least are needed, found {len(pairs)}")
    losses = measure(*load_base(arguments.model, Path("runs"), arguments.precision), arguments.family, pairs)
    rows = [(arguments.family, f"{losses.raw:.4f}"), (arguments.family + WRAPPED, f"{losses.wrapped:.4f}")]
    print(output.table(("template", f"loss, nats a token (n = {losses.n})"), rows))
    better = losses.choose_template(arguments.family)
    apart = f"{losses.difference:+.4f} [+-{losses.half:.4f}]"
    unclear = "no clear difference; the raw prompt is what its authors feed"
    print(f"raw less wrapped {apart}: {f'aligner.template: {better}' if better else unclear}")


if __name__ == "__main__":
    main()
