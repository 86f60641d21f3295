"""Objectives that require something: an ending, or a thing that is a defect under other objectives.

If an answer lacks the ending, it is appended to the target. The labels of the segments stay as they were, so one prompt
may ask to remove something and to add something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from aligner_proxy.text.structure import split
from models.defects import BY_NAME
from models.defects.endings import Ending, draw_ending
from models.defects.objectives import ObjectiveWording
from models.defects.wanted import draw_wish

from .inject import themes_in
from .labels import AGAINST_CLOSINGS, AND, CLOSING
from .pairs import CHANGES, STAYS, Pair

MAX_OBJECTIVES = 5


def make_missing_ending(rng: Random, make: Callable[[], Pair | None], held_out: bool = False) -> Pair | None:
    """An example whose answer lacks the ending that one of its objectives wants; the target has it.

    The answer may have another ending. None if `make` makes no example, or the ending does not go with it.
    """
    pair = make()
    wish = draw_ending(rng, held_out)
    if pair is None or not _goes_with(pair, wish):
        return None
    if rng.random() < 0.35:
        pair = _append_to_both(pair, draw_ending(rng, held_out).text)
    if pair is None or wish.is_met(pair.answer) or wish.is_met(pair.target):
        return None
    target = _append_text(pair.target, wish.text)
    return target and add_objective(rng, replace(pair, target=target), wish.objective, CHANGES)


def make_present_ending(rng: Random, make: Callable[[], Pair | None], held_out: bool = False) -> Pair | None:
    """An example whose answer has the ending that one of its objectives wants."""
    pair = make()
    wish = draw_ending(rng, held_out)
    if pair is None or not _goes_with(pair, wish):
        return None
    pair = _append_to_both(pair, wish.text)
    return pair and add_objective(rng, pair, wish.objective, STAYS)


def _goes_with(pair: Pair, wish: Ending) -> bool:
    """Whether the pair can have one objective more, and none of its objectives is against this ending."""
    single = {wish_theme for theme in pair.themes for wish_theme in theme.split(AND)}
    against = single & (AGAINST_CLOSINGS | themes_in(wish.text))
    return has_room(pair) and not against


def has_room(pair: Pair) -> bool:
    """Whether a pair can have one objective more, and the kinds of its segments are known."""
    return len(pair.objectives) < MAX_OBJECTIVES and bool(pair.kinds)


def add_objective(rng: Random, pair: Pair, wish: ObjectiveWording, lacks: int) -> Pair:
    """The pair with one objective more among the others; `lacks` is the label of what the objective asks for."""
    at = rng.randint(0, len(pair.objectives))
    no_lacks = [STAYS] * len(pair.objectives)
    kind = wish.theme if lacks else f"{wish.theme}-there"
    return replace(
        pair,
        objectives=(*pair.objectives[:at], wish.text, *pair.objectives[at:]),
        themes=(*pair.themes[:at], wish.theme, *pair.themes[at:]),
        lacks=(*no_lacks[:at], lacks, *no_lacks[at:]),
        source=f"{kind}+{pair.source}",
    )


def _append_to_both(pair: Pair, text: str) -> Pair | None:
    """The pair with `text` appended to answer and target; None if that changes the segments before it."""
    if pair.labels[-1] != STAYS:
        return None
    answer = _append_text(pair.answer, text)
    target = _append_text(pair.target, text)
    if answer is None or target is None:
        return None
    more = len(split(answer)) - len(pair.labels)
    labels = (*pair.labels, *(STAYS,) * more)
    kinds = (*pair.kinds, *(CLOSING,) * more)
    return replace(pair, answer=answer, target=target, labels=labels, kinds=kinds)


def _append_text(answer: str, text: str) -> str | None:
    """The answer with `text` appended, after an empty line if it has several; None if that changes its segments."""
    before = split(answer)
    block = "\n" in answer or answer.rstrip()[-1:] not in ".!?\"')"
    whole = answer.rstrip() + ("\n\n" if block else " ") + text
    after = split(whole)[: len(before)]
    return whole if [segment.text for segment in after] == [segment.text for segment in before] else None


def make_present_wish(rng: Random, make: Callable[[], Pair | None], held_out: bool = False) -> Pair | None:
    """An example with an objective that wishes for a kind of thing in the answer which all other objectives allow."""
    pair = make()
    if pair is None or not has_room(pair):
        return None
    opposed = {wished for theme in pair.themes for wished in theme.split(AND)}
    labelled = zip(pair.kinds, pair.labels, strict=True)
    present = sorted({kind for kind, label in labelled if label == STAYS and kind in BY_NAME} - opposed)
    return add_objective(rng, pair, draw_wish(rng, BY_NAME[rng.choice(present)], held_out), STAYS) if present else None
