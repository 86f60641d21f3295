"""Sentences in a block of code that people read: in strings, in the text of markup, and in blocks of plain words.

A program shows its strings, a page the text between its tags, and a block without a language often holds a letter or a
table. So these sentences are judged by themselves, as comments are, and can be removed from what holds them: a string
keeps its other sentences and its quotation marks, a page its tags. A line of a program that does nothing but print goes
with its last sentence, and so does an element.

Not every string is prose: names, patterns, queries and texts with places to be filled ("{name}") are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest

from aligner_proxy.text.code_lexing import CODE_BLOCK, Place, lex_code
from aligner_proxy.text.code_lines import can_go_together, find_code_lines
from aligner_proxy.text.structure import Segment, split

_PLAIN_LANGUAGES = frozenset(
    {"", "text", "txt", "plain", "plaintext", "md", "markdown", "rst", "adoc", "tex", "latex"}
    | {"email", "mail", "eml", "output", "log", "csv", "tsv"}
)
_TABLE_LANGUAGES = frozenset({"csv", "tsv"})
_MARKUP_LANGUAGES = frozenset({"html", "htm", "xhtml", "xml", "svg", "vue"})
_PAGE_HEAD = re.compile(rf"\s*[`~]+[ \t]*(?:{'|'.join(_MARKUP_LANGUAGES)})\b", re.IGNORECASE)
_SCRIPT_LANGUAGES = frozenset({"jsx", "tsx", "js", "javascript", "ts", "typescript"})
"""Languages in which a program may hold markup (JSX)."""
_TEXT_LANGUAGES = frozenset({"yaml", "yml", "console", "shell-session"})
"""Languages that write text without quotation marks."""
_VALUE_LANGUAGES = frozenset({"ini", "cfg", "dosini", "properties", "conf"})
"""Languages whose lexers take each value for a string."""
_ELEMENT_TEXT = re.compile(r"(?<=>)[^<>{}=;]{8,2000}(?=</[A-Za-z]|<[a-z])")
_QUOTED_TEXT = re.compile(r"\"[^\"\n]{8,2000}\"|'[^'\n]{8,2000}'|`[^`\n]{8,2000}`")
_FIELD = re.compile(r"[^,;\t|\n\"]{8,2000}|(?<=\")[^\"\n]{8,2000}(?=\")")
"""Matches a cell of a table, or a field of separated values."""
_STRING_HEAD = re.compile(r"[A-Za-z@$]{0,3}(?:\"{3}|'{3}|[\"'`])")
"""Matches the signs with which a string begins."""
_STRING_END = re.compile(r"(?:\"{3}|'{3}|[\"'`])$")
_BREAK = re.compile(r"\\[nrt]")
"""Matches a line break or tab as a string writes it."""
_SIGN_OF_CODE = re.compile(r"[{}$\\<>|_=\[\]]|%[-\d.]*[a-zA-Z]\b|::|\w\(|^[#!/@;+*-]|^\d+[:/-]\d|  |\s--?\w")
"""Matches what prose has not, such as a place to be filled, the sign of a comment, or the space between columns."""
_PLAIN_WORD = re.compile(
    r"[(\"'\u201c\u201e\u2018\u00ab]*(?:[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d+(?:[.,:]\d+)*\s?%?)[^\w\s]{0,4}"
)
_UNSPACED_WORDS = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]{6}")
"""Matches words of a language that has no spaces."""
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"')\u201d\u00bb]*$")
_ITEM_MARK = re.compile(r"(?:[-*+\u2022]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?")
_MIN_SENTENCE_WORDS = 3
_MIN_PHRASE_WORDS = 5
"""Fewest words of a sentence without an end mark."""
_PLAIN_SHARE = 0.8
"""Least share of words that are nothing but letters, or a number."""
_INLINE_TAG_FORM = r"</?(?:a|abbr|b|cite|code|em|i|kbd|mark|q|s|small|span|strong|sub|sup|u)\b[^<>]{0,300}>"
_INLINE_TAGS_BEFORE = re.compile(rf"(?:{_INLINE_TAG_FORM}\s*)+$", re.IGNORECASE)
_INLINE_TAGS_BEHIND = re.compile(rf"(?:\s*{_INLINE_TAG_FORM})+", re.IGNORECASE)
"""Matches tags such as `<b>`, which stand inside a sentence."""
_UNREAD_ATTRIBUTE = re.compile(
    r"(?<![\w-])(?!(?:title|alt|placeholder|content|label|summary|aria-[a-z]+)=)[\w:-]{1,40}=$"
)
"""Matches an attribute of an element before its value, unless people read the value."""
_TAG_CHARS = 400
"""Characters beside a text in which the tags there are found."""
_OPENING = re.compile(r"<(?!t[dh]\b)(?P<name>[A-Za-z][\w-]{0,20})(?:\s[^<>]{0,300})?>[ \t\r\n]*$")
_PRINTING_CALL = re.compile(
    r"(?:print|puts|echo|alert|console\.(?:log|info|warn|error)|printf|println!?|System\.out\.print(?:ln)?"
    r"|(?:log|logger|logging)\.(?:debug|info|warning|warn|error)|Console\.Write(?:Line)?|fmt\.Print(?:ln)?"
    r"|Write-(?:Host|Output))(?:[ \t]*\([ \t]*\x00+[ \t]*\)|[ \t]+\x00+)[ \t]*;?"
)
"""Matches a line that prints a string, which stands here as NUL characters, and does nothing else."""
_SETTING = re.compile(r"[\w./-]+(?::[ \t]|[ \t]*=)[ \t]*\x00+")
"""Matches a line that sets a value, which stands here as NUL characters."""


@dataclass(frozen=True, slots=True)
class _CodePassage:
    """Sentences that stand together in a block."""

    start: int
    """Where the passage begins, with its quotation mark."""
    end: int
    sentences: tuple[Place, ...]
    """All sentences, in order; between two of them is nothing but white space."""
    offered: tuple[bool, ...]
    """Which of them are prose, and whole."""


def find_code_sentences(block: str) -> list[Place]:
    """The places of the sentences of a code block that may be removed, in order; empty if `block` is no code block."""
    return sorted(
        place
        for passage in _find_passages(block)
        for place, is_offered in zip(passage.sentences, passage.offered, strict=True)
        if is_offered
    )


def is_prose(sentence: str) -> bool:
    """Whether a sentence is made of words, rather than a name, a pattern or a query."""
    sentence = _ITEM_MARK.sub("", sentence, count=1)
    if _SIGN_OF_CODE.search(sentence):
        return False
    if has_unspaced_words(sentence):
        return True
    words = sentence.split()
    min_words = _MIN_SENTENCE_WORDS if _SENTENCE_END.search(sentence) else _MIN_PHRASE_WORDS
    plain_count = sum(_PLAIN_WORD.fullmatch(word) is not None for word in words)
    is_shouted = sum(word.isupper() and len(word) > 1 for word in words) * 2 > len(words)
    return len(words) >= min_words and plain_count >= _PLAIN_SHARE * len(words) and not is_shouted


def has_unspaced_words(text: str) -> bool:
    """Whether a text has words of a language that writes no spaces between them."""
    return _UNSPACED_WORDS.search(text) is not None


def widen_places(block: str, places: Sequence[Place]) -> list[Place]:
    """The places of all that goes with the sentences at `places`; other places stay as they are.

    A sentence takes the white space on one side along. What loses all its sentences takes the line along that only
    prints it, or sets a value without quotation marks, if the block can lose that line, or the element around it.
    """
    removed = set(places)
    widened = set(places)
    lines_by_words: dict[Place, Place] = {}  # the places of lines that go, by the place of their words
    for passage in _find_passages(block):
        removals = [place in removed for place in passage.sentences]
        if not any(removals):
            continue
        widened -= set(passage.sentences)
        if not all(removals):
            widened.update(_widen_some(block, passage, removals))
            continue
        words = passage.sentences[0][0], passage.sentences[-1][1]
        widened.add(_find_item(block, *words) or _widen_to_element(block, *words))
        line = _find_line(block, passage)
        if line is not None:
            lines_by_words[words] = line
    code_lines = set(find_code_lines(block)) if lines_by_words else set()
    lines = [line for line in lines_by_words.values() if line in code_lines]
    if lines and can_go_together(block, lines):
        widened -= {words for words, line in lines_by_words.items() if line in code_lines}
        widened.update(lines)
    return sorted(widened)


def _widen_some(block: str, passage: _CodePassage, removals: Sequence[bool]) -> Iterator[Place]:
    """Yield the places of the sentences that go by `removals`, each run with the smaller white space beside it."""
    sentences = passage.sentences
    for is_removal, group in groupby(range(len(removals)), removals.__getitem__):
        if not is_removal:
            continue
        run = list(group)
        start, _ = sentences[run[0]]
        _, end = sentences[run[-1]]
        before = (sentences[run[0] - 1][1], end) if run[0] else None
        behind = (start, sentences[run[-1] + 1][0]) if run[-1] + 1 < len(sentences) else None
        breaks_before = block.count("\n", before[0], start) if before else 0
        breaks_behind = block.count("\n", end, behind[1]) if behind else 0
        yield behind if behind and (before is None or breaks_before > breaks_behind) else before or (start, end)


def _find_line(block: str, passage: _CodePassage) -> Place | None:
    """The place of the line that is not needed without a passage, without its indentation; None if there is none."""
    line_start = block.rfind("\n", 0, passage.start) + 1
    line_end = block.find("\n", passage.end)
    line_end = len(block) if line_end < 0 else line_end
    line = block[line_start : passage.start] + "\0" * (passage.end - passage.start) + block[passage.end : line_end]
    is_quoted = passage.start != passage.sentences[0][0]
    if not _PRINTING_CALL.fullmatch(line.strip()) and (is_quoted or not _SETTING.fullmatch(line.strip())):
        return None
    return line_start + len(line) - len(line.lstrip()), line_start + len(line.rstrip())


def _find_item(block: str, start: int, end: int) -> Place | None:
    """The place of the item of a list in YAML that consists of the words from `start` to `end`; None if there is none.

    There is none without another item beside it, either, because a list needs one.
    """
    line_start = block.rfind("\n", 0, start) + 1
    line_end = block.find("\n", end)
    mark = block[line_start:start]
    if mark.strip() != "-" or not mark.endswith(" ") or block[end:line_end].strip():
        return None
    line_before = block[block.rfind("\n", 0, max(0, line_start - 1)) + 1 : line_start]
    has_neighbour = line_before.startswith(mark) or block.startswith(mark, line_end + 1)
    return (start - len(mark.lstrip()), end) if has_neighbour else None


def _widen_to_element(block: str, start: int, end: int) -> Place:
    """The place from `start` to `end`, with the elements around it that hold nothing else.

    In a program, an element with no other one beside it stays, because the program needs a value there.
    """
    is_page = _PAGE_HEAD.match(block) is not None
    while opening := _OPENING.search(block, max(0, start - _TAG_CHARS), start):
        closing = re.compile(rf"[ \t\r\n]*</{opening['name']}>").match(block, end)
        if closing is None or not (is_page or _stands_between_tags(block, opening.start(), closing.end())):
            break
        start, end = opening.start(), closing.end()
    return start, end


def _stands_between_tags(block: str, start: int, end: int) -> bool:
    before = block[max(0, start - _TAG_CHARS) : start].rstrip()
    behind = block[end : end + _TAG_CHARS].lstrip()
    return before.endswith(">") and not before.endswith("=>") and behind.startswith("<")


def _find_passages(block: str) -> Iterator[_CodePassage]:
    """Yield what in a code block may hold sentences."""
    match = CODE_BLOCK.fullmatch(block)
    if match is None:
        return
    language = match["language"].lower()
    if language in _PLAIN_LANGUAGES:
        yield from _find_plain_passages(block, match.span("code"), language)
    else:
        yield from _find_lexed_passages(block, match.span("code"), language)


def _find_lexed_passages(block: str, code_span: Place, language: str) -> Iterator[_CodePassage]:
    """Yield the passages that the lexer of a language finds."""
    lexed = lex_code(block[slice(*code_span)], language)
    if lexed is None:
        return
    offset, _ = code_span
    for place in lexed.strings:
        start, end = _shift(place, offset)
        if language not in _MARKUP_LANGUAGES or not _UNREAD_ATTRIBUTE.search(block, max(0, start - 50), start):
            yield _read_string(block, start, end, is_bare=language in _VALUE_LANGUAGES)
    texts = [_shift(place, offset) for place in lexed.texts]
    if language in _TEXT_LANGUAGES:
        yield from (_make_passage(block, *place, begins=True, ends=True) for place in texts)
    elif language in _MARKUP_LANGUAGES:
        yield from (_read_markup_text(block, *place) for place in texts)
    elif language in _SCRIPT_LANGUAGES:
        yield from (_read_markup_text(block, *text.span()) for text in _ELEMENT_TEXT.finditer(block, *code_span))


def _shift(place: Place, offset: int) -> Place:
    start, end = place
    return start + offset, end + offset


def _find_plain_passages(block: str, code_span: Place, language: str) -> Iterator[_CodePassage]:
    """Yield the passages of a block of plain words: all of it, and the cells and strings of lines that are no prose."""
    passage = _make_passage(block, *code_span, begins=True, ends=True)
    yield passage
    for (start, end), is_offered in zip(passage.sentences, passage.offered, strict=True):
        if is_offered:
            continue
        is_row = language in _TABLE_LANGUAGES or "|" in block[start:end] or "\t" in block[start:end]
        for text in (_FIELD if is_row else _QUOTED_TEXT).finditer(block, start, end):
            yield _read_string(block, *text.span(), is_bare=is_row)


def _read_string(block: str, start: int, end: int, *, is_bare: bool) -> _CodePassage:
    """The passage of a string, or of the piece of one beside something that the string computes.

    `is_bare` says whether it is whole without quotation marks, too.
    """
    head = _STRING_HEAD.match(block, start, end)
    inner_start = head.end() if head else start
    tail = _STRING_END.search(block, inner_start, end)
    inner_end = tail.start() if tail else end
    begins = head is not None or is_bare
    ends = tail is not None or is_bare
    passage = _make_passage(block, inner_start, inner_end, begins=begins, ends=ends)
    return _CodePassage(start, end, passage.sentences, passage.offered)


def _read_markup_text(block: str, start: int, end: int) -> _CodePassage:
    """The passage of a text between tags; beside a tag such as `<b>` may stand another part of its sentence."""
    before = _INLINE_TAGS_BEFORE.sub("", block[max(0, start - _TAG_CHARS) : start].rstrip()).rstrip()
    behind = _INLINE_TAGS_BEHIND.sub("", block[end : end + _TAG_CHARS], count=1).lstrip()
    begins = before.endswith(">") or _SENTENCE_END.search(before) is not None
    return _make_passage(block, start, end, begins=begins, ends=behind.startswith("<"))


def _make_passage(block: str, start: int, end: int, *, begins: bool, ends: bool) -> _CodePassage:
    """The passage of a text; `begins` and `ends` say whether its first sentence begins there, and its last one ends."""
    # of the same length, so that places stay the same
    text = _BREAK.sub(" \n", block[start:end])
    sentences: list[Place] = []
    offered: list[bool] = []
    segments = [segment for segment in split(text) if segment.text.strip()]
    is_begun = not begins
    for segment, next_segment in zip_longest(segments, segments[1:]):
        words = segment.text.strip()
        is_continued = _is_continued(segment, next_segment) if next_segment else not (ends or _has_end(segment))
        sentence_start = start + segment.end - len(segment.text.lstrip())
        sentences.append((sentence_start, sentence_start + len(words)))
        offered.append(not is_begun and not is_continued and is_prose(words))
        is_begun = is_continued
    return _CodePassage(start, end, tuple(sentences), tuple(offered))


def _is_continued(segment: Segment, next_segment: Segment) -> bool:
    """Whether a sentence goes on in the next line."""
    return not _has_end(segment) and segment.gap.count("\n") < 2 and next_segment.text.lstrip()[:1].islower()


def _has_end(segment: Segment) -> bool:
    """Whether a sentence has an end mark."""
    return _SENTENCE_END.search(segment.text.rstrip()) is not None
