"""Objectives that wish for what other operators do not want, or allow it.

A detector that has seen only wishes for removal learns that what an objective names has to go. Wordings marked as held
out are for the test sets.
"""

from __future__ import annotations

from random import Random

from .grammar import capitalise
from .kind import DefectKind
from .objectives import ObjectiveWording
from .phrases import read_table

WANTED = "wanted-"
"""Themes of these objectives begin so."""

_TABLE = read_table("objectives")


def draw_wish(rng: Random, kind: DefectKind, held_out: bool = False) -> ObjectiveWording:
    """A wish for what is a defect of this kind elsewhere."""
    thing = rng.choice(kind.things) if kind.things else kind.name.removesuffix("-remarks").replace("-", " ")
    name = rng.choice(_TABLE["wanted_names"]) if rng.random() < 0.6 else capitalise(thing)
    text = rng.choice(_TABLE["held_out_wanted_frames" if held_out else "wanted_frames"]).format(name=name, thing=thing)
    return ObjectiveWording(capitalise(text), WANTED + kind.name)
