"""Counts of lists: "Here are five tips:" and "These five tips ..." are updated when one of the five is removed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from operator import itemgetter

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.ordinals import Ordinals
from aligner_proxy.text.lists.outline import Outline
from aligner_proxy.text.structure import Segment

_IN_WORDS = {
    "en": "two three four five six seven eight nine ten eleven twelve",
    "de": "zwei drei vier f\u00fcnf sechs sieben acht neun zehn elf zw\u00f6lf",
    "fr": "deux trois quatre cinq six sept huit neuf dix onze douze",
    "es": "dos tres cuatro cinco seis siete ocho nueve diez once doce",
}
_WORDS = {language: words.split() for language, words in _IN_WORDS.items()}
_SMALLEST = 2
"""Counts below this stay as they were, because a single remaining thing would need other words."""
_NOUNS = (
    rf"(?:{marks.WORDS}|things|ways|facts|examples|suggestions|recommendations|strategies|benefits|advantages|mistakes|"
    r"habits|signs|rows|secrets|symptoms|causes|factors|risks|features|types|kinds|differences|principles|techniques|"
    r"tricks|sch\u00e4tze|dinge|beispiele|gr\u00fcnde|motivos|motifs|m\u00f6glichkeiten|vorteile|nachteile|ursachen|fehler|choses|raisons|"
    r"exemples|fa\u00e7ons|avantages|erreurs|cosas|razones|ejemplos|maneras|formas|ventajas|errores)"
)
_COUNT = re.compile(
    rf"\b(?P<count>\d{{1,2}}|{'|'.join(word for words in _WORDS.values() for word in words)})"
    rf"(?=(?:[ \t]+[\w'\u2019-]+){{0,3}}?[ \t]+{_NOUNS}\b)",
    re.IGNORECASE,
)

_BACK_COUNT = re.compile(
    r"\b(?:(?:of )?(?:these|those)|of the|all|der|diese[rn]?|alle|des|ces|estos|estas|de los|de las)[ \t]+"
    rf"(?P<count>\d{{1,2}}|{'|'.join(word for words in _WORDS.values() for word in words)})"
    rf"(?=[ \t]*[,.;:]|(?:[ \t]+[\w'\u2019-]+){{0,2}}?[ \t]+{_NOUNS}\b|[ \t]+(?:are|have|can|will|of these|of them)\b)",
    re.IGNORECASE,
)
"""Matches a count that refers back to a list: "These five tips"."""


_PAIRS = {"all": "both", "alle": "beide"}
"""What is said of two things in place of a word with their count."""


def update_counts(pieces: Sequence[Segment], removed: Collection[int], text: str) -> tuple[str, int]:
    """Update the counts that announce lists or refer back to them: (the new text, number of segments with a new count).

    `text` is what is left of `pieces` without the `removed` ones.
    """
    outline = Outline(pieces)
    changed = 0
    position = 0
    forms = dict.fromkeys(outline.lists_above(removed, _BACK_COUNT), _BACK_COUNT)
    forms |= dict.fromkeys(outline.announced_lists(removed, _COUNT), _COUNT)
    forms |= dict.fromkeys(Ordinals().count(pieces, removed), _COUNT)
    for (segment, before, after), form in sorted(forms.items(), key=itemgetter(0)):
        piece = pieces[segment].text
        found_at = text.find(piece, position)
        # the line is no longer as it was written, so neither may its count be
        if found_at < 0:
            continue
        new_piece = form.sub(lambda match, b=before, a=after: _update_match(match, b, a), piece)  # type: ignore[misc]
        changed += new_piece != piece
        text = text[:found_at] + new_piece + text[found_at + len(piece) :]
        position = found_at + len(new_piece)
    return text, changed


def _update_match(match: re.Match[str], before: int, after: int) -> str:
    """The matched text with the new count; of two things nobody says "all"."""
    pair = _PAIRS.get(match.group().split()[0].lower())
    if pair is not None and after == _SMALLEST and _replace_count(match["count"], before, after) != match["count"]:
        return pair.capitalize() if match.group()[0].isupper() else pair
    start, end = (place - match.start() for place in match.span("count"))
    return match.group()[:start] + _replace_count(match["count"], before, after) + match.group()[end:]


def _replace_count(count: str, before: int, after: int) -> str:
    """The new count, if `count` equals the former number of items; otherwise `count` unchanged."""
    if after < _SMALLEST:
        return count
    if count.isdecimal():
        return str(after) if int(count) == before else count
    for words in _WORDS.values():
        # the words begin with two, so the word of n has the index n - 2
        if before - _SMALLEST < len(words) and count.lower() == words[before - _SMALLEST]:
            word = words[after - _SMALLEST]
            return word.capitalize() if count[0].isupper() else word
    return count
