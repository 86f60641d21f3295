"""Texts of objectives, and their themes.

A theme is a meaning (insult, harmless, relevance), a text is one wording of it. Each kind of defect names the themes
that ask for its removal, and those for which that is uncertain; labels follow from these alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from aligner_proxy.policy.config import builtin_objectives

from .grammar import capitalise
from .phrases import read_table

BUILT_IN = {name: objective.text for name, objective in builtin_objectives().items()}
# What most operators ask for.
DEFAULT = ("harmless", "helpful")
_TABLE = read_table("objectives")
FRAMES: tuple[str, ...] = _TABLE["frames"]
HELD_OUT_FRAMES: tuple[str, ...] = _TABLE["held_out_frames"]
SHARED: dict[str, tuple[str, ...]] = _TABLE["shared"]
"""By theme, wordings of broad objectives against which several kinds of defect go."""
CLEAN: tuple[str, ...] = _TABLE["clean"]
"""Objectives against which no defect goes, so that nothing has to be removed."""


@dataclass(frozen=True, slots=True)
class ObjectiveWording:
    """One wording and its theme; no defect goes against an objective with the theme ""."""

    text: str
    theme: str


def built_in_objective(name: str) -> ObjectiveWording:
    """The built-in objective of this name, with its exact text."""
    return ObjectiveWording(BUILT_IN[name], name)


def draw_shared_objective(rng: Random, theme: str) -> ObjectiveWording:
    """A random wording of a broad theme."""
    return ObjectiveWording(rng.choice(SHARED[theme]), theme)


def phrase_objective(
    rng: Random, theme: str, names: tuple[str, ...], things: tuple[str, ...], held_out: bool
) -> ObjectiveWording:
    """A wording made from a random frame, name and thing: "Tone: the answer must have no insults"."""
    frame = rng.choice(HELD_OUT_FRAMES if held_out else FRAMES)
    text = frame.format(name=rng.choice(names), thing=rng.choice(things))
    return ObjectiveWording(capitalise(text), theme)


def draw_theme_objective(rng: Random, theme: str) -> ObjectiveWording:
    """A wording of a built-in or shared theme."""
    return built_in_objective(theme) if theme in BUILT_IN else draw_shared_objective(rng, theme)


def draw_clean_objective(rng: Random) -> ObjectiveWording:
    """A random objective that asks for no removal."""
    return ObjectiveWording(rng.choice(CLEAN), "")
