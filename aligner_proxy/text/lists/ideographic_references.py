"""Chinese and Japanese references to steps of a list, with their number in digits, as an ideograph or circled."""

from __future__ import annotations

import re

_IDEOGRAPHS = "\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341"
"""The ideographs of the numbers from one to ten."""
_CIRCLED = "\u2460\u2461\u2462\u2463\u2464\u2465\u2466\u2467\u2468\u2469"
"""The circled digits from one to ten."""
_STEP = r"\u624b\u9806|\u30b9\u30c6\u30c3\u30d7"
_AMOUNT_BEHIND = (
    r"[\u6b21\u56de\u5929]|\u5206[\u949f\u9418\u9593]|\u5c0f[\u65f6\u6642]|\u6642\u9593|\u500b\u6708|\u4e2a\u6708"
)
"""Matches units behind a number that says how often or how long: "repeat the steps 3 times"."""
IDEOGRAPHIC_REFERENCE = re.compile(
    rf"(?:(?:{_STEP}|\u6b65\u9aa4|\u6b65\u9a5f)[ \u3000]?|(?<![\u6b3e\u6761\u689d\u300b])(?P<sign>\u7b2c))"
    rf"(?P<number>\d{{1,2}}|[{_IDEOGRAPHS}{_CIRCLED}])"
    rf"(?![\d{_IDEOGRAPHS}]|[.\uff0e]\d|[ \u3000]?(?:{_AMOUNT_BEHIND}))"
    rf"(?(sign)(?!\u6b65\u5175)(?=[\u6b65\u70b9\u9ede\u9879\u9805]|\u306e?(?:{_STEP})))"
)
"""Matches the word for "step" and a number behind it, or a number between the sign of ordinals and such a word.

Items of a law, which follow the numbers of its articles, and infantry, whose name begins with the word for "step", do
not count."""
_SIGN_BEHIND = re.compile(r"[\u6b65\u70b9\u9ede\u9879\u9805]?[*_]{0,3}[\uff1a:\uff0c,\u3001.\uff0e)\uff09]")
"""Matches the sign behind the number of a sentence, perhaps with the rest of the word before it."""


def begins_sentence(reference: re.Match[str]) -> bool:
    """Whether what looks like a reference is the number of a sentence of its own, as in "Step 3: Wait."."""
    is_first = not reference.string[: reference.start()].strip(" \t>*_#-")
    return is_first and _SIGN_BEHIND.match(reference.string, reference.end()) is not None


def read_number(number: str) -> int:
    """The value of the number in a reference."""
    return int(number) if number.isdecimal() else max(_IDEOGRAPHS.find(number), _CIRCLED.find(number)) + 1


def write_number(value: int, like: str) -> str:
    """A value in the notation of `like`; in digits if no single sign means it."""
    signs = next((signs for signs in (_IDEOGRAPHS, _CIRCLED) if like in signs), "")
    return signs[value - 1] if value <= len(signs) else str(value)
