"""Pairs of signs in a text: emphasis, quotation marks, brackets, tags, comments, formulas, code inside a sentence.

A half is one sign of a pair, with its place. Each closing half belongs to the last opening half of its kind that has no
partner yet; pairs of different kinds may overlap. Pairs of emphasis, quotation marks and brackets end with their
paragraph at the latest, and so do elements that HTML need not close; other tags and comments do not. Where both halves
look the same, the characters around a sign show which half it is, as in CommonMark.

Bullets, escaped signs, smileys, marks of items ("a)"), signs in code, and tags of elements without text, such as
`<br>`, are not halves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from aligner_proxy.text.sentence_ends import NOTE_DIGITS
from aligner_proxy.text.structure import FENCES, Segment

SIGN = re.compile(
    r"(?P<code>`+)"
    r"|(?P<emphasis>\*+|_+|~~)"
    r"|(?P<formula>\$\$)"
    r"|(?P<quote>[\"\u201c-\u201e\u00ab\u00bb])"
    r"|(?P<bracket>\\?[()\[\]{}]|[\uff08\uff09\u300a-\u300f])"
    r"|(?P<comment><!--|-->)"
    r"|(?:(?P<slash></)|(?<![^\W_])<)(?P<name>[A-Za-z][\w:.-]{0,63})(?:[ \t\n][^<>]{0,400})?(?<!/)>"
)
"""Matches what may be a half."""
COMMENT = "<!--"
"""The kind of comments."""
_OPENER_OF = {
    closer: opener
    for pair in ("()", "[]", "{}", "\uff08\uff09", "\u300a\u300b", "\u300c\u300d", "\u300e\u300f")
    for opener, closer in (tuple(pair), (f"\\{pair[0]}", f"\\{pair[1]}"))
}
_LOW_OPENING_QUOTE = "\u201e"
_CURLY_QUOTES = "\u201c\u201d\u201e"
_GUILLEMETS = "\u00ab\u00bb"
_SMILEY_EYES = (":", ";", "=", ":-", ";-")
_MAX_MARK_LETTERS = 4
"""Most letters and digits in the mark of an item, such as "iii)"."""
_MAX_CHARS_BEFORE_BRACKET = 12
"""A mark's bracket has fewer characters before it in its segment."""
_SIGNS_AROUND_MARK = " \t>*_-"
_MAX_EMPHASIS_SIGNS = 3
"""Most consecutive signs that are emphasis: three are bold and italic at once."""
_VOID_ELEMENTS = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)
"""Elements of HTML that have no text and no closing tag."""
_OPTIONALLY_CLOSED = frozenset({"p", "li", "dt", "dd", "tr", "td", "th", "option"})
"""Elements of HTML whose closing tag may be left out."""
_NOTE_DIGIT = re.compile(f"[{NOTE_DIGITS}]")
_MAX_HALVES = 20_000
"""Most halves that are read; a text with more is made of signs, not of words."""


@dataclass(slots=True, eq=False)
class Half:
    """One sign of a pair, from offset `start` to `end` of the text."""

    kind: str
    """The kind of the pair, the same for both halves, such as `(`, `**`, or `<b` for a tag."""
    opens: bool
    """Whether this is the opening half."""
    start: int
    end: int
    partner: int | None = None
    """Offset at which the other half begins; None if there is no other half."""

    @property
    def is_inline(self) -> bool:
        """Whether the pair ends with its paragraph at the latest; comments and tags that must be closed do not."""
        return not self.kind.startswith("<") or self.may_stay_single

    @property
    def may_stay_single(self) -> bool:
        """Whether this is a tag such as `<li>`, whose partner HTML does not require."""
        return self.kind.startswith("<") and self.kind[1:] in _OPTIONALLY_CLOSED

    @property
    def shows_its_side(self) -> bool:
        """Whether the sign alone shows which half it is: "(" does, a straight quotation mark does not."""
        return self.kind[0] in "<([{\\\uff08\u300a\u300c\u300e"


OpenHalves = Mapping[str, Sequence[Half]]
"""Opening halves without a partner, by the kind of their pair."""
NO_HALVES: OpenHalves = MappingProxyType({})


def read_halves(text: str, pieces: Sequence[Segment], earlier: OpenHalves = NO_HALVES) -> list[Half]:
    """All halves in a text, in order, with and without a partner. `pieces` are the segments of the text.

    `earlier` are opening halves before the text that may be closed in it; their offsets are negative.
    """
    return _match_halves(text, pieces, earlier).halves


def open_halves(text: str, pieces: Sequence[Segment], earlier: OpenHalves = NO_HALVES) -> OpenHalves:
    """The opening halves that may be closed behind a text. Their offsets count from the text's end, so are negative.

    `pieces` and `earlier` are as for `read_halves`.
    """

    def count_from_end(half: Half) -> Half:
        # of halves before the text only that they are negative matters
        if half.start < 0:
            return half
        return Half(half.kind, opens=True, start=half.start - len(text), end=half.end - len(text))

    waiting = _match_halves(text, pieces, earlier).waiting
    return {kind: list(map(count_from_end, halves)) for kind, halves in waiting.items()}


def _match_halves(text: str, pieces: Sequence[Segment], earlier: OpenHalves) -> _Matching:
    """Find the halves in a text and their partners, without code blocks and without halves beyond `_MAX_HALVES`."""
    matching = _Matching(earlier)
    for segment in pieces:
        if len(matching.halves) > _MAX_HALVES:
            break
        if not segment.text.lstrip().startswith(FENCES):
            for half, may_close in islice(_find_candidates(text, segment), _MAX_HALVES):
                matching.add(half, may_close=may_close)
        if segment.gap.count("\n") > 1:
            matching.end_paragraph()
    return matching


class _Matching:
    """Finds the partner of each half; the halves are added in the order of the text."""

    def __init__(self, earlier: OpenHalves) -> None:
        self.halves: list[Half] = []
        """All halves so far, in order, with and without a partner."""
        self.waiting = {kind: list(halves) for kind, halves in earlier.items()}
        """The opening halves without a partner so far, by kind."""

    def add(self, half: Half, *, may_close: bool) -> None:
        """Add a half. If it may close a pair, its partner is the last opening half of its kind without a partner."""
        waiting = self.waiting.setdefault(half.kind, [])
        if may_close and waiting:
            opener = waiting.pop()
            opener.partner = half.start
            half.partner = opener.start
            half.opens = False
        elif half.opens:
            waiting.append(half)
        self.halves.append(half)

    def end_paragraph(self) -> None:
        """Forget the opening halves that can no longer be closed: all but those of tags and comments."""
        for waiting in self.waiting.values():
            if waiting and waiting[0].is_inline:
                waiting.clear()


_Candidates = Iterator[tuple[Half, bool]]
"""Signs that may be halves, each as (half, whether it may close a pair). `half.opens` says whether it may open one."""


def _find_candidates(text: str, segment: Segment) -> _Candidates:
    """Yield the signs in a segment that may be halves, except in code and behind a backslash, which escapes a sign."""
    position = segment.start
    while (match := SIGN.search(text, position, segment.end)) is not None:
        group = match.lastgroup or ""
        position = match.end()
        is_escaped = text[match.start() - 1 : match.start()] == "\\"
        if is_escaped and group != "name":
            continue
        if group == "code":
            code_end = _find_code_end(text, position, segment.end, match.group())
            if code_end is not None:
                position = code_end
                continue
            if match.group().startswith(FENCES):
                continue
        yield from _FIND_BY_GROUP[group](text, match, segment)


def _find_symmetric_sign(text: str, match: re.Match[str], segment: Segment) -> _Candidates:
    """Yield a sign of code or of a formula, which looks the same on both sides."""
    yield Half(match.group(), opens=True, start=match.start(), end=match.end()), True


def _find_bracket(text: str, match: re.Match[str], segment: Segment) -> _Candidates:
    """Yield a bracket, unless it belongs to a smiley or to the mark of an item."""
    sign = match.group()
    if not _belongs_to_mark_or_smiley(text, segment.start, match.start(), sign):
        opener = _OPENER_OF.get(sign)
        closes = opener is not None
        yield Half(opener or sign, not closes, *match.span()), closes


def _find_comment(text: str, match: re.Match[str], segment: Segment) -> _Candidates:
    """Yield the beginning or the end of an HTML comment."""
    opens = match.group() == COMMENT
    yield Half(COMMENT, opens, *match.span()), not opens


def _find_tag(text: str, match: re.Match[str], segment: Segment) -> _Candidates:
    """Yield a tag, unless its element has no text."""
    name = match["name"].lower()
    if name not in _VOID_ELEMENTS:
        closes = match["slash"] is not None
        yield Half(f"<{name}", not closes, *match.span()), closes


def _find_quote(text: str, match: re.Match[str], segment: Segment) -> _Candidates:
    """Yield a quotation mark, unless the characters around it show that it neither opens nor closes a quotation."""
    sign = match.group()
    opens, closes = _possible_sides(*_chars_around(text, match))
    if sign in _GUILLEMETS and not opens and not closes:  # with a space on both sides, as in French
        opens = sign == _GUILLEMETS[0]
        closes = not opens
    if sign == _LOW_OPENING_QUOTE:
        opens, closes = True, False
    if opens or closes:
        # languages use curly quotes and guillemets on different sides, so all signs of a set are one kind
        kind = next((signs for signs in (_CURLY_QUOTES, _GUILLEMETS) if sign in signs), sign)
        yield Half(kind, opens, *match.span()), closes


def _find_emphasis(text: str, match: re.Match[str], segment: Segment) -> _Candidates:
    """Yield the one or two signs of emphasis in a run of stars, underscores or tildes."""
    start, end = match.span()
    before, after = _chars_around(text, match)
    opens, closes = _possible_sides(before, after)
    is_in_word = before.isalnum() and after.isalnum()
    # no emphasis in "snake_case" and "3*4"
    if is_in_word and (text[start] == "_" or end - start == 1):
        return
    if (opens or closes) and end - start <= _MAX_EMPHASIS_SIGNS:
        # three signs are two halves: bold and italic
        bold_end = start + 2 if end - start > 1 else start
        for half_start, half_end in ((start, bold_end), (bold_end, end)):
            if half_start < half_end:
                yield Half(text[half_start:half_end], opens, half_start, half_end), closes


_FIND_BY_GROUP = {
    "code": _find_symmetric_sign,
    "formula": _find_symmetric_sign,
    "bracket": _find_bracket,
    "comment": _find_comment,
    "name": _find_tag,
    "quote": _find_quote,
    "emphasis": _find_emphasis,
}
"""For each group of `SIGN`, the function that finds halves in its matches."""


def _possible_sides(before: str, after: str) -> tuple[bool, bool]:
    """(whether a sign between these characters may open a pair, whether it may close one)."""
    return _is_before_word(before, after), _is_before_word(after, before)


def _chars_around(text: str, match: re.Match[str]) -> tuple[str, str]:
    """The characters before and behind a sign; a space stands for the beginning and the end of the text."""
    before = text[match.start() - 1 : match.start()] or " "
    after = text[match.end() : match.end() + 1] or " "
    # the number of a note counts as a word, but a sign between text and such a number closes a pair
    if _NOTE_DIGIT.match(after) and not before.isspace():
        after = " "
    return before, after


def _is_before_word(before: str, after: str) -> bool:
    """Whether a sign between these characters may stand before what it opens (CommonMark: left-flanking)."""
    return not after.isspace() and (after.isalnum() or not before.isalnum())


def _belongs_to_mark_or_smiley(text: str, segment_start: int, start: int, sign: str) -> bool:
    """Whether the bracket `sign` at offset `start` belongs to a smiley or to the mark of an item.

    `segment_start` is the offset of its segment.
    """
    if sign not in "()":
        return False
    if text[max(0, start - 2) : start].endswith(_SMILEY_EYES):
        return True
    may_end_mark = sign == ")" and start - segment_start < _MAX_CHARS_BEFORE_BRACKET
    if not may_end_mark:
        return False
    mark = text[segment_start:start].strip(_SIGNS_AROUND_MARK).replace(".", "")
    return mark.isalnum() and len(mark) <= _MAX_MARK_LETTERS


def _find_code_end(text: str, start: int, end: int, ticks: str) -> int | None:
    """The end of the code behind the backticks `ticks`: the same number of backticks again.

    `start` is the offset behind `ticks`, `end` that of the segment's end. None if the code does not end in the segment.
    """
    run_start = text.find(ticks, start, end)
    while run_start >= 0:
        run_end = run_start
        while run_end < end and text[run_end] == "`":
            run_end += 1
        if run_end - run_start == len(ticks):
            return run_end
        run_start = text.find(ticks, run_end, end)
    return None
