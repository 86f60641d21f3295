"""Questions of our own about everyday things, in two parts that share no thing."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Literal

import yaml

Part = Literal["train", "test"]


def draw_questions(part: Part, count: int, seed: int = 0) -> list[str]:
    """`count` different questions of a part, in an order that the seed decides.

    Raises `ValueError` where the part has fewer.
    """
    material = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    all_questions = [
        frame.format(a=_with_article(thing), n=thing) for thing in material[part] for frame in material["frames"]
    ]
    if count > len(all_questions):
        raise ValueError(f"questions: {count} of {part} are asked for, and there are {len(all_questions)}")
    Random(f"questions:{part}:{seed}").shuffle(all_questions)
    return all_questions[:count]


def _with_article(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"
