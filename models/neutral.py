"""What does nobody object to? Segments of good answers, as the detector head of a trained stage reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from aligner_proxy.prompts import template
from models import train
from models.features import encode
from models.pairs import STAYS, Pair, read_pairs
from models.stage import Stage

ENOUGH, LONGEST_CHARS = 256, 900
"""Segments, and the size of the answers that they are taken from: many answers tell more than long ones."""


def neutral_segments(trained: Path, pairs: Path) -> Tensor:
    """Rows of `DetectorHead.read` for segments of good answers in a file of pairs; raises ValueError if it has none."""
    told = json.loads((trained / "stage.json").read_text())["config"]
    network, tokenizer = train.build(Stage.model_validate(told | {"init": str(trained), "out": str(trained)}))
    family = template(told["template"])
    rows: list[Tensor] = []
    for pair in _good(pairs):
        example = encode(pair, tokenizer, family, with_target=False)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            _, _, states = network.read([example])
        rows.append(network.head.read(states[0], example.where)[0])
        if sum(map(len, rows)) >= ENOUGH:
            break
    if not rows:
        raise ValueError(f"{pairs} has no good answer of at most {LONGEST_CHARS} characters")
    return torch.cat(rows)[:ENOUGH]


def _good(pairs: Path) -> Iterator[Pair]:
    return (
        pair
        for pair in read_pairs(pairs)
        if len(pair.answer) + len(pair.query) <= LONGEST_CHARS
        and pair.target == pair.answer
        and not any(pair.kinds)
        and all(label == STAYS for label in pair.labels)
    )
