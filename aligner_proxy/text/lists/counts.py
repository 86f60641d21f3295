"""Counts of lists: "Here are five tips:" and "These five tips ..." say "four" when one of the five is removed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.count_words import (
    ANY_NUMBER,
    IDEOGRAPHS,
    MIN_COUNT,
    join_numbers,
    join_words,
    replace_count,
)
from aligner_proxy.text.lists.ordinals import Ordinals
from aligner_proxy.text.lists.outline import FoundCount, Outline
from aligner_proxy.text.lists.references import replace_outside_code
from aligner_proxy.text.structure import Segment, replace_segments

_COUNTED_NOUNS = (
    rf"(?:{marks.WORDS}|things|ways|facts|examples|suggestions|recommendations|strategies|benefits|advantages|mistakes|"
    r"habits|signs|rows|documents|picks|choices|ingredients|secrets|symptoms|causes|factors|risks|features|types|kinds|differences|principles|techniques|"
    r"tricks|sch\u00e4tze|dinge|beispiele|gr\u00fcnde|motivos|motifs|m\u00f6glichkeiten|vorteile|nachteile|ursachen|fehler|choses|raisons|"
    r"exemples|fa\u00e7ons|avantages|erreurs|cosas|razones|ejemplos|maneras|formas|ventajas|errores"
    rf"|{join_words('nouns')})"
)
_COUNT = rf"(?P<count>\d{{1,2}}|{ANY_NUMBER})"
"""Matches a count in digits or in words of any of the languages."""
_COUNT_OF_NOUN = re.compile(
    rf"\b{_COUNT}"
    rf"(?=(?:[ \t]+[\w'\u2019-]+){{0,3}}?[ \t]+{_COUNTED_NOUNS}\b)",
    re.IGNORECASE,
)

_UNITS = (
    r"(?:times|people|persons|guests|servings|portions|seconds|minutes|hours|days|nights|weeks|months|years|decades|"
    r"centuries|quarters|"
    r"cents|euros?|dollars|pounds|degrees|grams|kilos|kilograms|ounces|meters|metres|miles|feet|inches|liters|litres|"
    r"cups|tablespoons|teaspoons|stars|words|pages|personen|sekunden|minuten|stunden|tagen?|n\u00e4chten?|wochen|monaten?|"
    r"jahren?|jahrzehnten?|jahrhunderten?|prozent|gramm|meter|kilometer|"
    r"fois|personnes|secondes|heures|jours|nuits|semaines|mois|ans|ann\u00e9es|d\u00e9cennies|si\u00e8cles|"
    r"grammes|litres|veces|personas|"
    r"segundos|minutos|horas|d\u00edas|noches|semanas|meses|a\u00f1os|d\u00e9cadas|siglos|gramos|litros"
    rf"|{join_words('units')})"
)
"""Nouns before which a number is an amount more often than the count of a list."""
_ANY_NOUN = rf"(?!{_UNITS}\b)(?:[^\W\d_]{{2,}}[sx]|(?-i:[A-Z\u00c4\u00d6\u00dc])[^\W\d_]+(?:en|er|e|n))\b"
"""Matches what has the form of a plural; in German one with a capital letter."""
_ANNOUNCED_COUNT = re.compile(
    r"(?:(?:^[#*_> \t]{0,9}|\b(?:are|have|has|found|need|needs|offers?|recommend|suggest|picked|chose|includes?|"
    r"following|top|gibt es|es gibt|gelten|folgenden?|sind|haben?|hat|gefunden|(?:ben\u00f6tigen|brauchen)(?: sie)?|"
    r"voici|a|existe|avez|faut|trouv\u00e9|hay|necesita|tiene|son)[ \t]+)"
    r"(?:(?:the|these|my|our|your|their|only|[a-z]+['\u2019]s|diese|die|ihnen|les|ces|vos|los|las|estos|"
    r"estas)[ \t]+(?:top[ \t]+)?)?)"
    rf"{_COUNT}"
    rf"(?=(?:[ \t]+(?!(?:{_UNITS}|of|or|and|to|in|per|a|the)\b)[\w'\u2019-]+){{0,2}}?[ \t]+"
    rf"(?:{_COUNTED_NOUNS}|{_ANY_NOUN})\b)"
    r"(?![^\n]*(?:[,;]|\b(?:and|but|und|et|y)\b))",
    re.IGNORECASE,
)
"""Matches the count of a list in the line above it, if the line names nothing else: "I found four hotels nearby:"."""
_WORDS_BETWEEN = rf"(?:[ \t]+(?!(?:{_UNITS}|of|or|and|to|in|per|a|the|for)\b)[\w'\u2019-]+){{0,2}}?[ \t]+"
"""Matches up to two words between a count and its noun, with the spaces around them."""
_COUNTED_NOUN_PHRASE = rf"{_WORDS_BETWEEN}(?:{_COUNTED_NOUNS}|{_ANY_NOUN})"
"""Matches the noun behind a count, with what is before it."""
_COUNT_BEFORE_COLON = re.compile(
    r"(?<!\bto )\b(?!(?:my|your|our|their|his|her|its|the|these|those|for|with|of|in|at|to|from|by|into|on|over|than|"
    r"and|or|day|week|month|year|step|phase|level|part|grade|class|round|stage|unit|module)\b)(?-i:[a-z]{2,})[ \t]+"
    rf"(?!\d){_COUNT}(?={_COUNTED_NOUN_PHRASE}[*_]{{0,3}}[ \t\u00a0\u202f]?:[*_]{{0,3}}$)",
    re.IGNORECASE,
)
"""Matches a count in words before the colon, whatever the verb is: "The town plans four measures:"."""
_COUNT_IN_BRACKETS = re.compile(
    r"(?:(?<=s)|(?<=to do)|(?<=open)|(?<=done)) \((?P<count>\d{1,2})(?=\)[*_:]{0,4}$)", re.IGNORECASE
)
"""Matches the count in brackets behind a plural: "## Actions (4)"."""
_COUNTS_WITHOUT_COLON = (
    re.compile(rf"\b{_COUNT}(?={_COUNTED_NOUN_PHRASE}[ \t]+(?:(?:listed|shown)[ \t]+)?below\b)", re.IGNORECASE),
    re.compile(rf"\bfollowing[ \t]+{_COUNT}(?={_COUNTED_NOUN_PHRASE}\b)", re.IGNORECASE),
    re.compile(
        rf"\b(?:are|have|has|found|need|offers?|recommend|suggest|see)[ \t]+{_COUNT}"
        rf"(?={_WORDS_BETWEEN}(?:{marks.WORDS}|ways)"
        r"(?:[ \t]+(?:to|for)\b[^\n,;:.!?]{1,60})?[.!][*_]{0,3}$)",
        re.IGNORECASE,
    ),
)
"""Match a count in the line above a list that need not end in a colon: "See the four areas below.", "The following four
rules ...", and "You have three options."."""
_TWO = re.compile(
    r"\b(?P<verb>are |have |need |found |offer |recommend |suggest )(?P<count>two|2)"
    r"(?P<between>(?: [\w'\u2019-]+){0,2}?) "
    rf"(?P<noun>(?!{_UNITS}\b)[a-z]+[^s]s)(?=(?: (?:to|for|in|at|near|with|on)\b[^\n]*)?:[*_]{{0,3}}$)"
    r"(?![^\n]*(?:[,;]|\b(?:and|but|they|them|their|which|that|these|both|each|are|have|do)\b))",
    re.IGNORECASE,
)
"""Matches what says "two" of a list in the line above it, in a sentence that says "one" with the noun alone changed."""
_PLURALS_IN_Y = re.compile(r"(?:strateg|categor|possibilit|opportunit|polic|activit)ies")
_IRREGULAR_PLURALS = re.compile(r"(?:ies|oes|ves|[sxz]es|[cs]hes)$")
_VERBS_OF_ALL = (
    "are|were|have|had|can|could|will|would|must|should|may|might|do|did|apply|begin|belong|come|contain|cost|count|differ|"
    "fit|follow|get|give|go|help|include|keep|lead|let|look|make|matter|mean|need|offer|open|require|run|serve|share|"
    "show|start|stay|support|take|use|work"
)
"""Verbs behind "all four", which show that no other noun is counted."""
_WORDS_WITHOUT_NOUN = "in|at|on|to|with|from|by|for|before|after|and|or|but|if|when|because|together|online"
"""Other words behind "all four", which show the same."""
_BACK_COUNT = re.compile(
    r"\b(?:(?:of )?(?P<demonstrative>these|those)|of the|all|der|diese[rn]?|alle|des|ces|estos|estas|de los|"
    rf"de las)[ \t]+{_COUNT}"
    rf"(?=[ \t]*[,.;:]|(?:[ \t]+[\w'\u2019-]+){{0,2}}?[ \t]+{_COUNTED_NOUNS}\b"
    rf"|[ \t]+(?:{_VERBS_OF_ALL}|of these|of them|{_WORDS_WITHOUT_NOUN})\b"
    rf"|(?(demonstrative){_COUNTED_NOUN_PHRASE}|(?!)))",
    re.IGNORECASE,
)
"""Matches a count that refers back to a list: "These five tips"."""
_OTHER_NOUN = rf"(?!{_UNITS}\b)(?:[^\W\d_]{{3,}}(?:[ie]|en)|[\u0430-\u044f\u0451]{{4,}})\b"
"""Matches what may be a plural in Italian, Dutch or Russian; it needs more evidence than `_ANY_NOUN`."""
_ANNOUNCED_ELSEWHERE = re.compile(
    rf"(?:^[*_> \t]{{0,9}}(?!\d)(?=[^\n]*:[*_]{{0,3}}$)|\b(?:{join_words('announcing')})[ \t]+"
    rf"(?:(?:{join_words('these')}|{join_words('the')})[ \t]+)?)"
    rf"(?P<count>\d{{1,2}}|{join_numbers('it', 'pt', 'nl', 'pl', 'ru')})"
    rf"(?=(?:[ \t]+(?!{_UNITS}\b)[\w'\u2019-]+){{0,2}}?[ \t]+(?:{_COUNTED_NOUNS}\b|{_ANY_NOUN}|{_OTHER_NOUN}))"
    rf"(?![^\n]*(?:[,;]|[ \t](?:e|en|i|\u0438)[ \t]+(?:{ANY_NUMBER})\b))",
    re.IGNORECASE,
)
"""Matches the count of a list in the line above it in further languages: "Ecco quattro alberghi:"."""
_COUNT_AT_END = re.compile(
    rf"\b(?:are|sind|sont|son|sono|s\u00e3o|zijn)[ \t]+{_COUNT}(?=[ \t\u00a0\u202f]?:[*_]{{0,3}}$)", re.IGNORECASE
)
"""Matches a count before a colon: "I corsi sono tre:"."""
_THESE_COUNT = re.compile(
    rf"\b(?:{join_words('these')})[ \t]+{_COUNT}(?=[ \t]+(?!{_UNITS}\b)[^\W\d_]{{3,}}\b(?![ \t]+{_UNITS}\b))",
    re.IGNORECASE,
)
"""Matches a count of anything right behind a list, if "these" precedes it: "Ces trois gestes"."""
_NAMED_COUNT = re.compile(
    rf"\b(?:{join_words('the')})[ \t]+{_COUNT}(?=(?P<named>(?:[ \t]+(?!{_UNITS}\b)[^\W\d_]+){{1,2}}))", re.IGNORECASE
)
"""Matches a count behind a list of what the text above names: "The three courses" below "These are our courses:"."""
_COUNTERS = r"(?:[\u500b\u4e2a\u70b9\u9ede\u6761\u689d\u9879\u9805\u79cd\u7a2e\u6b65\u3064]|\u30b9\u30c6\u30c3\u30d7)"
_IDEOGRAPHIC_COUNT = (
    rf"(?P<count>\d{{1,2}}|[{IDEOGRAPHS}])(?={_COUNTERS})"
    r"(?![\u70b9\u9ede][\u949f\u9418]|[\u500b\u4e2a](?:[\u6708\u4eba\u5e74]|\u5c0f\u65f6|\u661f\u671f|\u5c0f\u6642))"
)
"""Matches a count before a Chinese or Japanese counter, but not that of hours, weeks, months or people."""
_THESE_IDEOGRAPHIC = re.compile(
    r"(?:\u8fd9|\u9019|\u4e0a\u8ff0|\u4ee5\u4e0a|\u3053\u306e|\u3053\u308c\u3089\u306e|\u4e0a\u8a18\u306e|\u4ee5\u4e0a\u306e)"
    rf"{_IDEOGRAPHIC_COUNT}"
)
_FOLLOWING = (
    r"(?:\u4ee5\u4e0b|\u4e0b\u9762|\u4e0b\u5217|\u5982\u4e0b|\u6b21\u306e|\u4ee5\u4e0b\u306e|\u4e0b\u8a18\u306e)"
)
_FOLLOWING_IDEOGRAPHIC = re.compile(rf"{_FOLLOWING}(?:\u7684)?{_IDEOGRAPHIC_COUNT}")
_ANNOUNCED_IDEOGRAPHIC = re.compile(
    rf"(?:{_FOLLOWING}\u7684?|[\u6709\u5171\u306f\u304c\u3092\u306b]){_IDEOGRAPHIC_COUNT}"
)
"""Match the count of a list in Chinese or Japanese: behind the list, above it in any sentence ("the following three"),
and above it in a line with a colon."""
_WORD = re.compile(r"[^\W\d_]+")
_MIN_STEM = 4
"""Fewest letters of a word that say which thing it names."""
_COUNTS_BEFORE_COLON = (
    _ANNOUNCED_COUNT,
    _COUNT_OF_NOUN,
    _COUNT_BEFORE_COLON,
    _COUNT_IN_BRACKETS,
    _ANNOUNCED_ELSEWHERE,
    _COUNT_AT_END,
    _ANNOUNCED_IDEOGRAPHIC,
)
"""Match the count of a list in a heading, or in the line with a colon above it."""
_COUNTS_IN_LINE_ABOVE = (*_COUNTS_WITHOUT_COLON, _FOLLOWING_IDEOGRAPHIC)
"""Match the count of a list in the line above it, with or without a colon."""
_COUNTS_BEFORE_SENTENCES = (
    _COUNT_OF_NOUN,
    _ANNOUNCED_COUNT,
    _ANNOUNCED_ELSEWHERE,
    _ANNOUNCED_IDEOGRAPHIC,
    re.compile(rf"\u6709(?P<count>[{IDEOGRAPHS}])(?=[\u3002\uff1a:])"),
)
"""Match the count of a series of sentences ("First, ...") in the sentence before it."""
_COUNTS_BEHIND_LISTS = (_NAMED_COUNT, _BACK_COUNT, _THESE_COUNT, _THESE_IDEOGRAPHIC)
"""Match the count of a list in the line behind it."""
_MAX_OUTLINES = 32
"""Most times that the outline of a growing answer is read, because a hostile one may have thousands of counts."""
_WORDS_FOR_TWO = {"all": "both", "alle": "beide"}
"""For each word for "all" before a count what is said of two things: "all five", but "both"."""


def update_counts(outline: Outline, pieces: Sequence[Segment], removed: Collection[int], text: str) -> tuple[str, int]:
    """Update the counts that announce lists or refer back to them: (the new text, number of segments with a new count).

    `text` is what is left of the segments `pieces`, whose outline is `outline`, without those at the indexes `removed`.
    """
    all_counts = list(outline.lists_above(removed, _COUNTS_BEHIND_LISTS, _names_thing))
    all_counts += outline.announced_lists(removed, _COUNTS_BEFORE_COLON)
    all_counts += outline.announced_lists(removed, _COUNTS_IN_LINE_ABOVE, needs_colon=False)
    for count in Ordinals().count(pieces, removed):
        all_counts += [(count, pattern) for pattern in _COUNTS_BEFORE_SENTENCES]
    return _write_counts(all_counts, pieces, text)


class CountsBehindLists:
    """The counts that refer back to lists, in an answer that is released piece by piece."""

    def __init__(self) -> None:
        self.changed = 0
        """Number of segments with a new count."""
        self._pieces: list[Segment] = []
        """All segments so far."""
        self._removed: set[int] = set()
        """Indexes in `_pieces` of those that are removed."""
        self._outlines_left = _MAX_OUTLINES
        """How many times more the outline of the answer may be read."""

    def update(self, pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
        """Update the counts in `text`, which is what is left of the next `pieces` without those in `removed`."""
        first = len(self._pieces)
        self._pieces += pieces
        self._removed.update(first + index for index in removed)
        has_count = any(pattern.search(text) for pattern in _COUNTS_BEHIND_LISTS)
        if not (self._removed and has_count and self._outlines_left):
            return text
        self._outlines_left -= 1
        all_counts = Outline(self._pieces).lists_above(self._removed, _COUNTS_BEHIND_LISTS, _names_thing)
        new_counts = [(count, pattern) for count, pattern in all_counts if count[0] >= first]
        text, changed_count = _write_counts(new_counts, self._pieces, text)
        self.changed += changed_count
        return text


def _write_counts(all_counts: Sequence[FoundCount], pieces: Sequence[Segment], text: str) -> tuple[str, int]:
    """Write new counts into `text`, which has segments of `pieces`: (the new text, number of segments with one)."""
    new_texts: dict[int, str] = {}
    answer = "".join(piece.text + piece.gap for piece in pieces) if all_counts else ""
    for (index, old_count, new_count), pattern in all_counts:
        new_text = new_texts.get(index, pieces[index].text)
        new_text = _update_counts_in(new_text, pattern, old_count, new_count, answer)
        if (old_count, new_count) == (MIN_COUNT, 1):
            new_text = _TWO.sub(_say_one, new_text)
        new_texts[index] = new_text
    return replace_segments(text, ((pieces[index].text, new_texts[index]) for index in sorted(new_texts)))


def _names_thing(count: re.Match[str], text_above: str) -> bool:
    """Whether what a count names is in the text above its list, perhaps with another ending, if that is necessary."""
    if count.re is not _NAMED_COUNT:
        return True
    stems = {_stem(word) for word in _WORD.findall(text_above)} - {""}
    return any(_stem(word) in stems for word in _WORD.findall(count["named"]))


def _stem(word: str) -> str:
    """The beginning of a word, without the ending of a plural; empty for a short word."""
    if len(word) <= _MIN_STEM:
        return word.casefold() if len(word) == _MIN_STEM else ""
    return word[:-1].casefold().rstrip("e")


def _update_counts_in(text: str, pattern: re.Pattern[str], old_count: int, new_count: int, answer: str) -> str:
    """Replace each count in `text` that `pattern` matches and that equals `old_count`, except in code spans.

    Of things that the text above names, only the first: "le 5 mai" is no count of "les cinq dates".
    """
    first_start = next((match.start() for match in pattern.finditer(text)), -1)

    def update_match(match: re.Match[str]) -> str:
        if pattern is _NAMED_COUNT and match.start() != first_start:
            return match.group()
        start, end = match.span("count")
        new_word = replace_count(
            match["count"], old_count, new_count, before=text[:start], behind=text[end:], answer=answer
        )
        word_for_two = _WORDS_FOR_TWO.get(match.group().split()[0].lower())
        # of two things nobody says "all two"
        if word_for_two is not None and new_count == MIN_COUNT and new_word != match["count"]:
            return word_for_two.capitalize() if match.group()[0].isupper() else word_for_two
        return text[match.start() : start] + new_word + text[end : match.end()]

    return replace_outside_code(pattern, text, update_match)


def _say_one(match: re.Match[str]) -> str:
    """The singular of what the match says of two things: "are two ways" becomes "is one way"."""
    noun = match["noun"]
    if _PLURALS_IN_Y.fullmatch(noun):
        noun = f"{noun[:-3]}y"
    elif not _IRREGULAR_PLURALS.search(noun):
        noun = noun[:-1]
    else:
        return match.group()
    verb = "is " if match["verb"] == "are " else match["verb"]
    return f"{verb}{'1' if match['count'] == '2' else 'one'}{match['between']} {noun}"
