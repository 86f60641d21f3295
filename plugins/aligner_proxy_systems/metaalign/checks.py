"""Rule-based checks of whether an answer meets a preference. Code, addresses and quotations are protected: checks of
style skip them, and edits do not change them.

Length checks count
everything. A list marker is not markdown here, because `no-lists` covers lists; a fence, a table and inline code are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from aligner_proxy.text.facts import MAIL, WEB, prose
from aligner_proxy.text.languages import language
from aligner_proxy.text.lengths import contains_any
from aligner_proxy.text.structure import split
from aligner_proxy_systems.metaalign.types import LEAST, MOST, Preference, PreferenceKind, length

EMOJI = re.compile(
    "[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u26ff\u2728\u2764\u2763\u2705\u274c\u274e\u2714\u2716\u2757\u2b50]"
)
EXCLAMATION = re.compile(r"!(?!=)|\uff01")
_ITEM_MARK = re.compile(r"[ \t]*(?:[-*+\u2022]|(?:\d{1,3}|[a-zA-Z])[.)])(?=[ \t]+\S)")
CONTRACTION = re.compile(
    r"\b[a-z]+n['\u2019]t\b|\b(?:i|you|we|they|he|she|it|that|there|who|what)['\u2019](?:m|re|ve|ll|d)\b"
    r"|\b(?:it|that|there|here|what|who|he|she|where|how|when|let)['\u2019]s\b|\by['\u2019]all\b"
    r"|\b(?:gonna|wanna|gotta)\b",
    re.IGNORECASE,
)
MARKDOWN = re.compile(
    r"^ {0,3}#{1,6}[ \t]+\S|\*\*(?=\S)[^*\n]+\*\*|(?<![\w*])\*(?=[^\s*])[^*\n]+(?<=[^\s*])\*(?![\w*])"
    r"|^[ \t]*(?:```|~~~)|`[^`\n]+`|^ {0,3}>[ \t]|\[[^\[\]\n]{1,300}\]\([^)\n]{1,2000}\)|^[ \t]{0,8}\|"
    r"?[ \t]{0,8}:?-{3,}:?[ \t]{0,8}\|"
    r"|^[ \t]*(?:\*[ \t]*){3,}$|^[ \t]*-{3,}[ \t]*$",
    re.MULTILINE,
)
_IGNORED_AT_END = " \n\t\"'*_)]\u201d\u2019"
"""Signs that may follow a question mark at the end of an answer."""


_CODE_SPAN = re.compile(r"(?<!`)`[^`\n]{1,400}`(?!`)")
_QUOTED = re.compile(
    r"(?<![\w\"])\"(?=\S)[^\"\n]{1,400}\"|\u201c[^\u201c\u201d\n]{1,400}\u201d|"
    r"\u201e[^\u201c-\u201e\n]{1,400}[\u201c\u201d]"
    r"|\u00ab[^\u00ab\u00bb\n]{1,400}\u00bb"
)


def is_met(preference: Preference, text: str) -> bool:
    """Whether `text` meets a checkable preference."""
    kind = preference.kind
    if kind in MOST:
        return length(kind, text) <= preference.number
    if kind in LEAST:
        return length(kind, text) >= preference.number
    if kind is PreferenceKind.BANNED_WORDS:
        return not contains_any(text, preference.words)
    if kind is PreferenceKind.LANGUAGE:
        return language(prose(text)) in preference.words
    return _CHECKS[kind](text)


def check_adherence(preferences: Mapping[str, Preference], before: str, after: str) -> dict[str, list[bool]]:
    """Return, for each checkable preference, whether the answer meets it [before, after] correction."""
    return {
        name: [is_met(preference, before), is_met(preference, after)]
        for name, preference in preferences.items()
        if preference.checkable
    }


def protected_spans(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) of code, addresses and quotations, in order and without overlaps."""
    spans: list[tuple[int, int]] = []
    if "```" in text or "~~~" in text:
        segments = split(text)
        spans = [
            (segment.start, segment.end) for segment in segments if segment.text.lstrip().startswith(("```", "~~~"))
        ]
    for pattern in (_CODE_SPAN, WEB, MAIL, _QUOTED):
        spans += [match.span() for match in pattern.finditer(text)]
    merged_spans: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        last_start, last_end = merged_spans[-1] if merged_spans else (0, 0)
        if start < last_end:
            merged_spans[-1] = (last_start, max(end, last_end))
        else:
            merged_spans.append((start, end))
    return merged_spans


def _cut_protected(text: str) -> str:
    """Return the text without its protected spans."""
    pieces: list[str] = []
    position = 0
    for start, end in protected_spans(text):
        pieces.append(text[position:start])
        position = end
    # joined by spaces, so that the words around a span do not become one
    return " ".join([*pieces, text[position:]])


def _make_absence_check(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    """Return a check of whether a text has no match of the pattern outside of protected spans."""
    return lambda text: pattern.search(_cut_protected(text)) is None


def _ends_with_question(text: str) -> bool:
    return text.rstrip(_IGNORED_AT_END).endswith(("?", "\uff1f", "\u061f"))


def count_items(text: str) -> int:
    """The number of list items in a text."""
    count = 0
    begins_line = True
    for segment in split(text):
        count += begins_line and _ITEM_MARK.match(segment.text) is not None
        # a segment of white space has the empty lines at the text's beginning
        begins_line = "\n" in segment.gap or not segment.text.strip()
    return count


_CHECKS: Mapping[PreferenceKind, Callable[[str], bool]] = {
    PreferenceKind.NO_LISTS: lambda text: not count_items(text),
    # a single item is no list yet
    PreferenceKind.LISTS: lambda text: count_items(text) > 1,
    PreferenceKind.NO_EMOJI: lambda text: EMOJI.search(text) is None,
    PreferenceKind.EMOJI: lambda text: EMOJI.search(text) is not None,
    PreferenceKind.NO_EXCLAMATION: _make_absence_check(EXCLAMATION),
    PreferenceKind.NO_MARKDOWN: lambda text: MARKDOWN.search(text) is None,
    PreferenceKind.NO_CONTRACTIONS: _make_absence_check(CONTRACTION),
    PreferenceKind.NO_QUESTIONS: _make_absence_check(re.compile(r"[?\uff1f]")),
    PreferenceKind.ENDS_WITH_QUESTION: _ends_with_question,
    PreferenceKind.UPPER_CASE: lambda text: not any(char.islower() for char in _cut_protected(text)),
    PreferenceKind.LOWER_CASE: lambda text: not any(char.isupper() for char in _cut_protected(text)),
}
