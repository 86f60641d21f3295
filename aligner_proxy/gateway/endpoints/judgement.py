"""Judges answers that a client sends, by running the guardrail's hooks on a chat completion made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from fastapi import Request
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.utils import ModelResponse

from aligner_proxy.audit.entry import find_edits
from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.formats.base import CITATIONS
from aligner_proxy.formats.side_text import SIDE_CONTENT
from aligner_proxy.formats.think_tags import find_answer_start
from aligner_proxy.gate.edits import common_prefix_length
from aligner_proxy.gate.flagged_runs import is_word_boundary
from aligner_proxy.gateway import litellm_internals
from aligner_proxy.gateway.endpoints.forms import AlignAnswer, AlignBody, AlignSegment, TextEdit
from aligner_proxy.gateway.request_policy import BODY_REQUEST, BodyRequest
from aligner_proxy.gateway.request_state import RequestState, find_state
from aligner_proxy.policy.own_objectives import client_names
from aligner_proxy.text.structure import split
from aligner_proxy.types import Finding, Outcome, SegmentScore, Status

STOP = "stop"
_TOOL_CALLS = "tool_calls"
_LOGPROBS = "logprobs"
MAX_ANSWERS = 64
"""Most answers in one request, since each is a request to the engine."""
_CALL_TYPE = "align"


class Hooks(Protocol):
    """The guardrail's hooks that also process proxied answers."""

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Resolve the policy; raises if the request asks for something that it is not allowed."""

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> Any:
        """Correct a whole response; None leaves it unchanged."""


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """Answers to one conversation, each judged separately."""

    texts: Sequence[str]
    messages: Sequence[Mapping[str, Any]] = ()
    model: str | None = None
    objectives: Sequence[str] = ()
    """Objectives in addition to the policy's: names of configured ones, or "Name: description"."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Values of the fields that plugins declare, by name."""
    finish_reasons: Sequence[str] = ()
    """The finish reason of each answer, as its upstream gave it; empty if all are complete."""
    pointers: Sequence[Mapping[str, Any]] = ()
    """By answer, its citations, annotations and token probabilities, by name of the field; empty if none has any."""
    call_id: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """Tool calls of the only answer, in the format of chat completions."""
    tools: Sequence[Mapping[str, Any]] = ()
    """The tools that the request offered."""
    side_content: object = None
    """Other content of the body; it is judged like the side texts of proxied responses."""

    @classmethod
    def from_body(cls, body: AlignBody) -> AnswerBatch:
        """The answer in a body of `POST /v1/align`."""
        return cls(
            texts=(body.answer,),
            tool_calls=body.tool_calls,
            tools=body.tools,
            messages=[message.model_dump() for message in body.messages],
            model=body.model,
            objectives=body.objectives,
            fields=body.plugin_fields,
        )

    @property
    def body_request(self) -> BodyRequest:
        """The requested objectives, split into names and own ones (with a colon), and the fields of plugins."""
        names = tuple(text for text in self.objectives if ":" not in text)
        texts = tuple(text for text in self.objectives if ":" in text)
        return BodyRequest(names, texts, self.fields)

    def make_response(self) -> ModelResponse:
        """A chat completion with each answer as a choice, as an upstream would have returned it."""
        # "tool_calls" is a finish reason and also the field with the calls
        usual_reason = _TOOL_CALLS if self.tool_calls else STOP
        reasons = self.finish_reasons or [usual_reason] * len(self.texts)
        choices: list[dict[str, Any]] = []
        for index, text in enumerate(self.texts):
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if self.tool_calls:
                message[_TOOL_CALLS] = [dict(call) for call in self.tool_calls]
            pointers = self.pointers[index] if self.pointers else {}
            # only that there are some matters here, since they differ by the format that they come from
            if pointers.keys() - {_LOGPROBS}:
                message["provider_specific_fields"] = {CITATIONS[0]: [[{}]]}
            choice: dict[str, Any] = {"index": index, "message": message}
            if _LOGPROBS in pointers:
                choice[_LOGPROBS] = {"content": []}
            choices.append(choice)
        side_content = {} if self.side_content is None else {SIDE_CONTENT: self.side_content}
        response = ModelResponse(choices=choices, **side_content)
        # LiteLLM's constructor replaces reasons of other formats by "stop"
        for made_choice, reason in zip(response.choices, reasons, strict=True):
            vars(made_choice)["finish_reason"] = reason
        return response

    def make_data(self) -> dict[str, Any]:
        """The request data as LiteLLM passes it to hooks."""
        data: dict[str, Any] = {"messages": [dict(message) for message in self.messages]}
        if self.tools:
            data["tools"] = [dict(tool) for tool in self.tools]
        if self.model:
            data["model"] = self.model
        return data


@dataclass(frozen=True, slots=True)
class JudgedBatch:
    """The judged answers of one request."""

    before: Sequence[str]
    """The texts as they were sent to be judged."""
    after: Sequence[str]
    """The texts that a client of the proxy would get."""
    state: RequestState = field(repr=False)
    tool_calls: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    """The tool calls that a client of the proxy would get."""

    @property
    def headers(self) -> dict[str, str]:
        """The response headers: the call id and the x-aligner headers."""
        return {litellm_internals.CALL_ID_HEADER: self.state.call_id} | self.state.headers()

    @property
    def changed(self) -> bool:
        """Whether any answer was corrected."""
        return list(self.before) != list(self.after)

    @property
    def undecided_chars(self) -> list[int]:
        """How many characters at the end of each delivered text may still change once the answer goes on."""
        if not self.state.is_enforced:
            return [0] * len(self.after)
        outcomes = {outcome.index: outcome for outcome in self.state.outcomes}
        return [
            count_undecided(before, after, outcomes.get(index))
            for index, (before, after) in enumerate(zip(self.before, self.after, strict=True))
        ]

    async def make_report(self) -> AlignAnswer:
        """The report on the first answer, with its scores and edits."""
        outcome = self.state.outcomes[0]
        before = self.before[0]
        after = self.after[0]
        changes = await run_off_loop(len(before), partial(list_changes, before, after, outcome))
        return AlignAnswer(
            id=self.state.call_id,
            aligner_id=self.state.public_id,
            answer=after,
            tool_calls=tuple(map(dict, self.tool_calls)),
            status=outcome.status.value,
            reason=outcome.reason,
            segments=tuple(_align_segments(outcome)),
            edits=tuple(changes),
            ms=self.state.added_ms(),
        )


async def judge_answers(hooks: Hooks, request: Request, caller: UserAPIKeyAuth, answers: AnswerBatch) -> JudgedBatch:
    """Judge answers like proxied ones; raises LiteLLM's error if the caller lacks permission or the policy blocks."""
    if len(answers.texts) > MAX_ANSWERS:
        raise ProxyException(f"at most {MAX_ANSWERS} texts are judged at once", "invalid_request_error", "texts", 400)
    data = await litellm_internals.make_request_data(request, caller, answers.make_data(), answers.call_id)
    data[BODY_REQUEST] = answers.body_request
    response = answers.make_response()
    try:
        async with litellm_internals.count_request(caller, data):
            await hooks.async_pre_call_hook(caller, None, data, _CALL_TYPE)
            corrected = await hooks.async_post_call_success_hook(data, caller, response)
    except ProxyException as error:
        state = find_state(data)
        if state is not None:
            error.headers = {**state.headers(), **error.headers}
        raise
    delivered = response if corrected is None else corrected
    state = find_state(data)
    assert state is not None  # the first hook creates it
    after = [choice.message.content or "" for choice in delivered.choices]
    calls = []
    if answers.tool_calls:
        calls = [call.model_dump() for call in delivered.choices[0].message.tool_calls or ()]
    return JudgedBatch(answers.texts, after, state, calls)


def _align_segments(outcome: Outcome) -> Iterator[AlignSegment]:
    """The judged segments, with the client's own names for its own objectives."""
    names = client_names(outcome.policy.objectives)
    for segment in outcome.segments:
        name = outcome.objective_of(segment)
        against = names.get(name, name) if name else None
        yield AlignSegment(
            text=segment.text, score=_finite_score(segment.score), flagged=segment.flagged, against=against
        )


def list_changes(before: str, after: str, outcome: Outcome) -> list[TextEdit]:
    """Every change between two texts, with the objective of the highest-scored flagged segment that it replaces."""
    if before == after:
        return []
    names = client_names(outcome.policy.objectives)
    flagged_ranges = list(_list_flagged_ranges(before, outcome))
    finding_ranges = list(_list_finding_ranges(after, outcome))
    changes = []
    shift = 0
    for start, end, text in find_edits(before, after):
        segment = _find_worst_segment(flagged_ranges, start, end)
        # Findings are placed in the delivered text, flagged segments in the original.
        new_start = start + shift
        new_end = new_start + len(text)
        findings = [finding for first, stop, finding in finding_ranges if first < new_end and new_start < stop]
        objective = findings[0].against if findings else None
        name = None if segment is None else outcome.objective_of(segment)
        if name:
            objective = names.get(name, name)
        sources = dict.fromkeys(finding.source for finding in findings)
        prefix, suffix = _count_equal_ends(before[start:end], text)
        changes.append(
            TextEdit(
                start=start + prefix,
                end=end - suffix,
                text=text[prefix : len(text) - suffix],
                objective=objective,
                score=None if segment is None else _finite_score(segment.score),
                source=", ".join(sources) or None,
            ),
        )
        shift += len(text) - (end - start)  # how far later text has moved in the delivered answer
    return changes


def _find_worst_segment(
    flagged_ranges: Sequence[tuple[int, int, SegmentScore]], start: int, end: int
) -> SegmentScore | None:
    """The flagged segment with the highest score among those that an edit from `start` to `end` touches."""
    end = max(end, start + 1)  # an insertion has no characters of its own, and counts as one character wide
    touched = [segment for first, last, segment in flagged_ranges if first < end and start <= last]
    return max(touched, key=lambda segment: segment.score or 0.0, default=None)


def count_undecided(before: str, after: str, outcome: Outcome | None) -> int:
    """How many characters at the end of the corrected beginning of an answer may still change once the answer goes on.

    The last sentence may go on. A flagged sentence that was kept, because nothing would remain or the gate refused the
    edit, may be removed when more is known. Without a verdict on the text all of it may change.
    """
    offset = find_answer_start(before)
    segments = split(before[offset:])
    if outcome is None or outcome.status not in (Status.CORRECTED, Status.UNCHANGED) or not segments:
        return len(after)
    edits = list(find_edits(before, after))
    # where what is undecided begins, in `before`
    decided_end = offset + segments[-1].start
    for first, last, _ in _list_flagged_ranges(before, outcome):
        # a flagged sentence that no edit touches was kept; an insertion counts as one character wide
        if not any(start <= last and first < max(stop, start + 1) for start, stop, _ in edits):
            decided_end = min(decided_end, first)
    # how far the edits before that place have moved it in `after`
    shift = 0
    for start, stop, text in edits:
        if stop > decided_end:
            decided_end = min(decided_end, start)
            break
        shift += len(text) - (stop - start)
    # white space before what is held may go with it
    return len(after) - len(after[: decided_end + shift].rstrip())


def _count_equal_ends(old: str, new: str) -> tuple[int, int]:
    """How many characters two texts share at their beginning, and at their end, in whole words only.

    For example "two red cars" and "two blue cars" share 4 and 5 characters.
    """
    prefix = common_prefix_length(old, new)
    while prefix and not (is_word_boundary(old, prefix) and is_word_boundary(new, prefix)):
        prefix -= 1
    suffix = common_prefix_length(old[prefix:][::-1], new[prefix:][::-1])
    while suffix and not (is_word_boundary(old, len(old) - suffix) and is_word_boundary(new, len(new) - suffix)):
        suffix -= 1
    return prefix, suffix


def _list_finding_ranges(after: str, outcome: Outcome) -> Iterator[tuple[int, int, Finding]]:
    """(start, end, finding) of each replacement that stages made, by position in the delivered text."""
    # Findings count from the beginning of the answer, after reasoning in tags, and in the text without earlier
    # replacements; `shift` leads from there to the delivered text.
    shift = find_answer_start(after)
    for finding in outcome.findings:
        if finding.text is None:
            continue
        start = finding.start + shift
        end = start + len(finding.text)
        if after[start:end] == finding.text:  # offsets of a text inside JSON do not refer to the whole answer
            yield start, end, finding
        shift += len(finding.text) - (finding.end - finding.start)


def _list_flagged_ranges(text: str, outcome: Outcome) -> Iterator[tuple[int, int, SegmentScore]]:
    """(first, last, segment) of each flagged segment; none if the judged segments are not those of the whole answer."""
    offset = find_answer_start(text)
    answer = text[offset:]
    pieces = split(answer)
    segments = outcome.segments
    if [segment.text for segment in segments[: len(pieces)]] != [piece.text for piece in pieces]:
        return
    for piece, segment in zip(pieces, segments, strict=False):
        if segment.flagged:
            yield offset + piece.start, offset + piece.end - 1, segment
    for segment in segments[len(pieces) :]:
        if segment.flagged:  # something is missing at the end
            yield offset + len(answer.rstrip()), len(text), segment


def _finite_score(score: float | None) -> float | None:
    """The score; None if it is infinite, since JSON has no infinity."""
    return None if score is None or math.isinf(score) else score
