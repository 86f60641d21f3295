"""Token classifiers of the engine as judges: how one is asked about an answer, and how its labels become verdicts.

A classifier is a model group of its own (model_group.py), which the engine serves in place of LiteLLM. It reads the
answer once, and says which characters it finds fault with. A segment is flagged if a character of its own text is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """A token classifier of the engine. Satisfies `Chat`: the request is the question's form, the labels the reply."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def models(self) -> Sequence[str]:
        """Nothing: which weights have the name is known from the engine's description."""
        return ()

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        tokens: int,
        temperature: float,
        form: Mapping[str, Any] | None,
        payer: Payer,
        deadline_s: float,
    ) -> Reply:
        """The labels of one answer as JSON."""
        request = TokenLabelsRequest(**(form or {}), model=self._name, deadline_s=deadline_s)
        labels = await require_judges(self._engine).label_tokens(request)
        return Reply(labels.model_dump_json(), labels.read)


@dataclass(frozen=True, slots=True)
class RequestClassifier:
    """What one request knows of a token classifier."""

    context: tuple[str, ...]
    """Texts that the answer must agree with."""
    name: str
    classifiers: Mapping[str, ClassifierInfo]
    """Descriptions of the engine's classifiers by name; filled once the engine was asked."""

    @property
    def about(self) -> ClassifierInfo | None:
        """Its description; None while the engine was not asked, or if it has no such classifier."""
        return self.classifiers.get(self.name)

    @property
    def guard(self) -> CategoryGuard | None:
        """The classifier's categories as a guard's; None for a classifier without categories."""
        about = self.about
        return None if about is None or about.categories is None else TokenGuard(about.categories)

    def identity(self) -> dict[str, Any]:
        """What its verdicts depend on besides its name and the conversation, for cache keys."""
        return {"weights": self.about.content_hash if self.about else "", "context": digest(self.context)}


def ask_labels(request: AlignRequest, context: Sequence[str], segments: Sequence[Segment]) -> Question:
    """The question about an answer of these segments; `context` are the texts to which it is held."""
    form = {
        "request_id": request.request_id,
        "tenant": request.tenant,
        "question": last_user_text(request.turns),
        "context": tuple(context),
        "answer": "".join(segment.text + segment.gap for segment in segments),
        "ends": tuple(_find_starts(segments)[1:]),
    }
    return Question((), 0, form, varies=False)


def read_verdicts(
    reply: str, segments: Sequence[Segment], marked: Sequence[Passage], guard: CategoryGuard | None
) -> dict[int, bool]:
    """Whether each passage has a faulty character, by segment index; raises `InvalidOutput` for an unusable reply.

    With a `guard`, a fault counts only if its category belongs to the first objective of the passage that the guard
    knows.
    """
    try:
        spans = TokenLabels.model_validate_json(reply).spans
    except ValidationError:
        raise InvalidOutput("the judge replied with something other than labels") from None
    verdicts = {}
    starts = _find_starts(segments)
    for passage in marked:
        start = starts[passage.at]
        text = segments[passage.at].text
        inside_passage = [span for span in spans if text[max(0, span.start - start) : max(0, span.end - start)].strip()]
        objective = next(
            (known_objective for known_objective in passage.against if guard and guard.knows(known_objective)), ""
        )
        verdicts[passage.at] = any(
            guard.concerns([span.category], objective) if guard else True for span in inside_passage
        )
    return verdicts


def _find_starts(segments: Sequence[Segment]) -> list[int]:
    """Where each segment begins in the text of all of them."""
    starts = [0]
    for segment in segments:
        starts.append(starts[-1] + len(segment.text) + len(segment.gap))
    return starts
