"""Counts of lists: "Here are five tips:" and "These five tips ..." say "four" when one of the five is removed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.ordinals import Ordinals
from aligner_proxy.text.lists.outline import Outline
from aligner_proxy.text.structure import Segment

_NUMBER_WORDS = {
    "en": "two three four five six seven eight nine ten eleven twelve",
    "de": "zwei drei vier f\u00fcnf sechs sieben acht neun zehn elf zw\u00f6lf",
    "fr": "deux trois quatre cinq six sept huit neuf dix onze douze",
    "es": "dos tres cuatro cinco seis siete ocho nueve diez once doce",
}
_WORDS_BY_LANGUAGE = {language: words.split() for language, words in _NUMBER_WORDS.items()}
_MIN_COUNT = 2
"""Smallest new count that is written; a single remaining thing would need other words."""
_COUNTED_NOUNS = (
    rf"(?:{marks.WORDS}|things|ways|facts|examples|suggestions|recommendations|strategies|benefits|advantages|mistakes|"
    r"habits|signs|rows|documents|picks|choices|ingredients|secrets|symptoms|causes|factors|risks|features|types|kinds|differences|principles|techniques|"
    r"tricks|sch\u00e4tze|dinge|beispiele|gr\u00fcnde|motivos|motifs|m\u00f6glichkeiten|vorteile|nachteile|ursachen|fehler|choses|raisons|"
    r"exemples|fa\u00e7ons|avantages|erreurs|cosas|razones|ejemplos|maneras|formas|ventajas|errores)"
)
_COUNT = rf"(?P<count>\d{{1,2}}|{'|'.join(word for words in _WORDS_BY_LANGUAGE.values() for word in words)})"
"""Matches a count in digits or in words of any of the languages."""
_COUNT_OF_NOUN = re.compile(
    rf"\b{_COUNT}"
    rf"(?=(?:[ \t]+[\w'\u2019-]+){{0,3}}?[ \t]+{_COUNTED_NOUNS}\b)",
    re.IGNORECASE,
)

_UNITS = (
    r"(?:times|people|persons|guests|servings|portions|seconds|minutes|hours|days|nights|weeks|months|years|decades|"
    r"cents|euros?|dollars|pounds|degrees|grams|kilos|kilograms|ounces|meters|metres|miles|feet|inches|liters|litres|"
    r"cups|tablespoons|teaspoons|stars|words|pages|personen|sekunden|minuten|stunden|tagen?|n\u00e4chten?|wochen|monaten?|"
    r"jahren?|prozent|gramm|fois|personnes|secondes|heures|jours|nuits|semaines|mois|ans|grammes|litres|veces|personas|"
    r"segundos|minutos|horas|d\u00edas|noches|semanas|meses|a\u00f1os|gramos|litros)"
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
    rf"(?!\d){_COUNT}(?={_COUNTED_NOUN_PHRASE}[*_]{{0,3}}:[*_]{{0,3}}$)",
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


_WORDS_FOR_TWO = {"all": "both", "alle": "beide"}
"""For each word for "all" before a count what is said of two things: "all five", but "both"."""


def update_counts(outline: Outline, pieces: Sequence[Segment], removed: Collection[int], text: str) -> tuple[str, int]:
    """Update the counts that announce lists or refer back to them: (the new text, number of segments with a new count).

    `text` is what is left of the segments `pieces`, whose outline is `outline`, without those at the indexes `removed`.
    """
    changed_count = 0
    position = 0
    for index, changes in sorted(_find_counts(outline, pieces, removed).items()):
        old_text = pieces[index].text
        start = text.find(old_text, position)
        # a segment that was changed otherwise keeps its count
        if start < 0:
            continue
        new_text = old_text
        for old_count, new_count, pattern in changes:
            new_text = _update_counts_in(new_text, pattern, old_count, new_count)
            if (old_count, new_count) == (_MIN_COUNT, 1):
                new_text = _TWO.sub(_say_one, new_text)
        changed_count += new_text != old_text
        text = text[:start] + new_text + text[start + len(old_text) :]
        position = start + len(new_text)
    return text, changed_count


def _find_counts(
    outline: Outline, pieces: Sequence[Segment], removed: Collection[int]
) -> dict[int, list[tuple[int, int, re.Pattern[str]]]]:
    """For each segment that may count a list that lost items, its counts: (items before, items after, pattern)."""
    all_counts = [(count, _BACK_COUNT) for count in outline.lists_above(removed, _BACK_COUNT)]
    for pattern in (_ANNOUNCED_COUNT, _COUNT_OF_NOUN, _COUNT_BEFORE_COLON, _COUNT_IN_BRACKETS):
        all_counts += [(count, pattern) for count in outline.announced_lists(removed, pattern)]
    for pattern in _COUNTS_WITHOUT_COLON:
        all_counts += [(count, pattern) for count in outline.announced_lists(removed, pattern, needs_colon=False)]
    all_counts += [(count, _COUNT_OF_NOUN) for count in Ordinals().count(pieces, removed)]
    counts_by_segment: dict[int, list[tuple[int, int, re.Pattern[str]]]] = {}
    for (index, old_count, new_count), pattern in all_counts:
        counts_by_segment.setdefault(index, []).append((old_count, new_count, pattern))
    return counts_by_segment


def update_later_count(text: str, old_count: int, new_count: int) -> str:
    """Update the counts in a segment that refer back to a list of so many items, of which `new_count` remain."""
    return _update_counts_in(text, _BACK_COUNT, old_count, new_count)


def _update_counts_in(text: str, pattern: re.Pattern[str], old_count: int, new_count: int) -> str:
    """Replace each count in `text` that `pattern` matches and that equals `old_count`."""

    def update_match(match: re.Match[str]) -> str:
        new_word = _replace_count(match["count"], old_count, new_count)
        word_for_two = _WORDS_FOR_TWO.get(match.group().split()[0].lower())
        # of two things nobody says "all two"
        if word_for_two is not None and new_count == _MIN_COUNT and new_word != match["count"]:
            return word_for_two.capitalize() if match.group()[0].isupper() else word_for_two
        start, end = match.span("count")
        return match.string[match.start() : start] + new_word + match.string[end : match.end()]

    return pattern.sub(update_match, text)


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


def _replace_count(word: str, old_count: int, new_count: int) -> str:
    """The new count in the notation of `word`, if `word` means the old count; otherwise `word` unchanged."""
    if new_count < _MIN_COUNT:
        return word
    if word.isdecimal():
        return str(new_count) if int(word) == old_count else word
    for words in _WORDS_BY_LANGUAGE.values():
        # the words begin with two, so the word of n has the index n - 2
        if old_count - _MIN_COUNT < len(words) and word.lower() == words[old_count - _MIN_COUNT]:
            new_word = words[new_count - _MIN_COUNT]
            return new_word.capitalize() if word[0].isupper() else new_word
    return word
