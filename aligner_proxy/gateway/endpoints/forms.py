"""Request and response bodies of `POST /v1/align`."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from fastapi import Request
from litellm.proxy._types import ProxyException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy.objective_schema import RequestedObjective
from aligner_proxy.policy.plugin_schema import extend_model
from aligner_proxy.types import replace_surrogates

MAX_OBJECTIVES = 32
"""Most objectives that one request may add."""
MAX_TOOLS = 128
"""Most tool calls, and most tools, of one request."""
_SURROGATE_ESCAPE = re.compile(rb"(?i)\\ud[89a-f]")
"""JSON escape of half a character (a surrogate), with or without its other half behind it."""
_MAX_FAULTS = 5
"""Most invalid fields that one error message names."""
_LONGEST_NAME = 100
"""Most characters of a field name in an error message, since unknown fields are quoted as the client wrote them."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Message(BaseModel):
    """One turn of the conversation, in the format of chat completions; other fields are ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: str | list[dict[str, Any]] | None = None


class AlignBody(_Body):
    """Request body of `POST /v1/align`."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    """The conversation before the answer, in the format of chat completions."""
    answer: str
    """The answer to judge and correct; empty if it only calls tools."""
    tool_calls: Annotated[tuple[dict[str, Any], ...], Field(max_length=MAX_TOOLS)] = ()
    """The answer's tool calls, in the format of chat completions; their arguments are treated as `tool_arguments` of
    the policy says."""
    tools: Annotated[tuple[dict[str, Any], ...], Field(max_length=MAX_TOOLS)] = ()
    """The tools that the request offered, whose schemas corrected arguments have to meet."""
    model: str | None = None
    """The model that gave the answer; its route decides, as for proxied requests. If unset, routes for any model do."""
    objectives: Annotated[tuple[RequestedObjective, ...], Field(max_length=MAX_OBJECTIVES)] = ()
    """Objectives added to those of route and tenant: names of configured ones, or own ones as "Name: description". The
    tenant's `allow` must permit them ("*" permits own ones).
    """

    @property
    def plugin_fields(self) -> dict[str, Any]:
        """Values that the body sets in fields of plugins, by name."""
        names = [name for name in type(self).model_fields if name not in AlignBody.model_fields]
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


@lru_cache(maxsize=8)
def align_form(extensions: Extensions) -> type[AlignBody]:
    """Return the class of request bodies of `POST /v1/align`, with the fields that plugins add to it."""
    plugin_fields = {
        field.name: (field.type, Field(default=field.default, description=field.about))
        for field in extensions.body_fields
    }
    return extend_model(AlignBody, plugin_fields)


class AlignSegment(_Body):
    """A judged sentence, heading or list item; empty text stands for the end, where something may be missing."""

    text: str
    score: float | None
    """Log-odds (nats) that the segment must change; null without a detector."""
    flagged: bool
    against: str | None = None
    """The objective for which the segment was flagged."""


class TextEdit(_Body):
    """One change: the characters from `start` to `end` of the original answer are replaced with `text`."""

    start: int
    end: int
    text: str
    objective: str | None = None
    """The objective for which the change was made; null if no flagged segment or finding explains it."""
    score: float | None = None
    """The highest score among the flagged segments that the change replaces."""
    source: str | None = None
    """Evidence given by a plugin; for a fact, the reference and line, such as "POLICY.md:12" or "request 1:3"."""


class AlignAnswer(_Body):
    """Response body of `POST /v1/align`."""

    id: str
    """The call id, which also appears in logs, traces and the audit store."""
    aligner_id: str | None = None
    """Like the header x-aligner-id, for `POST /v1/feedback`; null if the answer was skipped."""
    answer: str
    """The answer that a client of the proxy would get."""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """The tool calls that a client of the proxy would get."""
    status: str
    """Like the header x-aligner-status: corrected, unchanged, skipped, shadow, failed ..."""
    reason: str | None = None
    """Like the header x-aligner-reason."""
    segments: tuple[AlignSegment, ...] = ()
    edits: tuple[TextEdit, ...] = ()
    ms: float | None = None
    """Milliseconds that the correction took; a bound (100, 200, 500, 1000 ...) unless the policy sets `exact_times`."""


_BodyT = TypeVar("_BodyT", bound=BaseModel)


async def parse_body(request: Request, body_class: type[_BodyT]) -> _BodyT:
    """Parse the body of a request into an object of this class; raise HTTP 400, naming the fields, if it is invalid."""
    try:
        return body_class.model_validate_json(_replace_lone_surrogates(await request.body()))
    except ValidationError as error:
        raise _make_refusal(error) from None


def _replace_lone_surrogates(body: bytes) -> bytes | str:
    """The JSON with U+FFFD for each unpaired surrogate, which pydantic would refuse; invalid JSON as it is."""
    if not _SURROGATE_ESCAPE.search(body):
        return body
    try:
        # Parsing joins the halves that belong together.
        return replace_surrogates(json.dumps(json.loads(body), ensure_ascii=False))
    except (ValueError, RecursionError):
        return body


def _make_refusal(error: ValidationError) -> ProxyException:
    """The HTTP 400 that names the first `_MAX_FAULTS` invalid fields, without their values."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)[:_MAX_FAULTS]
    field_names = [".".join(map(str, fault["loc"]))[:_LONGEST_NAME] or "body" for fault in faults]
    message = "; ".join(f"{name}: {fault['msg']}" for name, fault in zip(field_names, faults, strict=True))
    return ProxyException(message, type="invalid_request_error", param=field_names[0], code=400)
