"""Response bodies as JSON, as in a provider's batch file: to the objects that the wire formats read, and back.

LiteLLM's own constructors map finish reasons, add fields and drop others. Here its objects are filled without them, and
on the way back each object has exactly the fields that it was read with, in their order, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
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
_BODIES = ("choices", "output", "content")
"""Fields that hold the answers of a body: of chat and text, of Responses, of Messages."""


def holds_answers(body: Mapping[str, Any]) -> bool:
    """Whether a body has answers; an error, an embedding or a moderation has none."""
    return any(body.get(name) for name in _BODIES)


def find_route(body: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """The route whose wire format a response body has.

    A text completion whose request has no prompt is read as a chat completion without a conversation. A body of an
    unknown form is read as one, too: it has no choices, and each of its texts is one beside the answer.
    """
    if "choices" in body:
        return TEXT if body.get("object") == _TEXT_OBJECT and "prompt" in request else CHAT
    if "output" in body:
        return RESPONSES
    return MESSAGES if "content" in body else CHAT


def read_body(body: dict[str, Any]) -> Any:
    """The object that the wire formats read in place of a JSON body; a message of Anthropic stays the same dict."""
    if "choices" in body:
        if body.get("object") == _TEXT_OBJECT:
            return _fill(TextCompletionResponse, {**body, "choices": _map_objects(body["choices"], _read_text_choice)})
        return _fill(ModelResponse, {**body, "choices": _map_objects(body["choices"], _read_choice)})
    return _fill(ResponsesAPIResponse, body) if "output" in body else body


def write_body(edited: Any, body: Any) -> Any:
    """An edited object as JSON; `body` is what it was read from, whose fields give the order."""
    if isinstance(edited, list):
        originals = body if isinstance(body, list) and len(body) == len(edited) else [None] * len(edited)
        return [write_body(inner, original) for inner, original in zip(edited, originals, strict=True)]
    if not isinstance(edited, BaseModel):
        return edited
    declared = {name: value for name, value in vars(edited).items() if name in edited.model_fields_set}
    fields = declared | (edited.model_extra or {})
    originals_by_name = body if isinstance(body, dict) else {}
    # first the names that the body had, in its order, then the others
    names_in_order = [name for name in originals_by_name if name in fields]
    names_in_order += [name for name in fields if name not in originals_by_name]
    return {name: write_body(fields[name], originals_by_name.get(name)) for name in names_in_order}


def _read_choice(choice: dict[str, Any]) -> Any:
    """The object of LiteLLM for a choice of a chat completion, and for its message."""
    message = choice.get("message")
    if isinstance(message, dict):
        choice = {**choice, "message": _fill(Message, message)}
    return _fill(Choices, choice)


def _read_text_choice(choice: dict[str, Any]) -> Any:
    return _fill(TextChoices, choice)


def _map_objects(values: object, read: Any) -> object:
    """A list with `read` applied to its JSON objects; any other value unchanged, for the wire format to refuse."""
    if not isinstance(values, list):
        return values
    return [read(value) if isinstance(value, dict) else value for value in values]


def _fill(kind: Any, fields: Mapping[str, Any]) -> Any:
    """An object of this class with exactly these fields; fields that are missing are None and not written back."""
    filled = kind.model_construct()
    # Not as arguments: a field may be called like one of pydantic's own.
    for name, value in fields.items():
        if name in kind.model_fields:
            vars(filled)[name] = value
            filled.model_fields_set.add(name)
        else:
            filled.model_extra[name] = value
    # LiteLLM's classes leave their private fields unset here, and reading one would then fail.
    if filled.__pydantic_private__ is None:
        object.__setattr__(filled, "__pydantic_private__", {})
    return filled
