"""Second copies of an answer: fields beside it that quote it, point into it or encode it.

An edit makes such a field wrong, and a quotation would deliver what the edit removed. Such fields are found by their
form, not by a provider's names for them. `describes` finds pointers and encodings, such as offsets of citations and
token ids; `quotes` finds whole sentences of the answer. Of an edited answer, `drop_copies` removes all three, and
`drop_foreign_logprobs` the probabilities of tokens of other text; `RemovedText` holds what the edit took out. A copy
that a client needs as it is, such as a tool call's arguments, raises `CopyStays`.
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
    find_object_kind,
    keep_if_same,
    side_strings,
)
from aligner_proxy.text.structure import split
from aligner_proxy.types import SideKind

SHORTEST_COPY = 20
"""Characters of the shortest text whose copy is looked for."""
_WINDOW = 16
"""Characters without white space, about 20 with it, that a copy of part of a sentence shares with the sentence."""
_LONG_WINDOW = 40
"""The same for copies in reasoning and calls, which share more words with any answer."""
_MIN_FRAGMENT_CHARS = 40
"""Characters from which a quotation counts although it does not end as a sentence does."""
_SENTENCE_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u2026")
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
_REFUSAL = "refusal"
"""Field with a refusal, which is never edited, and with the probabilities of its tokens."""
_MIN_IDS = 8
"""Fewest numbers in a list that counts as token ids although its name does not say so."""

_KEPT = USUAL_FIELDS | {
    *("provider_specific_fields", "results", "outputs", "instructions", "metadata", "tools", "tool_choice"),
}
"""Fields that are kept and searched for copies; any other is dropped as a whole if it holds one."""
_POINTING_EVENTS = ("citations_delta", "response.output_text.annotation.added")
"""Types of events, or of the deltas in them, that say nothing without the pointer in them."""
ACTED_ON = (SideKind.REASONING, SideKind.TOOL_ARGUMENTS)
"""Kinds of text on which a client or model acts: they may not be changed, and share more words with any answer."""


def normalize(text: str) -> str:
    """Return a text in small letters, without white space and the escapes of JSON, HTML and URLs."""
    text = decode_percent(text)
    text = html.unescape(text) if "&" in text else text
    return _NOISE.sub("", text).casefold()


class Grams:
    """Filter that tells fast that a stretch of characters does not occur in some texts.

    It stores hashes of short stretches (grams) of the texts. What it lets pass may occur in the texts or not.
    """

    _LENGTH = 12
    _STEP = 5
    """Distance between the beginnings of two grams in a text, in characters."""
    _MIN_STRETCH = _LENGTH + _STEP - 1
    """Characters of the shortest stretch that certainly contains a whole gram of the text in which it occurs."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def add(self, text: str, start: int) -> None:
        """Add the grams of a text that end behind `start`, the length that the text had when it was added last."""
        # Grams begin at multiples of `_STEP`. Some before this one did not fit into the text as it was then.
        first_start = max(0, start - self._LENGTH) // self._STEP * self._STEP
        gram_starts = range(first_start, len(text) - self._LENGTH + 1, self._STEP)
        self._hashes.update(hash(text[gram_start : gram_start + self._LENGTH]) for gram_start in gram_starts)

    def may_contain(self, stretch: str) -> bool:
        """Whether a stretch may occur in the texts; always True for a stretch that is too short to tell."""
        if len(stretch) < self._MIN_STRETCH:
            return True
        # If the stretch occurs in a text, a gram of the text begins at one of its first `_STEP` characters.
        return any(hash(stretch[offset : offset + self._LENGTH]) in self._hashes for offset in range(self._STEP))


@dataclass(slots=True)
class RemovedText:
    """What edits took out of one or more answers, as sentences and as windows.

    A window is a stretch of characters of fixed length. A text that has a window of a removed sentence is a copy.
    """

    sentences: dict[int, dict[int, set[str]]] = field(default_factory=lambda: {_WINDOW: {}, _LONG_WINDOW: {}})
    """By window length, the removed sentences that have no window in `windows`, grouped by their own length.

    All their windows are in what is delivered, too, so only the whole sentence shows a copy.
    """
    windows: dict[int, set[str]] = field(default_factory=lambda: {_WINDOW: set(), _LONG_WINDOW: set()})
    """By window length, the windows of removed sentences that occur nowhere in what is delivered."""
    longest: int = 0
    """Characters of the longest removed sentence, without white space."""
    longest_alike: int = 0
    """Characters of the longest sentence in `sentences`."""

    @classmethod
    def compare_texts(cls, originals: Iterable[str], corrected: Iterable[str]) -> RemovedText:
        """Return what the corrected texts no longer have of their originals; both are in the same order."""
        removed_text = cls()
        for original, corrected_text in zip(originals, corrected, strict=True):
            if original != corrected_text:
                removed_text.add(original, corrected_text)
        return removed_text

    def add(self, original: str, corrected: str) -> None:
        """Add the sentences of `original`, and their windows, that do not occur in `corrected`."""
        remaining_text = normalize(corrected)
        # Sets are subtracted first, since searching the remaining text for every sentence would take quadratic time.
        likely_sentences = _long_sentences(original) - _long_sentences(corrected)
        missing_windows = _missing_windows(likely_sentences, remaining_text, _WINDOW)
        removed_sentences = {
            sentence
            for sentence in likely_sentences
            # A sentence with a missing window cannot remain, so the text is searched for few sentences.
            if not missing_windows.isdisjoint(_windows(sentence, _WINDOW)) or sentence not in remaining_text
        }
        for size, windows in self.windows.items():
            if size != _WINDOW:  # those of the size `_WINDOW`, which comes first, are known already
                missing_windows = _missing_windows(removed_sentences, remaining_text, size)
            windows.update(missing_windows)
            for sentence in removed_sentences:
                if missing_windows.isdisjoint(_windows(sentence, size)):
                    self.sentences[size].setdefault(len(sentence), set()).add(sentence)
                    self.longest_alike = max(self.longest_alike, len(sentence))
        self.longest = max(self.longest, *map(len, removed_sentences), 0)

    def narrow(self, grams: Grams) -> RemovedText | None:
        """Return the part of this removed text that may occur in texts with these grams; None if no part may."""
        windows = {size: set(filter(grams.may_contain, stretches)) for size, stretches in self.windows.items()}
        sentences: dict[int, dict[int, set[str]]] = {size: {} for size in self.sentences}
        for size, sentences_by_length in self.sentences.items():
            for length, equal_length_sentences in sentences_by_length.items():
                likely_sentences = set(filter(grams.may_contain, equal_length_sentences))
                if likely_sentences:
                    sentences[size][length] = likely_sentences
        if not any(windows.values()) and not any(sentences.values()):
            return None
        return RemovedText(sentences=sentences, windows=windows)

    def is_quoted_in(self, text: str, kind: SideKind) -> bool:
        """Whether a text of this kind contains a removed sentence, or a window of one."""
        return self.is_quoted_in_normalized(normalize(text), kind)

    def is_quoted_in_normalized(self, normal_text: str, kind: SideKind) -> bool:
        """Whether a text of this kind, after `normalize`, contains a removed sentence, or a window of one.

        Reasoning and tool calls (`ACTED_ON`) share more words with any answer, so only long windows count there.
        """
        size = _LONG_WINDOW if kind in ACTED_ON else _WINDOW
        return _contains_any(normal_text, self.windows[size], size) or any(
            _contains_any(normal_text, sentences, length) for length, sentences in self.sentences[size].items()
        )


def _long_sentences(text: str) -> set[str]:
    """The sentences of a text that are long enough to be looked for, normalized."""
    return {normalize(piece.text) for piece in split(text) if len(piece.text.strip()) >= SHORTEST_COPY}


def _windows(text: str, size: int) -> list[str]:
    """All overlapping stretches of `size` characters in a text: "abcd" has "abc" and "bcd" of size 3."""
    return [text[start : start + size] for start in range(len(text) - size + 1)]


def _missing_windows(sentences: Iterable[str], remaining: str, size: int) -> set[str]:
    """The windows of `size` characters of these sentences that do not occur in the text `remaining`."""
    windows = {window for sentence in sentences for window in _windows(sentence, size)}
    if windows:
        windows.difference_update(remaining[start : start + size] for start in range(len(remaining) - size + 1))
    return windows


def _contains_any(text: str, stretches: Collection[str], length: int) -> bool:
    """Whether a text contains one of these stretches, each of which has `length` characters."""
    # The text is searched for each of few stretches; otherwise each stretch of the text is looked up among them.
    if len(stretches) * _CHARS_PER_STRETCH <= len(text):
        return any(stretch in text for stretch in stretches)
    return any(text[start : start + length] in stretches for start in range(len(text) - length + 1))


def describes(value: object, name: str = "") -> bool:
    """Whether a field points into a text or encodes a text, as `{"start_index": 5}` or token ids do."""
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
    """Return the strings of fields (name, value) that may quote an answer, except those of reasoning and calls."""
    return [
        text
        for name, value in fields
        for kind, _, text in side_strings({name: value})
        if kind is SideKind.OTHER_TEXT and len(text) >= SHORTEST_COPY
    ]


def quotes(text: str, answer: str) -> bool:
    """Whether a text repeats the answer, or is a sentence of the answer."""
    quotation = normalize(text)
    whole = normalize(answer)
    if len(quotation) < _WINDOW or len(whole) < _WINDOW:
        return False
    if whole in quotation:
        return True
    is_long_enough = len(quotation) >= _MIN_FRAGMENT_CHARS or quotation.endswith(_SENTENCE_ENDS)
    return is_long_enough and quotation in whole


@dataclass(frozen=True, slots=True)
class _Search:
    """What is looked for in one body or event, and which texts in it are no copies (see `drop_copies`)."""

    removed: RemovedText
    delivered_texts: Collection[str]
    unchanged_texts: Collection[str]
    echoed_texts: Collection[str]


def drop_copies(
    value: Any,
    removed: RemovedText,
    delivered_texts: Collection[str],
    unchanged_texts: Collection[str] = (),
    echoed_texts: Collection[str] = (),
    *,
    edited: bool = True,
) -> Any:
    """Return a body or event without copies of removed text and without pointers into edited texts.

    The same object is returned if it has none of these. `delivered_texts` are the answers in the object, which were
    judged. Of these, `unchanged_texts` are as the upstream wrote them, so that pointers into them stay right.
    `echoed_texts` are repeated from the request. `edited` says whether the texts may be edited, so that pointers into
    them are wrong. Raises `CopyStays` for a copy that may not be changed.
    """
    search = _Search(removed, delivered_texts, unchanged_texts, echoed_texts)
    return _clean(value, SideKind.OTHER_TEXT, search, edited=edited)


def drop_foreign_logprobs(value: Any, *, keeps_ending: bool = False) -> Any:
    """Return a body or event without token probabilities whose tokens are not exactly the text beside them.

    The same object is returned if it has none of these. Such tokens belong to text that was removed, or may be: an
    upstream may send a token before its text, for example while it waits whether a stop string follows, or if a letter
    has two tokens. With `keeps_ending`, the last tokens stay if they are exactly the text, behind those of reasoning.
    """
    if isinstance(value, list):
        return keep_if_same([drop_foreign_logprobs(inner, keeps_ending=keeps_ending) for inner in value], value)
    changed_fields: dict[str, Any] = {}
    for name, inner in fields_of(value) or ():
        if not inner or isinstance(inner, str | int | float):
            continue
        if name != "logprobs":
            cleaned = drop_foreign_logprobs(inner, keeps_ending=keeps_ending)
        elif _has_only_own_tokens(inner, value):
            continue
        else:
            cleaned = _keep_ending(inner, _encode(_own_text(value))) if keeps_ending else None
            if cleaned is None and isinstance(inner, list):
                cleaned = []
        if cleaned is not inner:
            changed_fields[name] = cleaned
    return _with_fields(value, changed_fields) if changed_fields else value


def _has_only_own_tokens(logprobs: object, holder: object) -> bool:
    """Whether a field of token probabilities has exactly the tokens of the text and the refusal in its `holder`."""
    fields = fields_of(logprobs)
    if fields is not None and not any(inner for _, inner in fields):
        return True  # it has no tokens
    spelled_refusal = _spell(_field(logprobs, _REFUSAL))
    if spelled_refusal and spelled_refusal != _encode(_own_refusal(holder)):
        return False
    spelled_text = b"".join(map(_spell, (logprobs, _field(logprobs, "content"), _field(logprobs, "tokens"))))
    has_no_text = bool(spelled_refusal) and not spelled_text
    return has_no_text or spelled_text == _encode(_own_text(holder))


def _keep_ending(logprobs: Any, text: bytes) -> Any:
    """Return a field of token probabilities with only its last tokens, which are exactly the text; None if none are."""
    tokens = logprobs if isinstance(logprobs, list) else _field(logprobs, "content")
    if not text or not isinstance(tokens, list) or _field(logprobs, "tokens") or _field(logprobs, _REFUSAL):
        return None
    end = len(text)
    for start in range(len(tokens) - 1, -1, -1):
        token = _token_bytes(tokens[start])
        if not text.endswith(token, 0, end):
            return None
        end -= len(token)
        if not end:
            return tokens[start:] if tokens is logprobs else _with_fields(logprobs, {"content": tokens[start:]})
    return None


def _spell(tokens: object) -> bytes:
    """The text of a list of tokens as UTF-8; empty for what is no list."""
    return b"".join(map(_token_bytes, tokens)) if isinstance(tokens, list) else b""


def _encode(text: str | None) -> bytes:
    return (text or "").encode(errors="surrogatepass")


def _token_bytes(token: object) -> bytes:
    """The text of a token as UTF-8, perhaps with a part of a letter; the token is a string or has its bytes."""
    numbers = _field(token, "bytes")
    if numbers and isinstance(numbers, list):
        return bytes(number for number in numbers if type(number) is int and number in range(256))
    name = token if isinstance(token, str) else _field(token, "token")
    return _encode(str(name or ""))


def is_pointing_event(event: object) -> bool:
    """Whether an event of a stream has nothing but a pointer into the text, as a citation does."""
    kinds = [_field(holder, "type") for holder in (event, _field(event, "delta"))]
    return any(getattr(kind, "value", kind) in _POINTING_EVENTS for kind in kinds)


def _clean(value: Any, kind: SideKind, search: _Search, *, edited: bool) -> Any:
    """Return the value without copies of removed text; the same object if it has none. `kind` is that of its field.

    `edited` says whether the text beside the value may be edited, so that pointers into that text are wrong.
    """
    if isinstance(value, str):
        return _clean_string(value, kind, search)
    if isinstance(value, list):
        return _clean_list(value, kind, search, edited=edited)
    fields = fields_of(value)
    if fields is None:
        return value
    edited = edited and _own_text(value) not in search.unchanged_texts
    kind = find_object_kind(fields, kind)
    changed_fields: dict[str, Any] = {}
    for name, inner in fields:
        if inner is None or isinstance(inner, int | float):
            continue
        inner_kind = field_kind(name, inner, kind)
        if name not in _KEPT and _is_copy(inner, name, inner_kind, search, edited=edited):
            changed_fields[name] = [] if isinstance(inner, list) else None
            continue
        # The numbers in `usage` are counts, not pointers.
        cleaned = _clean(inner, inner_kind, search, edited=edited and name != USAGE)
        if cleaned is not inner:
            changed_fields[name] = cleaned
    return _with_fields(value, changed_fields) if changed_fields else value


def _is_copy(value: object, name: str, kind: SideKind, search: _Search, *, edited: bool) -> bool:
    """Whether a field must be dropped, because it quotes removed text, or describes a text that is `edited`.

    Reasoning and tool calls are never dropped; `_clean_string` refuses copies in them.
    """
    if kind in ACTED_ON:
        return False
    if edited and describes(value, name):
        return True
    return any(
        inner_kind not in ACTED_ON and _is_quotation(text, inner_kind, search)
        for inner_kind, _, text in side_strings({name: value})
    )


def _is_quotation(text: str, kind: SideKind, search: _Search) -> bool:
    """Whether a string quotes removed text and is neither a delivered text nor an echo of the request."""
    if len(text) < SHORTEST_COPY or text in search.delivered_texts or text in search.echoed_texts:
        return False
    return search.removed.is_quoted_in(text, kind)


def _clean_list(values: list[Any], kind: SideKind, search: _Search, *, edited: bool) -> list[Any]:
    """Return the list without copies; the same list if it has none. `kind` and `edited` are as in `_clean`."""
    if len(values) > 1 and all(isinstance(inner, str) for inner in values):
        # The strings may be pieces of one text.
        joined_text = "".join(values)
        return values if _clean_string(joined_text, kind, search) == joined_text else []
    return keep_if_same([_clean(inner, kind, search, edited=edited) for inner in values], values)


def _clean_string(text: str, kind: SideKind, search: _Search) -> str:
    """Return the string, or an empty one if it quotes removed text; raises `CopyStays` in reasoning and calls."""
    if not _is_quotation(text, kind, search):
        return text
    if kind in ACTED_ON:
        raise CopyStays(kind)
    # If an answer stands behind reasoning in the same string, the answer is kept.
    return next((answer for answer in search.delivered_texts if answer and text.endswith(answer)), "")


def _own_text(value: object) -> str | None:
    """The answer's text in a choice, message, part, block or delta; None if the object has no text."""
    for name in ("text", "content", "delta"):
        text = _field(value, name)
        if isinstance(text, str):
            return text
    for name in ("message", "delta"):
        body = _field(value, name)
        if body is not None:
            return _own_text(body)
    return None


def _own_refusal(value: object) -> str | None:
    """The refusal in a choice, message or delta; None if the object has none."""
    for holder in (value, _field(value, "message"), _field(value, "delta")):
        refusal = _field(holder, _REFUSAL)
        if isinstance(refusal, str):
            return refusal
    return None


def _field(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _with_fields(value: Any, changed_fields: Mapping[str, Any]) -> Any:
    """Return a copy of an object with changed fields; None empties a field of a model, and removes a key of a dict."""
    if isinstance(value, BaseModel):
        return value.model_copy(update=dict(changed_fields))
    removed_names = {name for name, inner in changed_fields.items() if inner is None}
    return {name: changed_fields.get(name, inner) for name, inner in value.items() if name not in removed_names}
