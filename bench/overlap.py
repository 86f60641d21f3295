"""Wait after the upstream's last token, with and without prefill while the upstream streams.

Good answers arrive a few characters at a time, as from a hosted model. The measured time runs from the last characters
to the verdict "unchanged". Both ways take turns in one process, on the served aligner. The remaining work costs the
same for any length of answer (one short forward), so the ratio depends on the length. The answers are real ones of
strong upstreams if the research data is available, else our own in the length of chat answers.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import track

from aligner_proxy.engine.api import AlignRequest, DeferredSession
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from aligner_proxy.types import Turn
from bench.texts import LONG, OBJECTIVES

# About 50 tokens a second.
CHUNK_CHARS = 12
CHUNK_S = 0.06
_REAL = 8
"""Real answers in a round; few, because they arrive no faster than from an upstream."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both ways and of their ratios; raises `WeightsError` if the aligner is missing."""
    answers = [*LONG] if options.data is None else _load_real_answers(options.data)
    numbered_answers = [(f"{number}: {q}", a) for number in range(options.rounds) for q, a in answers]
    return asyncio.run(_run(options.model, numbered_answers))


async def _run(model: str, answers: list[tuple[str, str]]) -> dict[str, Any]:
    engine = LocalEngine(lambda: open_aligner(EngineSettings(model=model), config.home_folder()))
    about = await engine.start()
    await engine.align(_make_request("warm-up", *LONG[0]))
    rows: list[dict[str, float]] = []
    for question, answer in track(answers, "reading along", transient=True):
        ahead = await _measure_delay(engine, True, f"ahead {question}", answer)
        after = await _measure_delay(engine, False, question, answer)
        rows.append({"chars": len(answer), "ahead_ms": round(ahead, 1), "after_ms": round(after, 1)})
    await engine.aclose()
    middle = {name: round(statistics.median(row[name] for row in rows), 1) for name in rows[0]}
    ratio = statistics.median(row["ahead_ms"] / row["after_ms"] for row in rows)
    figures = {"aligner": asdict(about), "n": len(rows), **middle, "rows": rows}
    return {**figures, "overlap_delay_ratio": round(ratio, 3)}


def _load_real_answers(data: Path) -> list[tuple[str, str]]:
    """Answers of strong upstreams, equally many of each, to prompts that no training used."""
    # Imported here, because the loaders read all of the data, which our own answers do not need.
    from models.data.upstream_completions import STRONG, draw_completions

    real_answers = list(draw_completions(data, STRONG, 1, seed=1, sources=("alpaca",)))
    return [(one.query, one.answer) for one in real_answers[:_REAL]]


async def _measure_delay(engine: LocalEngine, ahead: bool, question: str, answer: str) -> float:
    """Milliseconds from the last characters to the verdict."""
    request = _make_request(question, question, answer)
    opening_request = request.model_copy(update={"answer": ""})
    reading = await engine.read(opening_request) if ahead else DeferredSession(engine)
    for at in range(0, len(answer), CHUNK_CHARS):
        await asyncio.sleep(CHUNK_S if ahead else 0)
        await reading.feed(answer[at : at + CHUNK_CHARS])
    began = time.perf_counter()
    await reading.finish(request)
    return (time.perf_counter() - began) * 1000


def _make_request(name: str, question: str, answer: str) -> AlignRequest:
    # Score only, so that a good answer's path is measured whatever this aligner thinks of the answer.
    turns = (Turn("user", question),)
    return AlignRequest(
        request_id=name, turns=turns, answer=answer, objectives=OBJECTIVES, score_only=True, deadline_s=600
    )
