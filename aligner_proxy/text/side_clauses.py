"""Side clauses: clauses and forms of address at the edge of a sentence, without which the sentence still stands.

"The fee is 75 euros, and your insurer pays it all." stands without its last clause, "The honey, which heals ulcers,
costs 9 euros." without the one in the middle, "Obey or suffer: we open at nine." without its first words, and "Pop in
before ten, darling." without the form of address.

A clause that the rest needs is none: what follows "If you are late,", half of an "either ... or", a negation. Nor is a
condition or an exception ("if you have the receipt", "except underwear"), since the rest would say more without it.
Words cannot show all of this, so a caller must also know that the clause is at fault, and that the rest is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.fragments import count_words
from aligner_proxy.text.lists import marks
from aligner_proxy.text.reading_form import TAG
from aligner_proxy.text.structure import FENCES

_END = re.compile(r"[.!:\u2026][^\w\n?]*$")
"""Matches the end mark of a sentence, also of one that announces something, with the signs and pictures behind it."""
_SUBORDINATORS = (
    r"if|when|whenever|while|although|though|since|because|as|after|before|once|unless|until|whether|where|wherever|"
    r"only (?:if|when|after|once|on|in|with)|even (?:if|when|though)|except|provided|should|had|were|no matter|"
    r"whatever|"
    r"wenn|falls|w\u00e4hrend|obwohl|weil|da|nachdem|bevor|sobald|als|ob|au\u00dfer|je|"
    r"si|s['\u2019]|quand|lorsqu\w*|puisqu\w*|comme|bien que|sauf|m\u00eame|"
    r"cuando|aunque|porque|mientras|salvo|excepto|se|quando"
)
_PREPOSITIONS = (
    r"to|in|on|at|for|with|within|without|by|during|from|under|among|given|based|despite|compared|depending|of|like|"
    r"unlike|besides|instead|thanks|due|first|according|"
    r"im|am|auf|bei|mit|ohne|f\u00fcr|um|nach|vor|seit|zu|zur|zum|von|trotz|neben|"
    r"dans|en|\u00e0|pour|avec|sans|sur|chez|par|d\u00e8s|avant|apr\u00e8s|para|con|sin|por|antes|despu\u00e9s|hasta"
)
_OPENING = re.compile(
    rf"\W*(?:(?P<clause>(?:{_SUBORDINATORS})\b|s['\u2019])|(?:{_PREPOSITIONS})\b"
    r"|(?!(?:bring|ring|sing|swing|king|spring|thing|\w+thing)\b)\w+ing\b)",
    re.IGNORECASE,
)
"""Matches the beginning of words that open a sentence, and that a main clause has to follow."""
_OPENING_WORD = re.compile(
    r"\W*(?:\w+ly|yes|no|sure|ok|okay|well|hi|hello|hey|dear|however|also|still|today|now|then|so|but|and|the more|"
    r"ja|nein|leider|also|hallo|oui|non|bonjour|s\u00ed|hola)\b[^,]*$",
    re.IGNORECASE,
)
"""Matches words that only open a sentence, up to their comma."""
_NOUN_FIRST = re.compile(
    r"\W*(?:the|an?|this|that|these|those|our|my|your|his|her|their|its|all|each|every|some|most|many|both|"
    r"der|die|das|ein|eine|unser|unsere|ihr|ihre|le|la|les|l['\u2019]|un|une|nos|vos|votre|notre|el|los|las|una|"
    r"su|sus|nuestro|nuestra)\b"
    r"|\W*(?-i:[A-Z])\w*(?: (?-i:[A-Z])\w*)+",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence whose first words are a noun, so that its verb comes later."""
_VERBS = (
    r"\w+n['\u2019]t|is|are|was|were|am|be|been|has|have|had|does|do|did|will|would|can|could|may|might|must|shall|should|"
    r"\w+['\u2019](?:s|re|ve|ll|d|m)|ist|sind|war|waren|hat|haben|hatte|wird|werden|kann|k\u00f6nnen|muss|m\u00fcssen|"
    r"betr\u00e4gt|dauert|geht|gilt|kommt|liegt|steht|est|sont|ont|\u00e9tait|sera|peut|peuvent|es|son|est\u00e1|"
    r"est\u00e1n|ha|han|tiene|tienen|puede|pueden"
)
_VERB = re.compile(rf"\b(?:{_VERBS})\b(?=\W+\w)", re.IGNORECASE)
_PERHAPS_VERB = re.compile(
    rf"\b(?:{_VERBS}|\w{{2,}}(?:ed|es|[^\Ws]s)|\w{{3,}}[et]t)\b(?=\W+\w)",
    re.IGNORECASE,
)
"""Matches a word that may be a verb, as its form shows, and behind which other words stand."""
_NEGATION = re.compile(
    r"n['\u2019]t\b|\b(?:not|never|no|nobody|none|nothing|nowhere|hardly|wrong|false|untrue|myth|cannot|"
    r"nicht|nie|niemand|kein\w*|nichts|falsch|ne|pas|jamais|rien|aucun\w*|faux|nunca|nadie|nada|non)\b|\bn['\u2019]",
    re.IGNORECASE,
)
"""Matches a word that denies something."""
_FIRST_HALF = re.compile(
    r"\b(?:not only|either|both(?! \w+s\b)(?!.*\band\b)|neither|whether|too \w+ to|zwar|nicht nur|entweder|sowohl|"
    r"weder|pas seulement|soit|ni|no s\u00f3lo|no solo)\b|^\W*(?:plus|the more|the less|je|o|ou)\b|\bso \w+$",
    re.IGNORECASE,
)
"""Matches words whose other half comes later in the sentence."""
_REPORTS = re.compile(
    r"\b(?:says?|said|thinks?|believes?|claims?|knows?|guess|may look|might seem|seems?|dis\w+|dit|cree\w*|dicen?|"
    r"glaub\w*|sag\w*|mein\w*)\b",
    re.IGNORECASE,
)
"""Matches words with which a clause tells what somebody thinks, which the next clause may correct."""
_OPEN_END = re.compile(
    r"\b(?:and|or|but|und|oder|aber|et|ou|mais|y|o|pero|not|never|always|must|should|would|could|can|will|(?-i:may)|"
    r"might|to|an?|the|of|that)$",
    re.IGNORECASE,
)
"""Matches a word at the end that another one has to follow; not the month in "until 3 May"."""
_PRONOUN_END = re.compile(r"\b(?:i|he|she|we|they|you|him|her|them|us|me)$", re.IGNORECASE)
_ADVERBS = r"(?:(?:\w+ly|most|perhaps|maybe|just|not least|wohl|vermutlich|sans doute|quiz\u00e1)[ \t]+)*"
_CONTRASTS = r"but|yet|aber|doch|mais|pero"
_CONTRAST = re.compile(rf"(?:{_CONTRASTS})\b", re.IGNORECASE)
_COORDINATING_WORDS = r"and|but|so|yet|und|aber|et|mais|y|pero"
"""Words that join two main clauses."""
_COORDINATES = re.compile(rf"(?:{_COORDINATING_WORDS})\b", re.IGNORECASE)
_JOINS_NOUNS = re.compile(rf"\b(?:{_COORDINATING_WORDS}|or|oder|ou|o)\b", re.IGNORECASE)
"""Matches a word that may stand before the last noun of a list."""
_CONNECTIVE = (
    rf"{_ADVERBS}(?:and|or|so|{_CONTRASTS}|though|although|even though|since|because|as(?! long as| soon as)|while|"
    r"whereas|which|who|whose|whom|where|plus|making|giving|meaning|unlike|like|according|thereby|thus|"
    r"(?:at|for|of|in|to|by|from|with) (?:which|whom)|"
    r"und|denn|obwohl|weil|da|w\u00e4hrend|wobei|was|wie|sodass|(?:f\u00fcr|von|mit|in) (?:den|der|die|das|dem)|"
    r"et|donc|car|puisque|alors|qui|dont|o\u00f9|parce|y|porque|aunque|mientras|que|lo)"
)
_LIMITED = re.compile(r"[ \t]*(?:only|not|never|nur|nicht|nie|pas|jamais|no|nunca|s\u00f3lo|solo|seulement)\b", re.I)
"""Matches what limits the main clause behind "but": "but only with the receipt"."""
_COMMA = re.compile(rf"[,;][ \t]+(?:(?P<connective>{_CONNECTIVE})\b)?", re.IGNORECASE)
"""Matches a comma or semicolon, and a word behind it that joins clauses."""
_CLAUSE_WITHOUT_COMMA = re.compile(
    r"(?<![,; \t])[ \t]++(?=(?P<reason>(?:because|although|though|whereas)[ \t])|"
    r"and[ \t]+(?:you|we|they|he|she|it|i|there|can|will|could|would|may|might|must|should)(?:['\u2019]\w+)?[ \t]|"
    r"(?P<predicate>and[ \t]+\w{2,20}(?:ed|[^\Ws]s)[ \t]+)(?:that|how|why|the|an?|my|our|your|his|her|its|their|us|him|"
    r"them|it)[ \t])",
    re.IGNORECASE,
)
"""Matches the space before a clause, or before another predicate with an object, that follows without a comma."""
_REASON_IN_THE_MIDDLE = re.compile(
    rf"(?<![,; \t])[ \t]++because[ \t][^,;:\n]{{4,200}}(?=,[ \t]+(?:{_COORDINATING_WORDS})[ \t]+(?P<behind>.+))",
    re.IGNORECASE,
)
"""Matches a reason without a comma before it, behind which another main clause follows."""
_LAST_APPOSITION = re.compile(
    r",[ \t]+(?=(?:an?|the|one of|our|your)[ \t](?P<noun>[^,;:\n]{1,100}?)[ \t]"
    r"(?:that|which|who|whose|whom|than|ever)[ \t])",
    re.IGNORECASE,
)
"""Matches the comma before words at the end that say more of a word before them: ", a tale that is old"."""
_MIDDLE_CLAUSE = re.compile(
    r",[ \t]+(?:(?P<relative>which|who|whose|whom|where|dont|qui|whereas)|an?|the|like|just as|most|probably|"
    rf"(?P<reason>as(?! long| soon)|{_ADVERBS}because)|(?P<contrast>since|(?:even )?though|although))\b"
    r"(?P<words>[^,;:\n]{4,200})(?P<comma>,)"
    rf"(?=[ \t]+(?:(?P<joins>{_COORDINATING_WORDS})|(?P<item>or|the|an?))?\b)",
    re.IGNORECASE,
)
"""Matches a clause between two commas that says more of a word before it."""
_RELATIVE = re.compile(r"\b(?:that|which|who|whose|where|because)\b", re.IGNORECASE)
_FIRST_WORDS_END = re.compile(
    rf"(?:,(?P<joins>[ \t]+(?:{_COORDINATING_WORDS})\b)?|[:;]|(?<![ \t])[ \t]++[-\u2013\u2014])[ \t]+",
    re.IGNORECASE,
)
"""Matches the signs behind the first words of a sentence, with a word behind them that joins clauses."""
_ADDRESS = re.compile(
    r"(?:listen|look|hey|oh|well|come on|okay|ok|lol|haha|wow|ugh|duh|jeez|dude|bro|pal|buddy|mate|folks|guys|honey|"
    r"(?:my )?(?:dear|darling|love|friend)|sweetie|bestie|genius|einstein|sorry|na ja|tja|ach|oye)\b",
    re.IGNORECASE,
)
"""Matches words with which a reader is addressed."""
_FORM_OF_ADDRESS = re.compile(
    r",[ \t]+(?:(?:my|you|dear|old|little|sweet|poor|silly|dumb|mein|meine|mon|ma|mi)[ \t]+){0,2}"
    rf"(?!(?:{_CONNECTIVE}|{_SUBORDINATORS}|please|too|though|right|then|now|\w+ly|always|ever|twice|once)\b)"
    r"(?-i:[a-z\u00df-\u00ff]){2,20}"
    r"(?=[.!\u2026]++\W*$|,[ \t]+(?:and|but|so|or|because|if|when|you|we|i|it|that|this|there|please)\b)",
    re.IGNORECASE,
)
"""Matches one to three words between a comma and the end, or between a comma and the next clause."""
_GREETING = re.compile(
    r"\W*(?:hi|hello|hey|good|happy|safe|warm|best|well|many|enjoy|welcome|congrat|thank|bye|cheers|take|see|sure|yes|"
    r"no|never|okay|ok|sorry|of|all|you|hallo|guten?|danke|bis|viel|bonjour|bonne?|merci|salut|hola|buen|gracias)\w*"
    r"(?: \w+){0,2}$",
    re.IGNORECASE,
)
"""Matches a greeting, thanks or a short answer, behind which one word is hardly the end of a list: "Safe travels"."""
_SUBJECT = re.compile(
    r"(?:i|you|we|they|he|she|it|this|that|these|those|there|here|the|an?|my|your|our|his|her|their|its|please|let|"
    r"perhaps|ich|du|sie|wir|er|es|der|die|das|ein|eine|bitte|je|tu|vous|nous|il|elle|le|la|les|un|une|el|los|las|una|"
    r"usted|if|when|in|on|at|for)\b",
    re.IGNORECASE,
)
"""Matches a word that often begins a main clause."""
_PRONOUN_FIRST = re.compile(
    r"(?:i|you|we|they|he|she|it|there|please|let|perhaps|ich|du|sie|wir|er|es|bitte|je|tu|vous|nous|il|elle|usted)\b",
    re.IGNORECASE,
)
"""Matches the subject of a main clause, or the beginning of a request."""
_REFERRING_WORD = re.compile(
    r"(?:it|its|they|their|them|this|that|these|those|he|she|his|her|one|er|es|ihr|il|elle|ils|\u00e9l|ella)\b", re.I
)
"""Matches a first word that may mean something in the words before it."""
_JOINING_WORD = re.compile(rf"(?:{_CONNECTIVE}|that|dass|qu['\u2019]?e?)\b", re.IGNORECASE)
_MAY_FOLLOW = re.compile(
    r"(?:and|but|so|yet|though|although|since|because|while|whereas|plus|it['\u2019]?s|und|aber|denn|obwohl|weil|et|mais|"
    r"car|y|pero|porque|aunque)\b",
    re.IGNORECASE,
)
"""Matches a word that begins a clause behind a main clause, and none within one."""
_CONSEQUENCE = re.compile(r"(?:and|or|und|et|y)[ \t]+(?:you|it|the \w+)(?:['\u2019]ll| will| may| can| risk)\b", re.I)
"""Matches what follows if somebody does what the main clause says: "Touch it, and you will see"."""
_SYMMETRIC = [re.compile(sign) for sign in ('"', "`+", r"\*+", r"(?<![^\W_])_+|_+(?![^\W_])", "~+", r"\$+")]
_PAIRED = (("(", ")"), ("[", "]"), ("{", "}"), ("\u201c", "\u201d"), ("\u00ab", "\u00bb"))
_SINGLE_QUOTE = re.compile(r"(?<!\w)['\u2018](?=\w)|(?<=[^\Ws])['\u2019](?!\w)")
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

    A place includes the comma and the space before the clause, but no end mark: that of "Pop in, dear." is ", dear". A
    question has none, because its last clause is what is asked.
    """
    is_prose = not (text.lstrip().startswith(FENCES) or "|" in text or "?" in text or "\n" in text.strip())
    if len(text) > _MAX_CHARS or not is_prose or TAG.search(text):
        return []
    item_mark = marks.read(text)
    start = item_mark.stop if item_mark is not None else 0
    end_mark = _END.search(text)
    end = end_mark.start() if end_mark is not None else len(text.rstrip())
    first_words = _find_first_words(text, start, end)
    places = {*first_words, *_find_middle_clauses(text, start), *_find_middle_reasons(text, start)}
    for clause_start in (*_find_last_clauses(text, start, end), *_find_last_appositions(text, start, end)):
        # the mark of an abbreviation ends the sentence, too: "We open at 5 p.m., and be quick."
        ends_twice = text[clause_start - 1] == text[end : end + 1] == "."
        places.add((clause_start, end + ends_twice))
    whole_places = [place for place in places if _is_balanced(text[: place[0]]) and _is_balanced(text[slice(*place)])]
    return sorted(whole_places, key=lambda place: (place[1] - place[0], place))[:MAX_SIDE_CLAUSES]


def _find_first_words(text: str, start: int, end: int) -> Iterator[Place]:
    """Yield the first words from `start` on, up to a sign behind which a main clause follows."""
    # signs before the words, such as those of a heading, would go with them
    if not text[start : start + 1].isalpha() or _OPENING.match(text, start, end) is not None:
        return
    for match in _FIRST_WORDS_END.finditer(text, start, end):
        first_words = text[start : match.start()]
        word_count = count_words(first_words)
        if word_count > _MAX_FIRST_WORDS or ":" in first_words or _NEGATION.search(first_words):
            return
        rest = text[match.end() : end]
        refers_back = word_count >= _MIN_MAIN_WORDS and _REFERRING_WORD.match(rest)
        if not refers_back and _may_begin_behind(match, first_words, rest) and _stands_alone(rest):
            yield start, match.end()


def _may_begin_behind(signs: re.Match[str], first_words: str, rest: str) -> bool:
    """Whether a main clause may begin with `rest`, behind the first words of a sentence and these signs."""
    if _JOINING_WORD.match(rest) or _FIRST_HALF.search(first_words):
        return False
    # first words may announce a list: "You need: a coat, and a hat"
    if not _PRONOUN_FIRST.match(rest) and not _VERB.search(rest):
        return False
    if signs["joins"]:
        is_consequence = _is_consequence(f"{signs['joins'].strip()} {rest}", first_words)
        return not is_consequence and _SUBJECT.match(rest) is not None and _stands_alone(first_words)
    if signs.group().startswith(","):
        return _ADDRESS.match(first_words) is not None and _SUBJECT.match(rest) is not None
    # fewer words before a colon or dash are the title of an item, or a label
    return count_words(first_words) >= _MIN_MAIN_WORDS


def _find_middle_clauses(text: str, start: int) -> Iterator[Place]:
    """Yield clauses and forms of address between commas; the second comma stays before a word that joins clauses."""
    for match in _MIDDLE_CLAUSE.finditer(text, start):
        before = text[start : match.start()]
        is_opening = "," not in before and (_OPENING.match(before) or _OPENING_WORD.match(before))
        if is_opening or not count_words(before) or (match["joins"] and not _stands_alone(before)):
            continue
        if _says_more(match) and not match["item"]:
            yield match.start(), match.start("comma") if match["joins"] else match.end()
    for match in _FORM_OF_ADDRESS.finditer(text, start):
        before = text[start : match.start()]
        last_words = before.rpartition(",")[2]
        # one more word between commas, or behind a colon, may be the end of a list
        is_list_end = count_words(last_words) < _MIN_MAIN_WORDS and _GREETING.match(before) is None
        if ":" not in before and not is_list_end:
            yield match.span()


def _says_more(clause: re.Match[str]) -> bool:
    """Whether a clause between commas says more of the words before it, or why what they say is so."""
    if clause["contrast"] or (clause["reason"] and clause["joins"]):
        return clause["joins"] is not None
    has_relative = clause["relative"] is not None or _RELATIVE.search(clause["words"]) is not None
    return has_relative or _PERHAPS_VERB.search(clause["words"]) is None


def _find_middle_reasons(text: str, start: int) -> Iterator[Place]:
    """Yield reasons before a comma that stays: "It is shut because you were lazy, and it rains."."""
    for match in _REASON_IN_THE_MIDDLE.finditer(text, start):
        main_clause = text[start : match.start()]
        follows_clause = _PERHAPS_VERB.search(match["behind"]) and not _VERB.match(match["behind"])
        if follows_clause and not _NEGATION.search(main_clause) and _stands_alone(main_clause):
            yield match.span()


def _find_last_clauses(text: str, start: int, end: int) -> Iterator[int]:
    """Yield where that begins which follows a main clause up to `end`, the place of the end mark."""
    for match in _COMMA.finditer(text, start, end):
        main_clause = text[start : match.start()].rstrip()
        rest = text[match.end() : end]
        begins_clause = match["connective"] and _may_go(main_clause, match["connective"], rest)
        if (";" in match.group() or begins_clause) and _stands_alone(main_clause):
            yield match.start()
    for match in _CLAUSE_WITHOUT_COMMA.finditer(text, start, end):
        main_clause = text[start : match.start()]
        # the last of several predicates: "He comes, looks and takes the key"
        if match["predicate"] and "," in _drop_opening(main_clause):
            continue
        is_denied = match["reason"] and _NEGATION.search(main_clause)
        is_told = not match["reason"] and (_REPORTS.search(main_clause) or _PRONOUN_END.search(main_clause))
        is_consequence = _is_consequence(text[match.end() : end], main_clause)
        if not (is_denied or is_told or is_consequence) and _stands_alone(main_clause):
            yield match.start()


def _find_last_appositions(text: str, start: int, end: int) -> Iterator[int]:
    """Yield where that begins which says more of the last noun: ", a rule that only thieves like"; no end of a list."""
    for match in _LAST_APPOSITION.finditer(text, start, end):
        main_clause = text[start : match.start()]
        _, comma, last_words = _drop_opening(main_clause).rpartition(", ")
        follows_noun = comma and not _PERHAPS_VERB.search(last_words)
        is_list_end = follows_noun or _JOINS_NOUNS.search(match["noun"])
        if not is_list_end and "," not in text[match.end() : end] and _stands_alone(main_clause):
            yield match.start()


def _drop_opening(main_clause: str) -> str:
    """A main clause without the words that open it, such as "On Mondays,"."""
    opening, comma, rest = main_clause.partition(", ")
    return rest if comma and (_OPENING.match(opening) or _OPENING_WORD.match(opening)) else main_clause


def _may_go(main_clause: str, connective: str, rest: str) -> bool:
    """Whether a clause that begins with `connective` and `rest` may go from behind the main clause."""
    if _CONTRAST.match(connective):
        # "not this, but that" says one thing
        is_corrected = _NEGATION.search(main_clause) and not _PRONOUN_FIRST.match(rest.lstrip())
        return not (is_corrected or _LIMITED.match(rest) or _REPORTS.search(main_clause))
    is_alternative = connective.lower() == "or" and _SUBJECT.match(rest.lstrip())
    if is_alternative or _is_consequence(f"{connective}{rest}", main_clause):
        return False
    is_list_end = "," in main_clause and count_words(rest) <= _MAX_LIST_END_WORDS
    return not is_list_end and not _goes_on(connective, rest)


def _is_consequence(clause: str, main_clause: str) -> bool:
    """Whether a clause says what follows if somebody does what the main clause asks for."""
    return _CONSEQUENCE.match(clause) is not None and _SUBJECT.match(main_clause) is None


def _stands_alone(words: str, max_openings: int = 2) -> bool:
    """Whether some words are a main clause, as far as their beginning shows; so many openings may stand before it."""
    is_short = count_words(words) < _MIN_MAIN_WORDS
    if is_short or _OPEN_END.search(words) or _FIRST_HALF.search(words):
        return False
    opening = _OPENING.match(words)
    if opening is not None:
        before_comma, comma, behind_comma = words.partition(", ")
        if comma and max_openings and _stands_alone(behind_comma, max_openings - 1):
            return True
        is_long = count_words(before_comma) >= _LONG_OPENING_WORDS
        return not opening["clause"] and is_long and _PERHAPS_VERB.search(words) is not None
    return _NOUN_FIRST.match(words) is None or _PERHAPS_VERB.search(words) is not None


def _goes_on(connective: str, rest: str) -> bool:
    """Whether the sentence may go on with its verb behind the clause: "The honey, which is dark, costs 9 euros"."""
    _, comma, behind_comma = rest.partition(", ")
    if not comma:
        return False
    coordinates = _COORDINATES.match(connective) and not _RELATIVE.match(rest.lstrip())
    has_verb = _VERB.match(behind_comma) is not None and not _PRONOUN_FIRST.match(behind_comma)
    return has_verb or not (coordinates or _MAY_FOLLOW.match(behind_comma))


def _is_balanced(text: str) -> bool:
    """Whether quotation marks, brackets and signs of emphasis and code come in pairs."""
    return (
        all(text.count(opening) == text.count(closing) for opening, closing in _PAIRED)
        and all(len(sign.findall(text)) % 2 == 0 for sign in _SYMMETRIC)
        and len(_SINGLE_QUOTE.findall(text)) % 2 == 0
        and "\u201e" not in text
    )
