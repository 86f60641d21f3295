"""Facts of a text: names, numbers, dates, addresses, quotations, and contact details of people."""

from __future__ import annotations

import re
from collections.abc import Callable

from aligner_proxy.text import structure

_PHONE_NUMBER = re.compile(
    r"(?<![\w.,/-])(?:\+\d[\d ().-]{5,20}\d|\(?\d{2,5}\)?(?:[ .-]\d{2,8}){1,4})(?![\w/-]|[.,]\d)"
)
_DATE_OR_RANGE = re.compile(r"\d{4}-\d\d-\d\d|\d\d[.-]\d\d[.-]\d{4}|\d{4} ?- ?\d{4}|\d{1,3}(?: \d{3})+")
"""Matches dates, ranges of years and numbers with spaces between thousands."""
_MIN_PHONE_DIGITS = 7
"""Fewest digits of a telephone number."""
_MAX_PHONE_DIGITS = 15
# Every repetition is bounded. Otherwise a search that starts at each hyphen of a long text would take quadratic time.
_STREETS = r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Square|Terrace|Highway|Hwy)"
_STRASSEN = r"(?:stra\u00dfe|strasse|str\.|gasse|allee|platz|weg)"
_POSTAL_ADDRESSES = (
    re.compile(rf"\b\d{{1,5}}[A-Za-z]?,? (?:[A-Z][\w'.-]{{0,40}} ){{1,4}}{_STREETS}\b"),
    re.compile(rf"\b[A-Z\u00c4\u00d6\u00dc][\w-]{{0,40}}{_STRASSEN} \d{{1,4}}[a-z]?\b"),
    re.compile(r"\b\d{1,4},? (?:rue|avenue|boulevard|place|chemin) (?:de |du |des |la |l'){0,3}[A-Z][\w-]+", re.I),
    re.compile(r"\b(?:[Cc]alle|[Aa]venida|[Vv]ia|[Pp]iazza|[Rr]ua) (?:\w+ ){0,3}?[A-Z]\w+,? (?:n\.? ?)?\d{1,4}\b"),
)
FactReader = Callable[[str], set[str]]
"""Returns the facts of one kind in a text."""
WEB = re.compile(r"(?:https?://|\bwww\.)[^\s<>]+", re.IGNORECASE)
# The look-behind and the bound keep the search linear on long runs of letters.
MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
# A minus sign counts only if no word, number or bracket precedes it: "2-3" is a range, not 2 and -3.
_NUMBER = re.compile(r"(?:(?<![\w.)\]])[-\u2212])?\d+(?:[.,:/]\d+)*")
_LIST_NUMBER = re.compile(r"^[ \t]*\d{1,3}[.)](?=\s)", re.MULTILINE)
_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_CODE_SPAN = re.compile(r"(?<!`)`[^`\n]{1,200}`(?!`)")
# Bounded, because a name could begin at every hyphen of a run of hyphenated capitals.
_PERSON = r"[^\W\d_a-z][\w'\u2019-]{1,40}"
_PERSONS = rf"({_PERSON})(?:(?:,? (?:and|&|und|et|y) |, ){_PERSON}){{0,8}}(?:,? et al\.?)?"
_YEAR = r"((?:1[5-9]|20)\d\d[a-z]?)"
_BRACKETED_SOURCE = re.compile(rf"(?:see |cf\.? |e\.g\.,? )?{_PERSONS},? {_YEAR}(?:[,:] ?(?:pp?\. ?)?[\d\u2013-]+)?")
_SOURCE_IN_SENTENCE = re.compile(rf"\b{_PERSONS} \({_YEAR}\)")
_BRACKETED_TEXT = re.compile(r"\(([^()\n]{6,160})\)")
_NOTE_NUMBERS = re.compile(r"\[\^?(\d{1,3}(?:\s?[,;\u2013-]\s?\d{1,3}){0,20})\]")
_DOCUMENT_NUMBER = re.compile(r"\b10\.\d{4,9}/[^\s<>\"'\])}]+|\barxiv: ?\d{4}\.\d{4,5}", re.IGNORECASE)
_WORDS_BEFORE_YEAR = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december", "spring", "summer", "autumn", "fall", "winter", "since", "until", "version",
)  # fmt: skip
_QUOTATION = re.compile(
    r"(?<![\w\"])\"(?=\S)([^\"\n]{12,400})(?<=\S)\"(?!\w)"
    r"|\u201c([^\u201c\u201d\n]{12,400})\u201d|\u201e([^\u201c-\u201e\n]{12,400})[\u201c\u201d]"
    r"|\u00ab\s?([^\u00ab\u00bb\n]{12,400}?)\s?\u00bb|[\u300c\u300e]([^\u300c-\u300f\n]{4,400})[\u300d\u300f]"
)
_INNER_WORD = re.compile(r"(?<=[\w,;)] )[^\W\d_][\w'\u2019-]*")


def personal_data(text: str) -> set[str]:
    """Mail addresses, telephone numbers and postal addresses."""
    return {mail.casefold() for mail in MAIL.findall(text)} | _phones(text) | _postal_addresses(text)


def _phones(text: str) -> set[str]:
    """The digits of each telephone number, without a leading 00, which means the same as a plus."""
    phones: set[str] = set()
    for match in _PHONE_NUMBER.finditer(text):
        if _DATE_OR_RANGE.fullmatch(match.group()):
            continue
        digits = re.sub(r"\D", "", match.group()).removeprefix("00")
        if _MIN_PHONE_DIGITS <= len(digits) <= _MAX_PHONE_DIGITS:
            phones.add(digits)
    return phones


def _postal_addresses(text: str) -> set[str]:
    """Street addresses, in lower case and with single spaces."""
    matches = (match.group() for pattern in _POSTAL_ADDRESSES for match in pattern.finditer(text))
    return {" ".join(address.casefold().split()) for address in matches}


def addresses(text: str) -> set[str]:
    """Web and mail addresses, without the punctuation that follows them in a sentence."""
    links = [match.group().rstrip(".,;:!?)]}'\"*_\u201d\u2019") for match in WEB.finditer(text)]
    return {*links, *MAIL.findall(text)}


def numbers(text: str) -> set[str]:
    """Numbers, times, dates and versions as written, without commas between thousands. List numbers do not count."""
    text = _LIST_NUMBER.sub(" ", WEB.sub(" ", text))
    return {_THOUSANDS_COMMA.sub("", match.group()).replace("\u2212", "-") for match in _NUMBER.finditer(text)}


def code_blocks(text: str) -> set[str]:
    """Whole fenced code blocks."""
    segments = (segment.text.strip() for segment in structure.split(text))
    return {segment for segment in segments if segment.startswith(structure.FENCES)}


def code_spans(text: str) -> set[str]:
    """Code inside sentences, including its `backticks`."""
    return set(_CODE_SPAN.findall(remove_code_blocks(text)))


def prose(text: str) -> str:
    """The text without its code, because brackets and quotation marks have other meanings there."""
    return _CODE_SPAN.sub(" ", remove_code_blocks(text))


def remove_code_blocks(text: str) -> str:
    """The text without its fenced code blocks."""
    if not any(fence in text for fence in structure.FENCES):
        return text
    segments = structure.split(text)
    prose = (segment for segment in segments if not segment.text.lstrip().startswith(structure.FENCES))
    return "".join(segment.text + segment.gap for segment in prose)


def citations(text: str) -> set[str]:
    """What a text cites: numbers of notes, such as "[1]", sources as "author year", and DOI or arXiv numbers.

    "[1, 2]" gives two notes. Sources are in lower case, whatever their notation in the text.
    """
    text = prose(text)
    notes = {f"[{number}]" for match in _NOTE_NUMBERS.finditer(text) for number in re.findall(r"\d+", match.group(1))}
    # each source is (first author, year)
    sources: list[tuple[str, str]] = _SOURCE_IN_SENTENCE.findall(text)
    for part in ";".join(_BRACKETED_TEXT.findall(text)).split(";"):
        source = _BRACKETED_SOURCE.fullmatch(part.strip())
        if source is not None:
            sources.append((source[1], source[2]))
    # "(May 2020)" is a date
    authors = {f"{author} {year}".casefold() for author, year in sources if author.casefold() not in _WORDS_BEFORE_YEAR}
    documents = {document.rstrip(".,;:").casefold() for document in _DOCUMENT_NUMBER.findall(text)}
    return notes | authors | documents


def quotations(text: str) -> set[str]:
    """Quoted passages of more than a word or two, on one line, without quotation marks."""
    # the pattern has a group for each kind of quotation marks, and only one of them is not empty
    return {" ".join("".join(groups).split()) for groups in _QUOTATION.findall(prose(text))}


def names(text: str) -> set[str]:
    """The words of names, in lower case: capitalised words that do not begin a sentence, a line or a heading."""
    stems: set[str] = set()
    for segment in structure.split(text):
        # headings capitalise all words, and code names its own things
        if segment.text.strip().startswith(("#", *structure.FENCES)):
            continue
        for match in _INNER_WORD.finditer(segment.text.strip()):
            stem = _name_stem(match.group())
            if stem is not None:
                stems.add(stem)
    return stems


def _name_stem(word: str) -> str | None:
    """The word in lower case if it may be a name; None if it is not capitalised or has one letter."""
    # "Anna's" and "Anna" are one name
    stem = re.split(r"['\u2019-]", word, maxsplit=1)[0]
    return stem.casefold() if len(stem) > 1 and stem[0].isupper() else None
