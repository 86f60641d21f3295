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
"""Maximum number of questions before the end of an answer. One in a hundred sentences of good answers is in doubt, so
after three questions hardly any doubt is left for the end. More would be wasted if the answer is skipped in the end."""


class EarlyOpinions:
    """The opinions that the judges of one request give on one answer before its end. Must be closed by `aclose`."""

    def __init__(self, judges: RequestJudges) -> None:
        self._judges = judges
        self._early_opinions: list[asyncio.Task[JudgeOpinion]] = []
        """The questions so far, of which at most the last still runs."""
        self._asked_segments: set[int] = set()
        """Indexes of the segments that these questions are about."""
        self._examined_count = 0
        """Number of first segments that were examined for doubt."""

    def note_scores(self, request: AlignRequest, text: str, scores: Sequence[SegmentScore]) -> None:
        """Ask about new segments that are in doubt, unless a question runs or `EARLY_QUESTIONS` were asked.

        `text` is the answer so far, and `scores` are those of its first segments.
        """
        is_busy = bool(self._early_opinions) and not self._early_opinions[-1].done()
        if is_busy or len(scores) <= self._examined_count or len(self._early_opinions) >= EARLY_QUESTIONS:
            return
        doubtful_segments = self._judges.find_doubtful_early(request, scores, self._examined_count)
        self._examined_count = len(scores)
        if not doubtful_segments:
            return
        self._asked_segments |= doubtful_segments.keys()
        request = request.model_copy(update={"answer": text})
        segments = locate_segments(text, scores)
        deadline_at = time.monotonic() + request.deadline_s
        question = self._judges.give_opinion(request, segments, doubtful_segments, deadline_at)
        self._early_opinions.append(start_task(question))

    async def give_opinion(
        self, request: AlignRequest, segments: Sequence[Segment], doubtful: Mapping[int, int | None], deadline_at: float
    ) -> JudgeOpinion:
        """The early verdicts, joined with new ones on the other doubtful segments of the complete answer.

        `doubtful` maps the index of a segment to that of its objective; None stands for all objectives. Raises
        `JudgeFailed` as `RequestJudges.give_opinion` does.
        """
        late_segments = {index: objective for index, objective in doubtful.items() if index not in self._asked_segments}
        late_opinions = []
        if late_segments:
            late_opinions.append(self._judges.give_opinion(request, segments, late_segments, deadline_at))
        return await merge_opinions([*self._early_opinions, *late_opinions])

    async def aclose(self) -> None:
        """Cancel the question that still runs, if one does."""
        await end_tasks(*self._early_opinions)
