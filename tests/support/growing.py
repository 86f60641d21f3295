"""Answers that grow piece by piece, as a stream brings them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.types import Outcome

_PAUSE_S = 0.001
"""Between two looks at an answer that is judged in a thread, which looking on and on would slow down."""


async def grown(growing: GrowingAnswer, pieces: Iterable[str], *, rounds: int = 4) -> Outcome:
    """What became of an answer of these pieces; the event loop gets so many rounds after each."""
    for piece in pieces:
        await growing.feed(piece)
        for _ in range(rounds):
            await asyncio.sleep(0)
    await growing.end()
    async with asyncio.timeout(120):
        while not growing.done:
            await asyncio.sleep(_PAUSE_S)
    outcome = growing.outcome()
    await growing.aclose()
    return outcome
