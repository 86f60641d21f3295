"""Which facts does a text hold? Numbers, addresses, code, citations, quotations and names, found by form alone.

Every function reads one text and returns a set; comparing sets is the gate's business. Names are capitalised words in
the middle of a sentence, so scripts without capitals have none, and languages that capitalise every noun have many.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aligner_proxy import segments

FactReader = Callable[[str], set[str]]
WEB = re.compile(r"(?:https?://|\bwww\.)[^\s<>]+", re.IGNORECASE)
# The look-behind and the bound keep the search linear on long runs of letters.
MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
# A minus counts only where no word, number or bracket stands before it: "2-3" is a range, not 2 and -3.
_NUMBER = re.compile(r"(?:(?<![\w.)\]])[-\u2212])?\d+(?:[.,:/]\d+)*")
_LIST_MARK = re.compile(r"^[ \t]*\d{1,3}[.)](?=\s)", re.MULTILINE)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_CODE_SPAN = re.compile(r"(?<!`)`[^`\n]{1,200}`(?!`)")
# Bounded, since a run of hyphenated capitals could begin a name at every hyphen.
_PERSON = r"[^\W\d_a-z][\w'\u2019-]{1,40}"
_PERSONS = rf"({_PERSON})(?:(?:,? (?:and|&|und|et|y) |, ){_PERSON}){{0,8}}(?:,? et al\.?)?"
_YEAR = r"((?:1[5-9]|20)\d\d[a-z]?)"
_IN_BRACKETS = re.compile(rf"(?:see |cf\.? |e\.g\.,? )?{_PERSONS},? {_YEAR}(?:[,:] ?(?:pp?\. ?)?[\d\u2013-]+)?")
_IN_SENTENCE = re.compile(rf"\b{_PERSONS} \({_YEAR}\)")
_BRACKETS = re.compile(r"\(([^()\n]{6,160})\)")
_NOTE = re.compile(r"\[\^?(\d{1,3}(?:\s?[,;\u2013-]\s?\d{1,3}){0,20})\]")
_DOCUMENT = re.compile(r"\b10\.\d{4,9}/[^\s<>\"'\])}]+|\barxiv: ?\d{4}\.\d{4,5}", re.IGNORECASE)
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december", "spring", "summer", "autumn", "fall", "winter", "since", "until", "version",
)  # fmt: skip
_QUOTATION = re.compile(
    r"(?<![\w\"])\"(?=\S)([^\"\n]{12,400})(?<=\S)\"(?!\w)"
    r"|\u201c([^\u201c\u201d\n]{12,400})\u201d|\u201e([^\u201c-\u201e\n]{12,400})[\u201c\u201d]"
    r"|\u00ab\s?([^\u00ab\u00bb\n]{12,400}?)\s?\u00bb|[\u300c\u300e]([^\u300c-\u300f\n]{4,400})[\u300d\u300f]"
)
_NAME = re.compile(r"(?<=[\w,;)] )[^\W\d_][\w'\u2019-]*")


def addresses(text: str) -> set[str]:
    """Web and mail addresses, without the punctuation that follows them in a sentence."""
    found = [match.group().rstrip(".,;:!?)]}'\"*_\u201d\u2019") for match in WEB.finditer(text)]
    return {*found, *MAIL.findall(text)}


def numbers(text: str) -> set[str]:
    """Numbers, times, dates and versions as written, thousands with or without commas; list marks do not count."""
    text = _LIST_MARK.sub(" ", WEB.sub(" ", text))
    return {_THOUSANDS.sub("", match.group()).replace("\u2212", "-") for match in _NUMBER.finditer(text)}


def code(text: str) -> set[str]:
    """Fenced code blocks, whole."""
    pieces = (segment.text.strip() for segment in segments.split(text))
    return {piece for piece in pieces if piece.startswith(("```", "~~~"))}


def code_spans(text: str) -> set[str]:
    """Code inside sentences, with its `marks`."""
    return set(_CODE_SPAN.findall(_without_blocks(text)))


def prose(text: str) -> str:
    """The text without its code, where brackets and quotation marks mean something else."""
    return _CODE_SPAN.sub(" ", _without_blocks(text))


def _without_blocks(text: str) -> str:
    if "```" not in text and "~~~" not in text:
        return text
    kept = (s.text + s.gap for s in segments.split(text) if not s.text.lstrip().startswith(("```", "~~~")))
    return "".join(kept)


def citations(text: str) -> set[str]:
    """Notes "[1]" one by one, "author year" in whichever form, and documents by DOI or arXiv number."""
    text = prose(text)
    found = {f"[{number}]" for match in _NOTE.finditer(text) for number in re.findall(r"\d+", match.group(1))}
    works = [m for inside in _BRACKETS.findall(text) for part in inside.split(";") if (m := _work(part.strip()))]
    works += _IN_SENTENCE.findall(text)
    found |= {f"{author} {year}".casefold() for author, year in works if author.casefold() not in _MONTHS}
    return found | {document.rstrip(".,;:").casefold() for document in _DOCUMENT.findall(text)}


def _work(text: str) -> tuple[str, str] | None:
    match = _IN_BRACKETS.fullmatch(text)
    return (match.group(1), match.group(2)) if match else None


def quotations(text: str) -> set[str]:
    """The words between quotation marks, white space aside, where they are more than a word or two."""
    return {" ".join("".join(groups).split()) for groups in _QUOTATION.findall(prose(text))}


def names(text: str) -> set[str]:
    """The words of names, in lower case: capitalised words that do not begin a sentence, a line or a heading."""
    found: set[str] = set()
    for segment in segments.split(text):
        piece = segment.text.strip()
        if not piece.startswith(("#", "```", "~~~")):
            found.update(word for match in _NAME.finditer(piece) if (word := _name(match.group())))
    return found


def _name(word: str) -> str | None:
    stem = re.split(r"['\u2019-]", word, maxsplit=1)[0]
    return stem.casefold() if len(stem) > 1 and stem[0].isupper() else None
