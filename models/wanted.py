"""Which answers hold what one of their objectives asks for, although it is a defect elsewhere? It stays."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .defects import BY_NAME
from .defects.wanted import wanted
from .endings import asking, has_room
from .pairs import STAYS, Pair
from .relations import AND


def wanted_there(rng: Random, make: Callable[[], Pair | None], held_out: bool = False) -> Pair | None:
    """An example with one wish more, for a kind of thing that is there and that nobody else wants to go."""
    pair = make()
    if pair is None or not has_room(pair):
        return None
    opposed = {one for theme in pair.themes for one in theme.split(AND)}
    told = zip(pair.kinds, pair.labels, strict=True)
    there = sorted({kind for kind, label in told if label == STAYS and kind in BY_NAME} - opposed)
    return asking(rng, pair, wanted(rng, BY_NAME[rng.choice(there)], held_out), STAYS) if there else None
