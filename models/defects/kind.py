"""A kind of defect: how it is written, where it stands, and which objectives ask for its removal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Literal

from .grammar import Grammar, expand, uncapitalise
from .objectives import BUILT_IN, ObjectiveWording, built_in_objective, draw_shared_objective, phrase_objective
from .phrases import read_table
from .topic import topic_of

Place = Literal["start", "middle", "end", "anywhere"]
Make = Callable[[Random, str, str, bool], str]
"""A function (random state, question, answer, held out) -> sentence with a defect."""
_BUILT_IN_SHARE = 0.5
_BROAD_SHARE = 0.3
_ABOUT_TOPIC_SHARE = 0.45


@dataclass(frozen=True, slots=True)
class DefectKind:
    """One kind of defect, such as insults.

    Its sentences are made by a grammar, or were written one by one (`written.py`). Kinds of the second sort have
    `texts` of objectives instead of names and things, an `area`, and sentences that look `alike`.
    """

    name: str
    family: str
    """Kinds of one family may mean the same, so an objective against one says nothing certain of another."""
    names: tuple[str, ...]
    things: tuple[str, ...]
    """Words for objectives made from a frame: "Tone: no insults" has a name and a thing."""
    train: Grammar
    held_out: Grammar
    """Sentences with this defect, for training and for tests."""
    asks: tuple[str, ...] = ()
    """Broad themes whose objectives ask for its removal."""
    unclear: tuple[str, ...] = ()
    """Themes whose objectives may or may not ask for it."""
    inside: Grammar | None = None
    """Templates that work the defect into a sentence."""
    place: Place = "anywhere"
    own_line: float = 0.25
    """How often it gets a line of its own."""
    natural: str = ""
    """A pattern of answers that may have such a defect by themselves."""
    maker: Make | None = None
    """Makes its sentences in place of a grammar."""
    area: str = ""
    texts: tuple[str, ...] = ()
    held_out_texts: tuple[str, ...] = ()
    """Objectives that ask for its removal, for training and for tests."""
    alike: tuple[str, ...] = ()
    """Sentences that only look like this defect; the last one is for tests."""

    def make(self, rng: Random, query: str, answer: str, held_out: bool = False, about: bool | None = None) -> str:
        """A sentence with this defect, for an answer.

        `held_out` takes wordings that training never sees. `about` True takes those that name the topic, False others.
        """
        if self.maker is not None:
            return self.maker(rng, query, answer, held_out)
        grammar = self.held_out if held_out else self.train
        if about is None:
            about = rng.random() < _ABOUT_TOPIC_SHARE
        return grammar.make(rng, topic_of(rng, query, answer), about)

    def rewrite(self, rng: Random, sentence: str) -> str:
        """The sentence with this defect worked into it."""
        if self.inside is None:
            raise ValueError(f"kind {self.name!r} has no grammar for rewriting inside a sentence")
        template = rng.choice(self.inside.templates)
        if template == "{shout}":
            return sentence.upper()
        stem = sentence.rstrip(".!")
        slots_of_sentence = {"stem": [stem], "sentence": [sentence], "lower": [uncapitalise(sentence)]}
        return expand(rng, template, {**self.inside.slots, **slots_of_sentence})

    def is_removed_by(self, objective: ObjectiveWording) -> bool:
        """Whether this objective asks for the removal of defects of this kind."""
        return objective.theme == self.name or objective.theme in self.asks

    def is_unclear_under(self, objective: ObjectiveWording, family_of: dict[str, str]) -> bool:
        """Whether it is uncertain if this objective asks for the removal; such examples are not made."""
        if self.is_removed_by(objective):
            return False
        return objective.theme in self.unclear or family_of.get(objective.theme) == self.family

    def draw_objective(self, rng: Random, held_out: bool = False) -> ObjectiveWording:
        """A random objective that asks for the removal of this defect.

        If a built-in objective asks for it, that one is drawn half of the time. Otherwise a broad theme is drawn in
        three of ten cases, if one asks for it, and in the rest an objective about this defect alone. `held_out` takes
        wordings that training never sees.
        """
        built_in_themes = [theme for theme in self.asks if theme in BUILT_IN]
        if built_in_themes and rng.random() < _BUILT_IN_SHARE:
            return built_in_objective(rng.choice(built_in_themes))
        broad_themes = [theme for theme in self.asks if theme not in BUILT_IN]
        if broad_themes and rng.random() < _BROAD_SHARE:
            return draw_shared_objective(rng, rng.choice(broad_themes))
        if self.texts:
            return ObjectiveWording(rng.choice(self.held_out_texts if held_out else self.texts), self.name)
        return phrase_objective(rng, self.name, self.names, self.things, held_out)

    def occurs_in(self, answer: str) -> bool:
        """Whether an answer may have such a defect by itself, so that no label of it is certain."""
        return bool(self.natural) and _compile_pattern(self.natural).search(answer) is not None


@cache
def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled pattern; cached here, because there are more patterns than the cache of `re` has room for."""
    return re.compile(pattern)


def load_kinds(name: str, makers: Mapping[str, Make] | None = None) -> tuple[DefectKind, ...]:
    """The kinds of `phrases/<name>.yaml`, in its order; `makers` are those of kinds that need more than a grammar."""
    document = read_table(name)
    lists = document.get("word_lists", {})
    return tuple(_make_kind(kind, row, lists, (makers or {}).get(kind)) for kind, row in document["kinds"].items())


def _make_kind(name: str, row: Mapping[str, Any], lists: Mapping[str, Any], maker: Make | None) -> DefectKind:
    """The kind that a row of the YAML file describes."""
    grammars = {part: _make_grammar(row[part], lists) for part in ("train", "held_out", "inside") if part in row}
    # A kind that is kept wholly for the test has the same wordings everywhere.
    return DefectKind(
        **{"name": name, "family": name, "held_out": grammars["train"], **row, **grammars, "maker": maker}
    )


def _make_grammar(value: Any, lists: Mapping[str, Any]) -> Grammar:
    """A grammar from YAML: a list of templates, or templates with slots (word lists, or the name of shared ones)."""
    if isinstance(value, tuple):
        return Grammar(value)
    slots = value["slots"]
    return Grammar(value["templates"], lists[slots] if isinstance(slots, str) else slots)
