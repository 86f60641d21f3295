"""Objectives that wish for something, or allow it, which is a defect under other objectives.

A detector that has only seen objectives for removal learns that whatever an objective names has to go. Wordings marked
as held out are for the test sets.
"""

from __future__ import annotations

from random import Random

from .grammar import capitalise
from .kind import DefectKind
from .objectives import ObjectiveWording
from .phrases import read_table

WANTED = "wanted-"
"""Beginning of the themes of these objectives: "wanted-boasting"."""

_TABLE = read_table("objectives")


def draw_wish(rng: Random, kind: DefectKind, held_out: bool = False) -> ObjectiveWording:
    """An objective that wishes for what this kind calls a defect."""
    thing = rng.choice(kind.things) if kind.things else kind.name.removesuffix("-remarks").replace("-", " ")
    name = rng.choice(_TABLE["wanted_names"]) if rng.random() < 0.6 else capitalise(thing)
    text = rng.choice(_TABLE["held_out_wanted_frames" if held_out else "wanted_frames"]).format(name=name, thing=thing)
    return ObjectiveWording(capitalise(text), WANTED + kind.name)
