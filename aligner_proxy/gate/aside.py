"""Where does the gate work? On all but short answers in a thread: what holds up the event loop holds up everybody.

What it costs is measured by bench/gate_cost.py. Two threads, because they share one interpreter.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from aligner_proxy import gate
from aligner_proxy.types import Correction, Policy

AT_ONCE_CHARS = 1_000
"""So much is judged in about a millisecond, ten where an edit is refused."""
_THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="gate")


async def judge(original: str, correction: Correction, policy: Policy) -> gate.Verdict:
    """The gate's verdict; whoever leaves meanwhile leaves the thread to finish."""
    if correction.text == original or len(original) <= AT_ONCE_CHARS:
        return gate.judge(original, correction, policy)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, gate.judge, original, correction, policy)
