"""Rule-based edits that meet a preference with certainty and keep every word of the text. A fix makes such edits. Code,
addresses and quotations are protected, that is, never changed.

Each result is only a proposal and passes the gate like any
correction. Doubtful cases, such as an ambiguous "'s" or a list that other sentences refer to, are left unchanged and
reported as unmet.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from aligner_proxy_systems.metaalign.checks import EMOJI, protected_spans
from aligner_proxy_systems.metaalign.types import PreferenceKind

Fix = Callable[[str], str]
"""Is called with a text and returns the edited text."""
_Replacement = str | Callable[[re.Match[str]], str]

# Invisible characters that belong to the emoji before them.
_JOINERS = "[\ufe0e\ufe0f\u200d\u20e3]"
# Possessive quantifiers, to prevent backtracking: without them, twenty thousand emojis in a row took minutes.
_EMOJI_RUN = rf"{EMOJI.pattern}{_JOINERS}*+(?:[ \t]{{0,3}}{EMOJI.pattern}{_JOINERS}*+)*+"
_NOT_WITHIN = rf"(?<!{EMOJI.pattern})(?<!{_JOINERS})"
# These emojis mean yes, no or warning, so removing them would remove information.
_MEANINGFUL_EMOJI = re.compile("[\u2705\u274c\u274e\u2714\u2716\u2757]")
_EMOJI_BEFORE = re.compile(
    rf"(^[ \t]*(?:(?:[-*+\u2022]|\d{{1,3}}[.)])[ \t]+|#{{1,6}}[ \t]+|[*_]{{1,3}})?)({_EMOJI_RUN})[ \t]*(?=\S)",
    re.MULTILINE,
)
_EMOJI_AFTER = re.compile(rf"(?<=\S){_NOT_WITHIN}[ \t]*({_EMOJI_RUN})(?=[ \t]*(?:$|[.,;:!?)\]*_\n]))", re.MULTILINE)
_EMOJI_BETWEEN = re.compile(rf"(?<=[.!?:,;)\u2026])[ \t]*({_EMOJI_RUN})(?=[ \t])")
_EMOJI_LINE = re.compile(rf"^[ \t]*({_EMOJI_RUN})[ \t]*\n(?:[ \t]*\n)?", re.MULTILINE)

_SPANISH_EXCLAMATION = re.compile(r"\u00a1([^\u00a1!\n]{0,300})!")
# Names that end with an exclamation mark, which is no shout.
_NAMES_WITH_MARK = r"(?<!Yahoo)(?<!Jeopardy)(?<!Oklahoma)(?<!Joomla)(?<!Mamma Mia)"
_SHOUTED_QUESTION = re.compile(r"(?<!!)!+(?=\?)|(?<=\?)!+")
_EXCLAMATION_AT_END = re.compile(
    rf"{_NAMES_WITH_MARK}(?<=[\w)\]*_'\u2019%$])[ \u00a0\u202f]?(?:!+|"
    rf"\uff01+)(?=[*_)\]\"'\u201d\u2019]*(?:\s+(?![a-z])|$))"
)
_EXCLAMATION_AFTER_STOP = re.compile(r"(?<=\.)!+")

_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(\S[^\n]*)$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,})\n(?:[ \t]*\n)?", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=[^\s*])([^*\n]+?)(?<=\S)\*\*")
_ITALIC = re.compile(
    r"(?<![\w*\\])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])|(?<![\w_\\])_(?=[^\s_])([^_\n]+?)(?<=[^\s_])_(?![\w_])"
)
_QUOTE_MARK = re.compile(r"^ {0,3}>[ \t]?", re.MULTILINE)
_STAR_ITEM = re.compile(r"^([ \t]*)\*(?=[ \t]+\S)", re.MULTILINE)

# Contractions.
_APOSTROPHE = "['\u2019]"
_NEGATION = re.compile(
    rf"\b(do|does|did|is|are|was|were|has|have|had|could|would|should|must|need|might|ca|wo)n{_APOSTROPHE}t\b"
    r"(?!\s+(?:you|i|we|they|he|she|it|there|that|this|these|those|anyone|everyone|people|the|your|my|our)\b)",
    re.IGNORECASE,
)
_IRREGULAR_NEGATIONS = {"ca": "cannot", "wo": "will not"}
_PRONOUN_CONTRACTION = re.compile(rf"\b(i|you|we|they)({_APOSTROPHE}(?:m|re|ve|ll))\b", re.IGNORECASE)
_WILL_CONTRACTION = re.compile(rf"\b(he|she|it|that|there|this|who|what)({_APOSTROPHE}ll)\b", re.IGNORECASE)
_FULL_VERBS = {"m": "am", "re": "are", "ve": "have", "ll": "will"}
_PARTICIPLES = (
    r"been|got|gotten|had|become|gone|done|seen|taken|made|come|grown|begun|shown|given|known|run|said|left|"
    r"lost|found|put|set|led|kept|"
    r"built|held|turned|\w+(?:ed|en|wn)"
)
# "it's a", "that's why": the next word can follow "is" but not "has".
_IS_CONTRACTION = re.compile(
    rf"\b(it|that|there|here|he|she|what|who|where|how){_APOSTROPHE}s(?=\s+(?:\w+ly\s+|also\s+|always\s+|not\s+|often\s+|"
    rf"still\s+|just\s+|simply\s+)?"
    rf"(?!(?:{_PARTICIPLES})\b)[a-z]+)",
    re.IGNORECASE,
)
_LET_US = re.compile(rf"\b(let){_APOSTROPHE}s\b(?=\s+[a-z])", re.IGNORECASE)
_WOULD_CONTRACTION = re.compile(
    rf"\b(i|you|we|they|he|she|it|that){_APOSTROPHE}d(?=\s+(?:like|love|recommend|suggest|be|prefer|say|want|need|"
    rf"appreciate|advise)\b)",
    re.IGNORECASE,
)

# Lists.
_ITEM_MARK = re.compile(r"^([ \t]*)(?:[-*+\u2022]|(\d{1,3})[.)])[ \t]+(?=\S)")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
_NUMBERED_REFERENCE = re.compile(
    r"\b(?:steps?|options?|items?|points?|numbers?|no\.|parts?|questions?|rules?|tips?)\s+#?\d{1,3}\b|#\d",
    re.IGNORECASE,
)
_OTHER_MARKUP = re.compile(r"^\[[ xX]\]|```|~~~|^\||^#{1,6} ")
_SENTENCE_END = re.compile(r"[.!?:;,\u2026\u3002\uff01\uff1f][\"'*_)\]\u201d\u2019]*$")
_SEPARATOR_AT_END = re.compile(r"(?P<end>[,;]|,? (?:and|or))$")


def fix_text(text: str, kinds: Collection[PreferenceKind]) -> str:
    """Return the text after the fixes for these kinds of preferences, as far as they are certain."""
    for kind, fix in _FIXES.items():
        if kind in kinds:
            text = fix(text)
    return text


def _substitute(pattern: re.Pattern[str], replacement: _Replacement, text: str) -> str:
    """Return what `pattern.sub` returns, but with matches unchanged that overlap a protected span."""
    spans = protected_spans(text)
    starts = [start for start, _ in spans]
    ends = [end for _, end in spans]

    def replace_match(match: re.Match[str]) -> str:
        # spans are in order, so only the last span that begins before the end of the match can overlap it
        span_count = bisect_left(starts, match.end())
        if span_count and ends[span_count - 1] > match.start():
            return match.group()
        return match.expand(replacement) if isinstance(replacement, str) else replacement(match)

    return pattern.sub(replace_match, text)


def _remove_emoji(text: str) -> str:
    """Remove emojis at safe places, except those that carry a meaning."""

    def replace_match(match: re.Match[str]) -> str:
        if _MEANINGFUL_EMOJI.search(match.group()):
            return match.group()
        # only the pattern for the start of a line has two groups; the first, a list mark or heading, stays
        return match.group(1) if match.lastindex == 2 else ""

    for pattern in (_EMOJI_LINE, _EMOJI_BEFORE, _EMOJI_AFTER, _EMOJI_BETWEEN):
        text = _substitute(pattern, replace_match, text)
    return text


def _remove_exclamations(text: str) -> str:
    """Replace exclamation marks by full stops, or drop them next to other punctuation."""
    text = _substitute(_SPANISH_EXCLAMATION, r"\1!", text)
    text = _substitute(_SHOUTED_QUESTION, "", text)
    text = _substitute(_EXCLAMATION_AFTER_STOP, "", text)
    return _substitute(_EXCLAMATION_AT_END, lambda match: "\u3002" if "\uff01" in match.group() else ".", text)


def _remove_markdown(text: str) -> str:
    """Remove Markdown's marks for rules, headings, quotes and emphasis; stars before list items become hyphens."""
    text = _substitute(_RULE, "", text)
    # `or match.group()`: a heading that consists of # alone stays, because it would become an empty line
    text = _substitute(_HEADING, lambda match: match.group(1).rstrip().rstrip("#").rstrip() or match.group(), text)
    text = _substitute(_QUOTE_MARK, "", text)
    text = _substitute(_BOLD, r"\1", text)
    text = _substitute(_ITALIC, lambda match: match.group(1) or match.group(2), text)
    return _substitute(_STAR_ITEM, r"\1-", text)


def _make_case_fix(change_case: Callable[[str], str]) -> Fix:
    """Return a fix that changes the case of everything but protected spans."""

    def fix_case(text: str) -> str:
        pieces: list[str] = []
        position = 0
        for start, end in protected_spans(text):
            pieces.append(change_case(text[position:start]))
            pieces.append(text[start:end])
            position = end
        return "".join(pieces) + change_case(text[position:])

    return fix_case


def _write_out_contractions(text: str) -> str:
    """Write contractions out unless they are ambiguous: "it's gone" may be "it is" or "it has", so it stays."""
    text = _substitute(_NEGATION, _write_out_negation, text)
    for pattern in (_PRONOUN_CONTRACTION, _WILL_CONTRACTION):
        text = _substitute(pattern, _write_out_verb, text)
    text = _substitute(_IS_CONTRACTION, lambda match: _join_words(match.group(1), "is", match.group()), text)
    text = _substitute(_WOULD_CONTRACTION, lambda match: _join_words(match.group(1), "would", match.group()), text)
    return _substitute(_LET_US, lambda match: _join_words(match.group(1), "us", match.group()), text)


def _write_out_negation(match: re.Match[str]) -> str:
    """Write out a contraction with "not"; "can't" and "won't" are irregular."""
    stem = match.group(1)
    irregular = _IRREGULAR_NEGATIONS.get(stem.lower())
    if irregular is None:
        return _join_words(stem, "not", match.group())
    return _copy_case(irregular, match.group())


def _write_out_verb(match: re.Match[str]) -> str:
    """Write out a pronoun with a contracted verb: "we'll" -> "we will"."""
    pronoun, contracted_verb = match.groups()
    verb = _FULL_VERBS[contracted_verb[1:].lower()]
    return _join_words(pronoun, verb, match.group())


def _join_words(first: str, second: str, whole: str) -> str:
    """Join the two words of the contraction `whole`; the second is in capitals if the whole was, but not after "I"."""
    is_in_capitals = whole.isupper() and len(first) > 1
    return f"{first} {second.upper() if is_in_capitals else second}"


def _copy_case(text: str, model: str) -> str:
    """Return the text in the case of the text `model`: in capitals, with a first capital, or unchanged."""
    if model.isupper():
        return text.upper()
    return text.capitalize() if model[0].isupper() else text


@dataclass(slots=True)
class _LineBlock:
    """Consecutive lines: either a list, or other text."""

    lines: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    """The texts of a list's items, without their marks; empty for other text."""
    is_numbered: bool = False
    is_loose: bool = False
    """Whether empty lines separate the items."""


def _remove_lists(text: str) -> str:
    """Turn lists into prose where this is safe."""
    if not any(_ITEM_MARK.match(line) for line in text.split("\n")):
        return text
    refers_to_numbers = _NUMBERED_REFERENCE.search(text) is not None
    new_lines: list[str] = []
    for block in _split_blocks(text):
        is_safe = (
            bool(block.items)
            and not (block.is_numbered and refers_to_numbers)
            and not any(_OTHER_MARKUP.search(item) for item in block.items)
        )
        if is_safe:
            _append_prose(block, new_lines)
        else:
            new_lines += block.lines
    return "\n".join(new_lines)


def _split_blocks(text: str) -> Iterator[_LineBlock]:
    """Split a text into lists and other text, by lines."""
    lines = text.split("\n")
    fenced_lines = _find_fenced_lines(text)
    next_full_lines = _find_next_full_lines(lines)
    item_lines = {index for index, line in enumerate(lines) if index not in fenced_lines and _ITEM_MARK.match(line)}
    block = _LineBlock()
    for index, line in enumerate(lines):
        mark = _ITEM_MARK.match(line) if index in item_lines else None
        if mark:
            if not block.items and block.lines:
                yield block
                block = _LineBlock()
            elif block.items and block.lines and not block.lines[-1].strip():
                block.is_loose = True
            block.items.append(line[mark.end() :].strip())
            block.is_numbered |= mark.group(2) is not None
        # an indented line directly below an item continues the item
        elif (
            block.items and line.strip() and index not in fenced_lines and line[0] in " \t" and block.lines[-1].strip()
        ):
            block.items[-1] += " " + line.strip()
        # another line ends the list, but an empty one only if no further item follows
        elif block.items and (line.strip() or next_full_lines[index] not in item_lines):
            yield from _close_block(block)
            block = _LineBlock([line])
            continue
        block.lines.append(line)
    yield from _close_block(block)


def _close_block(block: _LineBlock) -> Iterator[_LineBlock]:
    """Yield the block; empty lines after a list become a block of their own."""
    empty_lines = []
    while block.items and block.lines and not block.lines[-1].strip():
        empty_lines.append(block.lines.pop())
    yield block
    if empty_lines:
        yield _LineBlock(empty_lines)


def _find_next_full_lines(lines: list[str]) -> list[int]:
    """Return, for each line, the index of the next line that is not empty; a full line is its own next line.

    After the last full line the index is the number of lines.
    """
    next_full_lines = [0] * len(lines)
    next_full_line = len(lines)
    for index in reversed(range(len(lines))):
        if lines[index].strip():
            next_full_line = index
        next_full_lines[index] = next_full_line
    return next_full_lines


def _find_fenced_lines(text: str) -> set[int]:
    """Return the indices of the lines that belong to fenced code."""
    fenced_lines: set[int] = set()
    for start, end in protected_spans(text):
        if _FENCE.match(text[start:end].lstrip("\n")):
            first_line = text.count("\n", 0, start)
            last_line = text.count("\n", 0, end)
            fenced_lines.update(range(first_line, last_line + 1))
    return fenced_lines


def _append_prose(block: _LineBlock, lines: list[str]) -> None:
    """Append the items of a list to `lines` as prose, in one line with an introductory line that stands before them."""
    items = block.items
    if len(items) > 1:
        items = [_SEPARATOR_AT_END.sub("", item) for item in items]
    if block.is_loose:
        # items with empty lines between them become paragraphs
        for index, item in enumerate(items):
            lines += ["", _end_sentence(item)] if index else [_end_sentence(item)]
        return
    # an empty line between introduction and list goes, too
    if len(lines) > 1 and not lines[-1].strip() and lines[-2].rstrip().endswith(":"):
        lines.pop()
    has_sentences = any(_SENTENCE_END.search(item) for item in items)
    prose = " ".join(map(_end_sentence, items)) if has_sentences else "; ".join(items) + "."
    if lines and lines[-1].rstrip().endswith(":"):
        introduction = lines.pop().rstrip()
        prose = f"{introduction} {prose}"
    lines.append(prose)


def _end_sentence(item: str) -> str:
    return item if _SENTENCE_END.search(item) else f"{item}."


_FIXES: Mapping[PreferenceKind, Fix] = {
    PreferenceKind.NO_EMOJI: _remove_emoji,
    PreferenceKind.NO_LISTS: _remove_lists,
    PreferenceKind.NO_EXCLAMATION: _remove_exclamations,
    PreferenceKind.NO_CONTRACTIONS: _write_out_contractions,
    PreferenceKind.NO_MARKDOWN: _remove_markdown,
    PreferenceKind.UPPER_CASE: _make_case_fix(str.upper),
    PreferenceKind.LOWER_CASE: _make_case_fix(str.lower),
}
