"""Does an answer meet a checkable wish? By form alone; code, addresses and quotations are no style and do not count.

Length counts everything. A list mark is no markdown (who wants no lists says so); a fence, a table and inline code are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from aligner_proxy.facts import prose
from aligner_proxy.gate.languages import language
from aligner_proxy.gate.lists import marks
from aligner_proxy.preferences.spared import spared
from aligner_proxy.wishes import LEAST, MOST, Adherence, Wish, WishKind, says

EMOJI = re.compile(
    "[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u26ff\u2728\u2764\u2763\u2705\u274c\u274e\u2714\u2716\u2757\u2b50]"
)
EXCLAMATION = re.compile(r"!(?!=)|\uff01")
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
_CLOSING = " \n\t\"'*_)]\u201d\u2019"


def met(wish: Wish, text: str) -> bool:
    """Whether `text` is as `wish` wants it; asked of checkable wishes only."""
    if wish.kind in MOST:
        return MOST[wish.kind](text) <= wish.number
    if wish.kind in LEAST:
        return LEAST[wish.kind](text) >= wish.number
    if wish.kind is WishKind.BANNED_WORDS:
        return not says(text, wish.words)
    if wish.kind is WishKind.LANGUAGE:
        return language(prose(text)) in wish.words
    return _FORMS[wish.kind](text)


def adherence(wishes: Mapping[str, Wish], before: str, after: str) -> tuple[Adherence, ...]:
    """What became of the checkable ones, by name."""
    checkable = [(name, wish) for name, wish in wishes.items() if wish.checkable]
    return tuple(Adherence(name, met(wish, before), met(wish, after)) for name, wish in checkable)


def _style(text: str) -> str:
    """What is anybody's style: without code, addresses and quotations."""
    pieces, at = list[str](), 0
    for start, end in spared(text):
        pieces.append(text[at:start])
        at = end
    return " ".join([*pieces, text[at:]])


def _lacks(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.search(_style(text)) is None


def _ends_with_question(text: str) -> bool:
    return text.rstrip(_CLOSING).endswith(("?", "\uff1f", "\u061f"))


_FORMS: Mapping[WishKind, Callable[[str], bool]] = {
    WishKind.NO_LISTS: lambda text: not marks(text),
    WishKind.LISTS: lambda text: len(marks(text)) > 1,
    WishKind.NO_EMOJI: lambda text: EMOJI.search(text) is None,
    WishKind.EMOJI: lambda text: EMOJI.search(text) is not None,
    WishKind.NO_EXCLAMATION: _lacks(EXCLAMATION),
    WishKind.NO_MARKDOWN: lambda text: MARKDOWN.search(text) is None,
    WishKind.NO_CONTRACTIONS: _lacks(CONTRACTION),
    WishKind.NO_QUESTIONS: _lacks(re.compile(r"[?\uff1f]")),
    WishKind.ENDS_WITH_QUESTION: _ends_with_question,
    WishKind.UPPER_CASE: lambda text: not any(char.islower() for char in _style(text)),
    WishKind.LOWER_CASE: lambda text: not any(char.isupper() for char in _style(text)),
}
