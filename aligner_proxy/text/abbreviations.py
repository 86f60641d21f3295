"""Abbreviations: whether the full stop of an abbreviation also ends the sentence.

The full stop ends the sentence if the words before can be a sentence by themselves, and if a capitalised word follows
that is not one of the names listed below. Any word can be a name. Therefore, behind an initial or a title only the
listed words that hardly ever are names begin a sentence. Behind "plan B" or "U.S." every capitalised word begins a
sentence, except those that often follow it.
"""

from __future__ import annotations

import re

LONGEST_ABBREVIATION = 48
"""Characters of a sentence before a full stop that are looked at."""

_ABBREVIATION_CHARS = 12
"""Characters of the longest abbreviation, with its full stop."""
_INTRODUCING = (
    r"[Ee]\.g|[Ii]\.e|vs|cf|viz|approx|Fig|Figs|Eq|Eqs|Vol|pp|Nos|ca|z\.\s?B|d\.\s?h|u\.\s?a|s\.\s?o|bzw|vgl|bspw|evtl"
    r"|ggf|inkl|zzgl|Nr|Abb|Bd|Kap|p\.\s?ex|c\.-\u00e0-d|p\.\s?ej|EE|ad es|bijv"
    r"|d\.w\.z|o\.a|t\.a\.v|m\.b\.t|bl\.a|d\.v\.s"
    r"|f\.eks|np|tzn|tj|tzv"
    "|p\u00e1g|n\u00fam|nap\u0159|\u00f6rn"
)
"""Abbreviations that never end a sentence, since what they introduce follows."""
_TITLES = (
    r"Mr|Mrs|Ms|Mx|Dr|Prof|St|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Gov|Sen|Rep|Pres|Mt|Ft|Messrs|Hr|Fr|Dipl|Ing|Hl|Mme|Mlle"
    r"|Mgr|Sra|Srta|Sr|Dna|Sig|Sigg|Dott|Avv|Dhr|Mevr|Mw|Drs|Ud|Uds"
)
"""Abbreviations that stand before a name."""
_LAST_IN_NAME = r"Inc|Ltd|Co|Corp|Bros|Jr|Esq|Ph\.D|M\.D|B\.A|M\.A|Ave|Blvd|Rd"
"""Abbreviations at the end of a name or within it."""
_BEFORE_NUMBER = (
    r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec"
    r"|Sec|sec|Ch|ch|Art|art|Ext|ext|Apt|apt|Rm|tel|Tel|vol|fig|no|Abs|Ziff|Anm"
)
"""Abbreviations before a number, which may also be the last word of a sentence."""
_TIME_OF_DAY = r"[ap]\.\s?m"
_AND_SO_ON = r"etc|usw|ecc|enz|osv|itd|itp|atd|et al|u\.\s?v\.\s?m"
"""Abbreviations that end an enumeration or a name, and perhaps the sentence."""
_COUNTRIES = r"U\.\s?S\.\s?A|U\.\s?S|U\.\s?K|U\.\s?N|E\.\s?U|D\.\s?C|EE\.\s?UU"
_ABBREVIATION = re.compile(
    rf"(?<![^\W\d_])(?<![^\W\d_]\.)(?:(?P<inside>{_INTRODUCING})|(?P<last>{_LAST_IN_NAME})|(?P<hour>{_TIME_OF_DAY})|(?P<rest>{_AND_SO_ON})"
    rf"|(?P<country>{_COUNTRIES})|(?P<title>{_TITLES})|(?P<number>No|{_BEFORE_NUMBER})|(?P<letter>[a-z]))\.$"
    r"|(?<![^\W\d_])(?<![+/=&])(?P<initial>[A-Z\u00c0-\u00d6\u00d8-\u00de])\.$|(?<![\w.,])(?P<ordinal>\d{1,2})\.$"
)
ABBREVIATIONS = frozenset({"ex", "ej", "UU", "al", "es"}).union(
    part
    for parts in (_INTRODUCING, _TITLES, _BEFORE_NUMBER, _LAST_IN_NAME, _AND_SO_ON, "No")
    for part in parts.split("|")
    if part.isalpha()
)
"""Abbreviations that consist of letters, and the last words of other abbreviations."""


def word_set(text: str) -> frozenset[str]:
    """The words of a text that are separated by white space."""
    return frozenset(text.split())


# Words that begin a sentence and are hardly ever a name or a part of one. "Le", "La", "De", "May", "Will" are.
_SENTENCE_STARTERS = word_set(
    "The This That These Those There It You They She We He I A An My Your His Her Its Our Their What When Where "
    "Why How "
    "If In On At To For From With But And Or So Then Now Only Just Not No Yes Please Does Did Is Are Was Were Can "
    "Could Would Should Must Have Has Had As By While Although Because Since Once After Before Also Thus Therefore "
    "However Here Every Each Any Some Many Most All Both Nobody Everybody Everyone Never Always Perhaps Maybe Even "
    "Don't Do You're It's I'm We're They're "
    "Die Das Ein Eine Sie Wir Ihr Ich Er Es Man Dies Diese Dieser Dieses Dann Danach Wenn Weil Aber Und Oder "
    "Nicht Kein "
    "Keine Nur Auch Hier Dort Jetzt Bitte Ja Nein Mit Im Am Als Wie Wer Warum Nach Bei Deine Ihre Unser Unsere "
    "Un Une Elle Ils Elles Nous Vous Tu Je Cet Cette Ces Mais Donc Puis Dans Pour Avec Oui Ne Votre Vos "
    "Una Ella Ellos Nosotros Usted Ustedes Yo Eso Este Esta Estos Pero Si S\u00ed En Con Para Por Solo Su "
    "Lui Lei Noi Voi Io Ma Se Non S\u00ec Per Questo Questa Gli Ele Ela Voc\u00ea N\u00f3s Eu Mas N\u00e3o Sim Em Com "
    "Het Een Hij Zij Wij Je Jij Ik Dit Dat Maar Niet Nee Det Den Jag Hon Han Vi Du Men Och Inte Jeg Hun Ikke Og "
    "To Nie Tak Ale Ty Pan Ne Ano Bir Bu Ve Hay\u0131r Evet"
)
_WORDS_BEFORE_LETTER = word_set(
    "plan option step part group type grade class section appendix figure exhibit team level model size letter answer "
    "vitamin hepatitis block wing gate platform zone area room hall building version variant case point item "
    "column row "
    "table schedule annex form line route category tier box lot drive channel question choice exit bus track terminal "
    "schritt teil gruppe typ klasse abschnitt anhang punkt antwort variante buchstabe buchstaben gleis linie stufe "
    "\u00e9tape partie groupe classe annexe lettre vitamine r\u00e9ponse ligne niveau opci\u00f3n paso parte "
    "grupo tipo "
    "clase letra vitamina respuesta l\u00ednea opzione passo classe lettera risposta linea op\u00e7\u00e3o etapa letra "
    "a an optie stap deel groep klasse antwoord lijn spoor steg grupp grupa opcja krok se\u00e7enek"
)
"""Words before a single letter that is no initial: "plan B"."""
_AFTER_COUNTRY = word_set(
    "Army Navy Air Marine Marines Coast Congress Congressman Senate Senator House President Presidents Government "
    "Department Treasury Supreme Court Constitution Dollar Dollars Open Postal Post Embassy Census Federal State "
    "States "
    "Secretary Representative Representatives Attorney District Geological Food Fish Forest Steel Bank Virgin Route "
    "Highway Customs Citizenship Patent National Military Ambassador Capitol Soccer Olympic Team Masters Grand "
    "Security "
    "Council General Charter Secretary-General Development Prime Parliament Royal Home Foreign Environmental Economic "
    "Mint Bureau Office Agency Copyright Tax Code Internal Securities Trade Chamber Interior Special Secret Civil "
    "Commission Ej\u00e9rcito Armada Gobierno Minister Ministry Human High Women Children Metro Circuit Consulate "
    "Pacific Atlantic Southern Northern Eastern Western African European American British English"
)
_AFTER_HOUR = word_set(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August "
    "September October November December Eastern Pacific Central Mountain Atlantic Standard Daylight Greenwich London "
    "Paris Berlin Tokyo EST EDT CST CDT MST MDT PST PDT GMT UTC BST CET CEST ET PT CT IST JST"
)
_WITHIN_NAME = word_set(
    "Station Day Boulevard Avenue Street Stadium Park High Middle Elementary School Memorial Library Center "
    "Centre Hall "
    "University College Foundation Airport Bridge Square Drive Road Way Chief CEO CFO CTO President Chairman "
    "Chairwoman "
    "Chair Director Founder Co-founder Vice Executive Senior Managing General Inc Ltd Corp Co LLC KG GmbH North South "
    "East West Northeast Northwest Southeast Southwest Limited Incorporated Professor M.D Esq II III IV"
)
_SURNAMES = word_set("No So An He Man Ma Die Vi Tu Su Io Du Per To Nie Ham")
"""Words of `_SENTENCE_STARTERS` that are also surnames ("Dr. No"), so they prove nothing behind a title or initial."""
_BEFORE_SAINT = word_set("Mount Port Fort Lake Sault Bury Ile Cape Point Pont Rue Via")
_AFTER_ORDINAL = word_set(
    "Januar Februar M\u00e4rz April Mai Juni Juli August September Oktober November Dezember J\u00e4nner Jahrhundert "
    "Jahrhunderts Etage Stock Stockwerk Klasse Mal Platz Lebensjahr Auflage Kapitel Geburtstag Weltkrieg Spieltag "
    "Bundesliga Liga Woche Tag Monat Jahrestag Semester Stunde Minute Gang Stufe Reihe Teil Band Akt Bezirk Montag"
)
_BEFORE_ORDINAL = word_set(
    "am der den dem des im zum vom das die bis seit ab und oder zur beim ihrem ihren seinem seinen vor nach "
    "sp\u00e4testens fr\u00fchestens einschlie\u00dflich montag dienstag mittwoch donnerstag freitag samstag sonntag"
)
_GERMAN_MONTHS = word_set("Januar Februar M\u00e4rz Mai Juni Juli Oktober Dezember J\u00e4nner")
"""Names of months that are no English words, so that a day before them proves a date."""
_DAYS_OF_LONGEST_MONTH = 31
_ROMAN_NUMERAL = re.compile(r"[IVXLC]{2,}|[VX]")
_CONTINUING_BY_KIND = {"hour": _AFTER_HOUR, "country": _AFTER_COUNTRY, "last": _WITHIN_NAME | _AFTER_HOUR}
"""For some kinds of abbreviations, the capitalised words that continue the sentence behind them."""
_MIN_WORDS = 3
"""Fewest words of a sentence, its abbreviation included."""
_WORD = re.compile(r"[\w'\u2019.-]+")


def ends_in_abbreviation(before: str) -> bool:
    """Whether the full stop at the end of `before` may belong to an abbreviation, an initial or a number."""
    return _ABBREVIATION.search(before, max(0, len(before) - _ABBREVIATION_CHARS)) is not None


def ends_sentence(before: str, word: str, behind: str) -> bool:
    """Whether the sentence so far (`before`), which may end in an abbreviation, ends there if `word` follows.

    The last `LONGEST_ABBREVIATION` characters of it suffice. `behind` is the character after `word`, empty if none.
    """
    match = _ABBREVIATION.search(before)
    if match is None:
        return True
    if word[:1].islower():
        return False
    kind = match.lastgroup
    words_before = _WORD.findall(before[: match.start()])
    is_initial = len(word) == 1 and behind == "."
    if kind == "ordinal":
        return not _continues_ordinal(match["ordinal"], words_before, word)
    # in "z. B." and "p. 45" the next letter or number belongs to the abbreviation
    if kind == "letter":
        return not is_initial and not (match["letter"] == "p" and word[:1].isdecimal())
    # "no. 5", but also "She said no. (I did not.)"
    if kind == "number" and match["number"] != "No" and not word[:1].isalpha():
        return not word[:1].isdecimal()
    if not word[:1].isalpha() or kind == "inside":
        return False
    if kind == "number":
        return not (_ROMAN_NUMERAL.fullmatch(word) or is_initial)
    return kind == "rest" or _begins_sentence(match, words_before, word, is_initial=is_initial)


def _continues_ordinal(digits: str, words_before: list[str], word: str) -> bool:
    """Whether a number with a full stop is a German ordinal before a capitalised `word`: "am 5. Tag", "15. Februar".

    `words_before` are the words before the number.
    """
    if not words_before:
        return False
    is_day = 1 <= int(digits) <= _DAYS_OF_LONGEST_MONTH
    return (word in _GERMAN_MONTHS and is_day) or (
        word in _AFTER_ORDINAL and words_before[-1].lower() in _BEFORE_ORDINAL
    )


def _begins_sentence(match: re.Match[str], words_before: list[str], word: str, *, is_initial: bool) -> bool:
    """Whether a capitalised `word` begins a sentence behind the abbreviation that `match` found.

    `words_before` are the words before the abbreviation. `is_initial` says whether `word` is an initial such as "J.".
    """
    kind = match.lastgroup or ""
    is_starter = word.replace("\u2019", "'") in _SENTENCE_STARTERS and not is_initial
    has_small_word = any(part[:1].islower() for part in words_before)
    may_be_sentence = len(words_before) + 1 >= _MIN_WORDS and has_small_word
    if kind in _CONTINUING_BY_KIND:
        return is_starter or (may_be_sentence and word not in _CONTINUING_BY_KIND[kind])
    is_starter = is_starter and word not in _SURNAMES
    if kind == "title":
        return (is_starter and may_be_sentence) or (match["title"] == "St" and _ends_street(words_before, word))
    follows_label = bool(words_before) and words_before[-1].casefold() in _WORDS_BEFORE_LETTER
    return is_starter or (follows_label and not is_initial)


def _ends_street(words_before: list[str], word: str) -> bool:
    """Whether "St." means a street and ends a sentence ("on Main St."), rather than a saint ("near St. Peter")."""
    last_word = words_before[-1] if words_before else ""
    is_street = last_word[:1].isupper() and last_word not in _BEFORE_SAINT
    return is_street and any(part[:1].islower() for part in words_before) and word not in _WITHIN_NAME
