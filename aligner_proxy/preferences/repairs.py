"""Which edits meet a preference for certain and keep every word of the text? What is doubtful is left alone.

Code, addresses and quotations are never touched. What comes out is only a proposal: it goes through the gate like any
correction. A wish that cannot be met for certain (an ambiguous "'s", a list that other sentences count on) stays unmet
there and is reported so.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping

from aligner_proxy.preferences.checks import EMOJI
from aligner_proxy.preferences.contractions import spelled_out
from aligner_proxy.preferences.lists_as_prose import without_lists
from aligner_proxy.preferences.spared import spared
from aligner_proxy.wishes import WishKind

Repair = Callable[[str], str]
_Put = str | Callable[[re.Match[str]], str]

_JOINERS = "[\ufe0e\ufe0f\u200d\u20e3]"
# Possessive, and tried at the first of a row only: tried at each of twenty thousand it took minutes.
_EMOJI_RUN = rf"{EMOJI.pattern}{_JOINERS}*+(?:[ \t]{{0,3}}{EMOJI.pattern}{_JOINERS}*+)*+"
_NOT_WITHIN = rf"(?<!{EMOJI.pattern})(?<!{_JOINERS})"
# These say yes, no or beware; taking them away would take something away.
_MEANT = re.compile("[\u2705\u274c\u274e\u2714\u2716\u2757]")
_EMOJI_BEFORE = re.compile(
    rf"(^[ \t]*(?:(?:[-*+\u2022]|\d{{1,3}}[.)])[ \t]+|#{{1,6}}[ \t]+|[*_]{{1,3}})?)({_EMOJI_RUN})[ \t]*(?=\S)",
    re.MULTILINE,
)
_EMOJI_AFTER = re.compile(rf"(?<=\S){_NOT_WITHIN}[ \t]*({_EMOJI_RUN})(?=[ \t]*(?:$|[.,;:!?)\]*_\n]))", re.MULTILINE)
_EMOJI_BETWEEN = re.compile(rf"(?<=[.!?:,;)\u2026])[ \t]*({_EMOJI_RUN})(?=[ \t])")
_EMOJI_LINE = re.compile(rf"^[ \t]*({_EMOJI_RUN})[ \t]*\n(?:[ \t]*\n)?", re.MULTILINE)

_SPANISH = re.compile(r"\u00a1([^\u00a1!\n]{0,300})!")
_NAMES_WITH_MARK = r"(?<!Yahoo)(?<!Jeopardy)(?<!Oklahoma)(?<!Joomla)(?<!Mamma Mia)"
_SHOUTED_QUESTION = re.compile(r"(?<!!)!+(?=\?)|(?<=\?)!+")
_EXCLAIMED = re.compile(
    rf"{_NAMES_WITH_MARK}(?<=[\w)\]*_'\u2019%$])[ \u00a0\u202f]?(?:!+|"
    rf"\uff01+)(?=[*_)\]\"'\u201d\u2019]*(?:\s+(?![a-z])|$))"
)
_EXCLAIMED_TWICE = re.compile(r"(?<=\.)!+")

_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(\S[^\n]*)$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,})\n(?:[ \t]*\n)?", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=[^\s*])([^*\n]+?)(?<=\S)\*\*")
_ITALIC = re.compile(
    r"(?<![\w*\\])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])|(?<![\w_\\])_(?=[^\s_])([^_\n]+?)(?<=[^\s_])_(?![\w_])"
)
_QUOTE_MARK = re.compile(r"^ {0,3}>[ \t]?", re.MULTILINE)
_STAR_ITEM = re.compile(r"^([ \t]*)\*(?=[ \t]+\S)", re.MULTILINE)


def repaired(text: str, kinds: Collection[WishKind]) -> str:
    """The text as far as rules can make it what these kinds of wishes want."""
    for kind, repair in _REPAIRS.items():
        if kind in kinds:
            text = repair(text)
    return text


def _sub(pattern: re.Pattern[str], put: _Put, text: str) -> str:
    """Like `pattern.sub`, but for matches that reach into what is spared."""
    kept = spared(text)
    starts = [start for start, _ in kept]

    def free(match: re.Match[str]) -> str:
        before = bisect_left(starts, match.end())
        if before and kept[before - 1][1] > match.start():
            return match.group()
        return match.expand(put) if isinstance(put, str) else put(match)

    return pattern.sub(free, text)


def _no_emoji(text: str) -> str:
    def gone(match: re.Match[str]) -> str:
        return match.group() if _MEANT.search(match.group()) else (match.group(1) if match.lastindex == 2 else "")

    for pattern in (_EMOJI_LINE, _EMOJI_BEFORE, _EMOJI_AFTER, _EMOJI_BETWEEN):
        text = _sub(pattern, gone, text)
    return text


def _calmed(text: str) -> str:
    text = _sub(_SPANISH, r"\1!", text)
    text = _sub(_SHOUTED_QUESTION, "", text)
    text = _sub(_EXCLAIMED_TWICE, "", text)
    return _sub(_EXCLAIMED, lambda match: "\u3002" if "\uff01" in match.group() else ".", text)


def _plain(text: str) -> str:
    text = _sub(_RULE, "", text)
    text = _sub(_HEADING, lambda match: match.group(1).rstrip().rstrip("#").rstrip() or match.group(), text)
    text = _sub(_QUOTE_MARK, "", text)
    text = _sub(_BOLD, r"\1", text)
    text = _sub(_ITALIC, lambda match: match.group(1) or match.group(2), text)
    return _sub(_STAR_ITEM, r"\1-", text)


def _cased(change: Callable[[str], str]) -> Repair:
    def repair(text: str) -> str:
        pieces, at = [], 0
        for start, end in spared(text):
            pieces += [change(text[at:start]), text[start:end]]
            at = end
        return "".join(pieces) + change(text[at:])

    return repair


def _spelled_out(text: str) -> str:
    return spelled_out(text, _sub)


_REPAIRS: Mapping[WishKind, Repair] = {
    WishKind.NO_EMOJI: _no_emoji,
    WishKind.NO_LISTS: without_lists,
    WishKind.NO_EXCLAMATION: _calmed,
    WishKind.NO_CONTRACTIONS: _spelled_out,
    WishKind.NO_MARKDOWN: _plain,
    WishKind.UPPER_CASE: _cased(str.upper),
    WishKind.LOWER_CASE: _cased(str.lower),
}
