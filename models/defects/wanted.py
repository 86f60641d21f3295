"""How does an operator ask for what other operators do not want? The same things, wished for or allowed.

A detector that has seen only wishes for removal learns that what an objective names has to go. Wordings marked as held
out are for the test sets.
"""

from __future__ import annotations

from random import Random

from .grammar import capitalise
from .kind import Kind
from .objectives import Objective

WANTED = "wanted-"
"""Themes of these objectives begin so."""

_FRAMES = (
    "{name}: the response should contain {thing}.",
    "{name}: the answer should include {thing}",
    "There should be {thing} in the answer.",
    "Always include {thing}.",
    "{name}: keep {thing}.",
    "{name}: feel free to use {thing}.",
    "{name}: the response may contain {thing}.",
    "Add {thing}.",
    "The response should not be without {thing}.",
    "{name}: do not take out {thing}",
    "{name}: every reply needs some {thing}.",
    "{name}: readers expect {thing} here.",
    "{name}: the response should make use of {thing}",
    "Make sure that the answer has {thing}.",
    "{name}: leave {thing} in.",
    "{name}: nothing speaks against {thing} in the response.",
    "Some {thing} should be part of the response.",
    "{name}: {thing}, please!",
    "Our readers love {thing}, and nobody should drop that.",
    "{name}: the answer must have {thing}.",
    "{name}: {thing} are wanted.",
    "{name}: we want {thing}",
    "{name}: give the reader {thing}.",
    "{name}: the response cannot do without {thing}",
    "{name}: {thing} may stay.",
    "{name}: {thing} are allowed",
    "The answer is better with {thing}.",
    "{name}: nobody minds {thing}.",
    "Our customers like {thing}.",
    "{name}: {thing}? Yes, gladly.",
    "{name}: do not cut {thing}.",
    "{name}: no reply without {thing}",
    "With {thing}, please.",
    "{name}: bring in {thing}.",
    "{name}: put in {thing} wherever it fits",
    "{name}: {thing} have their place in the response.",
    "{name}: {thing} are part of our voice.",
    "{name}: a good answer has {thing}",
    "{name}: replies that lack {thing} are not acceptable.",
    "{name}: sentences with {thing} are to be kept",
    "{name}: never remove {thing}.",
    "What we always print: {thing}.",
    "{name}: the assistant is fond of {thing}.",
    "{name}: the response needs {thing}",
    "{name}: preserve {thing}.",
)
_HELD_OUT_FRAMES = (
    "{name}: the text ought to offer {thing}.",
    "Do not delete {thing}.",
    "{name}: the reply is incomplete without {thing}",
    "{name}: users like {thing}, so have some in every answer.",
)
_NAMES = ("Content", "House style", "Rule", "Tone", "Wish", "Editors")


def wanted(rng: Random, kind: Kind, held_out: bool = False) -> Objective:
    """A wish for what is a defect of this kind elsewhere."""
    thing = rng.choice(kind.things) if kind.things else kind.name.removesuffix("-remarks").replace("-", " ")
    name = rng.choice(_NAMES) if rng.random() < 0.6 else capitalise(thing)
    text = rng.choice(_HELD_OUT_FRAMES if held_out else _FRAMES).format(name=name, thing=thing)
    return Objective(capitalise(text), WANTED + kind.name)
