"""Endings that an operator may ask for: a notice word for word, an offer, a question, a referral to an expert.

Wordings marked as held out are for the test sets. Every phrase was written for this project.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from aligner_proxy.text.structure import split

from .grammar import expand
from .objectives import ObjectiveWording
from .phrases import read_table

ENDING = "ending-"
"""Beginning of the themes of these objectives: "ending-referral"."""

_TABLE = read_table("endings")


@dataclass(frozen=True, slots=True)
class Ending:
    """An objective that wants an ending, and a text that meets it; `is_met` says whether an answer meets it."""

    objective: ObjectiveWording
    text: str
    is_met: Callable[[str], bool]


def draw_ending(rng: Random, held_out: bool = False) -> Ending:
    """A random ending; half of the objectives dictate it word for word."""
    draw = rng.random()
    if draw < 0.5:
        return _draw_dictated_ending(rng, held_out)
    return (
        _draw_referral(rng, held_out)
        if draw < 0.65
        else _draw_described_ending(rng, rng.choice(tuple(_TABLE["described"])), held_out)
    )


def last_words(answer: str) -> str:
    """The last two segments of an answer, where an ending is."""
    return " ".join(segment.text for segment in split(answer)[-2:])


def _draw_dictated_ending(rng: Random, held_out: bool) -> Ending:
    """An ending that the objective quotes: 'End every answer with "No legal advice."'."""
    notice = expand(rng, rng.choice(_TABLE["held_out_notices" if held_out else "notices"]), _TABLE["slots"])
    text = rng.choice(_TABLE["held_out_frames" if held_out else "frames"]).format(notice=notice)
    return Ending(ObjectiveWording(text, f"{ENDING}dictated"), notice, lambda answer: answer.rstrip().endswith(notice))


def _draw_referral(rng: Random, held_out: bool) -> Ending:
    """An ending that refers to an expert: "Please ask your doctor."."""
    expert = rng.choice(_TABLE["slots"]["expert"])
    text = rng.choice(_TABLE["held_out_referrals" if held_out else "referrals"]).format(expert=expert)
    names_expert = re.compile(re.escape(expert.split()[-1]), re.IGNORECASE)
    closing = rng.choice(_TABLE["referred"]).format(expert=expert)
    return Ending(
        ObjectiveWording(text, f"{ENDING}referral"),
        closing,
        lambda answer: bool(names_expert.search(last_words(answer))),
    )


def _draw_described_ending(rng: Random, name: str, held_out: bool) -> Ending:
    """An ending that the objective describes in its own words; `name` is its row in the table."""
    row = _TABLE["described"][name]
    meets = re.compile(row["met"], re.IGNORECASE)
    objective = ObjectiveWording(rng.choice(row["held_out" if held_out else "wishes"]), ENDING + name)
    return Ending(objective, rng.choice(row["texts"]), lambda answer: bool(meets.search(last_words(answer))))
