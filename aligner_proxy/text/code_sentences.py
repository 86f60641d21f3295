"""Sentences in a block of code that people read: in strings, in the text of markup, and in blocks of plain words.

A program shows its strings, a page the text between its tags, and a block without a language often holds a letter or a
table. So these sentences are judged by themselves, as comments are, and can be removed from what holds them
(code_sentence_removal.py).

Not every string is prose: names, keys, patterns, queries, texts with places to be filled ("{name}") and pieces of
sentences are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from aligner_proxy.text.code_lexing import CODE_BLOCK, Place, lex_code
from aligner_proxy.text.prose import has_end_mark, is_prose
from aligner_proxy.text.structure import Segment, split

_PLAIN_LANGUAGES = frozenset(
    {"", "text", "txt", "plain", "plaintext", "md", "markdown", "rst", "adoc", "tex", "latex"}
    | {"email", "mail", "eml", "output", "log", "csv", "tsv"}
)
_TABLE_LANGUAGES = frozenset({"csv", "tsv"})
MARKUP_LANGUAGES = frozenset({"html", "htm", "xhtml", "xml", "svg", "vue"})
_SCRIPT_LANGUAGES = frozenset({"jsx", "tsx", "js", "javascript", "ts", "typescript"})
"""Languages in which a program may hold markup."""
_SCRIPTS_WITH_MARKUP = frozenset({"jsx", "tsx"})
"""Those of which it holds markup for certain, so that "name=" is an attribute."""
_TEXT_LANGUAGES = frozenset({"yaml", "yml", "console", "shell-session"})
"""Languages that write text without quotation marks."""
_VALUE_LANGUAGES = frozenset({"ini", "cfg", "dosini", "properties", "conf"})
"""Languages whose lexers take each value for a string."""
_DATA_LANGUAGES = frozenset({"json", "jsonl", "jsonc", "json5", "yaml", "yml", "toml"}) | _VALUE_LANGUAGES
_ELEMENT_TEXT = re.compile(r"(?<=>)[^<>{}=;]{8,2000}(?=</[A-Za-z]|<[a-z])")
_QUOTED_TEXT = re.compile(r"\"[^\"\n]{8,2000}\"|'[^'\n]{8,2000}'|`[^`\n]{8,2000}`")
_FIELD = re.compile(r"[^,;\t|\n\"]{8,2000}|(?<=\")[^\"\n]{8,2000}(?=\")")
"""Matches a cell of a table, or a field of separated values."""
_STRING_HEAD = re.compile(
    r"(?P<prefix>[A-Za-z@$]{0,3})(?P<quote>\"{3}|'{3}|[\"'`])(?P<bracket>(?<=R\")(?P<mark>[^()\\\s\"]{0,16})\()?"
)
"""Matches the signs with which a string begins, also those of a raw string of C++."""
_STRING_END = re.compile(r"(?:\"{3}|'{3}|[\"'`])$")
_COMPUTED_BEFORE = re.compile(r"[\w})]$")
_COMPUTED_BEHIND = re.compile(r"[{$]|#\{|\\\(")
"""Match what a string computes, beside a piece of the string."""
_BREAK = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:[nrt]|[\r\n](?!\s*\\))")
"""Matches a line break or tab as a string writes it, behind backslashes that stand for themselves, or the end of a line
that goes on in the next one."""
_STRING_BEFORE = re.compile(r"[\"'`][ \t\r]*(?:\n[ \t]*)?[+.&|\\]{0,2}\s{0,80}$")
"""Matches the end of a string to which another one is joined."""
_SMALL_BEGINNING = re.compile(r"(?P<space>\s*+)[,;.:]?\s*+(?=[^\W\d_])(?P<letter>\w)")
_UNREAD_BEFORE = re.compile(
    r"(?:[=!]=\s*|\bcase\s+|\w\[|(?:\bre\.\w+|\bRegExp|\bRegex|\bos\.system|\bsubprocess\.\w+|\bexecute|\bselect"
    r"|\bquerySelector(?:All)?|\bstr[fp]time|\bopen)\(\s*)$"
)
"""Matches what stands before a string that is compared, is a key, or is read by a program alone, such as a query."""
_KEY_BEHIND = re.compile(r"\s*(?::(?!:)|=>|=(?!=))")
_CHOICE_BEFORE = re.compile(r"\?\s*$")
"""Matches what stands before a string that a colon may follow although it is no key: "late ? "Go home." : "Stay."."""
_UNREAD_ATTRIBUTE = re.compile(
    r"(?<![\w-])(?!(?:title|alt|placeholder|content|label|summary|aria-[a-z]+)=)[\w:-]{1,40}=$"
)
"""Matches an attribute of an element before its value, unless people read the value."""
_ITEM_MARK = re.compile(r"[-*+\u2022]\s+(?:\[[ xX]\]\s+)?")
_COUNTED_LINE = re.compile(r"\d+[.)]\s|\w+:\s")
"""Matches the number of an item or the name of a speaker, which other lines count on."""
_MIN_STRING_CHARS = 6
"""Shortest string that may hold a sentence."""
_INLINE_TAG_FORM = r"</?(?:a|abbr|b|cite|code|em|i|kbd|mark|q|s|small|span|strong|sub|sup|u)\b[^<>]{0,300}>"
_INLINE_TAGS_BEFORE = re.compile(rf"(?:{_INLINE_TAG_FORM}\s*)+$", re.IGNORECASE)
_INLINE_TAGS_BEHIND = re.compile(rf"(?:\s*{_INLINE_TAG_FORM})+", re.IGNORECASE)
"""Matches tags such as `<b>`, which stand inside a sentence."""
TAG_CHARS = 400
"""Characters beside a text in which the tags there are found."""


@dataclass(frozen=True, slots=True)
class CodePassage:
    """Sentences that stand together in a block."""

    start: int
    """Where the passage begins, with its quotation mark."""
    end: int
    inner: Place
    """The passage without its quotation marks."""
    sentences: tuple[Place, ...]
    """All sentences, in order; between two of them is nothing but white space."""
    offered: tuple[bool, ...]
    """Which of them are prose, and whole."""
    is_markup: bool = False
    """Whether it stands between tags."""

    @property
    def is_quoted(self) -> bool:
        """Whether quotation marks enclose it."""
        return self.inner != (self.start, self.end)


def find_code_sentences(block: str) -> list[Place]:
    """The places of the sentences of a code block that may be removed, in order; empty if `block` is no code block."""
    return sorted(
        place
        for passage in find_passages(block)
        for place, is_offered in zip(passage.sentences, passage.offered, strict=True)
        if is_offered
    )


def find_passages(block: str) -> Iterator[CodePassage]:
    """Yield what in a code block may hold sentences; nothing if `block` is no code block."""
    match = CODE_BLOCK.fullmatch(block)
    if match is None:
        return
    language = match["language"].lower()
    if language in _PLAIN_LANGUAGES:
        yield from _find_plain_passages(block, match.span("code"), language)
    else:
        yield from _find_lexed_passages(block, match.span("code"), language)


def _find_lexed_passages(block: str, code_span: Place, language: str) -> Iterator[CodePassage]:
    """Yield the passages that the lexer of a language finds; nothing without a lexer."""
    lexed = lex_code(block[slice(*code_span)], language)
    if lexed is None:
        return
    offset, _ = code_span
    for place in lexed.strings:
        passage = _read_string(block, *_shift(place, offset), language)
        if passage is not None:
            yield passage
    texts = [_shift(place, offset) for place in lexed.texts]
    if language in _TEXT_LANGUAGES:
        yield from (_make_passage(block, *place, begins=True, ends=True) for place in texts)
    elif language in MARKUP_LANGUAGES:
        yield from (_read_markup_text(block, *place) for place in texts)
    elif language in _SCRIPT_LANGUAGES:
        yield from (_read_markup_text(block, *text.span()) for text in _ELEMENT_TEXT.finditer(block, offset))


def _shift(place: Place, offset: int) -> Place:
    start, end = place
    return start + offset, end + offset


def _find_plain_passages(block: str, code_span: Place, language: str) -> Iterator[CodePassage]:
    """Yield the passages of a block of plain words: all of it, and the cells and strings of lines that are no prose."""
    passage = _make_passage(block, *code_span, begins=True, ends=True)
    yield passage
    for (start, end), is_offered in zip(passage.sentences, passage.offered, strict=True):
        if is_offered:
            continue
        is_row = language in _TABLE_LANGUAGES or "|" in block[start:end] or "\t" in block[start:end]
        for text in (_FIELD if is_row else _QUOTED_TEXT).finditer(block, start, end):
            field = _make_passage(block, *text.span(), begins=True, ends=True) if is_row else None
            string = field or _read_string(block, *text.span(), language)
            if string is not None:
                yield string


def _read_string(block: str, start: int, end: int, language: str) -> CodePassage | None:
    """The passage of a string, or of the piece of one beside something that the string computes.

    None if it holds no sentence for people.
    """
    if end - start < _MIN_STRING_CHARS:
        return None
    inner_start, inner_end = _find_inner_place(block, start, end)
    is_bare = language in _VALUE_LANGUAGES
    text = block[inner_start:inner_end]
    begins = inner_start > start or is_bare
    beginning = _SMALL_BEGINNING.match(text)
    if beginning and beginning["letter"].islower():
        # it may be the rest of a sentence that another string begins
        is_joined = _STRING_BEFORE.search(block, max(0, start - TAG_CHARS), start) is not None
        begins = begins and not beginning["space"] and not is_joined
    ends = (inner_end < end or is_bare) and not text.endswith((" ", "\t"))
    passage = _make_passage(block, inner_start, inner_end, begins=begins, ends=ends)
    is_data = language in _DATA_LANGUAGES
    offered = tuple(
        is_offered and (is_data or not _is_small_phrase(block[slice(*place)]))
        for place, is_offered in zip(passage.sentences, passage.offered, strict=True)
    )
    if not any(offered) or _is_unread(block, start, end, language):
        return None
    return replace(passage, start=start, end=end, offered=offered)


def _find_inner_place(block: str, start: int, end: int) -> Place:
    """The place of a string without its quotation marks; a piece of a string lacks one of them, or both."""
    head = None if _COMPUTED_BEFORE.match(block[start - 1]) else _STRING_HEAD.match(block, start, end)
    inner_start = head.end() if head else start
    tail = None if _COMPUTED_BEHIND.match(block, end) else _STRING_END.search(block, inner_start, end)
    inner_end = tail.start() if tail else end
    if head and head["bracket"] and block.endswith(f"){head['mark']}", inner_start, inner_end):
        inner_end -= len(head["mark"]) + 1
    return inner_start, inner_end


def _is_unread(block: str, start: int, end: int, language: str) -> bool:
    """Whether no person reads the string from `start` to `end`, for example because it is a key, or is compared."""
    before = block[max(0, start - 50) : start]
    has_attributes = language in MARKUP_LANGUAGES | _SCRIPTS_WITH_MARKUP
    if _UNREAD_BEFORE.search(before) or (has_attributes and _UNREAD_ATTRIBUTE.search(before)):
        return True
    return _KEY_BEHIND.match(block, end) is not None and not _CHOICE_BEFORE.search(before)


def _is_small_phrase(sentence: str) -> bool:
    """Whether a text begins with a small letter and has no end mark, as names, queries and commands do."""
    return sentence[:1].islower() and not has_end_mark(sentence)


def _read_markup_text(block: str, start: int, end: int) -> CodePassage:
    """The passage of a text between tags; beside a tag such as `<b>` may stand another part of its sentence."""
    before = block[max(0, start - TAG_CHARS) : start].rstrip()
    if before.endswith(">"):
        before = _INLINE_TAGS_BEFORE.sub("", before).rstrip()
    inline_tags = _INLINE_TAGS_BEHIND.match(block, end, end + TAG_CHARS)
    end_of_tags = inline_tags.end() if inline_tags else end
    begins = before.endswith(">") or has_end_mark(before)
    ends = block[end_of_tags : end_of_tags + TAG_CHARS].lstrip().startswith("<")
    return replace(_make_passage(block, start, end, begins=begins, ends=ends), is_markup=True)


def _make_passage(block: str, start: int, end: int, *, begins: bool, ends: bool) -> CodePassage:
    """The passage of a text; `begins` and `ends` say whether its first sentence begins there, and its last one ends."""
    # of the same length, so that places stay the same
    text = _BREAK.sub(r"\1 \n", block[start:end])
    sentences: list[Place] = []
    offered: list[bool] = []
    segments = [segment for segment in split(text) if segment.text.strip()]
    is_begun = not begins
    for segment, next_segment in zip_longest(segments, segments[1:]):
        words = segment.text.strip()
        is_continued = _is_continued(segment, next_segment) if next_segment else not (ends or has_end_mark(words))
        sentence_start = start + segment.end - len(segment.text.lstrip())
        sentences.append((sentence_start, sentence_start + len(words)))
        offered.append(not is_begun and not is_continued and _may_go(words))
        is_begun = is_continued
    return CodePassage(start, end, (start, end), tuple(sentences), tuple(offered))


def _is_continued(segment: Segment, next_segment: Segment) -> bool:
    """Whether a sentence goes on in the next line."""
    return not has_end_mark(segment.text) and segment.gap.count("\n") < 2 and next_segment.text.lstrip()[:1].islower()


def _may_go(sentence: str) -> bool:
    """Whether a sentence or the item of a list is prose that other lines do not count on."""
    return not _COUNTED_LINE.match(sentence) and is_prose(_ITEM_MARK.sub("", sentence, count=1))
