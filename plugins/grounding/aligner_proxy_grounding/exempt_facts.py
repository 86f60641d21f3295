"""Facts that the words of their sentence exempt from the check: computed, about this client, quoted or negated."""

from __future__ import annotations

import re

from aligner_proxy_grounding.facts import Fact, RangeEnd

_COMPUTED = re.compile(
    r"\b(?:altogether|in total|total of|totals?|in all|sum|adds? up|(?:that|which) makes|"
    r"makes?(?= (?:[A-Z]{3} )?[\u20ac\u00a3$]?\d)|owe[sd]?|equals?|"
    r"comes? to(?! (?:more|less) than\b| (?:over|above|under)\b| \S+(?: \S+)? (?:per|a|each)\b)|"
    r"(?:that|which)(?: is|'s)(?= (?:[A-Z]{3} )?[\u20ac\u00a3$]?\d)(?! \d{1,3}(?:[.,]\d)? ?(?:%|per ?cent))|"
    r"saves?(?! (?:(?:you|up to) )?\S+ ?(?:%|per ?cent))|saved|end up|works? out (?:at|to|as))\b|=|\u00d7",
    re.IGNORECASE,
)
"""Words that announce a result computed for this client."""
_OF_THIS_CLIENT = re.compile(
    r"[\s*_]*(?:left|remaining|ago|old|earlier|to go|short|late|longer|shorter|sooner|cheaper|dearer)\b", re.IGNORECASE
)
"""Words after a duration or amount that relates to this client ("3 days left")."""
_CONDITION_BEFORE = re.compile(r"\b(?:if|when|whenever|once|unless|whoever|anyone)\b[^,;:.!?]*$", re.IGNORECASE)
"""Words before a fact that is a condition for everybody: "if you are 3 days late"."""
_LATE_OR_OLD = re.compile(r"[\s*_]*(?:late|old|older)\b", re.IGNORECASE)
"""Words of `_OF_THIS_CLIENT` that conditions for everybody have, too."""
_QUOTED = re.compile(r"[\"\u201c\u201e\u00ab][^\"\u201c\u201d\u201e\u00ab\u00bb\n]{1,200}[\"\u201d\u201c\u00bb]")
"""Words between quotation marks."""
_DENIED = re.compile(
    r"\b(?:not|n't|no|instead of|rather than|never|wrong|unlike)\s"
    r"(?:(?:the|a|an|for|at|on|in|by|of|just|only|any)\s)*$|"
    r"\b(?:there is|there's|there are) no (?:(?!,? (?:and|but|so) (?:you|we|they|it|the|there)\b)[^.!?;:]){0,40}$",
    re.IGNORECASE,
)
"""Words before a negated fact: "not 9 but 5"."""
_OF_THIS_ORDER = re.compile(
    r"(?<!if )(?<!when )(?<!once )(?<!unless )"
    r"\b(?:yesterday|last (?:week|month|year|night)|you (?:have )?(?:ordered|bought|paid|placed|sent|called|booked))\b"
    r"[^,;:.!?]*$",
    re.IGNORECASE,
)
"""Words before a fact of what this client has done: "You ordered at 3 pm"."""


def is_exempt(text: str, fact: Fact) -> bool:
    """Whether the words of a sentence exempt one of its facts from the check; `text` is the sentence."""
    # "Altogether that makes 24 euros" is computed for this client; "as you wrote, '9 euros'" quotes somebody.
    if _COMPUTED.search(text) or _is_quoted(text, fact) or _is_of_this_client(text, fact):
        return True
    return bool(_DENIED.search(text, 0, fact.start) or _OF_THIS_ORDER.search(text, 0, fact.start))


def _is_of_this_client(text: str, fact: Fact) -> bool:
    """Whether the words after a fact relate it to this client: "3 days left".

    Not so in rules for everybody: "at most 3 days left", "if you are 3 days late".
    """
    if not _OF_THIS_CLIENT.match(text, fact.end) or fact.side is not RangeEnd.NONE:
        return False
    return not (_LATE_OR_OLD.match(text, fact.end) and _CONDITION_BEFORE.search(text, 0, fact.start))


def _is_quoted(text: str, fact: Fact) -> bool:
    """Whether a fact is inside quotation marks, so in somebody else's words."""
    return any(match.start() < fact.start and fact.end < match.end() for match in _QUOTED.finditer(text))
