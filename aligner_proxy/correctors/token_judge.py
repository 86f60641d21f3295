"""Token classifiers of the engine as judges: how one is asked about an answer, and how its labels become verdicts.

A classifier is a model group of its own (model_group.py), which the engine serves in place of LiteLLM. It reads the
answer once, and labels the spans of characters in which it finds a fault. A segment is flagged if such a span has a
character of the segment's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pydantic import ValidationError

from aligner_proxy.correctors.editor_prompt import Passage, last_user_text
from aligner_proxy.correctors.guard_forms import CategoryGuard, TokenGuard
from aligner_proxy.correctors.model_group import Payer, Question, Reply
from aligner_proxy.engine.api import (
    AlignRequest,
    ClassifierInfo,
    Engine,
    TokenLabels,
    TokenLabelsRequest,
    require_judges,
)
from aligner_proxy.engine.weights.manifest import digest
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.text.structure import Segment


class EngineClassifier:
    """A token classifier of the engine. Satisfies `Chat`.

    A question has no messages: its `response_format` has the fields of a `TokenLabelsRequest`, and the reply is the
    labels as JSON.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def models(self) -> Sequence[str]:
        """No names, because the engine's description tells which weights the classifier has."""
        return ()

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        response_format: Mapping[str, Any] | None,
        payer: Payer,
        deadline_s: float,
    ) -> Reply:
        """The labels of one answer as JSON."""
        request = TokenLabelsRequest(**(response_format or {}), model=self._name, deadline_s=deadline_s)
        labels = await require_judges(self._engine).label_tokens(request)
        return Reply(labels.model_dump_json(), labels.read)


@dataclass(frozen=True, slots=True)
class RequestClassifier:
    """A token classifier as one request needs it."""

    context: tuple[str, ...]
    """Texts that the answer must agree with."""
    name: str
    classifiers: Mapping[str, ClassifierInfo]
    """Descriptions of the engine's classifiers by name; filled once the engine was asked."""

    @property
    def about(self) -> ClassifierInfo | None:
        """The classifier's description; None before the engine was asked, or if it has no such classifier."""
        return self.classifiers.get(self.name)

    @property
    def guard(self) -> CategoryGuard | None:
        """A guard with the classifier's categories; None if there are none, or if they are not known yet."""
        description = self.about
        if description is None or description.categories is None:
            return None
        return TokenGuard(description.categories)

    def identity(self) -> dict[str, Any]:
        """All that the classifier's verdicts depend on besides its name and the conversation, for cache keys."""
        return {"weights": self.about.content_hash if self.about else "", "context": digest(self.context)}


def make_labels_question(request: AlignRequest, context: Sequence[str], segments: Sequence[Segment]) -> Question:
    """Make the question for the labels of an answer with these segments, which must agree with the `context`."""
    labels_request = {
        "request_id": request.request_id,
        "tenant": request.tenant,
        "question": last_user_text(request.turns),
        "context": tuple(context),
        "answer": "".join(segment.text + segment.gap for segment in segments),
        "ends": tuple(_find_starts(segments)[1:]),
    }
    return Question((), 0, labels_request, varies=False)


def read_verdicts(
    reply: str, segments: Sequence[Segment], passages: Sequence[Passage], guard: CategoryGuard | None
) -> dict[int, bool]:
    """Whether each passage has a faulty character, by segment index; raises `InvalidOutput` for an unusable reply.

    With a `guard`, a fault counts only if its category belongs to the first objective of the passage that the guard
    knows. None for a classifier without categories, whose faults all count.
    """
    try:
        faults = TokenLabels.model_validate_json(reply).spans
    except ValidationError:
        raise InvalidOutput("the judge replied with something other than labels") from None
    verdicts: dict[int, bool] = {}
    starts = _find_starts(segments)
    for passage in passages:
        index = passage.segment_index
        start = starts[index]
        text = segments[index].text
        # the offsets of a fault are relative to the answer; a fault of only white space in the passage does not count
        faults_inside = [
            fault for fault in faults if text[max(0, fault.start - start) : max(0, fault.end - start)].strip()
        ]
        if guard is None:
            verdicts[index] = bool(faults_inside)
            continue
        objective = next((objective for objective in passage.objectives if guard.knows(objective)), "")
        verdicts[index] = any(guard.concerns([fault.category], objective) for fault in faults_inside)
    return verdicts


def _find_starts(segments: Sequence[Segment]) -> list[int]:
    """The offset at which each segment begins in the joined segments; at the end, the length of all."""
    return [0, *accumulate(len(segment.text) + len(segment.gap) for segment in segments)]
