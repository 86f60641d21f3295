"""Adapters that let other gateways call this one as a guardrail. Only answers are judged, never prompts.

Formats: LiteLLM's `generic_guardrail_api`, agentgateway's guardrail webhook, and Portkey's webhook guardrail
(docs/guides/adapters.md). If the policy blocks an answer, the adapter returns a verdict. If the key lacks a permission,
it returns an HTTP error.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aligner_proxy.formats.base import has_content
from aligner_proxy.formats.copies import RemovedText, drop_copies
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.endpoints.forms import MAX_OBJECTIVES
from aligner_proxy.gateway.endpoints.judgement import MAX_ANSWERS, STOP, AnswerBatch, JudgedBatch
from aligner_proxy.policy.objective_schema import RequestedObjective

JudgeBatch = Callable[[AnswerBatch], Awaitable[JudgedBatch]]
"""Judges answers for the current request; raises `Blocked` if the policy prefers an error."""
_POINTER_FIELDS = ("annotations", "citations", "logprobs")
"""Fields beside a text that point into it or give the probabilities of its tokens."""
_TOOL_CALLS = "tool_calls"
_ANSWER_EVENT = "afterRequestHook"
"""Portkey's event for an answer; other events concern prompts."""
_TEXT = "text"
_CONVERSATION_FIELDS = ("system", "instructions", "messages", "prompt", "input")
"""Request fields that hold the conversation, in its order."""


class _Foreign(BaseModel):
    """A request body in another gateway's format; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class GenericSettings(_Foreign):
    """The `additional_provider_specific_params` in the other proxy's configuration."""

    objectives: Annotated[tuple[RequestedObjective, ...], Field(max_length=MAX_OBJECTIVES)] = ()
    """As in `POST /v1/align`."""


class GenericRequest(_Foreign):
    """Request body of LiteLLM's `generic_guardrail_api`."""

    input_type: Literal["request", "response"]
    texts: Annotated[tuple[str, ...], Field(max_length=MAX_ANSWERS)] | None = None
    structured_messages: tuple[dict[str, Any], ...] | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    model: str | None = None
    litellm_call_id: str | None = None
    additional_provider_specific_params: GenericSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _ignore_prompt(cls, body: Any) -> Any:
        """Keep only `input_type` of a prompt's body, since prompts pass whatever their form and length."""
        is_prompt = isinstance(body, dict) and body.get("input_type") == "request"
        return {"input_type": "request"} if is_prompt else body


async def judge_generic_guardrail(body: GenericRequest, judge: JudgeBatch) -> dict[str, Any]:
    """The verdict in LiteLLM's format: the `action`, and what it needs; prompts always pass."""
    texts = body.texts or ()
    if body.input_type == "request" or not (texts or body.tool_calls):
        return {"action": "NONE"}
    settings = body.additional_provider_specific_params or GenericSettings()
    answers = AnswerBatch(
        texts=texts,
        messages=body.structured_messages or (),
        model=body.model,
        objectives=settings.objectives,
        # The body does not say which of the answers made the calls, so each answer gets this reason.
        finish_reasons=[_TOOL_CALLS if body.tool_calls else STOP] * len(texts),
        call_id=body.litellm_call_id,
        side_content={_TOOL_CALLS: body.tool_calls} if body.tool_calls else None,
    )
    try:
        result = await judge(answers)
    except Blocked as error:
        return {"action": "BLOCKED", "blocked_reason": error.message}
    # How many characters at the end of each text LiteLLM should hold back in a stream; otherwise it ignores this field.
    holdback = {"stream_holdback_chars": result.undecided_chars}
    if not result.changed:
        return {"action": "NONE", **holdback}
    return {"action": "GUARDRAIL_INTERVENED", "texts": list(result.after), **holdback}


class AgentgatewayMessage(_Foreign):
    """A message of a choice; its other fields are judged, too."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str = "assistant"
    content: str


class AgentgatewayChoice(_Foreign):
    """One answer of a response; its other fields are judged, too."""

    model_config = ConfigDict(extra="allow", frozen=True)

    message: AgentgatewayMessage


class AgentgatewayBody(_Foreign):
    """The choices of a response; a prompt has none."""

    choices: Annotated[tuple[AgentgatewayChoice, ...], Field(max_length=MAX_ANSWERS)] | None = None


class PortkeyPart(_Foreign):
    """The request or response that Portkey checks; other fields of a response are judged, too."""

    model_config = ConfigDict(extra="allow", frozen=True)

    content: dict[str, Any] | None = Field(default=None, alias="json")


class WebhookRequest(_Foreign):
    """Request body of agentgateway (`body`) or of Portkey (`eventType`, `request`, `response`)."""

    body: AgentgatewayBody | None = None
    event_type: str | None = Field(default=None, alias="eventType")
    request: PortkeyPart = PortkeyPart()
    response: PortkeyPart = PortkeyPart()


async def judge_webhook(body: WebhookRequest, judge: JudgeBatch) -> dict[str, Any]:
    """The verdict in the format of agentgateway or Portkey, by which of them sent the body; prompts always pass."""
    if body.body is None:
        return await _judge_portkey(body, judge)
    return await _judge_agentgateway(body.body, judge)


async def _judge_agentgateway(body: AgentgatewayBody, judge: JudgeBatch) -> dict[str, Any]:
    """The body of agentgateway's webhook: an `action` that lets the choices pass, replaces all, or rejects them."""
    if not body.choices:
        return {"action": {"reason": "prompts are not judged"}}
    try:
        texts = [choice.message.content for choice in body.choices]
        other_fields = [choice.model_dump(exclude={"message": {"content", "role"}}) for choice in body.choices]
        result = await judge(AnswerBatch(texts=texts, side_content=other_fields))
    except Blocked as error:
        return {"action": {"body": error.message, "status_code": error.status_code, "reason": error.message}}
    reason = result.state.status.value
    if not result.changed:
        return {"action": {"reason": reason}}
    corrected_choices = []
    for choice, text in zip(body.choices, result.after, strict=True):
        corrected_choices.append({"message": {"role": choice.message.role, "content": text}})
    return {"action": {"body": {"choices": corrected_choices}, "reason": reason}}


async def _judge_portkey(body: WebhookRequest, judge: JudgeBatch) -> dict[str, Any]:
    """The body of Portkey's webhook: `verdict` (whether the answer may pass), and `data` with the status or reason.

    If the answer was corrected, `transformedData` has the corrected response.
    """
    request = body.request.content or {}
    response = body.response.content or {}
    has_response = bool(response or body.response.model_extra)
    if body.event_type != _ANSWER_EVENT or not has_response:
        return {"verdict": True}
    portkey_answers = list(_find_answers(response))
    model = request.get("model")
    batch = AnswerBatch(
        texts=[answer.text for answer in portkey_answers],
        messages=list(_conversation_turns(request)),
        model=model if isinstance(model, str) else None,
        finish_reasons=[answer.finish_reason for answer in portkey_answers],
        pointers=[answer.pointers for answer in portkey_answers],
        # Everything else in the body must not violate the policy either, and is judged as text beside the answers.
        side_content=[body.response.model_extra, _copy_without_texts(response, portkey_answers)],
    )
    try:
        result = await judge(batch)
    except Blocked as error:
        return {"verdict": False, "data": {"reason": error.message}}
    verdict: dict[str, Any] = {"verdict": True, "data": {"status": result.state.status.value}}
    if result.changed:
        for answer, text in zip(portkey_answers, result.after, strict=True):
            answer.replace(text)
        unchanged_texts = [after for before, after in zip(result.before, result.after, strict=True) if before == after]
        # Copies of the removed text in other fields are dropped. This cannot fail: if a copy had to stay, the
        # correction would have been withdrawn.
        removed_text = RemovedText.compare_texts(result.before, result.after)
        cleaned_response = drop_copies(response, removed_text, result.after, unchanged_texts)
        verdict["transformedData"] = {"response": {"json": cleaned_response}}
    return verdict


@dataclass(frozen=True, slots=True)
class _PortkeyAnswer:
    """One text of a response that Portkey sends."""

    holder: dict[str, Any]
    """The JSON object that has the text in its field `key`."""
    key: str
    finish_reason: str
    owners: tuple[dict[str, Any], ...]
    """The JSON objects whose citations and other pointers belong to this text."""

    @property
    def text(self) -> str:
        return str(self.holder[self.key])

    @property
    def pointers(self) -> Mapping[str, Any]:
        """The fields that point into the text or give the probabilities of its tokens, by name."""
        return {name: owner[name] for owner in self.owners for name in _POINTER_FIELDS if has_content(owner.get(name))}

    def replace(self, text: str) -> None:
        """Put `text` in place of this text, and empty the citations and other pointers into the old text."""
        if text == self.text:
            return
        self.holder[self.key] = text
        for owner in self.owners:
            for name in _POINTER_FIELDS:
                if has_content(owner.get(name)):
                    owner[name] = [] if isinstance(owner[name], list) else None


def _find_answers(response: dict[str, Any]) -> Iterator[_PortkeyAnswer]:
    """Yield every text of a chat, text completion, Messages or Responses response."""
    for choice in _list_objects(response.get("choices")):  # chat and text completions
        reason = _finish_reason(choice.get("finish_reason"))
        message = choice.get("message")
        if isinstance(message, dict):
            for holder, key in _find_texts_under(message, "content"):
                yield _PortkeyAnswer(holder, key, reason, owners=(choice, message))
        for holder, key in _find_texts_under(choice, "text"):
            yield _PortkeyAnswer(holder, key, reason, owners=(choice,))
    # Messages has its texts in the response itself, Responses in the items of its output.
    reason = _finish_reason(response.get("stop_reason") or _why_incomplete(response))
    for item in (response, *_list_objects(response.get("output"))):
        for holder, key in _find_texts_under(item, "content"):
            yield _PortkeyAnswer(holder, key, reason, owners=(holder,))


def _why_incomplete(response: Mapping[str, Any]) -> object:
    """The reason for which a response of the Responses API is incomplete; without a reason, its status."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return reason or response.get("status")


def _find_texts_under(holder: dict[str, Any], key: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (object, key) of the text in the field `key` of an object, or of each text if it is a list of parts."""
    if isinstance(holder.get(key), str):
        yield holder, key
    for part in _list_objects(holder.get(key)):
        if part.get("type", _TEXT) in (_TEXT, "output_text") and isinstance(part.get("text"), str):
            yield part, "text"


def _copy_without_texts(response: dict[str, Any], answers: Sequence[_PortkeyAnswer]) -> dict[str, Any]:
    """A copy of a response in which the texts of these answers are empty."""
    texts = [answer.text for answer in answers]
    # The answers refer to the original response, so its texts are emptied, copied with it, and then put back.
    for answer in answers:
        answer.holder[answer.key] = ""
    copied = copy.deepcopy(response)
    for answer, text in zip(answers, texts, strict=True):
        answer.holder[answer.key] = text
    return copied


def _conversation_turns(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the turns before the answer, as chat messages, from a request of any endpoint."""
    for name in _CONVERSATION_FIELDS:
        value = request.get(name)
        # In Messages requests `system` may be a list of blocks instead of a text.
        if isinstance(value, str) or (name == "system" and value):
            role = "system" if name in ("system", "instructions") else "user"
            yield {"role": role, "content": value}
        else:
            yield from (turn for turn in _list_objects(value) if isinstance(turn.get("role"), str))


def _list_objects(value: object) -> list[dict[str, Any]]:
    """The JSON objects in a list; empty for anything else."""
    if not isinstance(value, list):
        return []
    return [entry for entry in value if isinstance(entry, dict)]


def _finish_reason(value: object) -> str:
    return value if isinstance(value, str) and value else STOP
