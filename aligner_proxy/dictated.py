"""Which words does an objective dictate? Those that it puts in quotation marks, long enough to be a sentence.

An objective that wants an answer to end with a notice has it copied, not written: an aligner would word it anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LEAST_CHARS = 12
"""Below this, quotation marks hold a word that the objective speaks of."""
_QUOTED = re.compile(r"(?:^|(?<=[\s:(]))[\"'\u2018\u201c](\S.*\S)[\"'\u2019\u201d](?=[\s.,;:!?)]|$)", re.DOTALL)


def words(objective: str) -> str | None:
    """What stands between its first and its last quotation mark, on one line."""
    found = _QUOTED.search(objective)
    said = _on_one_line(found.group(1)) if found else ""
    return said if len(said) >= LEAST_CHARS else None


def by(objectives: Iterable[str]) -> list[str]:
    """The words of all objectives that dictate some."""
    return [said for objective in objectives if (said := words(objective))]


def is_dictated(sentence: str, dictated: Iterable[str]) -> bool:
    """Whether this sentence stands among the words that objectives dictate."""
    said = _on_one_line(sentence)
    return len(said) >= LEAST_CHARS and any(said in text for text in dictated)


def is_repeated(sentence: str, objectives: Sequence[str]) -> bool:
    """Whether a sentence stands in an objective that does not dictate it: an instruction was written out."""
    said = _on_one_line(sentence).rstrip(".!").lower()
    texts = (_on_one_line(objective).lower() for objective in objectives)
    return (
        len(said) >= LEAST_CHARS and any(said in text for text in texts) and not is_dictated(sentence, by(objectives))
    )


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
