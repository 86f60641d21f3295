"""How does an answer come to lack its ending? A wish for one is put beside the other objectives of an example.

Where the answer does not end so, the ending is added behind the target; where it does, nothing is to be added. The
segments before it are labelled as they were, so that one prompt may ask to take something out and to add something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from aligner_proxy.segments import split

from .damage import themes_in
from .defects.endings import Ending, ending
from .defects.objectives import Objective
from .pairs import CHANGES, STAYS, Pair
from .relations import AGAINST_CLOSINGS, AND, CLOSING

MOST_OBJECTIVES = 5


def lacking(rng: Random, make: Callable[[], Pair | None], held_out: bool = False) -> Pair | None:
    """An example whose answer does not end as one of its objectives wants; it may end as another one would."""
    pair, wish = make(), ending(rng, held_out)
    if pair is None or not _goes_with(pair, wish):
        return None
    if rng.random() < 0.35:
        pair = _added_to_both(pair, ending(rng, held_out).text)
    if pair is None or wish.met(pair.answer) or wish.met(pair.target):
        return None
    target = _added(pair.target, wish.text)
    return target and asking(rng, replace(pair, target=target), wish.objective, CHANGES)


def ended(rng: Random, make: Callable[[], Pair | None], held_out: bool = False) -> Pair | None:
    """An example whose answer ends already as one of its objectives wants."""
    pair, wish = make(), ending(rng, held_out)
    if pair is None or not _goes_with(pair, wish):
        return None
    pair = _added_to_both(pair, wish.text)
    return pair and asking(rng, pair, wish.objective, STAYS)


def _goes_with(pair: Pair, wish: Ending) -> bool:
    """Whether there is room for the wish, and no other objective speaks against it."""
    single = {one for theme in pair.themes for one in theme.split(AND)}
    against = single & (AGAINST_CLOSINGS | themes_in(wish.text))
    return has_room(pair) and not against


def has_room(pair: Pair) -> bool:
    """Whether an example is of known kinds and can have one objective more."""
    return len(pair.objectives) < MOST_OBJECTIVES and bool(pair.kinds)


def asking(rng: Random, pair: Pair, wish: Objective, lacks: int) -> Pair:
    """The example with one objective more among the others; `lacks` says whether what it asks for is missing."""
    at = rng.randint(0, len(pair.objectives))
    lacking = [STAYS] * len(pair.objectives)
    kind = wish.theme if lacks else f"{wish.theme}-there"
    return replace(
        pair,
        objectives=(*pair.objectives[:at], wish.text, *pair.objectives[at:]),
        themes=(*pair.themes[:at], wish.theme, *pair.themes[at:]),
        lacks=(*lacking[:at], lacks, *lacking[at:]),
        source=f"{kind}+{pair.source}",
    )


def _added_to_both(pair: Pair, text: str) -> Pair | None:
    """The pair with the same words behind answer and target, where both go on being cut as they were."""
    if pair.labels[-1] != STAYS:
        return None
    answer, target = _added(pair.answer, text), _added(pair.target, text)
    if answer is None or target is None:
        return None
    more = len(split(answer)) - len(pair.labels)
    labels, kinds = (*pair.labels, *(STAYS,) * more), (*pair.kinds, *(CLOSING,) * more)
    return replace(pair, answer=answer, target=target, labels=labels, kinds=kinds)


def _added(answer: str, text: str) -> str | None:
    """The answer with more behind it, on a line of its own where there are several; None where it is cut anew then."""
    before = split(answer)
    block = "\n" in answer or answer.rstrip()[-1:] not in ".!?\"')"
    whole = answer.rstrip() + ("\n\n" if block else " ") + text
    after = split(whole)[: len(before)]
    return whole if [s.text for s in after] == [s.text for s in before] else None
