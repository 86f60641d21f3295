"""Concepts written out sentence by sentence, by people who knew what an operator may not want.

The files in `written/` have concepts: objectives that ask for the removal of something, sentences that go against all
of them, and sentences that look alike but do not. A grammar makes thousands of similar sentences; here each is
different. There are hundreds of concepts, so a model has to read the objective's text to tell them apart.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .grammar import Grammar
from .kind import DefectKind
from .phrases import read_yaml

FOLDER = Path(__file__).parent / "written"
# Areas in which the concepts lie so close that a sentence on one may well offend against another.
CLOSE_AREAS = frozenset({"hostility", "harm"})
# One concept in so many is never used in training: a model knows it by its text only.
UNSEEN_SHARE = 12
# Of the others, every sixth sentence is for tests.
HELD_OUT_EVERY = 6
_WORD = re.compile(r"[a-z]{4,}")


def load_concepts() -> tuple[DefectKind, ...]:
    """All concepts, in the order of the files."""
    rows = [(path.stem, row) for path in sorted(FOLDER.glob("*.yaml")) for row in read_yaml(path)]
    telling_words = _telling_words([row for _, row in rows])
    near_kinds = _find_neighbours({row["name"]: row.get("near") or [] for _, row in rows})
    return tuple(_make_kind(area, row, telling_words[row["name"]], near_kinds[row["name"]]) for area, row in rows)


def is_unseen(name: str) -> bool:
    """Whether a concept is kept for the test; depends on its name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % UNSEEN_SHARE == 0


def _make_kind(area: str, row: Mapping[str, Any], words: Sequence[str], near_kinds: Iterable[str]) -> DefectKind:
    """The kind that a row of an area's file describes.

    Every `HELD_OUT_EVERY`th sentence, and the last objective, are held out.
    """
    name = row["name"]
    texts = row["objectives"]
    return DefectKind(
        name=name,
        family=area if area in CLOSE_AREAS else name,
        names=(),
        things=(),
        train=Grammar(
            tuple(sentence for i, sentence in enumerate(row["goes"]) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1)
        ),
        held_out=Grammar(tuple(row["goes"][HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])),
        asks=tuple(row.get("asks") or ()),
        unclear=(*(row.get("unclear") or ()), *near_kinds),
        natural=rf"(?i)\b({'|'.join(words)})" if words else "",
        area=area,
        texts=tuple(texts[:-1]),
        held_out_texts=tuple(texts[-1:]),
        alike=tuple(row["stays"]),
    )


def _telling_words(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By concept, the words by which an answer may touch it: at least half of all sentences with them are its own."""
    texts = {row["name"]: [*row["goes"], *row["objectives"], row["name"].replace("-", " ")] for row in rows}
    counts_by_concept = {
        name: Counter(word for sentence in sentences for word in _words(sentence)) for name, sentences in texts.items()
    }
    everywhere = sum(counts_by_concept.values(), Counter[str]())
    return {
        name: sorted(word for word, count in own_count.items() if count >= 2 and count >= everywhere[word] / 2)
        for name, own_count in counts_by_concept.items()
    }


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _find_neighbours(near: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """By concept, the concepts close to it: those that either of both names, and those with similar names."""
    roots = {name: _roots(name) for name in near}
    close: dict[str, set[str]] = {name: set() for name in near}
    for name, near_names in near.items():
        named_roots = set().union(*(_roots(words) for words in near_names)) if near_names else set()
        for other in near:
            if other != name and (other in near_names or roots[other] & (named_roots | roots[name])):
                close[name].add(other)
                close[other].add(name)
    return close


def _roots(name: str) -> set[str]:
    """The first five letters of each longer word: "unasked-advice" -> {"unask", "advic"}."""
    return {word[:5] for word in re.split(r"[\W_]+", name.lower()) if len(word) >= 4}


CONCEPTS: tuple[DefectKind, ...] = load_concepts()
