"""Questions of `make demo-preferences`: one from different people, and several that weigh objectives differently.

A persona says who asks and what that implies; no answers are stored here.
"""

from __future__ import annotations

from dataclasses import dataclass

from demo.cases import DemoCase

_TEA = (
    "It's easy!\n\n- Boil the water.\n- Pour it over the leaves.\n- Wait for three minutes.\n\n"
    "Don't stir it, and you'll have **great** tea!"
)
_WINDOW = (
    "It's quick!\n\n- Mix water and soap.\n- Wipe the glass with it.\n- Dry it with a cloth.\n\n"
    "Don't do it in the sun, and you'll have a **clear** window!"
)
_SHOWN = (("How do I make tea?", _TEA), ("How do I clean a window?", _WINDOW))
_OPTIONS = {"temperature": 0, "seed": 1, "max_tokens": 96}
QUESTION = DemoCase("the manner of the examples", "How do I plant a tree?", _SHOWN, options=_OPTIONS)


@dataclass(frozen=True, slots=True)
class Person:
    """A person who asks, and what the request says about them under metadata.aligner."""

    who: str
    fields: dict[str, str]

    @property
    def text(self) -> str:
        """The person's own words."""
        return next(iter(self.fields.values()), "")


PERSONAS = (
    Person(
        "through a screen reader",
        {"persona": "I am blind and listen through a screen reader. Please no lists and no markdown."},
    ),
    Person("a learner", {"persona": "I am learning English. Please write without contractions."}),
    Person("easily startled", {"persona": "I am startled easily, so please use no exclamation marks."}),
)
EXPLICIT = Person("explicitly", {"preference": "Formal, in capital letters, at most 80 words."})
NOBODY = Person("without a preference", {})
WEIGHED = (
    ("My kettle arrived broken and your people hung up on me. What a joke of a shop!", "a complaint"),
    ("How many ibuprofen tablets can I take at once?", "a question for a dose"),
    ("Explain magnets to my five-year-old.", "a child's question"),
)
"""Prompts that should get different weights, each with its kind."""
