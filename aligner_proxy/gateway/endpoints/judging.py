"""Judgement of answers that a client brings: the hooks of the traffic, run on a chat completion made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from fastapi import Request
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.utils import ModelResponse

from aligner_proxy.audit.entry import edits
from aligner_proxy.concurrency import beside
from aligner_proxy.gateway import litellm_internals
from aligner_proxy.gateway.endpoints.forms import AlignAnswer, AlignBody, Segment, TextEdit
from aligner_proxy.gateway.request_policy import ASKED, AskedInBody
from aligner_proxy.gateway.request_state import RequestState, state_of
from aligner_proxy.policy.own_objectives import names_of
from aligner_proxy.text.structure import split
from aligner_proxy.types import GROUNDED, Outcome, SegmentScore

STOP = "stop"
MOST_ANSWERS = 64
"""Answers of one request; each is a request to the engine."""
_CALL_TYPE = "align"
_BESIDE = "beside"


class Hooks(Protocol):
    """The hooks of the guardrail through which an answer of the traffic goes."""

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Resolve the policy; raises what the request may not have."""
        ...

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> Any:
        """Correct a whole response; None leaves it as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to one conversation, each judged by itself."""

    texts: Sequence[str]
    messages: Sequence[Mapping[str, Any]] = ()
    model: str | None = None
    objectives: Sequence[str] = ()
    """What is asked for besides the policy's: names of configured objectives, or "Name: description"."""
    references: Sequence[str] = ()
    """Texts to whose facts they are held, besides those of the policy."""
    finish_reasons: Sequence[str] = ()
    """Of each answer; without them all are whole."""
    call_id: str | None = None
    beside: object = None
    """What the body says besides the answers; it is judged like the text beside the answers of the traffic."""

    @classmethod
    def of(cls, body: AlignBody) -> Answers:
        """The answer of a body of `POST /v1/align`."""
        return cls(
            texts=(body.answer,),
            messages=[message.model_dump() for message in body.messages],
            model=body.model,
            objectives=body.objectives,
            references=body.references,
        )

    @property
    def asked(self) -> AskedInBody:
        """The objectives by name and those in own words, which have a colon; and the references."""
        names = tuple(text for text in self.objectives if ":" not in text)
        texts = tuple(text for text in self.objectives if ":" in text)
        return AskedInBody(names, texts, tuple(self.references))

    def response(self) -> ModelResponse:
        """The answers as a chat completion."""
        reasons = self.finish_reasons or [STOP] * len(self.texts)
        choices = [
            {"index": index, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
            for index, (text, reason) in enumerate(zip(self.texts, reasons, strict=True))
        ]
        return ModelResponse(choices=choices, **({} if self.beside is None else {_BESIDE: self.beside}))

    def data(self) -> dict[str, Any]:
        """The request as LiteLLM's hooks see requests."""
        data: dict[str, Any] = {"messages": [dict(message) for message in self.messages]}
        return data | ({"model": self.model} if self.model else {})


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of answers that a client brought."""

    before: Sequence[str]
    after: Sequence[str]
    """The texts that a client of the traffic would get."""
    state: RequestState = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response: the call's id, and those of the traffic."""
        return {litellm_internals.CALL_ID_HEADER: self.state.call_id} | self.state.headers()

    @property
    def changed(self) -> bool:
        """Whether some text is another."""
        return list(self.before) != list(self.after)

    async def report(self) -> AlignAnswer:
        """The first answer with its scores and edits."""
        outcome = self.state.outcomes[0]
        before, after = self.before[0], self.after[0]
        changes = await beside(len(before), partial(_edits, before, after, outcome))
        ms = self.state.added_ms()
        return AlignAnswer(
            id=self.state.call_id,
            aligner_id=self.state.told_id,
            answer=after,
            status=outcome.status.value,
            reason=outcome.reason,
            segments=tuple(_segments(outcome)),
            edits=tuple(changes),
            ms=None if ms is None else float(ms),
        )


async def judge(hooks: Hooks, request: Request, caller: UserAPIKeyAuth, answers: Answers) -> Judged:
    """Judge answers like those of the traffic; raises LiteLLM's error for what the caller may not have, or blocks."""
    if len(answers.texts) > MOST_ANSWERS:
        raise ProxyException(f"at most {MOST_ANSWERS} texts are judged at once", "invalid_request_error", "texts", 400)
    data = await litellm_internals.request_data(request, caller, answers.data(), answers.call_id)
    data[ASKED] = answers.asked
    response = answers.response()
    try:
        async with litellm_internals.counted(caller, data):
            await hooks.async_pre_call_hook(caller, None, data, _CALL_TYPE)
            corrected = await hooks.async_post_call_success_hook(data, caller, response)
    except ProxyException as error:
        state = state_of(data)
        error.headers = {**(state.headers() if state else {}), **error.headers}
        raise
    delivered = response if corrected is None else corrected
    state = state_of(data)
    assert state is not None  # the first hook opens it
    after = [choice.message.content or "" for choice in delivered.choices]
    return Judged(answers.texts, after, state)


def _segments(outcome: Outcome) -> Iterator[Segment]:
    names = names_of(outcome.policy.objectives)
    for segment in outcome.segments:
        name = outcome.named(segment)
        against = names.get(name, name) if name else None
        yield Segment(text=segment.text, score=_finite(segment.score), flagged=segment.flagged, against=against)


def _edits(before: str, after: str, outcome: Outcome) -> list[TextEdit]:
    """Every change between two texts, with the objective of the worst flagged segment that it replaces."""
    if before == after:
        return []
    names = names_of(outcome.policy.objectives)
    flagged = list(_flagged_ranges(before, outcome))
    sources = list(_source_ranges(after, outcome))
    changes = []
    grown = 0
    for start, end, text in edits(before, after):
        touched = [segment for first, last, segment in flagged if first < max(end, start + 1) and start <= last]
        worst = max(touched, key=lambda segment: segment.score or 0.0, default=None)
        name = outcome.named(worst) if worst else None
        score = _finite(worst.score) if worst else None
        written = (start + grown, start + grown + len(text))
        given = [source for first, last, source in sources if first < written[1] and written[0] < last]
        source = ", ".join(dict.fromkeys(given)) or None
        objective = names.get(name, name) if name else GROUNDED if source else None
        changes.append(
            TextEdit(start=start, end=end, text=text, objective=objective, score=score, source=source),
        )
        grown += len(text) - (end - start)
    return changes


def _source_ranges(after: str, outcome: Outcome) -> Iterator[tuple[int, int, str]]:
    """(start, end, source) of the facts in the delivered text that references gave."""
    grown = 0
    for edit in outcome.grounding.edits:
        start = edit.start + grown
        end = start + len(edit.text)
        if after[start:end] == edit.text:  # places of a text inside JSON are not those of the whole
            yield start, end, edit.source
        grown += len(edit.text) - (edit.end - edit.start)


def _flagged_ranges(answer: str, outcome: Outcome) -> Iterator[tuple[int, int, SegmentScore]]:
    """(first, last, segment) of the flagged segments; none where others were judged than those of the whole answer."""
    pieces = split(answer)
    judged = outcome.segments
    if [segment.text for segment in judged[: len(pieces)]] != [piece.text for piece in pieces]:
        return
    for piece, segment in zip(pieces, judged, strict=False):
        if segment.flagged:
            yield piece.start, piece.end - 1, segment
    for segment in judged[len(pieces) :]:
        if segment.flagged:  # what lacks behind the end
            yield len(answer.rstrip()), len(answer), segment


def _finite(score: float | None) -> float | None:
    return score if score is not None and abs(score) < float("inf") else None
