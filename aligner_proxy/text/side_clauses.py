"""Side clauses: clauses and forms of address at the edge of a sentence, without which the sentence still stands.

"The fee is 75 euros, and your insurer pays it all." stands without its last clause, "The honey, which heals ulcers,
costs 9 euros." without the one in the middle, "Listen up: we open at nine." without its first words, and "Pop in before
ten, darling." without the form of address. A clause that the rest needs is none: what follows "If you are late," or an
opening such as "On Monday,". Nor is such an opening itself, because the rest would say more without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner_proxy.text.code_comments import Place
from aligner_proxy.text.lists import marks
from aligner_proxy.text.reading_form import SENTENCE_END, TAG
from aligner_proxy.text.structure import FENCES

_SUBORDINATORS = (
    r"if|when|whenever|while|although|though|since|because|as|after|before|once|unless|until|whether|where|wherever|"
    r"wenn|falls|w\u00e4hrend|obwohl|weil|da|nachdem|bevor|sobald|als|ob|si|quand|lorsque|puisque|comme|bien que|"
    r"cuando|aunque|porque|mientras"
)
_PREPOSITIONS = (
    r"to|in|on|at|for|with|without|by|during|from|under|among|given|based|despite|compared|depending|of|like|unlike|"
    r"besides|instead|thanks|due|first|according|both|either|neither|not|"
    r"im|am|auf|bei|mit|ohne|f\u00fcr|um|nach|vor|seit|zu|zur|zum|von|trotz|neben|"
    r"dans|en|\u00e0|pour|avec|sans|sur|chez|par|para|con|sin|por"
)
_OPENING = re.compile(
    rf"\W*(?:(?P<clause>{_SUBORDINATORS})|{_PREPOSITIONS}|(?!bring|ring|sing|swing)\w+ing)\b", re.IGNORECASE
)
"""Matches the beginning of words that open a sentence, and that a main clause has to follow."""
_NOUN_FIRST = re.compile(
    r"\W*(?:the|an?|this|that|these|those|our|my|your|his|her|their|its|all|each|every|some|most|many|both|"
    r"der|die|das|ein|eine|unser|unsere|ihr|ihre|le|la|les|l['\u2019]|un|une|nos|vos|votre|notre|el|los|las|una|"
    r"su|sus|nuestro|nuestra)\b"
    r"|\W*(?-i:[A-Z])\w*(?: (?-i:[A-Z])\w*)+",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence whose first words are a noun, so that its verb comes later."""
_VERB_BEFORE_LAST = re.compile(
    r"\b(?:\w+n['\u2019]t|is|are|was|were|am|be|been|has|have|had|does|do|did|will|would|can|could|may|might|must|"
    r"shall|should|\w+['\u2019](?:s|re|ve|ll|d|m)|\w{2,}(?:ed|es|[^\Ws]s)|ist|sind|war|waren|hat|haben|hatte|wird|"
    r"werden|kann|k\u00f6nnen|muss|m\u00fcssen|betr\u00e4gt|dauert|geht|gilt|kommt|liegt|steht|\w{3,}[et]t|"
    r"est|sont|a|ont|\u00e9tait|sera|peut|peuvent|es|son|est\u00e1|est\u00e1n|ha|han|tiene|tienen|puede|pueden)\b(?=\W+\w)",
    re.IGNORECASE,
)
"""Matches a word that may be a verb, and behind which other words stand."""
_ADVERBS = r"(?:(?:\w+ly|most|perhaps|maybe|just|only|even|not least|wohl|vermutlich|sans doute|quiz\u00e1)[ \t]+)*"
_CONNECTIVE = (
    rf"{_ADVERBS}(?:and|but|or|so|yet|though|although|since|because|as|while|whereas|which|who|whose|whom|where|when|"
    r"unless|until|if|even|plus|with|without|not|making|giving|meaning|unlike|like|except|according|thereby|thus|in|to|"
    r"(?:for|of|in|to|by|from|with) (?:which|whom)|"
    r"und|aber|oder|denn|obwohl|weil|da|w\u00e4hrend|wobei|was|wenn|wie|sodass|damit|doch|"
    r"(?:f\u00fcr|von|mit|in) (?:den|der|die|das|dem)|"
    r"et|mais|ou|donc|car|puisque|alors|qui|dont|o\u00f9|parce|bien|"
    r"y|pero|o|porque|aunque|mientras|que|lo|ya)"
)
_COMMA = re.compile(rf"[ \t]?[,;][ \t]+(?:(?P<connective>{_CONNECTIVE})\b)?", re.IGNORECASE)
"""Matches a comma or semicolon, and a word behind it that joins clauses."""
_CLAUSE_WITHOUT_COMMA = re.compile(
    r"(?<![,;])[ \t]+(?=(?:because|although|though|whereas|unless)[ \t]|"
    r"and[ \t]+(?:you|we|they|he|she|it|i|there|can|will|could|would|may|might|must|should)(?:['\u2019]\w+)?[ \t])",
    re.IGNORECASE,
)
"""Matches the space before a clause that follows without a comma."""
_MIDDLE_CLAUSE = re.compile(
    r",[ \t]+(?:(?:which|who|whose|whom|where|an?|the|as|like|most|probably|presumably|"
    rf"{_ADVERBS}because|dont|qui)\b[^,;:\n]{{4,200}})(?P<comma>,)"
    r"(?=[ \t]+(?P<joins>(?:and|but|or|so|yet|und|aber|et|mais|y|pero)\b)?)",
    re.IGNORECASE,
)
"""Matches a clause between two commas that says more of a word before it."""
_FIRST_WORDS_END = re.compile(
    r"[,:;](?P<joins>[ \t]+(?:and|but|so|yet|und|aber|et|mais|y|pero)\b)?[ \t]+|[ \t]+[-\u2013\u2014][ \t]+",
    re.IGNORECASE,
)
"""Matches the signs behind the first words of a sentence, with a word behind them that joins clauses."""
_FORM_OF_ADDRESS = re.compile(
    r",[ \t]+(?:(?:my|you|dear|old|little|sweet|poor|silly|dumb|mein|meine|mon|ma|mi)[ \t]+){0,2}"
    rf"(?!(?:{_CONNECTIVE})\b)(?-i:[a-z\u00df-\u00ff]){{2,20}}"
    r"(?=[.!?\u2026]+\W*$|,[ \t]+(?:and|but|so|or|because|if|when|you|we|i|it|that|this|there|please)\b)",
    re.IGNORECASE,
)
"""Matches one to three words between a comma and the end, or between a comma and the next clause."""
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_MAY_FOLLOW = re.compile(
    r"(?:and|but|or|so|yet|though|although|since|because|while|whereas|unless|until|if|even|plus|not|it['\u2019]?s|"
    r"und|aber|oder|denn|obwohl|weil|et|mais|ou|car|y|pero|porque|aunque)\b",
    re.IGNORECASE,
)
"""Matches a word that begins a clause behind a main clause, and none within one."""
_SUBJECT = re.compile(
    r"(?:i|you|we|they|he|she|it|this|that|these|those|there|here|the|an?|my|your|our|his|her|their|its|please|let|no|"
    r"ich|du|sie|wir|er|es|der|die|das|ein|eine|bitte|je|tu|vous|nous|il|elle|le|la|les|un|une|el|los|las|una|usted)\b"
    rf"|(?:{_PREPOSITIONS}|if|when)\b",
    re.IGNORECASE,
)
"""Matches a word that often begins a main clause."""
_REFERRING_WORD = re.compile(
    r"(?:it|its|they|their|them|this|that|these|those|he|she|his|her|one|er|es|ihr|il|elle|ils|\u00e9l|ella)\b", re.I
)
"""Matches a first word that may mean something in the words before it."""
_EMPHASIS = re.compile(r"[*_`]")
_JOINING_WORD = re.compile(rf"{_CONNECTIVE}\b", re.IGNORECASE)
_MAX_FIRST_WORDS = 12
"""Most first words of a sentence that go alone."""
_MIN_MAIN_WORDS = 3
"""Fewest words of a main clause."""
_LONG_OPENING_WORDS = 7
"""An opening with a preposition, so many words and a verb has its main clause in it: "On that day a fee was due"."""
_MAX_LIST_END_WORDS = 3
"""Most words behind "and" that may be the end of a list."""
MAX_SIDE_CLAUSES = 8
"""Most side clauses of a sentence that are tried."""
_MAX_CHARS = 600
"""A longer sentence, such as a list of letters, is not searched."""


def find_side_clauses(text: str) -> list[Place]:
    """The places without which the sentence still stands, the shortest ones first; each by itself may be removed.

    A place includes the comma and the space before the clause, but no end mark: that of "Pop in, dear." is ", dear".
    """
    is_prose = not (text.lstrip().startswith(FENCES) or "|" in text or "\n" in text.strip())
    if len(text) > _MAX_CHARS or not is_prose or TAG.search(text):
        return []
    item_mark = marks.read(text)
    start = item_mark.stop if item_mark is not None else 0
    end_mark = SENTENCE_END.search(text)
    end = end_mark.start() if end_mark is not None else len(text.rstrip())
    first_words = _find_first_words(text, start, end)
    places = {*first_words, *_find_middle_clauses(text, start), *_find_last_clauses(text, start, end)}
    return sorted(places, key=lambda place: (place[1] - place[0], place))[:MAX_SIDE_CLAUSES]


def _find_first_words(text: str, start: int, end: int) -> Iterator[Place]:
    """Yield the first words from `start` on, up to a sign behind which a main clause follows."""
    if _OPENING.match(text, start, end) is not None:
        return
    for match in _FIRST_WORDS_END.finditer(text, start, end):
        first_words = text[start : match.start()]
        word_count = len(_WORD.findall(first_words))
        if word_count > _MAX_FIRST_WORDS:
            return
        rest = text[match.end() : end]
        refers_back = word_count >= _MIN_MAIN_WORDS and _REFERRING_WORD.match(rest)
        if not refers_back and _may_begin_behind(match, first_words, rest) and _stands_alone(rest):
            yield start, match.end()


def _may_begin_behind(signs: re.Match[str], first_words: str, rest: str) -> bool:
    """Whether a main clause may begin with `rest`, behind the first words of a sentence and these signs."""
    if _JOINING_WORD.match(rest):
        return False
    if signs["joins"]:
        return True
    if signs.group().startswith(","):
        return _SUBJECT.match(rest) is not None
    # fewer words before a colon or dash are the title of an item, or a label
    return len(_WORD.findall(first_words)) >= _MIN_MAIN_WORDS and not _EMPHASIS.search(first_words)


def _find_middle_clauses(text: str, start: int) -> Iterator[Place]:
    """Yield clauses and forms of address between commas; the second comma stays before a word that joins clauses."""
    for match in _MIDDLE_CLAUSE.finditer(text, start):
        before = text[start : match.start()]
        if _OPENING.match(before) is not None and "," not in before:
            continue  # the main clause follows an opening
        yield match.start(), match.start("comma") if match["joins"] else match.end()
    for match in _FORM_OF_ADDRESS.finditer(text, start):
        # one more word between commas may be the end of a list
        if len(_WORD.findall(text[start : match.start()].rpartition(",")[2])) >= _MIN_MAIN_WORDS:
            yield match.span()


def _find_last_clauses(text: str, start: int, end: int) -> Iterator[Place]:
    """Yield what follows a main clause up to `end`, the place of the end mark."""
    for match in _COMMA.finditer(text, start, end):
        main_clause = text[start : match.start()]
        rest = text[match.end() : end]
        begins_clause = ";" in match.group() or (match["connective"] and not _goes_on(match["connective"], rest))
        if begins_clause and _stands_alone(main_clause) and not _is_list_end(main_clause, rest):
            yield match.start(), end
    for match in _CLAUSE_WITHOUT_COMMA.finditer(text, start, end):
        if _stands_alone(text[start : match.start()]):
            yield match.start(), end


def _stands_alone(words: str, max_openings: int = 2) -> bool:
    """Whether some words are a main clause, as far as their beginning shows; so many openings may stand before it."""
    if len(_WORD.findall(words)) < _MIN_MAIN_WORDS:
        return False
    opening = _OPENING.match(words)
    if opening is not None:
        before_comma, comma, behind_comma = words.partition(", ")
        if comma and max_openings and _stands_alone(behind_comma, max_openings - 1):
            return True
        is_long = len(_WORD.findall(before_comma)) >= _LONG_OPENING_WORDS
        return not opening["clause"] and is_long and _VERB_BEFORE_LAST.search(words) is not None
    return _NOUN_FIRST.match(words) is None or _VERB_BEFORE_LAST.search(words) is not None


def _goes_on(connective: str, rest: str) -> bool:
    """Whether the sentence may go on with its verb behind the clause: "The honey, which is dark, costs 9 euros"."""
    _, comma, behind_comma = rest.partition(", ")
    return bool(comma) and not _MAY_FOLLOW.match(connective) and not _MAY_FOLLOW.match(behind_comma)


def _is_list_end(main_clause: str, words: str) -> bool:
    """Whether the `words` behind "and" may be the last ones of a list that began in the main clause."""
    return "," in main_clause and len(_WORD.findall(words)) <= _MAX_LIST_END_WORDS
