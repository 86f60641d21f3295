"""Time of one answer with and without taught objectives, on the served aligner.

The same good answers are scored in turns in four ways: by the aligner's own heads, twice (to show how much two equal
ways differ), by one taught head, and by one for each of four objectives. A taught head's cost is the ratio of pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.progress import track

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from aligner_proxy.types import Turn
from bench.texts import LONG
from models.evaluate.closed_loop import read_tenants
from models.evaluate.teaching import teach_head

_ANSWERS = 12
"""Answers per round; a ratio within a hundredth needs many pairs."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of milliseconds and of the ratios of pairs; raises `WeightsError` if the aligner is missing."""
    return asyncio.run(_run(options.model, options.rounds))


async def _run(model: str, rounds: int) -> dict[str, Any]:
    """Teach one head for each tenant's objective, then time all ways in turns."""
    engine = LocalEngine(lambda: open_aligner(EngineSettings(model=model), config.home_folder()))
    await engine.start()
    heads: dict[str, str] = {}
    for tenant in read_tenants():
        with tempfile.TemporaryDirectory() as folder:
            head = await teach_head(engine, Path(folder), "own", tenant.objective, tenant.against[:12], tenant.fine[:4])
        heads[tenant.objective] = head or ""
    texts = tuple(heads)
    learned = tuple(heads.values())
    ways = {
        "one objective": (texts[:1], ()),
        "one objective again": (texts[:1], ()),
        "one taught objective": (texts[:1], learned[:1]),
        "four objectives": (texts, ()),
        "four taught objectives": (texts, learned),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in track(range(-1, rounds * _ANSWERS), "taught heads", transient=True):
        question, answer = LONG[number % len(LONG)]
        for name, (objectives, head_names) in ways.items():
            began = time.perf_counter()
            await engine.align(_request(f"{name} {number} {question}", answer, objectives, head_names))
            if number >= 0:
                seconds[name].append(time.perf_counter() - began)
    await engine.aclose()
    return summarise(seconds)


def summarise(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """The table and the ratios, from seconds in the order of `_run`."""
    one, again, one_taught, four, four_taught = seconds.values()
    return {
        "rows": [{"way": name, "ms": round(1000 * statistics.median(times), 1)} for name, times in seconds.items()],
        "n": len(one),
        "taught_head_ratio": _ratio(one_taught, one),
        "taught_heads_4_ratio": _ratio(four_taught, four),
        "taught_head_noise": _ratio(again, one),
    }


def _ratio(one: list[float], other: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 3)


def _request(question: str, answer: str, objectives: tuple[str, ...], heads: tuple[str, ...]) -> AlignRequest:
    return AlignRequest(
        request_id=question,
        turns=(Turn("user", question),),
        answer=answer,
        objectives=objectives,
        heads=heads,
        score_only=True,
    )
