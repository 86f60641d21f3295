"""Text beside an answer: every string of a body or event that a person could read, by its kind and place.

Nothing here knows a provider. A string is prose by its form, and of a kind by the names and types around it; what no
name or type explains is `other_text`. Pieces that a stream adds to one place are read as the one text they make.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from aligner_proxy.errors import Unreadable
from aligner_proxy.formats import sse
from aligner_proxy.formats.base import named_errors
from aligner_proxy.types import SideKind

SHORTEST_PROSE = 20
"""Characters below which a text is not looked at by itself."""
_LEAST_LETTERS = 10
_GAP = re.compile(r"\s")
_LETTER = re.compile(r"[^\W\d_]")
_JSON = re.compile(r'(?<!\S)[{\["]')
_SPACE = "%20"
_SPELLING = "top_logprobs"
"""A field in which names spell a text."""
_LONGEST_WORD = 4_096
"""Characters of a text without any gap that are remembered: ids, signatures, sound."""
_MOST_PIECES = 64
"""Pieces that are looked for one by one in what is delivered."""
Path = tuple[object, ...]
"""Where a string stands: names of fields, `index` of the elements of lists, "*" for elements without one."""
Edit = Callable[[SideKind, str], str]

_BY_NAME = {
    **dict.fromkeys(
        ("reasoning", "reasoning_content", "reasoning_details", "reasoning_items", "thinking", "thinking_blocks"),
        SideKind.REASONING,
    ),
    **dict.fromkeys(("tool_calls", "function_call", "arguments", "partial_json", "input"), SideKind.TOOL_ARGUMENTS),
    **dict.fromkeys(("logs", "outputs", "results", "result", "stdout", "stderr"), SideKind.TOOL_OUTPUT),
    "transcript": SideKind.TRANSCRIPTS,
}
_BY_TYPE = (
    (re.compile(r"(response\.)?(reasoning|thinking|redacted_thinking|summary_text).*"), SideKind.REASONING),
    (re.compile(r".*transcript.*"), SideKind.TRANSCRIPTS),
    (re.compile(r".*(_tool_result|_call_output)|logs|tool_result"), SideKind.TOOL_OUTPUT),
    (re.compile(r"(response\.)?(.*_call|.*tool_use|input_json_delta|.*_call_.*)(\..*)?"), SideKind.TOOL_ARGUMENTS),
)
_MARKS = ("type", "index", "output_index", "content_index", "summary_index")
"""What tells the places of a stream's events apart."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with every pair that was written, also where a name stands there twice."""


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs)


def is_prose(text: str) -> bool:
    """Whether somebody could read a text as a sentence: long enough, of letters, and not one long word."""
    stripped = text.strip()
    if len(stripped) < SHORTEST_PROSE or not (_GAP.search(stripped) or not stripped.isascii()):
        return False
    return _letters(stripped) >= _LEAST_LETTERS


def _letters(text: str) -> int:
    """How many letters a text has, counted up to what makes prose."""
    count = 0
    for count, _ in enumerate(_LETTER.finditer(text), 1):
        if count >= _LEAST_LETTERS:
            break
    return count


def strings(value: object) -> Iterator[tuple[SideKind, Path, str]]:
    """Every string in a value, with its kind and place; of an event as bytes, those of its data and other lines."""
    if isinstance(value, bytes | str):
        raw = value if isinstance(value, bytes) else value.encode(errors="surrogatepass")
        yield from _frame_strings(raw)
    else:
        marks = tuple(_field(value, name) for name in _MARKS)
        yield from _strings(value, SideKind.OTHER_TEXT, marks)


def _frame_strings(raw: bytes) -> Iterator[tuple[SideKind, Path, str]]:
    """The strings of one server-sent event."""
    data, lines = sse.parted(raw.decode(errors="replace"))
    for name, text in (*lines, ("data", data)):
        # A line that only looks like data to some readers holds an event all the same.
        start = text.find("{")
        try:
            event, end = _DECODER.raw_decode(text, max(0, start))
        except (ValueError, RecursionError):
            yield SideKind.OTHER_TEXT, ("line", name), text
            continue
        fields = dict(event) if isinstance(event, _Pairs) else {}
        yield from _strings(event, SideKind.OTHER_TEXT, tuple(_hashable(fields.get(name)) for name in _MARKS))
        yield SideKind.OTHER_TEXT, ("line", name), text[: max(0, start)] + text[end:]


def _strings(value: object, kind: SideKind, path: Path) -> Iterator[tuple[SideKind, Path, str]]:
    if isinstance(value, str):
        yield kind, path, value
        return
    pairs = _pairs(value)
    if pairs is not None:
        kind = _kind_of_type(pairs, kind)
        for name, inner in pairs:
            if _SPELLING in path or not name.isidentifier() or len(name) >= SHORTEST_PROSE:
                yield kind, (*path, "name"), name
            yield from _strings(inner, _kind_of_field(name, inner, kind, pairs), (*path, name))
    elif isinstance(value, list | tuple):
        yield from _listed_strings(value, kind, path)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        raise TypeError  # what is only read once would not be there to be sent


def _listed_strings(values: Sequence[Any], kind: SideKind, path: Path) -> Iterator[tuple[SideKind, Path, str]]:
    """The strings of a list; words one by one are a text."""
    if len(values) > 1 and all(isinstance(inner, str) and not _GAP.search(inner) for inner in values):
        yield kind, (*path, "words"), " ".join(values)
        return
    for inner in values:
        index = _field(inner, "index")
        yield from _strings(inner, kind, (*path, "*" if index is None else index))


def _pairs(value: object) -> Sequence[tuple[str, Any]] | None:
    """The fields of an object; None of what is none."""
    if isinstance(value, _Pairs):
        return value
    if isinstance(value, Mapping):
        return [(str(name), inner) for name, inner in value.items()]
    if isinstance(value, BaseModel):
        return [*value.__dict__.items(), *(value.model_extra or {}).items()]
    return None


def _field(value: object, name: str) -> object:
    """A mark of an object: its type or its index."""
    inner = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    if isinstance(value, list | tuple):  # both have a method of this name
        inner = dict(value).get(name) if isinstance(value, _Pairs) else None
    return _hashable(inner)


def _hashable(value: object) -> object:
    return value if isinstance(value, str | int) else None


def _kind_of_type(pairs: Iterable[tuple[str, Any]], kind: SideKind) -> SideKind:
    """The kind of what stands in an object of this type."""
    type_ = next((inner for name, inner in pairs if name == "type"), None)
    name = str(getattr(type_, "value", type_) or "")
    return next((of_type for pattern, of_type in _BY_TYPE if name and pattern.fullmatch(name)), kind)


def _kind_of_field(name: str, inner: object, kind: SideKind, pairs: Iterable[tuple[str, Any]]) -> SideKind:
    if name == "output" and isinstance(inner, str) and kind is SideKind.TOOL_ARGUMENTS:
        return SideKind.TOOL_OUTPUT  # a call that stands beside its result
    return _BY_NAME.get(name, kind)


def without(value: Any, kinds: Iterable[SideKind]) -> Any:
    """A copy without prose of these kinds; the same object where there is none."""
    dropped = frozenset(kinds)
    return _edited(value, SideKind.OTHER_TEXT, lambda kind, text: "" if kind in dropped and is_prose(text) else text)


def _edited(value: Any, kind: SideKind, edit: Edit) -> Any:
    if isinstance(value, str):
        return edit(kind, value)
    pairs = _pairs(value)
    if pairs is not None:
        kind = _kind_of_type(pairs, kind)
        changed = {}
        for name, inner in pairs:
            new = _edited(inner, _kind_of_field(name, inner, kind, pairs), edit)
            if new is not inner:
                changed[name] = new
        if not changed:
            return value
        return value.model_copy(update=changed) if isinstance(value, BaseModel) else {**value, **changed}
    if isinstance(value, list):
        edited = [_edited(inner, kind, edit) for inner in value]
        return value if all(new is old for new, old in zip(edited, value, strict=True)) else edited
    return value


class SideText:
    """The text of one place beside an answer, as far as it has come."""

    def __init__(self, kind: SideKind, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.pieces: list[str] = []
        self.settled = False
        """Whether it may go out as far as it has come."""
        self._chars = 0
        self._letters = 0
        self._has_gap = False

    def add(self, piece: str) -> None:
        """More of it; what is said once more in the same words adds nothing."""
        piece = unquote(piece) if _SPACE in piece else piece
        if not piece or (self.pieces and piece == self.pieces[-1] and len(piece) > 1):
            return
        self.pieces.append(piece)
        self.settled = False
        self._chars += len(piece)
        self._has_gap = self._has_gap or not piece.isascii() or _GAP.search(piece) is not None
        if self._letters < _LEAST_LETTERS:
            self._letters += _letters(piece)
        if not self._has_gap and self._chars > 2 * _LONGEST_WORD:
            self.pieces = ["".join(self.pieces)[-_LONGEST_WORD:]]
            self._chars = _LONGEST_WORD

    @property
    def may_be_prose(self) -> bool:
        """Whether there is enough to read; what it says is looked at when it has ended."""
        return self._has_gap and self._chars >= SHORTEST_PROSE and self._letters >= _LEAST_LETTERS

    def uncovered(self, delivered: Iterable[str], *, streamed: bool) -> str:
        """What of it a person could read and is not part of a delivered text; empty where there is nothing."""
        texts = tuple(delivered)
        joined = "".join(self.pieces)
        if any(joined in text for text in texts):
            return ""
        long = [piece for piece in self.pieces if len(piece) >= SHORTEST_PROSE]
        short = "".join(piece for piece in self.pieces if len(piece) < SHORTEST_PROSE)
        if len(long) <= _MOST_PIECES:
            left = [piece for piece in long if not any(piece in text for text in texts)]
            short = "" if any(short in text for text in texts) else short
            if not any(map(is_prose, (*left, short))) and not (streamed and (left or not long)):
                return ""
            joined = joined if streamed else "\n".join(filter(None, (*left, short)))
        return "\n".join(filter(is_prose, _readings(joined)))


def _readings(text: str) -> Iterator[str]:
    """A text as it is read: the strings of JSON, and what percent signs stand for."""
    start = next((match.start() for match in _JSON.finditer(text)), len(text))
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        yield text
        return
    yield text[:start] + text[end:]
    yield from (inner for _, _, inner in _strings(value, SideKind.OTHER_TEXT, ()))


class SideTextReader:
    """Reads the texts beside the answers of one response, whole or event by event."""

    def __init__(self, *, streamed: bool) -> None:
        self._streamed = streamed
        self._texts: dict[Path, SideText] = {}

    def read(self, value: object, answer_texts: Sequence[str] = ()) -> set[SideKind]:
        """Read a body or event, of which `answer_texts` are those that belong to the answer; the kinds that grew.

        Raises `Unreadable`.
        """
        return named_errors(Unreadable, self._read, value, answer_texts)

    def _read(self, value: object, answer_texts: Sequence[str]) -> set[SideKind]:
        own = list(answer_texts)
        grown: set[SideKind] = set()
        for kind, path, text in strings(value):
            if text in own:
                own.remove(text)
                continue
            if path not in self._texts:
                self._texts[path] = SideText(kind, path)
            self._texts[path].add(text)
            grown.add(kind)
        return grown

    def unsettled(self) -> list[SideText]:
        """The texts that people could read, and that may not go out yet."""
        return [text for text in self._texts.values() if not text.settled and text.may_be_prose]

    def uncovered(self, text: SideText, delivered: Iterable[str]) -> str:
        """What of a text is not part of a delivered text."""
        return text.uncovered(delivered, streamed=self._streamed)
