"""Texts of objectives, and what each of them asks for.

A theme is a meaning (insult, harmless, relevance); a text is one wording of it. A kind of defect names the themes that
ask for its removal and those for which nobody could say; labels follow from that alone.
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
"""Wordings of broad wishes that more than one kind of defect offends against."""
CLEAN: tuple[str, ...] = _TABLE["clean"]
"""Wishes that no defect offends against: an editor that only takes things out leaves the answer alone."""


@dataclass(frozen=True, slots=True)
class ObjectiveWording:
    """One wording and what it means; theme "" asks for nothing that a defect here could offend against."""

    text: str
    theme: str


def built_in_objective(name: str) -> ObjectiveWording:
    """The exact text of objectives.yaml."""
    return ObjectiveWording(BUILT_IN[name], name)


def draw_shared_objective(rng: Random, theme: str) -> ObjectiveWording:
    """A random wording of a broad wish."""
    return ObjectiveWording(rng.choice(SHARED[theme]), theme)


def phrase_objective(
    rng: Random, theme: str, names: tuple[str, ...], things: tuple[str, ...], held_out: bool
) -> ObjectiveWording:
    """A wording put together from a frame, a name and what is not wanted."""
    frame = rng.choice(HELD_OUT_FRAMES if held_out else FRAMES)
    text = frame.format(name=rng.choice(names), thing=rng.choice(things))
    return ObjectiveWording(capitalise(text), theme)


def draw_theme_objective(rng: Random, theme: str) -> ObjectiveWording:
    """A wording of a built-in or shared theme."""
    return built_in_objective(theme) if theme in BUILT_IN else draw_shared_objective(rng, theme)


def draw_clean_objective(rng: Random) -> ObjectiveWording:
    """A wish that asks for no removal."""
    return ObjectiveWording(rng.choice(CLEAN), "")
