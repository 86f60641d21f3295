"""Pairs of signs in a text: emphasis, quotation marks, brackets, tags, comments, formulas, code inside a sentence.

A half is one sign of a pair, with its place. Signs of one kind pair like brackets, without regard to other kinds.
Emphasis, quotations and brackets end with their paragraph at the latest, and so do elements that HTML need not close;
other tags and comments do not. Of a sign that
looks the same in both halves, the characters around it show which half it is, as in CommonMark.

Not every such sign is a half: bullets, escaped signs, smileys, marks of items ("a)"), what stands in code, and tags
of elements without text, such as `<br>`, are none.
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
    r"|(?:(?P<shut></)|(?<![^\W_])<)(?P<name>[A-Za-z][\w:.-]{0,63})(?:[ \t\n][^<>]{0,400})?(?<!/)>"
)
"""Matches what may be a half."""
COMMENT = "<!--"
"""The kind of comments."""
_OPENER_OF = {
    closer: opener
    for pair in ("()", "[]", "{}", "\uff08\uff09", "\u300a\u300b", "\u300c\u300d", "\u300e\u300f")
    for opener, closer in (tuple(pair), (f"\\{pair[0]}", f"\\{pair[1]}"))
}
_LOW_QUOTE = "\u201e"
_CURLY = "\u201c\u201d\u201e"
_GUILLEMETS = "\u00ab\u00bb"
_SMILEY_EYES = (":", ";", "=", ":-", ";-")
_LONGEST_MARK = 4
"""Letters and digits in the longest mark of an item that ends with a bracket."""
_MARK_CHARS = 12
"""At least as many characters as stand in a line before the bracket of such a mark."""
_AROUND_MARK = " \t>*_-"
_LONGEST_RUN = 3
"""Signs in the longest run that is emphasis: bold and italic at once."""
_VOID_ELEMENTS = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)
"""Elements of HTML that have no text and no closing tag."""
_CLOSED_AT_WILL = frozenset({"p", "li", "dt", "dd", "tr", "td", "th", "option"})
"""Elements of HTML whose closing tag may be left out."""
_NOTE_DIGIT = re.compile(f"[{NOTE_DIGITS}]")
_MAX_HALVES = 20_000
"""More halves are not read: a text that holds so many is made of signs, not of words."""


@dataclass(slots=True, eq=False)
class Half:
    """One sign of a pair; `partner` is the offset of the other half, None without one."""

    kind: str
    """The same for both halves, such as `(`, `**`, or `<b` for a tag."""
    opens: bool
    start: int
    end: int
    partner: int | None = None

    @property
    def is_inline(self) -> bool:
        """Whether its pair ends with the paragraph, as all do but comments and tags that must be closed."""
        return not self.kind.startswith("<") or self.may_stay_single

    @property
    def may_stay_single(self) -> bool:
        """Whether it is a tag whose partner HTML does not require, such as `<li>`."""
        return self.kind.startswith("<") and self.kind[1:] in _CLOSED_AT_WILL

    @property
    def shows_its_side(self) -> bool:
        """Whether one can see from the sign alone which half it is."""
        return self.kind[0] in "<([{\\\uff08\u300a\u300c\u300e"


OpenHalves = Mapping[str, Sequence[Half]]
"""Opening halves without a partner, by kind."""
NO_HALVES: OpenHalves = MappingProxyType({})


def read_halves(text: str, pieces: Sequence[Segment], earlier: OpenHalves = NO_HALVES) -> list[Half]:
    """The halves in a text that was cut into these segments, in order: those of pairs, and those that stand alone.

    `earlier` are the halves before it that may be closed in it; their places are negative.
    """
    return _match_halves(text, pieces, earlier).halves


def open_halves(text: str, pieces: Sequence[Segment], earlier: OpenHalves = NO_HALVES) -> OpenHalves:
    """The opening halves that may be closed behind a text; their offsets count from its end, so they are negative."""

    def place_behind(half: Half) -> Half:
        # how far away earlier ones are does not matter
        return half if half.start < 0 else Half(half.kind, True, half.start - len(text), half.end - len(text))

    waiting = _match_halves(text, pieces, earlier).waiting
    return {kind: list(map(place_behind, halves)) for kind, halves in waiting.items()}


def _match_halves(text: str, pieces: Sequence[Segment], earlier: OpenHalves) -> _Matching:
    """The halves in a text, matched; code blocks are skipped, and so are halves beyond `_MAX_HALVES`."""
    matching = _Matching(earlier)
    for piece in pieces:
        if len(matching.halves) > _MAX_HALVES:
            break
        if not piece.text.lstrip().startswith(FENCES):
            for half, may_close in islice(_find_candidates(text, piece), _MAX_HALVES):
                matching.add(half, may_close=may_close)
        if piece.gap.count("\n") > 1:
            matching.end_paragraph()
    return matching


class _Matching:
    """Finds the partner of each half, in the order of the text."""

    def __init__(self, earlier: OpenHalves) -> None:
        self.halves: list[Half] = []
        """All halves so far, in order, with and without a partner."""
        self.waiting = {kind: list(halves) for kind, halves in earlier.items()}
        """The opening halves without a partner so far, by kind."""

    def add(self, half: Half, *, may_close: bool) -> None:
        """Add a half; it closes the last one that waits, if it may."""
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
"""Signs that may be halves: `opens` of each says whether it may open a pair, the boolean whether it may close one."""


def _find_candidates(text: str, piece: Segment) -> _Candidates:
    """Yield what may be a half in a segment, except in code and behind a backslash, which takes a sign its meaning."""
    position = piece.start
    while (match := SIGN.search(text, position, piece.end)) is not None:
        group = match.lastgroup or ""
        position = match.end()
        is_escaped = text[match.start() - 1 : match.start()] == "\\"
        if is_escaped and group != "name":
            continue
        if group == "code":
            end_of_code = _end_of_code(text, position, piece.end, match.group())
            if end_of_code is not None:
                position = end_of_code
                continue
            if match.group().startswith(FENCES):
                continue
        yield from _READERS[group](text, match, piece)


def _read_toggle(text: str, match: re.Match[str], piece: Segment) -> _Candidates:
    """Yield a sign of code or of a formula, which may open or close."""
    yield Half(match.group(), opens=True, start=match.start(), end=match.end()), True


def _read_bracket(text: str, match: re.Match[str], piece: Segment) -> _Candidates:
    """Yield a bracket, unless it belongs to a smiley or to the mark of an item."""
    sign = match.group()
    if not _belongs_to_mark_or_smiley(text, piece.start, match.start(), sign):
        opener = _OPENER_OF.get(sign)
        yield Half(opener or sign, opener is None, *match.span()), opener is not None


def _read_comment(text: str, match: re.Match[str], piece: Segment) -> _Candidates:
    """Yield the beginning or the end of a comment of HTML."""
    opens = match.group() == COMMENT
    yield Half(COMMENT, opens, *match.span()), not opens


def _read_tag(text: str, match: re.Match[str], piece: Segment) -> _Candidates:
    """Yield a tag, unless its element has no text."""
    name = match["name"].lower()
    if name not in _VOID_ELEMENTS:
        yield Half(f"<{name}", not match["shut"], *match.span()), bool(match["shut"])


def _read_quote(text: str, match: re.Match[str], piece: Segment) -> _Candidates:
    """Yield a quotation mark that may open or close."""
    sign = match.group()
    opens, closes = _possible_sides(*_chars_around(text, match))
    if sign in _GUILLEMETS and not opens and not closes:  # with a space on both sides, as in French
        opens = sign == _GUILLEMETS[0]
        closes = not opens
    if sign == _LOW_QUOTE:
        opens, closes = True, False
    if opens or closes:
        kind = next((signs for signs in (_CURLY, _GUILLEMETS) if sign in signs), sign)
        yield Half(kind, opens, *match.span()), closes


def _read_emphasis(text: str, match: re.Match[str], piece: Segment) -> _Candidates:
    """Yield the one or two signs of emphasis in a run of stars, underscores or tildes."""
    start, end = match.span()
    before, after = _chars_around(text, match)
    opens, closes = _possible_sides(before, after)
    is_in_word = before.isalnum() and after.isalnum()
    # no emphasis in "snake_case" and "3*4"
    if is_in_word and (text[start] == "_" or end - start == 1):
        return
    if (opens or closes) and end - start <= _LONGEST_RUN:
        # a run of three is two signs: bold and italic
        strong_end = start + 2 if end - start > 1 else start
        for first, last in ((start, strong_end), (strong_end, end)):
            if first < last:
                yield Half(text[first:last], opens, first, last), closes


_READERS = {
    "code": _read_toggle,
    "formula": _read_toggle,
    "bracket": _read_bracket,
    "comment": _read_comment,
    "name": _read_tag,
    "quote": _read_quote,
    "emphasis": _read_emphasis,
}
"""By group of `SIGN`."""


def _possible_sides(before: str, after: str) -> tuple[bool, bool]:
    """Whether a sign between these characters may open and whether it may close."""
    return _is_before_word(before, after), _is_before_word(after, before)


def _chars_around(text: str, match: re.Match[str]) -> tuple[str, str]:
    """The characters before and behind a sign; a space at an end of the text, and for the number of a note behind."""
    before = text[match.start() - 1 : match.start()] or " "
    after = text[match.end() : match.end() + 1] or " "
    # behind text, a sign closes before such a number, although that counts as a word
    return before, " " if _NOTE_DIGIT.match(after) and not before.isspace() else after


def _is_before_word(before: str, after: str) -> bool:
    """Whether a sign between these characters may stand before what it opens (CommonMark: left-flanking)."""
    return not after.isspace() and (after.isalnum() or not before.isalnum())


def _belongs_to_mark_or_smiley(text: str, segment_start: int, start: int, sign: str) -> bool:
    """Whether the bracket at `start` belongs to a smiley or to the mark of an item."""
    if sign not in "()":
        return False
    if text[max(0, start - 2) : start].endswith(_SMILEY_EYES):
        return True
    may_end_mark = sign == ")" and start - segment_start < _MARK_CHARS
    before = text[segment_start:start] if may_end_mark else ""
    mark = before.strip(_AROUND_MARK).replace(".", "")
    return mark.isalnum() and len(mark) <= _LONGEST_MARK


def _end_of_code(text: str, start: int, end: int, ticks: str) -> int | None:
    """The end of the code that these backticks begin; None if it does not end in the segment."""
    run_start = text.find(ticks, start, end)
    while run_start >= 0:
        run_end = run_start
        while run_end < end and text[run_end] == "`":
            run_end += 1
        if run_end - run_start == len(ticks):
            return run_end
        run_start = text.find(ticks, run_end, end)
    return None
