"""Early opinions: judges are asked about the doubtful segments of a held answer while the upstream still writes it.

At the end of the answer only its last doubtful segments wait for a judge. Each segment is asked about once, either
early or at the end, so a failure has the same consequences as for a whole answer. One question runs at a time, about
all segments that are in doubt when it begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from aligner_proxy.concurrency import end_tasks, start_task
from aligner_proxy.correctors.judge import JudgeOpinion, RequestJudges, merge_opinions
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.client.edited_engine import locate_segments
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import SegmentScore

EARLY_QUESTIONS = 3
"""Questions asked before the end of an answer. One in a hundred sentences of good answers is in doubt, so three leave
hardly any doubt for the end; and an answer that is skipped in the end has cost no more."""


class EarlyOpinions:
    """What the judges of one request say of one answer before its end. Closed by `aclose`."""

    def __init__(self, judges: RequestJudges) -> None:
        self._judges = judges
        self._early_opinions: list[asyncio.Task[JudgeOpinion]] = []
        """The questions so far, of which at most the last still runs."""
        self._asked_segments: set[int] = set()
        """Numbers of the segments that they are about."""
        self._read_count = 0
        """Segments that were looked at for doubt."""

    def note_scores(self, request: AlignRequest, text: str, scores: Sequence[SegmentScore]) -> None:
        """Ask about the new segments that are in doubt, unless a question runs or enough were asked.

        `text` is the answer so far, and `scores` are those of its first segments.
        """
        is_busy = bool(self._early_opinions) and not self._early_opinions[-1].done()
        if is_busy or len(scores) <= self._read_count or len(self._early_opinions) >= EARLY_QUESTIONS:
            return
        doubtful = self._judges.find_doubtful_early(request, scores, self._read_count)
        self._read_count = len(scores)
        if not doubtful:
            return
        self._asked_segments |= doubtful.keys()
        request = request.model_copy(update={"answer": text})
        segments = locate_segments(text, scores)
        deadline_at = time.monotonic() + request.deadline_s
        self._early_opinions.append(start_task(self._judges.give_opinion(request, segments, doubtful, deadline_at)))

    async def give_opinion(
        self, request: AlignRequest, segments: Sequence[Segment], doubtful: Mapping[int, int | None], deadline_at: float
    ) -> JudgeOpinion:
        """The early verdicts, and at the same time new ones on the other doubtful segments of the complete answer.

        `doubtful` has the number of the objective by the number of the segment, None for all objectives. Raises
        `JudgeFailed` as `RequestJudges.give_opinion` does.
        """
        unasked = {number: objective for number, objective in doubtful.items() if number not in self._asked_segments}
        late_opinions = [self._judges.give_opinion(request, segments, unasked, deadline_at)] if unasked else []
        return await merge_opinions([*self._early_opinions, *late_opinions])

    async def aclose(self) -> None:
        """Give up the question that runs, if one does."""
        await end_tasks(*self._early_opinions)
