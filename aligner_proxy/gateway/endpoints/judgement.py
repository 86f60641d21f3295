"""Judges answers that a client sends, by running the guardrail's hooks on a chat completion made of these answers."""

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
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.registry import PluginEndpoint
from aligner_proxy.policy.objective_choice import client_names
from aligner_proxy.text.structure import split
from aligner_proxy.types import Finding, Outcome, SegmentScore, Status

STOP = "stop"
_TOOL_CALLS = "tool_calls"
_LOGPROBS = "logprobs"
MAX_ANSWERS = 64
"""Most answers in one request, since each is a request to the engine."""
_CALL_TYPE = "align"


class GatewayHooks(Protocol):
    """The guardrail that the endpoints use: its hooks, which also process proxied answers, and its engine."""

    pipeline: Pipeline
    endpoints: Mapping[str, PluginEndpoint]
    """Endpoints of plugins, by path."""

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
    """For each answer the fields that point into it (citations, annotations, token probabilities), by name."""
    call_id: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """Tool calls of the only answer, in the format of chat completions."""
    tools: Sequence[Mapping[str, Any]] = ()
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
        """The requested objectives, split into names and the client's own texts (with a colon), and plugin fields."""
        names = tuple(objective for objective in self.objectives if ":" not in objective)
        texts = tuple(objective for objective in self.objectives if ":" in objective)
        return BodyRequest(names, texts, self.fields)

    def make_response(self) -> ModelResponse:
        """A chat completion with each answer as a choice, as an upstream would have returned it.

        Citations and probabilities are replaced by empty fields: the hooks ask only whether there are any, and each
        format writes them differently.
        """
        # "tool_calls" is a finish reason and also the name of the field with the calls.
        usual_reason = _TOOL_CALLS if self.tool_calls else STOP
        finish_reasons = self.finish_reasons or [usual_reason] * len(self.texts)
        choices: list[dict[str, Any]] = []
        for index, text in enumerate(self.texts):
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if self.tool_calls:
                message[_TOOL_CALLS] = [dict(call) for call in self.tool_calls]
            pointers = self.pointers[index] if self.pointers else {}
            if pointers.keys() - {_LOGPROBS}:
                message["provider_specific_fields"] = {CITATIONS[0]: [[{}]]}
            choice: dict[str, Any] = {"index": index, "message": message}
            if _LOGPROBS in pointers:
                choice[_LOGPROBS] = {"content": []}
            choices.append(choice)
        side_content = {} if self.side_content is None else {SIDE_CONTENT: self.side_content}
        response = ModelResponse(choices=choices, **side_content)
        # Set afterwards, since LiteLLM's constructor replaces reasons of other formats by "stop".
        for response_choice, finish_reason in zip(response.choices, finish_reasons, strict=True):
            vars(response_choice)["finish_reason"] = finish_reason
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
        if not self.state.is_enforced:  # nothing is changed
            return [0] * len(self.after)
        outcomes_by_index = {outcome.index: outcome for outcome in self.state.outcomes}
        counts = []
        for index, (before, after) in enumerate(zip(self.before, self.after, strict=True)):
            counts.append(count_undecided(before, after, outcomes_by_index.get(index)))
        return counts

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


async def judge_answers(
    hooks: GatewayHooks, request: Request, caller: UserAPIKeyAuth, answers: AnswerBatch
) -> JudgedBatch:
    """Judge answers as if an upstream had given them.

    Raises LiteLLM's error if the caller lacks permission, and `Blocked` if the policy prefers an error; both have the
    x-aligner headers.
    """
    if len(answers.texts) > MAX_ANSWERS:
        raise ProxyException(f"at most {MAX_ANSWERS} texts are judged at once", "invalid_request_error", "texts", 400)
    data = await litellm_internals.make_request_data(request, caller, answers.make_data(), answers.call_id)
    data[BODY_REQUEST] = answers.body_request
    response = answers.make_response()
    try:
        async with litellm_internals.count_request(caller, data):
            await hooks.async_pre_call_hook(caller, None, data, _CALL_TYPE)
            corrected_response = await hooks.async_post_call_success_hook(data, caller, response)
    except ProxyException as error:
        state = find_state(data)
        if state is not None:
            error.headers = {**state.headers(), **error.headers}
        raise
    delivered_response = response if corrected_response is None else corrected_response
    state = find_state(data)
    assert state is not None  # the first hook creates it
    delivered_texts = [choice.message.content or "" for choice in delivered_response.choices]
    tool_calls = []
    if answers.tool_calls:
        tool_calls = [call.model_dump() for call in delivered_response.choices[0].message.tool_calls or ()]
    return JudgedBatch(answers.texts, delivered_texts, state, tool_calls)


def _align_segments(outcome: Outcome) -> Iterator[AlignSegment]:
    """Yield the judged segments, with the names by which the client knows their objectives."""
    client_name_of = client_names(outcome.policy.objectives)
    for segment in outcome.segments:
        name = outcome.objective_of(segment)
        objective = client_name_of.get(name, name) if name else None
        yield AlignSegment(
            text=segment.text, score=_finite_score(segment.score), flagged=segment.flagged, against=objective
        )


def list_changes(before: str, after: str, outcome: Outcome) -> list[TextEdit]:
    """Every change from the original answer `before` to the delivered text `after`, with its objective.

    This is the objective of the highest-scored flagged segment that the change touches or, if it touches none, of the
    finding (a replacement by a stage of the pipeline) in it. A change is shortened by equal words at its ends.
    """
    if before == after:
        return []
    client_name_of = client_names(outcome.policy.objectives)
    flagged_ranges = list(_list_flagged_ranges(before, outcome))
    finding_ranges = list(_list_finding_ranges(after, outcome))
    changes = []
    shift = 0  # how far earlier edits have moved the text in `after`
    for start, end, text in find_edits(before, after):
        segment = _find_worst_segment(flagged_ranges, start, end)
        # Findings have their positions in `after`, flagged segments in `before`.
        new_start = start + shift
        new_end = new_start + len(text)
        findings = [
            finding
            for finding_start, finding_end, finding in finding_ranges
            if finding_start < new_end and new_start < finding_end
        ]
        objective = findings[0].against if findings else None
        name = None if segment is None else outcome.objective_of(segment)
        if name:
            objective = client_name_of.get(name, name)
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
        shift += len(text) - (end - start)
    return changes


def _find_worst_segment(
    flagged_ranges: Sequence[tuple[int, int, SegmentScore]], start: int, end: int
) -> SegmentScore | None:
    """The flagged segment with the highest score among those that an edit touches; None if it touches none.

    `flagged_ranges` comes from `_list_flagged_ranges`. The edit replaces the characters from `start` to before `end`.
    """
    end = max(end, start + 1)  # an insertion has no characters of its own, and counts as one character wide
    touched_segments = [segment for first, last, segment in flagged_ranges if first < end and start <= last]
    return max(touched_segments, key=lambda segment: segment.score or 0.0, default=None)


def count_undecided(before: str, after: str, outcome: Outcome | None) -> int:
    """How many characters at the end of `after` may still change once the answer goes on.

    `before` is the beginning of an answer, `after` its correction. The last sentence may go on. A flagged sentence that
    was kept, because nothing would remain or the gate refused the edit, may be removed when more of the answer is
    known. If the text was not judged, all of it may change.
    """
    offset = find_answer_start(before)
    segments = split(before[offset:])
    if outcome is None or outcome.status not in (Status.CORRECTED, Status.UNCHANGED) or not segments:
        return len(after)
    edits = list(find_edits(before, after))
    decided_end = offset + segments[-1].start  # position in `before`
    for first, last, _ in _list_flagged_ranges(before, outcome):
        # A flagged sentence that no edit touches was kept. An insertion counts as one character wide.
        if not any(start <= last and first < max(end, start + 1) for start, end, _ in edits):
            decided_end = min(decided_end, first)
    shift = 0  # how far the edits before `decided_end` have moved it in `after`
    for start, end, text in edits:
        if end > decided_end:
            decided_end = min(decided_end, start)
            break
        shift += len(text) - (end - start)
    # The white space before an undecided sentence may be removed with it.
    decided_text = after[: decided_end + shift].rstrip()
    return len(after) - len(decided_text)


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
    """Yield (start, end, finding) of each replacement that stages made, by position in the delivered text `after`."""
    # A finding's positions count from the end of reasoning in tags, and disregard what earlier findings replaced;
    # `shift` is what must be added to get the position in `after`.
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
    """Yield (first, last, score) of each flagged segment: positions of its first and last character in `text`.

    A flagged score after those of all segments means that something is missing at the end of the text; its range is the
    white space there. Nothing is yielded if the scores are not those of this text's segments.
    """
    offset = find_answer_start(text)
    answer = text[offset:]
    segments = split(answer)
    scores = outcome.segments
    if [score.text for score in scores[: len(segments)]] != [segment.text for segment in segments]:
        return
    for segment, score in zip(segments, scores, strict=False):
        if score.flagged:
            yield offset + segment.start, offset + segment.end - 1, score
    for score in scores[len(segments) :]:
        if score.flagged:
            yield offset + len(answer.rstrip()), len(text), score


def _finite_score(score: float | None) -> float | None:
    """The score; None if it is infinite, since JSON has no infinity."""
    return None if score is None or math.isinf(score) else score
