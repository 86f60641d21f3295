"""What is left to wait for when the upstream has said its last word, if the engine has read along, and if it has not?

Good answers come in like those of a hosted model, a few characters at a time; measured is the time from the last of
them to the verdict that nothing is to be changed. Both ways in turns, in one process, on the aligner that is served.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import asdict
from typing import Any

from aligner_proxy import config
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.protocol import AlignRequest, Unread
from aligner_proxy.engine.weights import Settings, open_aligner
from aligner_proxy.types import Turn
from bench.texts import OBJECTIVES, QUESTIONS

CHUNK_CHARS, CHUNK_S = 12, 0.06
"""Some 50 tokens a second."""


def run(model: str, rounds: int) -> dict[str, Any]:
    """Medians of both, and their ratio. Raises `WeightsError` when the aligner is not here."""
    return asyncio.run(_run(model, rounds))


async def _run(model: str, rounds: int) -> dict[str, Any]:
    engine = LocalEngine(lambda: open_aligner(Settings(model=model), config.home()))
    about = await engine.start()
    await engine.align(_request("warm-up", *next(iter(QUESTIONS.items()))))
    with_it: list[float] = []
    without: list[float] = []
    for number in range(rounds):
        for question, answer in QUESTIONS.items():
            with_it.append(await _delay(engine, True, f"{number} ahead: {question}", answer))
            without.append(await _delay(engine, False, f"{number}: {question}", answer))
    await engine.aclose()
    middle = [statistics.median(times) for times in (with_it, without)]
    told = {
        "aligner": asdict(about),
        "n": len(with_it),
        "ahead_ms": round(middle[0], 1),
        "after_ms": round(middle[1], 1),
    }
    return {**told, "overlap_delay_ratio": round(middle[0] / middle[1], 3)}


async def _delay(engine: LocalEngine, ahead: bool, question: str, answer: str) -> float:
    """Milliseconds from the last characters to the verdict."""
    request = _request(question, question, answer)
    begun = request.model_copy(update={"answer": ""})
    reading = await engine.read(begun) if ahead else Unread(engine)
    for at in range(0, len(answer), CHUNK_CHARS):
        await asyncio.sleep(CHUNK_S)
        await reading.feed(answer[at : at + CHUNK_CHARS])
    began = time.perf_counter()
    await reading.finish(request)
    return (time.perf_counter() - began) * 1000


def _request(name: str, question: str, answer: str) -> AlignRequest:
    # A caution that nothing reaches: measured is the way of a good answer, whatever this aligner thinks of it.
    turns = (Turn("user", question),)
    return AlignRequest(request_id=name, turns=turns, answer=answer, objectives=OBJECTIVES, caution=1e6, deadline_s=600)
