"""What all wire formats share: reading requests, building a choice, and writing texts back.

`data` is everywhere the body of a request, with what LiteLLM adds to it.

A `ChoiceBuilder` gathers a choice from one message or from many deltas, so that a stream and a whole response give the
same exchange. Only the objects on the path to a changed text are copied; all others stay the same object.

Nothing here decides or waits.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pydantic import BaseModel

from aligner_proxy.errors import Unreadable
from aligner_proxy.formats import copies
from aligner_proxy.formats.side_text import USAGE, USUAL_FIELDS
from aligner_proxy.formats.stream_events import StreamDecoder
from aligner_proxy.text.program_text import begins_form, fills_middle
from aligner_proxy.text.refusals import is_refusal
from aligner_proxy.types import Exchange, Outcome, Status, Turn, join_surrogates, replace_surrogates

# Besides OpenAI's response_format: the fields in which vLLM and llama.cpp accept a grammar for the output.
_GRAMMAR_FIELDS = {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar"}
_MAX_UNUSUAL_TEXTS = 256
"""Most texts of unusual fields that are compared with an answer."""
_PIECES_PER_BLOCK = 64
"""Number of pieces of a growing text that are joined to one block."""
_SHORT_FIELDS = frozenset(
    {
        *("id", "model", "object", "type", "role", "name", "status", "item_id"),
        *("finish_reason", "stop_reason", "stop_sequence", "system_fingerprint", "service_tier"),
    }
)
"""Fields of a plain event that hold a word or an id."""
_CONTAINER_FIELDS = frozenset({"choices", "message", "delta", "content", "content_block"})
"""Fields of a plain event that hold others."""
_ANSWER_FIELDS = (
    *("choices", "output", "output_text", "response", "content", "content_block"),
    *("delta", "message", "text", "completion", "candidates"),
)
"""Fields in which upstreams of any kind send their answer, or a piece of it."""


def _begins_structure(data: Mapping[str, Any]) -> bool:
    """Whether a request begins the answer with code or JSON, or asks the model to fill a gap in a text."""
    prefill = _find_answer_prefill(data)
    return _asks_for_middle(data) or (bool(prefill) and begins_form(prefill))


def _find_answer_prefill(data: Mapping[str, Any]) -> str:
    """The beginning of the answer, if the request gives it as its last turn, by the assistant; else an empty text."""
    turns = data.get("messages") or data.get("input")
    if not turns or not isinstance(turns, list | tuple):
        return ""
    last_turn = turns[-1]
    if not isinstance(last_turn, Mapping) or last_turn.get("role") != "assistant":
        return ""
    return _content_text(last_turn.get("content"))


def _asks_for_middle(data: Mapping[str, Any]) -> bool:
    """Whether a prompt for /v1/completions asks the model to fill in the middle of a text."""
    prompt = data.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    return any(isinstance(text, str) and fills_middle(text) for text in prompts)


def _has_constraint(data: Mapping[str, Any], formats: Sequence[object]) -> bool:
    """Whether a grammar, or one of the `formats` that is not JSON, constrains the answer, so no edit can be checked."""
    extra_body = data.get("extra_body")
    bodies = (data, extra_body) if isinstance(extra_body, Mapping) else (data,)
    has_grammar = any(body[name] for body in bodies for name in _GRAMMAR_FIELDS & body.keys())
    return has_grammar or any(_format_type(format_) not in ("json_object", "json_schema") for format_ in formats)


def _json_schema(data: Mapping[str, Any], formats: Sequence[object]) -> str | None:
    """The JSON schema in `formats` as text; None if there is none. An invalid schema gives "false" (never met)."""
    schema_formats = [format_ for format_ in formats if _format_type(format_) == "json_schema"]
    if not schema_formats:
        return None
    # Only chat nests the schema one level deeper, and may omit it; `true` is then the schema that any output meets. In
    # other formats a missing schema is invalid, as are two schemas for one answer.
    is_chat = schema_formats[0] is data.get("response_format")
    holder = _get_field(schema_formats[0], "json_schema") if is_chat else schema_formats[0]
    schema: object = False
    if isinstance(holder, Mapping) and len(schema_formats) == 1:
        schema = holder.get("schema", is_chat)
    try:
        return json.dumps(schema)
    except (TypeError, ValueError):
        return "false"


def _requested_formats(data: Mapping[str, Any]) -> list[object]:
    """The output formats that the request asks for, other than plain text."""
    formats = (
        data.get("response_format"),  # chat
        _get_field(data.get("text"), "format"),  # Responses
        data.get("output_format"),  # Messages, and its newer form
        _get_field(data.get("output_config"), "format"),
    )
    return [format_ for format_ in formats if format_ is not None and _format_type(format_) not in (None, "text")]


def _format_type(format_: object) -> object:
    """The `type` of an output format; some requests give only the type in place of an object."""
    return format_.get("type") if isinstance(format_, Mapping) else format_


def _get_field(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else None


def make_system_turn(text: object) -> tuple[Turn, ...]:
    """The system prompt (`instructions` of Responses, `system` of Messages) as one turn; empty without a prompt."""
    return read_turns([{"role": "system", "content": text}]) if text else ()


def read_turns(messages: object, roles: Container[str] | None = None) -> tuple[Turn, ...]:
    """The turns of a request's `messages`, only those of `roles` if given; of a list of parts, the text parts count."""
    if not isinstance(messages, (list, tuple)):
        return ()
    chosen_turns = []
    for message in messages:
        role = str(message.get("role") or "") if isinstance(message, Mapping) else None
        if role is not None and (roles is None or role in roles):
            chosen_turns.append(make_turn(role, _content_text(message.get("content"))))
    return tuple(chosen_turns)


def make_turn(role: str, content: str) -> Turn:
    """Make a turn. Lone surrogates, which no encoding has, are replaced, so that the turn can be encoded."""
    return Turn(replace_surrogates(role), replace_surrogates(content))


def _content_text(content: object) -> str:
    """The text of a message's content, with each of its text parts on a new line; empty for any other content."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))


def request_headers(data: Mapping[str, Any]) -> dict[str, str]:
    """The client's request headers, with names in lower case."""
    request = data.get("proxy_server_request")
    fields = request.get("headers") if isinstance(request, Mapping) else None
    return {str(name).lower(): str(value) for name, value in fields.items()} if isinstance(fields, Mapping) else {}


def is_storing_forbidden(data: Mapping[str, Any], response: object = None) -> bool:
    """Whether the client or the upstream (`response`) forbids that the answer is stored."""
    return _request_forbids_storing(data) or _upstream_forbids_storing(data, response)


def _upstream_forbids_storing(data: Mapping[str, Any], response: object) -> bool:
    # LiteLLM stores the upstream's headers in two places, depending on the route.
    details = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
    logged_control = _get_field(_get_field(details, "response_headers"), "cache-control")
    return _says_no_store(logged_control) or _says_no_store(_upstream_cache_control(response))


def _request_forbids_storing(data: Mapping[str, Any]) -> bool:
    """Whether the client sent `Cache-Control: no-store`, or LiteLLM's field for this, `cache: {no-store: true}`."""
    cache_field = data.get("cache")
    forbidden_in_body = isinstance(cache_field, Mapping) and bool(cache_field.get("no-store"))
    return forbidden_in_body or _says_no_store(request_headers(data).get("cache-control"))


def _says_no_store(cache_control: object) -> bool:
    """Whether a Cache-Control has the directive `no-store`, in any case and among others."""
    return cache_control is not None and "no-store" in str(cache_control).lower()


def _upstream_cache_control(response: object) -> object:
    """The upstream's Cache-Control, which LiteLLM stores in the hidden parameters of a response, chunk or stream."""
    hidden_params = getattr(response, "_hidden_params", None)
    if hidden_params is None or not hasattr(hidden_params, "get"):
        return None
    return _get_field(hidden_params.get("additional_headers"), "llm_provider-cache-control")


def metadata_buckets(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return LiteLLM's metadata dicts; first the one that the proxy itself filled, whose name depends on the route."""
    metadata = data.get("metadata")
    litellm_metadata = data.get("litellm_metadata")
    if not isinstance(litellm_metadata, dict):
        return [metadata] if isinstance(metadata, dict) else []
    if not isinstance(metadata, dict):
        return [litellm_metadata]
    # The proxy writes the fields of the key into its own dict only.
    if any(str(name).startswith("user_api_key") for name in metadata):
        return [metadata, litellm_metadata]
    proxy_filled_other = any(str(name).startswith("user_api_key") for name in litellm_metadata)
    return [litellm_metadata, metadata] if proxy_filled_other else [metadata, litellm_metadata]


@dataclass(frozen=True, slots=True)
class RequestedForm:
    """What a request asks for regarding the form of its answer; the same for all choices and events of a stream."""

    call_id: str
    """LiteLLM's id of the call; empty without one."""
    structured: bool
    """Whether the output is for a program: the request asks for that in the fields of any endpoint, or begins it."""
    json_schema: str | None
    constrained: bool
    """Whether an edit may break the form in a way that cannot be checked (`_has_constraint`)."""
    no_store: bool
    """Whether the client asks that nothing is stored (`_request_forbids_storing`)."""

    @classmethod
    def from_request(cls, data: Mapping[str, Any]) -> RequestedForm:
        """Read from the body of a request what it says about the form of its answer."""
        formats = _requested_formats(data)
        constrained = _has_constraint(data, formats)
        structured = bool(formats) or constrained or _begins_structure(data)
        return cls(
            call_id=str(data.get("litellm_call_id") or ""),
            structured=structured,
            json_schema=_json_schema(data, formats),
            constrained=constrained,
            no_store=_request_forbids_storing(data),
        )


class GrowingText:
    """A text that arrives in pieces and is stored in few objects, however small the pieces are."""

    def __init__(self, *pieces: str) -> None:
        self._blocks: list[str] = []
        """Pieces that were joined, each block longer than the one behind it."""
        self._recent: list[str] = list(pieces)
        """The last pieces, which are not joined yet."""

    def append(self, piece: str) -> None:
        self._recent.append(piece)
        if len(self._recent) == _PIECES_PER_BLOCK:
            self._blocks.append("".join(self._recent))
            self._recent = []
            # Merge a block into one that is not longer, again and again. So the blocks stay few, and each character is
            # copied only a few times.
            while len(self._blocks) > 1 and len(self._blocks[-2]) <= len(self._blocks[-1]):
                last_block = self._blocks.pop()
                self._blocks[-1] += last_block

    def __bool__(self) -> bool:
        """Whether any piece has arrived, even an empty one."""
        return bool(self._blocks or self._recent)

    def __str__(self) -> str:
        return "".join((*self._blocks, *self._recent))


def fields_by_name(thing: object, names: Iterable[str]) -> Mapping[str, Any]:
    """The fields of an object, by name: all fields of a pydantic model, and those called `names` of any other object.

    Asking a model for a field that it lacks takes ten times as long, and a chunk lacks most fields.
    """
    if isinstance(thing, BaseModel):
        declared, extra = _declared_and_extra_fields(thing)
        return {**extra, **declared} if extra else declared
    return {name: getattr(thing, name, None) for name in names}


def list_unusual_fields(thing: object, usual: frozenset[str] = USUAL_FIELDS) -> list[tuple[str, Any]]:
    """Return name and value of each field that is not `usual` and is more than a number, a flag or a short word.

    A provider added these fields, and they may quote or describe the answer. Verdicts of filters are left out.
    """
    declared, extra = _declared_and_extra_fields(thing)
    # Differences of sets are fast, and this runs for every event of a stream.
    names = (declared.keys() - usual) | (extra.keys() - usual) if extra else declared.keys() - usual
    if not names:
        return []
    fields = [(name, declared[name] if name in declared else extra[name]) for name in names]
    return [(name, value) for name, value in fields if _may_quote(value) and "filter" not in name]


def _declared_and_extra_fields(thing: object) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the fields of a model that its class declares, and its extra ones; the fields of a dict are declared."""
    if isinstance(thing, BaseModel):
        return thing.__dict__, thing.__pydantic_extra__ or {}
    return (thing if isinstance(thing, Mapping) else {}), {}


def holds_only_answer(thing: object, own_texts: Collection[str]) -> bool:
    """Whether an event, or an object in it, holds only `own_texts` (pieces of the answer) and usual short values."""
    declared, extra = _declared_and_extra_fields(thing)
    for fields in (declared, extra):
        for name, value in fields.items():
            if not value or isinstance(value, int | float):
                continue
            if isinstance(value, str):
                is_word = name in _SHORT_FIELDS and (len(value) < copies.SHORTEST_COPY or " " not in value)
                if not is_word and value not in own_texts:
                    return False
            elif not _container_holds_only_answer(name, value, own_texts):
                return False
    return True


def _container_holds_only_answer(name: str, value: object, own_texts: Collection[str]) -> bool:
    """Whether a field with objects (`choices`, `usage`, ...) holds only pieces of the answer and short values."""
    if name == USAGE:
        return _has_only_counts(value)
    if name not in _CONTAINER_FIELDS:
        return False
    if isinstance(value, list):
        return all(isinstance(inner, BaseModel | Mapping) and holds_only_answer(inner, own_texts) for inner in value)
    return holds_only_answer(value, own_texts)


def _has_only_counts(value: object) -> bool:
    """Whether a value in `usage`, which counts tokens, holds nothing but numbers and short words."""
    if isinstance(value, str):
        return len(value) < copies.SHORTEST_COPY
    if isinstance(value, BaseModel | Mapping):
        declared, extra = _declared_and_extra_fields(value)
        return all(map(_has_only_counts, (*declared.values(), *extra.values())))
    return value is None or isinstance(value, int | float)


def _may_quote(value: object) -> bool:
    """Whether a value is more than a number, a flag or a short word, so that it may quote an answer."""
    if isinstance(value, str):
        return len(value) >= copies.SHORTEST_COPY
    return value is not None and not isinstance(value, int | float) and value != [] and value != {}


@dataclass(slots=True)
class ChoiceBuilder:
    """One choice of a response as far as it was read; its flags tell later whether the answer may be corrected."""

    pieces: GrowingText = field(default_factory=GrowingText)
    finish_reason: str | None = None
    tool_calls: bool = False
    """Whether the choice calls tools that the client has to execute."""
    refusal: bool = False
    """Whether the refusal field has text."""
    non_text: bool = False
    """Whether the choice has content of another kind, such as sound, or is no answer to a question."""
    logprobs: bool = False
    annotations: bool = False
    """Whether a field points into the text or encodes it, such as a citation."""
    inconsistent: bool = False
    unusual_texts: list[str] = field(default_factory=list)
    """Texts in unusual fields, which may quote the answer."""
    refusal_pieces: GrowingText = field(default_factory=GrowingText)
    """Text of the refusal field that arrived in pieces."""
    whole_refusals: list[str] = field(default_factory=list)
    """Texts of the refusal field that arrived whole."""

    def add_refusal(self, text: object, *, is_piece: bool) -> None:
        """Record a text of the refusal field; `is_piece` says whether it is the next piece of the field in a stream."""
        if not has_content(text):
            return
        self.refusal = True
        if is_piece:
            self.refusal_pieces.append(str(text))
        else:
            self.whole_refusals.append(str(text))

    def note_unusual_fields(self, fields: Sequence[tuple[str, Any]]) -> None:
        """Record fields beside the usual ones (`list_unusual_fields`), which may describe or quote the text."""
        if fields:
            self.annotations |= any(copies.describes(value, name) for name, value in fields)
            further_count = _MAX_UNUSUAL_TEXTS - len(self.unusual_texts)
            self.unusual_texts += copies.quoting_strings(fields)[:further_count]

    @property
    def hidden_text(self) -> bool:
        """Whether the refusal field holds anything other than a refusal."""
        texts = (str(self.refusal_pieces), *self.whole_refusals)
        return self.refusal and not all(is_refusal(text) for text in texts if text.strip())

    def make_exchange(
        self, data: Mapping[str, Any], index: int, turns: tuple[Turn, ...], response: object, form: RequestedForm
    ) -> Exchange:
        """Make an exchange of the choice with number `index`, which follows `turns`.

        `response` is the whole response or the first item of a stream.
        """
        answer = join_surrogates(str(self.pieces)) if self.pieces else None
        # Streams make an exchange without a text at every step (`exchange_without_text`), which compares nothing.
        annotations = self.annotations or (
            answer is not None and any(copies.quotes(text, answer) for text in self.unusual_texts)
        )
        return Exchange(
            call_id=form.call_id,
            index=index,
            turns=turns,
            answer=answer,
            finish_reason=None if self.finish_reason is None else str(self.finish_reason),
            tool_calls=self.tool_calls,
            structured=form.structured,
            json_schema=form.json_schema,
            constrained=form.constrained,
            refusal=self.refusal,
            non_text=self.non_text,
            logprobs=self.logprobs,
            annotations=annotations,
            inconsistent=self.inconsistent,
            hidden_text=self.hidden_text,
            no_store=form.no_store or _upstream_forbids_storing(data, response),
        )

    def make_exchanges(
        self, data: Mapping[str, Any], texts: Mapping[int, str], turns: tuple[Turn, ...], response: object
    ) -> list[Exchange]:
        """Make an exchange of each text part (by number, in order); one without an answer if there is no part."""
        form = RequestedForm.from_request(data)
        exchanges = [
            replace(self, pieces=GrowingText(text)).make_exchange(data, index, turns, response, form)
            for index, text in texts.items()
        ]
        if not exchanges:
            return [self.make_exchange(data, 0, turns, response, form)]
        # All text parts but the last are followed by more of the same answer.
        return [*(replace(exchange, inner=True) for exchange in exchanges[:-1]), exchanges[-1]]


def raise_if_answer(item: object) -> None:
    """Raise `Unreadable` if an item of a stream, or a response, of another form than its route contains an answer.

    Such an answer counts as unreadable, not as empty.
    """
    if _holds_answer(item):
        raise Unreadable("an answer in the form of another endpoint")


def _holds_answer(item: object) -> bool:
    """Whether an item of a stream or a response, of any form, contains an answer or a piece of an answer."""
    if isinstance(item, bytes | str):
        text = item if isinstance(item, str) else item.decode(errors="replace")
        return any(map(_line_holds_answer, text.splitlines()))
    if isinstance(item, list | tuple):
        return any(map(_holds_answer, item))
    if isinstance(item, Mapping):
        values = [item.get(name) for name in _ANSWER_FIELDS]
    else:
        values = [getattr(item, name, None) for name in _ANSWER_FIELDS]
    # Methods that happen to have such a name are no fields.
    return any(value and not (isinstance(value, int | float) or callable(value)) for value in values)


def _line_holds_answer(line: str) -> bool:
    """Whether a line of an event (`data: {...}`) has an answer as JSON, which may be cut off."""
    data = line.removeprefix("data:").strip()
    if not data.startswith(("{", "[{")):
        return False
    try:
        return _holds_answer(json.loads(data))
    except ValueError:
        return True  # the beginning of an event that was cut off


def corrected_texts(outcomes: Sequence[Outcome]) -> dict[int, str]:
    """The new text of each corrected choice, by its index."""
    return {
        outcome.index: outcome.text
        for outcome in outcomes
        if outcome.status is Status.CORRECTED and outcome.text is not None
    }


def has_content(value: object) -> bool:
    """Whether an optional field of a choice is set (None, white space, [] and {} count as not set)."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value not in ([], {})


CITATIONS = ("citations", "citation")
"""LiteLLM's provider fields that hold Anthropic's citations."""


def has_citations(provider_fields: object) -> bool:
    """Whether LiteLLM's provider fields hold Anthropic's citations, which quote the passages they support.

    A chunk has one citation under `citation`. A whole answer has under `citations` a list for each of its text blocks.
    """
    if not isinstance(provider_fields, Mapping):
        return False
    if has_content(provider_fields.get("citation")):
        return True
    block_lists = provider_fields.get("citations")
    return isinstance(block_lists, Sequence) and any(isinstance(block, list) and block for block in block_lists)


class Wire(Protocol):
    """A wire format."""

    def exchanges(self, data: Mapping[str, Any], response: Any) -> list[Exchange]:
        """One exchange per choice of a whole response; empty if the response does not have this format."""

    def apply(self, response: Any, outcomes: Sequence[Outcome]) -> Any:
        """The response with the corrected texts; the same object if none is corrected."""

    def decoder(self, data: Mapping[str, Any]) -> StreamDecoder:
        """A decoder for one stream."""

    def opens_answer(self, event: Any) -> bool:
        """Whether an event has no text of the answer yet, so that it may go out while the answer is held.

        Such an event has only a role, the start of a message or part, reasoning, or a heartbeat.
        """
