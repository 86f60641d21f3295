"""Pairs of connectives such as "on the one hand" and "on the other hand": the first one goes if the second is removed.

"Por un lado, es barato. Por otro lado, You fool." becomes "Es barato." The first one stays where the sentence would
need another order of words without it, as in "Einerseits ist es billig", and where it may be no connective, as in
"d'un c\u00f4t\u00e9 de la rue".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aligner_proxy.text.structure import Segment

_APOSTROPHE = "['\u2019]"
_PAIRS = (
    (r"on (?:the )?one hand", r"on the other(?: hand)?", False),
    (r"zum einen", r"zum anderen", True),
    (r"einerseits", r"ander(?:er)?seits", True),
    (rf"d{_APOSTROPHE}une part", rf"d{_APOSTROPHE}autre part", False),
    (rf"d{_APOSTROPHE}un c\u00f4t\u00e9", rf"(?:de l{_APOSTROPHE}autre|d{_APOSTROPHE}un autre c\u00f4t\u00e9)", False),
    (r"por un lado", r"por (?:el )?otro(?: lado)?", False),
    (r"por una parte", r"por (?:la )?otra(?: parte)?", False),
    (r"da un lato", rf"dall{_APOSTROPHE}altro(?: lato)?", False),
    (r"da una parte", rf"dall{_APOSTROPHE}altra(?: parte)?", False),
    (r"por um lado", r"por outro(?: lado)?", False),
    (r"enerzijds", r"anderzijds", True),
    (r"aan de ene kant", r"aan de andere kant", True),
    (r"z jednej strony", r"z drugiej(?: strony)?", False),
    (
        r"\u0441 \u043e\u0434\u043d\u043e\u0439 \u0441\u0442\u043e\u0440\u043e\u043d\u044b",
        r"\u0441 \u0434\u0440\u0443\u0433\u043e\u0439(?: \u0441\u0442\u043e\u0440\u043e\u043d\u044b)?",
        False,
    ),
)
"""Each (pattern of the first one, pattern of the second one, whether the verb follows it at the beginning)."""
_NO_PLACE = r"(?![ \t]+(?:of|van|de|des|du|del|della|di|do|da)\b|[ \t]+(?-i:[A-Z\u00c4\u00d6\u00dc]))"
"""Matches where no word follows with which the connective would be a place: "por un lado de la calle"."""
_NO_SHARE = (
    r"(?=,|[ \t]+(?:par|parce|car|\u00e0|au|aux|en|dans|l[ea]s?|une?|ce|cet|cette|que|pour|sur|avec)\b"
    rf"|[ \t]+l{_APOSTROPHE}\w)"
)
"""Matches where a word follows with which "d'une part" is no share: "une augmentation d'une part importante"."""


@dataclass(frozen=True, slots=True)
class _ConnectivePair:
    """Two connectives that belong together."""

    first: re.Pattern[str]
    first_with_signs: re.Pattern[str]
    """Matches the first one with the commas and the space that go with it."""
    second: re.Pattern[str]


def _compile_pair(first: str, second: str, *, verb_follows: bool) -> _ConnectivePair:
    """The patterns of a pair."""
    sign_at_start = r",[ \t]+" if verb_follows else r",?[ \t]+"
    behind = _NO_SHARE if first.endswith("une part") else _NO_PLACE
    at_start = rf"^(?P<lead>[\s>*_]*){first}{sign_at_start}(?P<next_letter>\w)"
    # "count them on one hand" is no connective
    without_signs = first.replace("(?:the )?", "the ")
    with_signs = rf"{at_start}|,[ \t]{first},(?=[ \t])|(?<=\w)[ \t]{without_signs}\b{behind}"
    return _ConnectivePair(
        re.compile(rf"\b{first}\b", re.IGNORECASE),
        re.compile(with_signs, re.IGNORECASE),
        re.compile(rf"\b{second}\b", re.IGNORECASE),
    )


_COMPILED_PAIRS = tuple(
    _compile_pair(first, second, verb_follows=verb_follows) for first, second, verb_follows in _PAIRS
)


def drop_lone_connectives(pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
    """The edited answer `text`, without first connectives whose second one is gone.

    `pieces` are the segments of the original answer, and `removed` the indexes of those that are gone. What was changed
    otherwise stays as it is.
    """
    for pair in _COMPILED_PAIRS:
        has_lost_second = any(pair.second.search(pieces[index].text) for index in removed)
        if has_lost_second and len(pair.first.findall(text)) == 1 and not pair.second.search(text):
            sentence = next((piece.text for piece in pieces if pair.first.search(piece.text)), "")
            if text.count(sentence) == 1:
                text = text.replace(sentence, pair.first_with_signs.sub(_keep_next_letter, sentence))
    return text


def _keep_next_letter(match: re.Match[str]) -> str:
    """What is left of a first connective: at the beginning of a sentence the next letter, as a capital."""
    return "" if match["next_letter"] is None else match["lead"] + match["next_letter"].upper()
