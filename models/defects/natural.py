"""Whole answers that were written with faults in their own voice, and the themes that each fault goes against.

In the file `written/natural.jsonl`, each sentence of an answer has the themes under which it must change; a good
sentence has none. Such faults belong to the answer: they are on its topic and follow from the question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .objectives import BUILT_IN, SHARED

FILE = Path(__file__).parent / "written" / "natural.jsonl"
THEMES = frozenset({*BUILT_IN, *SHARED})


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence; `kind` names its fault ("" for none), `own` are objectives against it, `good` replaces it."""

    text: str
    kind: str
    own: tuple[str, ...]
    good: str


@dataclass(frozen=True, slots=True)
class NaturalAnswer:
    """One answer as it was written, with the turns before its question."""

    query: str
    turns: tuple[tuple[str, str], ...]
    sentences: tuple[Sentence, ...]

    @property
    def opening(self) -> str:
        """What the user said first, which decides on which side of the split it is."""
        return self.turns[0][0] if self.turns else self.query


def _load_answers() -> tuple[tuple[NaturalAnswer, ...], dict[str, tuple[frozenset[str], frozenset[str]]]]:
    """(all answers, what objectives say about each fault).

    For each name of a fault: (themes whose objectives ask for its removal, themes whose objectives may ask for it).
    """
    answers = []
    faults = {}
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    for number, line in enumerate(lines):
        row = json.loads(line)
        sentences = tuple(_make_sentence(number, i, row) for i in range(len(row["segments"])))
        for sentence, segment in zip(sentences, row["segments"], strict=True):
            if sentence.kind:
                faults[sentence.kind] = (frozenset(segment["asks"]), frozenset(segment["unclear"]))
        turns = tuple((user, reply) for user, reply in row.get("turns") or ())
        answers.append(NaturalAnswer(row["query"], turns, sentences))
    return tuple(answers), faults


def _make_sentence(number: int, at: int, row: dict[str, Any]) -> Sentence:
    """Sentence `at` of answer `number`, whose row this is."""
    segment = row["segments"][at]
    key = str(at)
    doubtful = segment["asks"] or segment["unclear"]
    return Sentence(
        segment["text"],
        f"natural-{number}-{at}" if doubtful else "",
        tuple((row.get("own") or {}).get(key) or ()),
        (row.get("good") or {}).get(key) or "",
    )


NATURAL, FAULTS = _load_answers()
