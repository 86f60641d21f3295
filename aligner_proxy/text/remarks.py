"""Remarks within sentences: words in brackets, between dashes or commas, without which the sentence says the same.

"Take a coat (you fool).", "The rug - not that you would know - is red.", "Take a coat, you fool." and "You fool, take
a coat." lose nothing but the remark. Between commas only words count that call the reader something, since other
clauses between commas belong to what the sentence says.
"""

from __future__ import annotations

import re

from aligner_proxy.text import fragments
from aligner_proxy.text.lists import marks
from aligner_proxy.text.sentence_ends import PICTURES_BEHIND
from aligner_proxy.text.structure import FENCES

_INSULT = (
    r"(?:idiot|fool|moron|imbecile|cretin|dunce|dimwit|half-?wit|nitwit|numskull|dummy|dumbo|blockhead|birdbrain|"
    r"simpleton|loser|clown|oaf|dolt|dope|pig|cow|ape|chimp|baby|toddler|wimp|crybaby|brat|scum|filth|trash|vermin|"
    r"idiotin?|dummkopf|trottel|depp|versager|narr|imb\u00e9cile|cr\u00e9tin|abruti|tonto|est\u00fapido)(?:s|es|en)?"
)
"""What insults call a person, to be set into a pattern."""
_ABOUT_READER = re.compile(
    rf"\b(?:you (?:[\w-]+ ){{0,2}}{_INSULT}|only an?|(?:any|every|even an?|but an?) {_INSULT}|what an?"
    rf"|(?:any|every)(?:body|one) who\b.{{1,80}} is an? (?:\w+ )?{_INSULT}"
    r"|you(?:r| |'|\u2019).{0,60}\b(?:stupid|dumb|brainless|clueless|thick|pathetic|useless|worthless|hopeless|dense)"
    r"|du bist|ihr seid|sie sind|tu es|vous \u00eates|eres"
    r"|you(?:'re|\u2019re| are| were| must be)(?! (?:to|going|about|supposed|able|making)\b))(?![a-z])"
    rf"|^(?:you|du|toi)\b(?:\W+\w+){{1,3}}\W*$|, (?!an? |the )(?:[\w-]+ ){{0,2}}{_INSULT}\W*$"
    rf"|^(?:you |my |dear )?(?:[\w-]+ )?{_INSULT}\W*$",
    re.IGNORECASE,
)
"""Matches a sentence that says what the reader is."""
_CALLS_READER = re.compile(
    r"(?:(?:and|but|so|well|hey|oh|listen|look)[ \t,]+)?(?:you |my |dear |du |ihr )?"
    rf"(?:(?!(?:an?|the|are|were|is|look|sound)\b)[\w-]+ ){{0,2}}{_INSULT}\W*",
    re.IGNORECASE,
)
"""Matches words that only call the reader something."""
_ADDRESSES_READER = re.compile(r"\b(?:you|your|yours|yourself)\b", re.IGNORECASE)
_MAX_WORDS_ABOUT_READER = 16
"""Most words of a sentence that only says what the reader is."""
_BRACKETED_REMARK = re.compile(
    r"(?<=\S)[ \t]+\([^()\n]{2,200}\)(?=[\s.,;:!?]|$)|(?<=\S)\uff08[^\uff08\uff09\n]{2,200}\uff09"
)
"""Matches a remark in brackets behind other words, with the space before it; full-width brackets have none."""
_SENTENCE_END = rf"(?=[.!?\u2026]+[\"'\u201d\u2019)*_]*{PICTURES_BEHIND}$)"
"""Matches before the mark at the end of a sentence."""
_REMARK_BETWEEN_DASHES = re.compile(
    rf"(?<=[\w)%\u201d\"])[ \t]+(?P<dash>--|[-\u2013\u2014])[ \t]+[^\n\u2013\u2014]{{2,200}}?"
    rf"(?:[ \t]+(?P=dash)(?=[ \t](?![^\W\d_a-z]))|{_SENTENCE_END})"
)
"""Matches a remark between two dashes, or between a dash and the end, with the space before it.

If a capital follows, the dashes join sentences (inner_sentences.py)."""
_WORDS_BETWEEN_COMMAS = re.compile(rf",[ \t]+[^,;:.!?()\n]{{2,80}}(?:,(?=[ \t])|{_SENTENCE_END})")
"""Matches words between two commas, or between a comma and the end."""
_WORDS_BEFORE_COMMA = re.compile(
    r"[\"'\u201c*_]{0,3}(?P<words>(?P<call>(?i:listen|look|hey|oh|well),?[ \t]+)?[^\W\d_][^,;:.!?()\n]{2,60})"
    r"(?:[,\u2014]|(?(call):|(?!)))[ \t]+(?=\S)"
)
"""Matches the words before the first comma of a sentence."""
SIGNS = " \n\t()\uff08\uff09,\u2013\u2014-:"
"""The white space and signs around the words of a remark."""
_MIN_WORDS_BEFORE_DASH = 3
"""Fewest words before a dash; fewer may be a label that the rest explains."""


def find_remarks(text: str) -> list[tuple[int, int]]:
    """The places of the remarks in a sentence, in order; a place includes the signs and the space around the remark.

    In "Take a coat (you fool)." it is the place of " (you fool)", in "You fool, take a coat." that of "You fool, ".
    """
    places = [match.span() for match in _BRACKETED_REMARK.finditer(text)]
    for match in _REMARK_BETWEEN_DASHES.finditer(text):
        if fragments.count_words(fragments.strip_marks(text[: match.start()])) >= _MIN_WORDS_BEFORE_DASH:
            places.append(match.span())
    for match in _WORDS_BETWEEN_COMMAS.finditer(text):
        if _CALLS_READER.fullmatch(match.group().strip(SIGNS)):
            places.append(match.span())
    item_mark = marks.read(text)
    opening = _WORDS_BEFORE_COMMA.match(text, item_mark.stop if item_mark is not None else 0)
    if opening is not None and _CALLS_READER.fullmatch(opening["words"]):
        places.append((opening.start("words"), opening.end()))
    return _without_overlaps(sorted(places))


def is_doubtful(text: str, place: tuple[int, int]) -> bool:
    """Whether the remark at `place` may include words that belong to the sentence, because it is not in brackets."""
    is_data = text.lstrip().startswith(FENCES)
    return not is_data and text[slice(*place)].strip()[:1] not in ("(", "\uff08")


def find_remarks_to_reader(text: str) -> list[tuple[int, int]]:
    """The places of the remarks in a sentence that address the reader."""
    return [place for place in find_remarks(text) if _ADDRESSES_READER.search(text, *place)]


def is_about_reader(sentence: str) -> bool:
    """Whether a sentence only says what the reader is, and so names nothing that a later "it" could mean."""
    return (
        fragments.count_words(sentence) <= _MAX_WORDS_ABOUT_READER
        and _ABOUT_READER.search(sentence.strip()) is not None
    )


def _without_overlaps(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sorted `places` without those that overlap with an earlier one."""
    separate_places: list[tuple[int, int]] = []
    last_end = 0
    for start, end in places:
        if start >= last_end:
            separate_places.append((start, end))
            last_end = end
    return separate_places
