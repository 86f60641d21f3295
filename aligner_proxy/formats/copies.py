"""Second copies of an answer: fields beside it that quote it, point into it or encode it.

An edit makes such a field wrong, and a quotation would deliver what the edit removed. Such fields are found by their
form, not by a provider's names for them. `describes` finds pointers and encodings, such as offsets of citations and
token ids; `quotes` finds whole sentences of the answer. Of an edited answer, `drop_copies` removes all three;
`RemovedText` holds what the edit took out. A copy that a client needs as it is, such as a tool call's arguments,
raises `CopyStays`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from aligner_proxy.errors import CopyStays
from aligner_proxy.formats.side_text import (
    USAGE,
    USUAL_FIELDS,
    decode_percent,
    field_kind,
    fields_of,
    keep_if_same,
    side_strings,
    type_kind,
)
from aligner_proxy.text.structure import split
from aligner_proxy.types import SideKind

SHORTEST_COPY = 20
"""Characters of the shortest text whose copy is looked for."""
_WINDOW = 16
"""Characters without white space, about 20 with it, that a copy of part of a sentence shares with it."""
_LONG_WINDOW = 40
"""Characters that a copy in reasoning or a call shares with it, as these share more words with any answer."""
_SENTENCE = 40
"""Characters from which a quotation counts although it does not end as a sentence does."""
_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u2026")
_CHARS_PER_STRETCH = 20
"""Stretches are looked for one by one in a text that has at least this many characters for each of them."""
_NOISE = re.compile(r"\\[nrt]|[\s\\]")
"""White space, plain or escaped as in JSON."""
_POINTER = re.compile(
    r"(?i)(start|end|begin|stop|from|to)?_?(char|text|token|byte)?_?(index|offset|position)(_?in_?text)?|start|end"
)
"""Names of fields that hold a place in a text."""
_TOKENS = re.compile(r"(?i).*token.*|.*logprobs?")
"""Names of fields that hold tokens, as text or as ids."""
_MIN_IDS = 8
"""Fewest numbers in a list that counts as token ids although its name does not say so."""

_KEPT = USUAL_FIELDS | {
    "provider_specific_fields",
    "results",
    "outputs",
    "instructions",
    "metadata",
    "tools",
    "tool_choice",
}
"""Fields that are kept and searched for copies; any other is dropped as a whole if it holds one."""
_POINTING_EVENTS = ("citations_delta", "response.output_text.annotation.added")
"""Types of events, or of the deltas in them, that say nothing without the pointer in them."""
ACTED_ON = (SideKind.REASONING, SideKind.TOOL_ARGUMENTS)
"""Kinds of text on which a client or model acts: they may not be changed, and share more words with any answer."""


def normalize(text: str) -> str:
    """A text without case, white space and the escapes of JSON, HTML and web addresses."""
    text = decode_percent(text)
    text = html.unescape(text) if "&" in text else text
    return _NOISE.sub("", text).casefold()


class Grams:
    """Hashes of short stretches (grams) of texts, by which most longer stretches are seen not to occur in the texts."""

    _LENGTH = 12
    """Length of a stretch (gram)."""
    _STEP = 5
    """A gram begins at every fifth character, so that each stretch of sixteen holds a whole one."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def add(self, text: str, start: int) -> None:
        """Add the grams of a text that reach beyond `start`, where the text ended when it was added last."""
        # the last multiple of `_STEP` before the grams that were too long for the text of then
        first = max(0, start - self._LENGTH) // self._STEP * self._STEP
        gram_starts = range(first, len(text) - self._LENGTH + 1, self._STEP)
        self._hashes.update(hash(text[gram_start : gram_start + self._LENGTH]) for gram_start in gram_starts)

    def may_hold(self, stretch: str) -> bool:
        """Whether a stretch may occur in the texts; always True for one that is too short to tell."""
        if len(stretch) < self._LENGTH + self._STEP - 1:
            return True
        # wherever the stretch stands, one of its first five grams begins at a place where grams were taken
        return any(hash(stretch[offset : offset + self._LENGTH]) in self._hashes for offset in range(self._STEP))


@dataclass(slots=True)
class RemovedText:
    """What edits took out of one or more answers."""

    sentences: dict[int, dict[int, set[str]]] = field(default_factory=lambda: {_WINDOW: {}, _LONG_WINDOW: {}})
    """By window length, the removed sentences of which no such window is in `windows`, by their own length."""
    windows: dict[int, set[str]] = field(default_factory=lambda: {_WINDOW: set(), _LONG_WINDOW: set()})
    """By length, the stretches (windows) of removed sentences that occur nowhere in what is delivered."""
    longest: int = 0
    """Characters of the longest removed sentence, without white space."""
    longest_alike: int = 0
    """Characters of the longest sentence in `sentences`, of which only the whole sentence shows a copy."""

    @classmethod
    def compare_texts(cls, originals: Iterable[str], corrected: Iterable[str]) -> RemovedText:
        """What the corrected texts no longer have of their originals."""
        removed = cls()
        for before, after in zip(originals, corrected, strict=True):
            if before != after:
                removed.add(before, after)
        return removed

    def add(self, original: str, corrected: str) -> None:
        """Add what `corrected` no longer has of `original`.

        A copy is found by its windows, that is, by all runs of so many characters in it.
        """
        remaining = normalize(corrected)
        # as sets, since searching all of what remains for each sentence would take quadratic time
        candidates = _long_sentences(original) - _long_sentences(corrected)
        candidate_windows = _missing_windows(candidates, remaining, _WINDOW)
        removed = {
            sentence
            for sentence in candidates
            # a sentence with a missing window cannot remain, so most need not be looked for
            if not candidate_windows.isdisjoint(_windows(sentence, _WINDOW)) or sentence not in remaining
        }
        for size, windows in self.windows.items():
            new_windows = candidate_windows if size == _WINDOW else _missing_windows(removed, remaining, size)
            windows.update(new_windows)
            for sentence in removed:
                # each of its windows is in what remains, too, so only the whole sentence shows a copy
                if new_windows.isdisjoint(_windows(sentence, size)):
                    self.sentences[size].setdefault(len(sentence), set()).add(sentence)
                    self.longest_alike = max(self.longest_alike, len(sentence))
        self.longest = max(self.longest, *map(len, removed), 0)

    def narrow(self, grams: Grams) -> RemovedText | None:
        """The part of this removed text that texts with these grams may hold; None if they hold none of it."""
        windows = {size: set(filter(grams.may_hold, group)) for size, group in self.windows.items()}
        sentences: dict[int, dict[int, set[str]]] = {size: {} for size in self.sentences}
        for size, by_length in self.sentences.items():
            for length, group in by_length.items():
                likely_sentences = set(filter(grams.may_hold, group))
                if likely_sentences:
                    sentences[size][length] = likely_sentences
        if not any(windows.values()) and not any(sentences.values()):
            return None
        return RemovedText(sentences, windows)

    def is_quoted_in(self, text: str, kind: SideKind) -> bool:
        """Whether a text holds a removed sentence, or a good part of one."""
        return self.is_quoted_in_normalized(normalize(text), kind)

    def is_quoted_in_normalized(self, normal: str, kind: SideKind) -> bool:
        """Whether a text that is normalized already holds a removed sentence, or a good part of one."""
        size = _LONG_WINDOW if kind in ACTED_ON else _WINDOW
        return _holds_any(normal, self.windows[size], size) or any(
            _holds_any(normal, group, length) for length, group in self.sentences[size].items()
        )


def _long_sentences(text: str) -> set[str]:
    """The sentences of a text that are long enough to be looked for, normalized."""
    return {normalize(piece.text) for piece in split(text) if len(piece.text.strip()) >= SHORTEST_COPY}


def _windows(text: str, size: int) -> list[str]:
    """All overlapping stretches of `size` characters in a text: "abcd" has "abc" and "bcd" of size 3."""
    return [text[start : start + size] for start in range(len(text) - size + 1)]


def _missing_windows(sentences: Iterable[str], remaining: str, size: int) -> set[str]:
    """The stretches of these sentences that occur nowhere in what remains."""
    windows = {window for sentence in sentences for window in _windows(sentence, size)}
    if windows:
        windows.difference_update(remaining[start : start + size] for start in range(len(remaining) - size + 1))
    return windows


def _holds_any(text: str, stretches: Collection[str], length: int) -> bool:
    """Whether a text holds one of these stretches, each of which has this length."""
    # few stretches are looked for one by one; of many, each place of the text is looked up among them
    if len(stretches) * _CHARS_PER_STRETCH <= len(text):
        return any(stretch in text for stretch in stretches)
    return any(text[start : start + length] in stretches for start in range(len(text) - length + 1))


def describes(value: object, name: str = "") -> bool:
    """Whether a value points into a text or encodes it, as `{"start_index": 5}` or a list of token ids does."""
    if isinstance(value, list | tuple):
        if value and all(type(inner) is int for inner in value):
            return len(value) >= _MIN_IDS or _TOKENS.fullmatch(name) is not None
        return any(describes(inner, name) for inner in value)
    for inner_name, inner in fields_of(value) or ():
        if type(inner) is int:
            if inner_name != "index" and _POINTER.fullmatch(inner_name) is not None:
                return True
        elif not isinstance(inner, str | int | float) and describes(inner, inner_name):
            return True
    return False


def quoting_strings(fields: Iterable[tuple[str, Any]]) -> list[str]:
    """The strings of fields beside an answer that are long enough to quote it; reasoning and calls are left out."""
    return [
        text
        for name, value in fields
        for kind, _, text in side_strings({name: value})
        if kind is SideKind.OTHER_TEXT and len(text) >= SHORTEST_COPY
    ]


def quotes(text: str, answer: str) -> bool:
    """Whether a text repeats an answer or a sentence of it."""
    inner = normalize(text)
    outer = normalize(answer)
    if len(inner) < _WINDOW or len(outer) < _WINDOW:
        return False
    if outer in inner:
        return True
    is_sentence = len(inner) >= _SENTENCE or inner.endswith(_ENDS)
    return is_sentence and inner in outer


@dataclass(frozen=True, slots=True)
class _Search:
    """What is looked for in one body or event."""

    removed: RemovedText
    delivered_texts: Collection[str]
    """The answers as they go out, which were judged."""
    unchanged_texts: Collection[str]
    """The delivered texts that are as the upstream wrote them, so that pointers into them stay right."""
    echoed_texts: Collection[str]
    """Texts of the request that the response repeats."""


def drop_copies(
    value: Any,
    removed: RemovedText,
    delivered_texts: Collection[str],
    unchanged_texts: Collection[str] = (),
    echoed_texts: Collection[str] = (),
    *,
    edited: bool = True,
) -> Any:
    """A body or event without copies of removed text and without pointers into edited texts.

    Returns the same object if it has none. `delivered_texts` are the answers in it, of which `unchanged_texts` are as
    the upstream wrote them; `echoed_texts` come from the request. `edited` is False if pointers in it stay right.
    Raises `CopyStays` for a copy that may not be changed.
    """
    search = _Search(removed, delivered_texts, unchanged_texts, echoed_texts)
    return _clean(value, SideKind.OTHER_TEXT, search, edited=edited)


def is_pointing_event(event: object) -> bool:
    """Whether an event of a stream brings nothing but a pointer into the text, as a citation does."""
    kinds = [_field(holder, "type") for holder in (event, _field(event, "delta"))]
    return any(getattr(kind, "value", kind) in _POINTING_EVENTS for kind in kinds)


def _clean(value: Any, kind: SideKind, search: _Search, *, edited: bool) -> Any:
    """The value without copies; `kind` is that of its field.

    `edited` is False where the text beside the value is unchanged, so that pointers into that text stay right.
    """
    if isinstance(value, str):
        return _clean_string(value, kind, search)
    if isinstance(value, list):
        return _clean_list(value, kind, search, edited=edited)
    fields = fields_of(value)
    if fields is None:
        return value
    edited = edited and _own_text(value) not in search.unchanged_texts
    kind = type_kind(fields, kind)
    changed: dict[str, Any] = {}
    for name, inner in fields:
        if inner is None or isinstance(inner, int | float):
            continue
        inner_kind = field_kind(name, inner, kind)
        if name not in _KEPT and _is_copy(inner, name, inner_kind, search, edited=edited):
            changed[name] = [] if isinstance(inner, list) else None
            continue
        # the numbers of an account point nowhere
        new = _clean(inner, inner_kind, search, edited=edited and name != USAGE)
        if new is not inner:
            changed[name] = new
    return _with_fields(value, changed) if changed else value


def _is_copy(value: object, name: str, kind: SideKind, search: _Search, *, edited: bool) -> bool:
    """Whether a field is to be dropped: it describes an `edited` text, or quotes what was removed from it."""
    if kind in ACTED_ON:
        return False
    if edited and describes(value, name):
        return True
    strings = ((text, inner_kind) for inner_kind, _, text in side_strings({name: value}))
    return any(inner_kind not in ACTED_ON and _is_quotation(text, inner_kind, search) for text, inner_kind in strings)


def _is_quotation(text: str, kind: SideKind, search: _Search) -> bool:
    """Whether a string quotes removed text and is neither a delivered text nor an echo of the request."""
    if len(text) < SHORTEST_COPY or text in search.delivered_texts or text in search.echoed_texts:
        return False
    return search.removed.is_quoted_in(text, kind)


def _clean_list(values: list[Any], kind: SideKind, search: _Search, *, edited: bool) -> list[Any]:
    """The list without copies; consecutive strings may be pieces of one text. `edited` is as in `_clean`."""
    if len(values) > 1 and all(isinstance(inner, str) for inner in values):
        joined = "".join(values)
        return values if _clean_string(joined, kind, search) == joined else []
    return keep_if_same([_clean(inner, kind, search, edited=edited) for inner in values], values)


def _clean_string(text: str, kind: SideKind, search: _Search) -> str:
    """The string, without its quotation of removed text if it has one; raises `CopyStays` in reasoning and calls."""
    if not _is_quotation(text, kind, search):
        return text
    if kind in ACTED_ON:
        raise CopyStays(kind)
    # an answer may stand behind reasoning in the same string
    return next((answer for answer in search.delivered_texts if answer and text.endswith(answer)), "")


def _own_text(value: object) -> str | None:
    """The answer's text in a choice, message, part or block; None if the object holds none."""
    for name in ("text", "content"):
        text = _field(value, name)
        if isinstance(text, str):
            return text
    for name in ("message", "delta"):
        if (body := _field(value, name)) is not None:
            return _own_text(body)
    return None


def _field(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _with_fields(value: Any, changed: Mapping[str, Any]) -> Any:
    """A copy of an object with changed fields; None empties a field, and removes one of a dict."""
    if isinstance(value, BaseModel):
        return value.model_copy(update=dict(changed))
    removed_names = {name for name, inner in changed.items() if inner is None}
    return {name: changed.get(name, inner) for name, inner in value.items() if name not in removed_names}
