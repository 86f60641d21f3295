"""Second try: where nothing remains of an answer, the editor is asked for another one.

It is judged by the head from its beginning to its end, and delivered only if nothing of it is flagged; else the text
of the policy stands in place of the answer, as without a second try. It is remembered under a key of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

from aligner_proxy.correctors.editor import EditedEngine
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.weights.manifest import digest
from aligner_proxy.errors import CorrectionError
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.types import Correction, EditorUse, Exchange, Mode, Outcome, Status

log = logging.getLogger(__name__)
SECOND_TRY = "second_try"
"""The reason of an outcome whose text the editor wrote anew."""
WOULD = "would_second_try"
"""The same in shadow mode."""
_LEAST_TOKENS = 512
_CHARS_PER_TOKEN = 3


async def answered_anew(
    outcome: Outcome,
    exchange: Exchange,
    request: AlignRequest,
    engine: EditedEngine,
    cache: CorrectionCache | None,
    *,
    remember: bool,
) -> Outcome:
    """The outcome with another answer in place of the one of which nothing remains; the same outcome without one."""
    room = max(_LEAST_TOKENS, len(request.answer) // _CHARS_PER_TOKEN * 2)

    async def written() -> Correction:
        return await engine.anew(request, tokens=room)

    try:
        async with asyncio.timeout(request.deadline_s):
            if cache is None or exchange.no_store:
                again = await written()
            else:
                about = (await engine.info()).named(request.aligner)
                anew = replace(about, content_hash=digest({SECOND_TRY: about.content_hash}))
                key = cache.key(anew, outcome.policy, exchange)
                deadline = time.monotonic() + request.deadline_s
                again, _ = await cache.get_or_compute(key, written, remember=remember, deadline=deadline)
    except (CorrectionError, TimeoutError) as error:
        log.warning("call %s: no second try (%s)", exchange.call_id, type(error).__name__)
        return _charged(outcome, EditorUse(failed=1))
    outcome = _charged(outcome, again.editor)
    text = again.deliverable.text
    if not text:
        return outcome
    if outcome.policy.mode is Mode.SHADOW:
        return replace(outcome, reason=WOULD, edited=text)
    return replace(outcome, status=Status.CORRECTED, reason=SECOND_TRY, text=text, edited=text)


def _charged(outcome: Outcome, use: EditorUse | None) -> Outcome:
    """The outcome with what the second try cost."""
    correction = outcome.correction
    if use is None or correction is None:
        return outcome
    total = use + correction.editor if correction.editor else use
    return replace(outcome, correction=replace(correction, editor=total))
