"""Conversion of JSON response bodies, as in a provider's batch file, to the objects that wire formats read, and back.

LiteLLM's own constructors map finish reasons, add fields and drop others. Here its objects are filled without them, and
on the way back each object has exactly the fields that it was read with, in their order, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import Choices, Message, ModelResponse, TextChoices, TextCompletionResponse
from pydantic import BaseModel

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
_TEXT_OBJECT = "text_completion"
"""The `object` of a text completion, whose choices have no message."""


def holds_answers(body: Mapping[str, Any]) -> bool:
    """Whether a body has answers; an error, an embedding or a moderation does not."""
    return any(body.get(name) for name in ("choices", "output", "content"))


def find_route(body: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Return the route whose wire format a response body has.

    A text completion whose request has no prompt is read as a chat completion without a conversation. A body of an
    unknown form is read as a chat completion without choices, so each of its texts is a text beside an answer.
    """
    if "choices" in body:
        return TEXT if body.get("object") == _TEXT_OBJECT and "prompt" in request else CHAT
    if "output" in body:
        return RESPONSES
    return MESSAGES if "content" in body else CHAT


def read_body(body: dict[str, Any]) -> Any:
    """Return the object that the wire formats read in place of a JSON body; a message of Anthropic stays a dict."""
    if "choices" in body:
        if body.get("object") == _TEXT_OBJECT:
            text_choices = _map_objects(body["choices"], partial(_fill, TextChoices))
            return _fill(TextCompletionResponse, {**body, "choices": text_choices})
        return _fill(ModelResponse, {**body, "choices": _map_objects(body["choices"], _read_choice)})
    return _fill(ResponsesAPIResponse, body) if "output" in body else body


def write_body(edited: Any, body: Any) -> Any:
    """Return an edited object as JSON; `body` is the JSON that it was read from, whose order of fields is kept."""
    if isinstance(edited, list):
        originals = body if isinstance(body, list) and len(body) == len(edited) else [None] * len(edited)
        return [write_body(inner, original) for inner, original in zip(edited, originals, strict=True)]
    if not isinstance(edited, BaseModel):
        return edited
    declared = {name: value for name, value in vars(edited).items() if name in edited.model_fields_set}
    fields = declared | (edited.model_extra or {})
    originals_by_name = body if isinstance(body, dict) else {}
    # First come the names that the body had, in its order, then the other names.
    names_in_order = [name for name in originals_by_name if name in fields]
    names_in_order += [name for name in fields if name not in originals_by_name]
    return {name: write_body(fields[name], originals_by_name.get(name)) for name in names_in_order}


def _read_choice(choice: dict[str, Any]) -> Any:
    """Return LiteLLM's object for a choice of a chat completion, with an object for its message."""
    message = choice.get("message")
    if isinstance(message, dict):
        choice = {**choice, "message": _fill(Message, message)}
    return _fill(Choices, choice)


def _map_objects(values: object, read_object: Callable[[dict[str, Any]], Any]) -> object:
    """Return a list with `read_object` applied to each JSON object in it; any other value as it is, to be refused."""
    if not isinstance(values, list):
        return values
    return [read_object(value) if isinstance(value, dict) else value for value in values]


def _fill(model: Any, fields: Mapping[str, Any]) -> Any:
    """Return an object of the class `model` with exactly these fields; missing ones are None and not written back."""
    instance = model.model_construct()
    # The values are not passed as arguments, since a field may have the name of one of pydantic's own parameters.
    for name, value in fields.items():
        if name in model.model_fields:
            vars(instance)[name] = value
            instance.model_fields_set.add(name)
        else:
            instance.model_extra[name] = value
    # LiteLLM's classes leave their private fields unset here, and reading one would then fail.
    if instance.__pydantic_private__ is None:
        object.__setattr__(instance, "__pydantic_private__", {})
    return instance
