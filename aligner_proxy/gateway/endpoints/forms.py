"""Body of `POST /v1/align`: what a request says, and what it gets."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, TypeVar

from fastapi import Request
from litellm.proxy._types import ProxyException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy.objective_schema import RequestedObjective
from aligner_proxy.policy.schema import extend_model

MOST_OBJECTIVES = 32
_MOST_FAULTS = 5
_LONGEST_NAME = 100
"""Characters of a field's name in an error: unknown fields are named, too, as the client wrote them."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Message(BaseModel):
    """One turn of the conversation, in the form of chat completions; other fields of it are not looked at."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: str | list[dict[str, Any]] | None = None


class AlignBody(_Body):
    """What is asked of `POST /v1/align`."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    """The conversation before the answer, in the form of chat completions."""
    answer: str
    """The answer to judge and to correct."""
    model: str | None = None
    """The model that gave the answer: its route decides, as for the traffic. Without it, routes for every model do."""
    objectives: Annotated[tuple[RequestedObjective, ...], Field(max_length=MOST_OBJECTIVES)] = ()
    """Objectives besides those of route and tenant: names of configured ones, or "Name: description" in own words; the
    tenant's `allow` must let them be asked for ("*" lets own words)."""

    @property
    def plugin_fields(self) -> dict[str, Any]:
        """What the body says in fields of plugins, by name."""
        names = [name for name in type(self).model_fields if name not in AlignBody.model_fields]
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


@lru_cache(maxsize=8)
def align_form(extensions: Extensions) -> type[AlignBody]:
    """The body of `POST /v1/align` with the fields of plugins."""
    fields = extensions.body_fields
    return extend_model(AlignBody, {f.name: (f.type, Field(default=f.default, description=f.about)) for f in fields})


class AlignSegment(_Body):
    """A judged sentence, heading or list item of the answer; with an empty text: its end, where something lacks."""

    text: str
    score: float | None
    """Log-odds (nats) that it must change; null without a detector."""
    flagged: bool
    against: str | None = None
    """The objective that it was flagged for."""


class TextEdit(_Body):
    """One change: the characters from `start` to `end` of the answer as it was sent become `text`."""

    start: int
    end: int
    text: str
    objective: str | None = None
    """The objective for which it was made; null where no single segment tells."""
    score: float | None = None
    """The highest score of the segments that it replaces."""
    source: str | None = None
    """What says so, as a plugin names it: of a fact the reference and its line, "POLICY.md:12" or "request 1:3"."""


class AlignAnswer(_Body):
    """What `POST /v1/align` answers."""

    id: str
    """The call's id, which logs, traces and the audit store have, too."""
    aligner_id: str | None = None
    """As x-aligner-id of the traffic, for `POST /v1/feedback`; null where nothing looked at the answer."""
    answer: str
    """What a client of the traffic would get."""
    status: str
    """As x-aligner-status of the traffic: corrected, unchanged, skipped, shadow, failed ..."""
    reason: str | None = None
    """As x-aligner-reason."""
    segments: tuple[AlignSegment, ...] = ()
    edits: tuple[TextEdit, ...] = ()
    ms: float | None = None
    """Milliseconds that the correction took; a power of ten unless the policy says `exact_times`."""


_Form = TypeVar("_Form", bound=BaseModel)


async def parse_body(request: Request, form: type[_Form]) -> _Form:
    """The body of a request in this form; HTTP 400 that names the field otherwise."""
    try:
        return form.model_validate_json(await request.body())
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> ProxyException:
    """The first faults of a body by field, never with their values."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)[:_MOST_FAULTS]
    places = [".".join(map(str, fault["loc"]))[:_LONGEST_NAME] or "body" for fault in faults]
    message = "; ".join(f"{place}: {fault['msg']}" for place, fault in zip(places, faults, strict=True))
    return ProxyException(message, "invalid_request_error", places[0], 400)
