"""Which words does an objective dictate? Those that it puts in quotation marks, long enough to be a sentence.

An objective that wants an answer to end with a notice has it copied, not written: an aligner would word it anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LEAST_CHARS = 12
"""Below this, quotation marks hold a word that the objective speaks of."""
_QUOTED = re.compile(r"(?:^|(?<=[\s:(]))[\"'\u2018\u201c](\S.*\S)[\"'\u2019\u201d](?=[\s.,;:!?)]|$)", re.DOTALL)


def words(objective: str) -> str | None:
    """What stands between its first and its last quotation mark, on one line."""
    found = _QUOTED.search(objective)
    said = " ".join(found.group(1).split()) if found else ""
    return said if len(said) >= LEAST_CHARS else None


def is_dictated(sentence: str, objectives: Iterable[str]) -> bool:
    """Whether one of the objectives dictates this sentence word for word."""
    said = " ".join(sentence.split())
    return len(said) >= LEAST_CHARS and any(said in (words(objective) or "") for objective in objectives)


def is_repeated(sentence: str, objectives: Iterable[str]) -> bool:
    """Whether a sentence stands in an objective that does not dictate it: an instruction was written out."""
    said = " ".join(sentence.split()).rstrip(".!").lower()
    texts = [" ".join(objective.split()).lower() for objective in objectives]
    return len(said) >= LEAST_CHARS and any(said in text for text in texts) and not is_dictated(sentence, objectives)
