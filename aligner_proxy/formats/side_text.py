"""Side texts: every string in a body or event, other than the answer, that a person could read.

Nothing here is specific to a provider. The characters of a string decide whether it is prose; the names and types
around it decide its kind. A string that no name or type explains is `other_text`. Pieces that a stream adds at one path
are read as one text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import unquote

from pydantic import BaseModel

from aligner_proxy.formats import sse
from aligner_proxy.formats.think_tags import DividedText
from aligner_proxy.text.json_answer import JsonString, string_literals
from aligner_proxy.types import SideKind

SHORTEST_PROSE = 20
"""A text with fewer characters is not checked on its own."""
_MIN_LETTERS = 10
"""Fewest letters of a text that is prose."""
_WHITE_SPACE = re.compile(r"\s")
_LETTER = re.compile(r"[^\W\d_]")
_JSON_START = re.compile(r'(?<!\S)[{\["]')
_LONGEST_WORD = 4_096
"""Most characters remembered of a text without white space, such as an id, a signature or sound."""
_MAX_PIECES = 64
"""Up to this many pieces, each is searched for separately in the delivered texts."""
Path = tuple[object, ...]
"""Path to a string: field names and, for list elements, their `index` or "*" without one."""


class SideString(NamedTuple):
    """A string beside the answer."""

    kind: SideKind
    path: Path
    text: str


_KIND_BY_NAME = {
    **dict.fromkeys(
        ("reasoning", "reasoning_content", "reasoning_details", "reasoning_items", "thinking", "thinking_blocks"),
        SideKind.REASONING,
    ),
    **dict.fromkeys(("tool_calls", "function_call", "arguments", "partial_json", "input"), SideKind.TOOL_ARGUMENTS),
    **dict.fromkeys(("logs", "outputs", "results", "result", "stdout", "stderr"), SideKind.TOOL_OUTPUT),
    "transcript": SideKind.TRANSCRIPTS,
}
_KINDS_BY_TYPE = (
    (re.compile(r"(response\.)?(reasoning|thinking|redacted_thinking|summary_text).*"), SideKind.REASONING),
    (re.compile(r".*transcript.*"), SideKind.TRANSCRIPTS),
    (re.compile(r".*(_tool_result|_call_output)|logs|tool_result"), SideKind.TOOL_OUTPUT),
    (re.compile(r"(response\.)?(.*_call|.*tool_use|input_json_delta|.*_call_.*)(\..*)?"), SideKind.TOOL_ARGUMENTS),
)
SIDE_CONTENT = "beside"
"""Field with what another gateway sent beside its answer; it does not belong to ours."""
USAGE = "usage"
"""Field of the account of tokens."""
USUAL_FIELDS = frozenset(
    {
        *(SIDE_CONTENT, USAGE),
        *("id", "created", "created_at", "model", "object", "type", "role", "index", "name", "status"),
        *("choices", "message", "delta", "content", "text", "output", "item", "part", "response", "content_block"),
        *("output_index", "content_index", "item_id", "sequence_number", "summary_index", "annotation_index"),
        *("finish_reason", "stop_reason", "stop_sequence", "system_fingerprint", "service_tier"),
        *("tool_calls", "function_call", "refusal", "reasoning_content", "reasoning", "thinking_blocks"),
        *("reasoning_items", "reasoning_details", "thinking", "signature", "input", "arguments"),
    }
)
"""Fields that every answer may have; any other was added by a provider or gateway."""
_IDENTIFYING_FIELDS = ("type", "index", "output_index", "content_index", "summary_index")
"""Fields that identify which part of a response an event belongs to."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as a list of all pairs, including repeated names."""


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs)


def decode_percent(text: str) -> str:
    """Return the text, decoded if it is encoded as in a web address."""
    return unquote(text) if "%20" in text else text


def is_prose(text: str) -> bool:
    """Whether a text could be read as a sentence: long enough, with enough letters, and not one long word."""
    stripped_text = text.strip()
    # Some scripts beyond ASCII are written without white space.
    may_have_words = not stripped_text.isascii() or _WHITE_SPACE.search(stripped_text)
    if len(stripped_text) < SHORTEST_PROSE or not may_have_words:
        return False
    return _count_letters(stripped_text) >= _MIN_LETTERS


def _count_letters(text: str) -> int:
    """The number of letters in a text, counted up to `_MIN_LETTERS`."""
    return sum(1 for _ in islice(_LETTER.finditer(text), _MIN_LETTERS))


def prose_literals(text: str) -> list[JsonString]:
    """The strings in a text of JSON, keys included, that are prose."""
    return [literal for literal in string_literals(text) if is_prose(literal.text)]


def has_prose(text: str) -> bool:
    """Whether a text outside of embedded JSON, or a string in the JSON, is prose."""
    return any(map(is_prose, _readings(decode_percent(text))))


def readable_prose(text: str) -> str:
    """The prose in a text outside of embedded JSON, and each string of the JSON that is prose; empty without prose."""
    return _join_prose(decode_percent(text))


def _join_prose(text: str) -> str:
    """The parts of a text (`_readings`) that are prose, each on a new line."""
    return "\n".join(filter(is_prose, _readings(text)))


def has_prose_outside_literals(text: str) -> bool:
    """Whether a text of JSON has prose outside its strings, or a list of words that together are prose."""
    literal_texts = {literal.text for literal in prose_literals(text)}
    return any(is_prose(reading) and reading not in literal_texts for reading in _readings(decode_percent(text)))


def side_strings(value: object) -> list[SideString]:
    """Return every string in a value: an object, or a server-sent event as bytes or text."""
    if isinstance(value, bytes | str):
        frame = value if isinstance(value, bytes) else value.encode(errors="surrogatepass")
        return _frame_strings(frame)
    result: list[SideString] = []
    path = tuple(_identifying_field(value, name) for name in _IDENTIFYING_FIELDS)
    _collect_strings(value, SideKind.OTHER_TEXT, path, result)
    return result


def _frame_strings(frame: bytes) -> list[SideString]:
    """Return the strings of one server-sent event: those in the JSON of each line, and the rest of the line."""
    data, other_lines = sse.split_frame(frame.decode(errors="replace"))
    result: list[SideString] = []
    for line_name, text in (*other_lines, ("data", data)):
        # Some readers take other lines for data, so JSON is looked for in every line: from the first "{", or at once.
        json_start = max(0, text.find("{"))
        try:
            event, json_end = _DECODER.raw_decode(text, json_start)
        except (ValueError, RecursionError):
            result.append(SideString(SideKind.OTHER_TEXT, ("line", line_name), text))
            continue
        # `_DECODER` reads objects as `_Pairs`. Strings of events with equal identifying fields belong to one text.
        fields = dict(event) if isinstance(event, _Pairs) else {}
        path = tuple(_identifying_field(fields, name) for name in _IDENTIFYING_FIELDS)
        _collect_strings(event, SideKind.OTHER_TEXT, path, result)
        text_around_json = text[:json_start] + text[json_end:]
        result.append(SideString(SideKind.OTHER_TEXT, ("line", line_name), text_around_json))
    return result


def _collect_strings(value: object, kind: SideKind, path: Path, result: list[SideString]) -> None:
    """Append the strings in a value to `result`; `kind` and `path` are those of the value itself."""
    if isinstance(value, str):
        result.append(SideString(kind, path, value))
    elif isinstance(value, list | tuple) and not isinstance(value, _Pairs):
        _collect_list(value, kind, path, result)
    else:
        pairs = fields_of(value)
        if pairs is not None:
            declared = value.__dict__ if isinstance(value, BaseModel) else ()
            _collect_fields(pairs, kind, path, result, declared)
        elif isinstance(value, Iterable) and not isinstance(value, bytes):
            raise TypeError  # reading an iterator would use it up, and it could not be sent any more


def _collect_fields(
    pairs: Sequence[tuple[str, Any]], kind: SideKind, path: Path, result: list[SideString], declared: Container[str]
) -> None:
    """Append the strings of an object's fields to `result`, and field names that may be texts.

    `pairs` are name and value of each field; `kind` and `path` are those of the object. `declared` are the names that
    its class declares, which are no texts.
    """
    kind = find_object_kind(pairs, kind)
    # Among token probabilities even short names are read, since together they spell out a text.
    are_tokens = "top_logprobs" in path
    for name, inner in pairs:
        # A field name may be chosen by the model, and may then be a sentence.
        if name not in declared and (are_tokens or not name.isidentifier() or len(name) >= SHORTEST_PROSE):
            result.append(SideString(kind, (*path, "name"), name))
        # Numbers contain no text.
        if inner is not None and not isinstance(inner, int | float):
            _collect_strings(inner, field_kind(name, inner, kind), (*path, name), result)


def _collect_list(values: Sequence[Any], kind: SideKind, path: Path, result: list[SideString]) -> None:
    """Append the strings of a list to `result`; a list of single words counts as one text."""
    if len(values) > 1 and all(isinstance(inner, str) and not _WHITE_SPACE.search(inner) for inner in values):
        result.append(SideString(kind, (*path, "words"), " ".join(values)))
        return
    for inner in values:
        index = _identifying_field(inner, "index")
        _collect_strings(inner, kind, (*path, "*" if index is None else index), result)


def fields_of(value: object) -> Sequence[tuple[str, Any]] | None:
    """Return name and value of each field of an object; None for a value that is no object."""
    if isinstance(value, _Pairs):
        return value
    if isinstance(value, BaseModel):
        extra = value.__pydantic_extra__
        return [*value.__dict__.items(), *extra.items()] if extra else list(value.__dict__.items())
    if isinstance(value, Mapping):
        return [(str(name), inner) for name, inner in value.items()]
    return None


def _identifying_field(value: object, name: str) -> object:
    """The field `name` of an object, which tells it from others (its type or an index); None if it is not set."""
    if isinstance(value, _Pairs):
        field_value = dict(value).get(name)
    elif isinstance(value, Mapping):
        field_value = value.get(name)
    else:
        field_value = None if isinstance(value, str | list | tuple) else getattr(value, name, None)
    return field_value if isinstance(field_value, str | int) else None


def find_object_kind(pairs: Iterable[tuple[str, Any]], outer_kind: SideKind) -> SideKind:
    """The kind of text in an object with these fields, by its `type`; `outer_kind` if the type says nothing."""
    for name, value in pairs:
        if name == "type" and value:
            type_name = str(getattr(value, "value", value))  # LiteLLM has members of an enum as types, too
            return _kind_by_type(type_name) or outer_kind
    return outer_kind


@lru_cache(maxsize=512)
def _kind_by_type(type_name: str) -> SideKind | None:
    return next((kind for pattern, kind in _KINDS_BY_TYPE if pattern.fullmatch(type_name)), None)


def field_kind(name: str, inner: object, kind: SideKind) -> SideKind:
    """The kind of text in a field with the value `inner`; `kind`, that of its object, if the name says nothing."""
    if name == "output" and isinstance(inner, str) and kind is SideKind.TOOL_ARGUMENTS:
        return SideKind.TOOL_OUTPUT  # the object holds a call and its result
    return _KIND_BY_NAME.get(name, kind)


def remove_prose(value: Any, kinds: Iterable[SideKind]) -> Any:
    """Return a copy of a body in which prose of these kinds is replaced by ""; the same object if it has none."""
    return _empty_prose(value, SideKind.OTHER_TEXT, frozenset(kinds))


def _empty_prose(value: Any, kind: SideKind, dropped_kinds: Container[SideKind]) -> Any:
    """The value without prose of `dropped_kinds` (see `remove_prose`); `kind` is that of the object around it."""
    if isinstance(value, str):
        return "" if kind in dropped_kinds and is_prose(value) else value
    pairs = fields_of(value)
    if pairs is not None:
        kind = find_object_kind(pairs, kind)
        changed_fields = {}
        for name, inner in pairs:
            new_value = _empty_prose(inner, field_kind(name, inner, kind), dropped_kinds)
            if new_value is not inner:
                changed_fields[name] = new_value
        if not changed_fields:
            return value
        return value.model_copy(update=changed_fields) if isinstance(value, BaseModel) else {**value, **changed_fields}
    if isinstance(value, list):
        return keep_if_same([_empty_prose(inner, kind, dropped_kinds) for inner in value], value)
    return value


def keep_if_same(edited: list[Any], original: list[Any]) -> list[Any]:
    """Return the edited list, or the original list if both have the same objects, so that callers notice no change."""
    return original if all(new is old for new, old in zip(edited, original, strict=True)) else edited


class SideText:
    """One side text of a response, as far as it has arrived."""

    def __init__(self, kind: SideKind, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.pieces: list[str] = []
        """The pieces so far, in order; of a long text without prose only its end."""
        self.is_released = False
        """Whether the text so far may be delivered."""
        self._chars = 0
        """Characters in `pieces`."""
        self._letter_count = 0
        """Letters so far, counted until there are enough for prose."""
        self._may_have_words = False
        """Whether the text has white space, or characters beyond ASCII, of which some scripts need no white space."""

    def add(self, piece: str) -> None:
        """Add a piece; an exact repetition of the last piece is ignored."""
        piece = decode_percent(piece)
        # A single character may well come twice, as in "ll".
        if not piece or (self.pieces and piece == self.pieces[-1] and len(piece) > 1):
            return
        self.pieces.append(piece)
        self.is_released = False
        self._chars += len(piece)
        self._may_have_words = self._may_have_words or not piece.isascii() or _WHITE_SPACE.search(piece) is not None
        if self._letter_count < _MIN_LETTERS:
            self._letter_count += _count_letters(piece)
        # Of a long text without words so far, only the end is kept, so that memory stays bounded.
        if not self._may_have_words and self._chars > 2 * _LONGEST_WORD:
            self.pieces = ["".join(self.pieces)[-_LONGEST_WORD:]]
            self._chars = _LONGEST_WORD

    @property
    def may_be_prose(self) -> bool:
        """Whether the text so far has enough characters and letters for prose; `is_prose` decides for sure."""
        return self._may_have_words and self._chars >= SHORTEST_PROSE and self._letter_count >= _MIN_LETTERS

    def uncovered_text(self, delivered: Iterable[str], *, streamed: bool) -> str:
        """Return the prose in this side text that does not occur in a delivered text; empty if there is none.

        `streamed` says whether the pieces may be parts of one sentence; otherwise each piece is read alone.
        """
        delivered_texts = tuple(delivered)
        whole_text = "".join(self.pieces)
        if _is_in_any(whole_text, delivered_texts):
            return ""
        long_pieces = [piece for piece in self.pieces if len(piece) >= SHORTEST_PROSE]
        if len(long_pieces) > _MAX_PIECES:
            # So many pieces are not searched for one by one, since each search takes time.
            return _join_prose(whole_text)
        uncovered_pieces = [piece for piece in long_pieces if not _is_in_any(piece, delivered_texts)]
        joined_short_pieces = "".join(piece for piece in self.pieces if len(piece) < SHORTEST_PROSE)
        if _is_in_any(joined_short_pieces, delivered_texts):
            joined_short_pieces = ""
        own_pieces = [piece for piece in (*uncovered_pieces, joined_short_pieces) if piece]
        # The pieces of a stream may be prose only together, unless all of its long pieces were delivered.
        may_be_prose_together = streamed and (bool(uncovered_pieces) or not long_pieces)
        if not may_be_prose_together and not any(map(is_prose, own_pieces)):
            return ""
        return _join_prose(whole_text if streamed else "\n".join(own_pieces))


def _is_in_any(piece: str, texts: Sequence[str]) -> bool:
    return any(piece in text for text in texts)


def _readings(text: str) -> Iterator[str]:
    """Yield the text outside of embedded JSON, then each string in the JSON; the whole text if it embeds no JSON."""
    json_start = next((match.start() for match in _JSON_START.finditer(text)), len(text))
    try:
        value, json_end = _DECODER.raw_decode(text, json_start)
    except (ValueError, RecursionError):
        yield text
        return
    yield text[:json_start] + text[json_end:]
    for _, _, string in side_strings({"json": value}):
        yield string


class SideTextReader:
    """Reader of the side texts of one response: of the whole body, or event by event if it is `streamed`."""

    def __init__(self, *, streamed: bool) -> None:
        self._streamed = streamed
        self._texts: dict[Path, SideText] = {}
        """All texts so far, by path."""
        self._grown_texts: dict[Path, SideText] = {}
        """The texts that grew since `take_grown` was called last, by path."""

    def read(
        self, value: object, answer_texts: Sequence[str] = (), divided_texts: Iterable[DividedText] = ()
    ) -> set[SideKind]:
        """Read the strings of a body or event; return the kinds of side text that grew.

        `answer_texts` are the texts of the answer in it, which are skipped. `divided_texts` are the strings in it that
        begin with reasoning: the reasoning is read as a side text, and the rest like any other string. LiteLLM's
        objects are not trusted, so this may raise any exception.
        """
        unmet_answer_texts = list(answer_texts)
        divided_by_whole = {divided.whole: divided for divided in divided_texts}
        grown_kinds: set[SideKind] = set()
        for kind, path, string in side_strings(value):
            text = string
            divided = divided_by_whole.get(string) if divided_by_whole else None
            if divided is not None:
                text = divided.answer
                if divided.reasoning:
                    self._add(SideKind.REASONING, (*path, "reasoning"), divided.reasoning)
                    grown_kinds.add(SideKind.REASONING)
            if text in unmet_answer_texts:
                # Each answer text is skipped once, because a second copy of it is a side text.
                unmet_answer_texts.remove(text)
            elif text or text is string:  # a divided text without an answer has nothing more to read
                self._add(kind, path, text)
                grown_kinds.add(kind)
        return grown_kinds

    def _add(self, kind: SideKind, path: Path, text: str) -> None:
        """Add a piece to the side text at a path, or begin a side text with it."""
        if path not in self._texts:
            self._texts[path] = SideText(kind, path)
        self._texts[path].add(text)
        self._grown_texts[path] = self._texts[path]

    def pending_texts(self) -> list[SideText]:
        """The texts that may be prose and may not be delivered yet."""
        return [text for text in self._texts.values() if not text.is_released and text.may_be_prose]

    def take_grown(self) -> list[SideText]:
        """Return the texts that grew since the last call of this function."""
        grown_texts = list(self._grown_texts.values())
        self._grown_texts.clear()
        return grown_texts

    def uncovered_text(self, text: SideText, delivered: Iterable[str]) -> str:
        """Return the prose in the side text that does not occur in a delivered text; empty if there is none."""
        return text.uncovered_text(delivered, streamed=self._streamed)
