"""What does a contraction stand for? Only where there is one answer: "it's gone" may be "it is" or "it has"."""

from __future__ import annotations

import re
from collections.abc import Callable

Sub = Callable[[re.Pattern[str], Callable[[re.Match[str]], str], str], str]

_A = "['\u2019]"
_NOT = re.compile(
    rf"\b(do|does|did|is|are|was|were|has|have|had|could|would|should|must|need|might|ca|wo)n{_A}t\b"
    r"(?!\s+(?:you|i|we|they|he|she|it|there|that|this|these|those|anyone|everyone|people|the|your|my|our)\b)",
    re.IGNORECASE,
)
_IRREGULAR = {"ca": "cannot", "wo": "will not"}
_PLURAL = re.compile(rf"\b(i|you|we|they)({_A}(?:m|re|ve|ll))\b", re.IGNORECASE)
_WILL = re.compile(rf"\b(he|she|it|that|there|this|who|what)({_A}ll)\b", re.IGNORECASE)
_FULL = {"m": "am", "re": "are", "ve": "have", "ll": "will"}
_PARTICIPLES = (
    r"been|got|gotten|had|become|gone|done|seen|taken|made|come|grown|begun|shown|given|known|run|said|left|"
    r"lost|found|put|set|led|kept|"
    r"built|held|turned|\w+(?:ed|en|wn)"
)
# "it's a", "that's why": what follows can stand behind "is" alone, and not behind "has".
_IS = re.compile(
    rf"\b(it|that|there|here|he|she|what|who|where|how){_A}s(?=\s+(?:\w+ly\s+|also\s+|always\s+|not\s+|often\s+|"
    rf"still\s+|just\s+|simply\s+)?"
    rf"(?!(?:{_PARTICIPLES})\b)[a-z]+)",
    re.IGNORECASE,
)
_LETS = re.compile(rf"\b(let){_A}s\b(?=\s+[a-z])", re.IGNORECASE)
_WOULD = re.compile(
    rf"\b(i|you|we|they|he|she|it|that){_A}d(?=\s+(?:like|love|recommend|suggest|be|prefer|say|want|need|"
    rf"appreciate|advise)\b)",
    re.IGNORECASE,
)


def spelled_out(text: str, sub: Sub) -> str:
    """The text with its certain contractions written out; `sub` puts something in place of what may be changed."""
    text = sub(_NOT, _negation, text)
    for pattern in (_PLURAL, _WILL):
        text = sub(pattern, lambda m: _two(m.group(1), _FULL[m.group(2)[1:].lower()], m.group()), text)
    text = sub(_IS, lambda m: _two(m.group(1), "is", m.group()), text)
    text = sub(_WOULD, lambda m: _two(m.group(1), "would", m.group()), text)
    return sub(_LETS, lambda m: _two(m.group(1), "us", m.group()), text)


def _negation(match: re.Match[str]) -> str:
    stem = match.group(1)
    irregular = _IRREGULAR.get(stem.lower())
    if irregular is None:
        return _two(stem, "not", match.group())
    return _like(irregular, match.group())


def _two(first: str, second: str, whole: str) -> str:
    shouted = whole.isupper() and len(first) > 1
    return f"{first} {second.upper() if shouted else second}"


def _like(text: str, model: str) -> str:
    if model.isupper():
        return text.upper()
    return text.capitalize() if model[0].isupper() else text
