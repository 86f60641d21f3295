"""Rule-based edits that meet a preference with certainty and keep every word of the text.

Code, addresses and quotations are never changed. Each result is only a proposal and passes the gate like any
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
_Replacement = str | Callable[[re.Match[str]], str]

_JOINERS = "[\ufe0e\ufe0f\u200d\u20e3]"
# Possessive quantifiers, to prevent backtracking: without them, twenty thousand emojis in a row took minutes.
_EMOJI_RUN = rf"{EMOJI.pattern}{_JOINERS}*+(?:[ \t]{{0,3}}{EMOJI.pattern}{_JOINERS}*+)*+"
_NOT_WITHIN = rf"(?<!{EMOJI.pattern})(?<!{_JOINERS})"
# These emojis mean yes, no or warning, so removing them would remove information.
_MEANT = re.compile("[\u2705\u274c\u274e\u2714\u2716\u2757]")
_EMOJI_BEFORE = re.compile(
    rf"(^[ \t]*(?:(?:[-*+\u2022]|\d{{1,3}}[.)])[ \t]+|#{{1,6}}[ \t]+|[*_]{{1,3}})?)({_EMOJI_RUN})[ \t]*(?=\S)",
    re.MULTILINE,
)
_EMOJI_AFTER = re.compile(rf"(?<=\S){_NOT_WITHIN}[ \t]*({_EMOJI_RUN})(?=[ \t]*(?:$|[.,;:!?)\]*_\n]))", re.MULTILINE)
_EMOJI_BETWEEN = re.compile(rf"(?<=[.!?:,;)\u2026])[ \t]*({_EMOJI_RUN})(?=[ \t])")
_EMOJI_LINE = re.compile(rf"^[ \t]*({_EMOJI_RUN})[ \t]*\n(?:[ \t]*\n)?", re.MULTILINE)

_SPANISH = re.compile(r"\u00a1([^\u00a1!\n]{0,300})!")
# Names that end with an exclamation mark, which is no shout.
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

# Contractions.
_A = "['\u2019]"
_NOT = re.compile(
    rf"\b(do|does|did|is|are|was|were|has|have|had|could|would|should|must|need|might|ca|wo)n{_A}t\b"
    r"(?!\s+(?:you|i|we|they|he|she|it|there|that|this|these|those|anyone|everyone|people|the|your|my|our)\b)",
    re.IGNORECASE,
)
_IRREGULAR = {"ca": "cannot", "wo": "will not"}
_PLURAL = re.compile(rf"\b(i|you|we|they)({_A}(?:m|re|ve|ll))\b", re.IGNORECASE)
_WILL = re.compile(rf"\b(he|she|it|that|there|this|who|what)({_A}ll)\b", re.IGNORECASE)
_FULL = {"m": "am", "re": "are", "ve": "have", "ll": "will"}
_PARTICIPLES = (
    r"been|got|gotten|had|become|gone|done|seen|taken|made|come|grown|begun|shown|given|known|run|said|left|"
    r"lost|found|put|set|led|kept|"
    r"built|held|turned|\w+(?:ed|en|wn)"
)
# "it's a", "that's why": the next word can follow "is" but not "has".
_IS = re.compile(
    rf"\b(it|that|there|here|he|she|what|who|where|how){_A}s(?=\s+(?:\w+ly\s+|also\s+|always\s+|not\s+|often\s+|"
    rf"still\s+|just\s+|simply\s+)?"
    rf"(?!(?:{_PARTICIPLES})\b)[a-z]+)",
    re.IGNORECASE,
)
_LETS = re.compile(rf"\b(let){_A}s\b(?=\s+[a-z])", re.IGNORECASE)
_WOULD = re.compile(
    rf"\b(i|you|we|they|he|she|it|that){_A}d(?=\s+(?:like|love|recommend|suggest|be|prefer|say|want|need|"
    rf"appreciate|advise)\b)",
    re.IGNORECASE,
)

# Lists.
_MARK = re.compile(r"^([ \t]*)(?:[-*+\u2022]|(\d{1,3})[.)])[ \t]+(?=\S)")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
_COUNTED_ON = re.compile(
    r"\b(?:steps?|options?|items?|points?|numbers?|no\.|parts?|questions?|rules?|tips?)\s+#?\d{1,3}\b|#\d",
    re.IGNORECASE,
)
_MORE_THAN_TEXT = re.compile(r"^\[[ xX]\]|```|~~~|^\||^#{1,6} ")
_ENDED = re.compile(r"[.!?:;,\u2026\u3002\uff01\uff1f][\"'*_)\]\u201d\u2019]*$")
_LOOSE_END = re.compile(r"(?P<end>[,;]|,? (?:and|or))$")


def fix_text(text: str, kinds: Collection[PreferenceKind]) -> str:
    """Apply the rules for these kinds of preferences as far as they are certain."""
    for kind, fix in _FIXES.items():
        if kind in kinds:
            text = fix(text)
    return text


def _substitute(pattern: re.Pattern[str], replacement: _Replacement, text: str) -> str:
    """Like `pattern.sub`, but leaves matches that overlap a protected span unchanged."""
    protected = protected_spans(text)
    starts = [start for start, _ in protected]

    def replace_match(match: re.Match[str]) -> str:
        # Spans are in order, so only the last one that begins before the end of the match can overlap it.
        before = bisect_left(starts, match.end())
        if before and protected[before - 1][1] > match.start():
            return match.group()
        return match.expand(replacement) if isinstance(replacement, str) else replacement(match)

    return pattern.sub(replace_match, text)


def _remove_emoji(text: str) -> str:
    """Remove emojis at safe places, except those that carry a meaning."""

    def remove_match(match: re.Match[str]) -> str:
        # Only the pattern for the start of a line has two groups; the first, a list mark or heading, stays.
        return match.group() if _MEANT.search(match.group()) else (match.group(1) if match.lastindex == 2 else "")

    for pattern in (_EMOJI_LINE, _EMOJI_BEFORE, _EMOJI_AFTER, _EMOJI_BETWEEN):
        text = _substitute(pattern, remove_match, text)
    return text


def _remove_exclamations(text: str) -> str:
    """Replace exclamation marks by full stops, or drop them next to other punctuation."""
    text = _substitute(_SPANISH, r"\1!", text)
    text = _substitute(_SHOUTED_QUESTION, "", text)
    text = _substitute(_EXCLAIMED_TWICE, "", text)
    return _substitute(_EXCLAIMED, lambda match: "\u3002" if "\uff01" in match.group() else ".", text)


def _remove_markdown(text: str) -> str:
    """Remove Markdown: rules, headings, quotes, emphasis; stars before list items become hyphens."""
    text = _substitute(_RULE, "", text)
    # `or match.group()`: a heading of nothing but # stays, as it would become an empty line.
    text = _substitute(_HEADING, lambda match: match.group(1).rstrip().rstrip("#").rstrip() or match.group(), text)
    text = _substitute(_QUOTE_MARK, "", text)
    text = _substitute(_BOLD, r"\1", text)
    text = _substitute(_ITALIC, lambda match: match.group(1) or match.group(2), text)
    return _substitute(_STAR_ITEM, r"\1-", text)


def _case_fix(change: Callable[[str], str]) -> Fix:
    """Apply a change of case to everything outside of protected spans."""

    def fix(text: str) -> str:
        pieces: list[str] = []
        position = 0
        for start, end in protected_spans(text):
            pieces += [change(text[position:start]), text[start:end]]
            position = end
        return "".join(pieces) + change(text[position:])

    return fix


def _write_out_contractions(text: str) -> str:
    """Write contractions out unless ambiguous; "it's gone" may be "it is" or "it has", so it stays."""
    text = _substitute(_NOT, _write_out_negation, text)
    for pattern in (_PLURAL, _WILL):
        text = _substitute(
            pattern,
            lambda contraction: _join_words(
                contraction.group(1), _FULL[contraction.group(2)[1:].lower()], contraction.group()
            ),
            text,
        )
    text = _substitute(_IS, lambda contraction: _join_words(contraction.group(1), "is", contraction.group()), text)
    text = _substitute(
        _WOULD, lambda contraction: _join_words(contraction.group(1), "would", contraction.group()), text
    )
    return _substitute(_LETS, lambda contraction: _join_words(contraction.group(1), "us", contraction.group()), text)


def _write_out_negation(match: re.Match[str]) -> str:
    """Write out a contraction with "not"; "can't" and "won't" are irregular."""
    stem = match.group(1)
    irregular = _IRREGULAR.get(stem.lower())
    if irregular is None:
        return _join_words(stem, "not", match.group())
    return _copy_case(irregular, match.group())


def _join_words(first: str, second: str, whole: str) -> str:
    """Join the two words of a contraction; the second is in capitals if the whole was, but not after a single "I"."""
    shouted = whole.isupper() and len(first) > 1
    return f"{first} {second.upper() if shouted else second}"


def _copy_case(text: str, model: str) -> str:
    """The text in the case of a model: all capitals, a first capital, or as it is."""
    if model.isupper():
        return text.upper()
    return text.capitalize() if model[0].isupper() else text


@dataclass(slots=True)
class _LineBlock:
    """A run of lines: either a list with its `items`, or other text. `loose`: empty lines separate the items."""

    lines: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    numbered: bool = False
    loose: bool = False


def _remove_lists(text: str) -> str:
    """Turn lists into prose where that is safe."""
    if not any(_MARK.match(line) for line in text.split("\n")):
        return text
    counted_on = _COUNTED_ON.search(text) is not None
    out: list[str] = []
    for block in _split_blocks(text):
        certain = (
            block.items and not (block.numbered and counted_on) and not any(map(_MORE_THAN_TEXT.search, block.items))
        )
        out += _prose_lines(block, out) if certain else block.lines
    return "\n".join(out)


def _split_blocks(text: str) -> Iterator[_LineBlock]:
    """Split a text into lists and other text, by lines."""
    lines = text.split("\n")
    fenced = _fenced_lines(text)
    next_full = _next_lines(lines)
    items = {number for number, line in enumerate(lines) if number not in fenced and _MARK.match(line)}
    block = _LineBlock()
    for number, line in enumerate(lines):
        mark = _MARK.match(line) if number in items else None
        if mark:
            if not block.items and block.lines:
                yield block
                block = _LineBlock()
            elif block.items and block.lines and not block.lines[-1].strip():
                block.loose = True
            block.items.append(line[mark.end() :].strip())
            block.numbered |= mark.group(2) is not None
        # An indented line directly below an item continues that item.
        elif block.items and line.strip() and number not in fenced and line[0] in " \t" and block.lines[-1].strip():
            block.items[-1] += " " + line.strip()
        # An empty line ends a list only if no further item follows.
        elif block.items and (line.strip() or next_full[number] not in items):
            trailing = [] if line.strip() else [line]
            yield from _close_block(block)
            block = _LineBlock(trailing or [line])
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


def _next_lines(lines: list[str]) -> list[int]:
    """For each line, the index of the next line, itself included, that is not empty."""
    next_full = [0] * len(lines)
    following = len(lines)
    for number in reversed(range(len(lines))):
        following = number if lines[number].strip() else following
        next_full[number] = following
    return next_full


def _fenced_lines(text: str) -> set[int]:
    """Indexes of the lines that belong to fenced code."""
    fenced_lines: set[int] = set()
    for start, end in protected_spans(text):
        if _FENCE.match(text[start:end].lstrip("\n")):
            first_line = text.count("\n", 0, start)
            last_line = text.count("\n", 0, end)
            fenced_lines.update(range(first_line, last_line + 1))
    return fenced_lines


def _prose_lines(block: _LineBlock, before: list[str]) -> list[str]:
    """The prose lines that replace a list; joins it to an introductory line and removes that from `before`."""
    items = [_LOOSE_END.sub("", item) if len(block.items) > 1 else item for item in block.items]
    if block.loose:
        # Items with empty lines between them become paragraphs; the slice drops the empty line after the last.
        return [line for item in items for line in (_end_sentence(item), "")][:-1]
    introduction = before[-1].rstrip() if before and before[-1].strip() else None
    # The introductory line may stand above one empty line, which then goes, too.
    if introduction is None and len(before) > 1 and before[-2].rstrip().endswith(":"):
        before.pop()
        introduction = before[-1].rstrip()
    has_sentences = any(_ENDED.search(item) for item in items)
    joined = " ".join(map(_end_sentence, items)) if has_sentences else "; ".join(items) + "."
    if introduction is not None and introduction.endswith(":"):
        before.pop()
        return [f"{introduction} {joined}"]
    return [joined]


def _end_sentence(item: str) -> str:
    return item if _ENDED.search(item) else f"{item}."


_FIXES: Mapping[PreferenceKind, Fix] = {
    PreferenceKind.NO_EMOJI: _remove_emoji,
    PreferenceKind.NO_LISTS: _remove_lists,
    PreferenceKind.NO_EXCLAMATION: _remove_exclamations,
    PreferenceKind.NO_CONTRACTIONS: _write_out_contractions,
    PreferenceKind.NO_MARKDOWN: _remove_markdown,
    PreferenceKind.UPPER_CASE: _case_fix(str.upper),
    PreferenceKind.LOWER_CASE: _case_fix(str.lower),
}
