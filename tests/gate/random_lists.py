"""Random lists, nested and of every form, with items and sentences that go, and what is left of them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.gate.lists import FORMS

_GOOD = (
    "Boil the water.",
    "Wait for 4 minutes.",
    "Ask the clerk first.",
    "Cut it in 2 parts.",
    "Call **them**.",
    "Rest.",
)
_BAD = ("You idiot!", "You are such an oaf.", "Only a moron asks that.", "Get lost, fool.")
_INNER = ("1.", "a)", "i.", "-", "*", "(a)", "1)")
_OUTER = ("1.", "1)", "(1)", "a)", "A.", "i.", "II.", "-", "*", "1. bold", "Step 1:", "Step 1 bold", "1 in a box")
_REFERRED = ("1.", "1)", "(1)", "Step 1:", "Step 1 bold", "1. bold")


@dataclass(slots=True)
class _Item:
    sentences: list[str]
    below: list[_Item] = field(default_factory=list)
    form: str = "-"

    @property
    def kept(self) -> list[str]:
        return [sentence for sentence in self.sentences if sentence not in _BAD]

    @property
    def stands(self) -> bool:
        return bool(self.kept) or any(item.stands for item in self.below)


def random_list(rng: random.Random) -> tuple[str, str]:
    """An answer with a list, and what a careful editor leaves of it."""
    form = rng.choice(_OUTER)
    items = [_item(rng, depth=0) for _ in range(rng.randint(2, 6))]
    if not any(item.stands for item in items):
        items.append(_Item(["Serve it."]))
    gap = rng.choice(("\n", "\n", "\n\n"))
    standing = [n for n, item in enumerate(items, 1) if item.kept or _stays_as_mark(item, form)]
    meant = rng.choice(standing) if standing and form in _REFERRED and rng.random() < 0.5 else 0
    texts = []
    for numbers, kept in ((range(1, len(items) + 1), False), (standing, True)):
        rows = gap.join(_rendered(items, FORMS[form], 0, kept=kept))
        end = "\n\nThat is all."
        if meant:
            end += f" If it fails, go back to step {list(numbers).index(meant) + 1} again."
        texts.append(f"This is how to do it.\n\n{rows}{end}")
    return texts[0], texts[1]


def _item(rng: random.Random, depth: int) -> _Item:
    sentences = rng.choices(_GOOD, k=rng.randint(1, 3))
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(_BAD))
    if rng.random() < 0.25:
        sentences = rng.sample(_BAD, k=rng.randint(1, 2))
    item = _Item(sentences, form=rng.choice(_INNER))
    if depth < 2 and rng.random() < 0.3:
        item.below = [_item(rng, depth + 1) for _ in range(rng.randint(1, 3))]
    return item


def _stays_as_mark(item: _Item, form: str) -> bool:
    return item.stands and not item.kept and _look_alike(FORMS[form], FORMS[_first_form(item)])


def _first_form(item: _Item) -> str:
    """The form of the first item with words that stays below an item."""
    first = next(below for below in item.below if below.stands)
    return item.form if first.kept else _first_form(first)


def _look_alike(mark: Callable[[int], str], inner: Callable[[int], str]) -> bool:
    """Whether two forms of numbers differ in nothing, so that items of one are lost among those of the other."""
    texts = [form(1) for form in (mark, inner)]
    signs = {re.sub(r"[^\W_]+", "", text) for text in texts}
    digits = {any(map(str.isdigit, text)) for text in texts}
    return len(signs) == len(digits) == 1 and any(map(str.isalnum, texts[1]))


def _rendered(items: list[_Item], mark: Callable[[int], str], depth: int, *, kept: bool) -> list[str]:
    rows = []
    number = 0
    for item in items:
        if kept and not item.kept and not (item.stands and _look_alike(mark, FORMS[_first_form(item)])):
            # what stays below an item that goes moves up
            moved = _rendered(item.below, FORMS[item.form], depth, kept=True)
            rows += ["\n".join(moved)] if moved else []
            continue
        number += 1
        row = " " * 3 * depth + mark(number) + " ".join(item.kept if kept else item.sentences)
        below = _rendered(item.below, FORMS[item.form], depth + 1, kept=kept)
        rows.append("\n".join([row.rstrip(), *below]))
    return rows
