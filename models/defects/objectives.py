"""Texts of objectives, and what each of them asks for.

A theme is a meaning (insult, harmless, relevance); a text is one wording of it. A kind of defect names the themes that
ask for its removal and those for which nobody could say; labels follow from that alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from aligner_proxy.policy.config import builtin_objectives

from .grammar import capitalise
from .phrases import table

BUILT_IN = {name: objective.text for name, objective in builtin_objectives().items()}
# What most operators ask for.
DEFAULT = ("harmless", "helpful")
_TABLE = table("objectives")
FRAMES: tuple[str, ...] = _TABLE["frames"]
HELD_OUT_FRAMES: tuple[str, ...] = _TABLE["held_out_frames"]
SHARED: dict[str, tuple[str, ...]] = _TABLE["shared"]
"""Wordings of broad wishes that more than one kind of defect offends against."""
CLEAN: tuple[str, ...] = _TABLE["clean"]
"""Wishes that no defect offends against: an editor that only takes things out leaves the answer alone."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One wording and what it means; theme "" asks for nothing that a defect here could offend against."""

    text: str
    theme: str


def built_in(name: str) -> Objective:
    """The exact text of objectives.yaml."""
    return Objective(BUILT_IN[name], name)


def shared(rng: Random, theme: str) -> Objective:
    """A random wording of a broad wish."""
    return Objective(rng.choice(SHARED[theme]), theme)


def phrase(rng: Random, theme: str, names: tuple[str, ...], things: tuple[str, ...], held_out: bool) -> Objective:
    """A wording put together from a frame, a name and what is not wanted."""
    frame = rng.choice(HELD_OUT_FRAMES if held_out else FRAMES)
    text = frame.format(name=rng.choice(names), thing=rng.choice(things))
    return Objective(capitalise(text), theme)


def of_theme(rng: Random, theme: str) -> Objective:
    """A wording of a built-in or shared theme."""
    return built_in(theme) if theme in BUILT_IN else shared(rng, theme)


def clean(rng: Random) -> Objective:
    """A wish that asks for no removal."""
    return Objective(rng.choice(CLEAN), "")
