"""The gate's thread: all but short answers are judged in it, because what holds up the event loop holds up everybody.

What it costs is measured by bench/gate_cost.py. Two threads, because they share one interpreter. What was judged a
moment ago is not judged again: an answer from the cache meets the same gate with the same correction.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from cachetools import LRUCache

from aligner_proxy import gate
from aligner_proxy.types import Correction, Policy

AT_ONCE_CHARS = 1_000
"""So much is judged in about a millisecond, ten where an edit is refused."""
_THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="gate")

_REMEMBERED = 256
"""Verdicts that are remembered; the policy is part of the question."""
_REMEMBERED_CHARS = 16_000
"""The longest answer whose verdict is remembered."""
_known: LRUCache[tuple[str, Correction, Policy], gate.Verdict] = LRUCache(_REMEMBERED)


async def judge(original: str, correction: Correction, policy: Policy) -> gate.Verdict:
    """The gate's verdict; whoever leaves meanwhile leaves the thread to finish."""
    if correction.text == original:
        return gate.judge(original, correction, policy)
    question = (original, correction, policy)
    verdict = _known.get(question)
    if verdict is None:
        verdict = await _judged(*question)
        if len(original) <= _REMEMBERED_CHARS:
            _known[question] = verdict
    return verdict


async def _judged(original: str, correction: Correction, policy: Policy) -> gate.Verdict:
    if len(original) <= AT_ONCE_CHARS:
        return gate.judge(original, correction, policy)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, gate.judge, original, correction, policy)
