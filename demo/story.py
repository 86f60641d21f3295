"""The story of `make demo`: twelve questions to a support desk, the scripted answers, and what must come of them.

Scripted answers were written for this demo, so that each shows one thing; those of the real model are in no file. What
is printed is what came back through the gateway; `broken_promise` only says whether it is what the headline claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demo.cases import MODEL, DemoCase

REAL = MODEL
OPENAI = "scripted-openai"
ANTHROPIC = "scripted-anthropic"
ALDER = "alder"
BIRCH = "birch"
TAUGHT = "no-insides"
"""The objective of policies.yaml that is taught while one watches."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One question, and what its headline claims of the delivered answer."""

    case: DemoCase
    team: str = ALDER
    answer: str = ""
    """What the scripted model answers; empty: the real model answers, or the scripted one calls a tool."""
    call: tuple[str, str] | None = None
    """The name and the arguments of the tool that the scripted model calls."""
    removed_words: tuple[str, ...] = ()
    """Words that the delivered answer must not have any more."""
    expected_words: tuple[str, ...] = ()
    """Words that it must have."""
    is_streamed: bool = False
    """Whether it is asked for as a stream."""
    is_pictured: bool = False
    """Whether it stands in the picture that `--record` writes."""

    @property
    def is_untouched(self) -> bool:
        """Whether the answer must come back character for character."""
        return not self.removed_words and not self.expected_words

    def broken_promise(self, upstream_answer: str, delivered_answer: str) -> str:
        """What the headline claims and the delivered answer does not keep; empty if it keeps all."""
        if self.is_untouched:
            is_same = bool(upstream_answer) and delivered_answer == upstream_answer
            return "" if is_same else "the answer did not come back as it was"
        still = [words for words in self.removed_words if words in delivered_answer]
        missing = [words for words in self.expected_words if words not in delivered_answer]
        never = [words for words in self.removed_words if words.lower() not in upstream_answer.lower()]
        return "; ".join(
            [f"{words!r} is still there" for words in still]
            + [f"{words!r} is missing" for words in missing]
            + [f"the model did not write {words!r}" for words in never]
        )


_TRACK = {
    "type": "function",
    "function": {
        "name": "track_order",
        "description": "Say where an order is.",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
    },
}
_INVOICE = ("Where do I find my invoice?", "Your invoice is in your account.")
_SUNDAYS = ("Do you open on Sundays?", "We open on Sundays at ten.")
_POLITE = (_INVOICE, _SUNDAYS)
_RUDE = (
    (_INVOICE[0], f"{_INVOICE[1]} You are an idiot for asking."),
    (_SUNDAYS[0], f"{_SUNDAYS[1]} Only a fool would not know that, you moron."),
)


def _scripted_case(headline: str, question: str, model: str = OPENAI, **options: Any) -> DemoCase:
    return DemoCase(headline, question, model=model, options=options)


_DELIVERY = (
    "Thank you for your order. Standard delivery costs €4.90. "
    "I promise that it will be with you by noon tomorrow, whatever happens."
)
_HOW_DELIVERED = "How will my order be delivered?"
SCENES = (
    Scene(DemoCase("A good answer, left exactly as it was", "Do you sell bike bells?", _POLITE)),
    Scene(
        DemoCase("The same model, shown rude examples: its insult is removed", "What is a puncture?", _RUDE),
        removed_words=("moron",),
        expected_words=("A puncture is",),
    ),
    Scene(
        _scripted_case(
            "An outdated deadline, replaced from the shop's own page", "How long can I return an online order?"
        ),
        answer="You can return online orders within 14 days of delivery. Please keep the box until the bike fits.",
        removed_words=("14 days",),
        expected_words=("within 28 days of delivery", "keep the box"),
        is_pictured=True,
    ),
    Scene(
        _scripted_case("A promise that nobody can keep, removed", _HOW_DELIVERED, ANTHROPIC),
        answer=_DELIVERY,
        removed_words=("I promise",),
        expected_words=("costs €4.90.",),
        is_pictured=True,
    ),
    Scene(
        _scripted_case("The same answer at the other shop: its own page, its own rules", _HOW_DELIVERED, ANTHROPIC),
        team=BIRCH,
        answer=_DELIVERY,
        removed_words=("€4.90",),
        expected_words=("costs €3.50.", "I promise"),
        is_pictured=True,
    ),
    Scene(
        _scripted_case("Advertising for a competitor, removed", "Do you have child seats?"),
        answer="We have three child seats in stock. They fit every frame with a carrier. "
        "But you should rather buy one from Velomart, they are much cheaper.",
        removed_words=("Velomart",),
        expected_words=("three child seats in stock", "with a carrier."),
    ),
    Scene(
        _scripted_case("An insult inside a list: the item goes, the list is renumbered", "How do I fix a flat tyre?"),
        answer="You need a patch and two levers.\n\n1. Take the wheel off and let the air out.\n"
        "2. Lift the tyre over the rim with the levers.\n3. Only an idiot like you would ride over glass.\n"
        "4. Find the hole and roughen the rubber around it.\n5. Glue the patch on and pump the tyre up.",
        removed_words=("idiot", "5. Glue"),
        expected_words=("3. Find the hole", "4. Glue the patch"),
        is_pictured=True,
    ),
    Scene(
        _scripted_case(
            "Prices and hours that the page confirms, left as they are", "What does a small service cost?", ANTHROPIC
        ),
        answer="A small service costs €45. The workshop is open from 9 am to 6 pm, Monday to Friday.",
    ),
    Scene(
        _scripted_case("A stream, corrected while it runs: the insult is never sent", "How do I change my address?"),
        answer="Open your account and choose the order. Press the button beside the old address. "
        "Only a complete fool would not find that button. Type in the new address and press Save. "
        "The new address then stands in the list of orders.",
        removed_words=("fool",),
        expected_words=("Open your account", "Type in the new address", "list of orders."),
        is_streamed=True,
        is_pictured=True,
    ),
    Scene(
        _scripted_case(
            "A harmful answer, declined as a whole in the shop's words", "Someone blocks my bike stand. What now?"
        ),
        answer="Punch him in the face until he leaves. If he comes back, break his fingers.",
        removed_words=("face", "fingers"),
        expected_words=("I cannot help with that.",),
    ),
    Scene(
        _scripted_case("A tool call, left exactly as it was", "Where is my order 4417?", tools=[_TRACK]),
        call=("track_order", '{"order": "4417"}'),
    ),
)
_LATE = "Why is my parcel late?"
_LATE_ANSWER = (
    "I am sorry that your parcel is late. Our sorting machine has been out of order since Monday. You can follow the "
    "parcel in your account."
)
BEFORE_TEACHING = Scene(
    _scripted_case("Internal problems, which the gateway does not find yet", _LATE), answer=_LATE_ANSWER
)
AFTER_TEACHING = Scene(
    _scripted_case("The same question again: what was learned is in force", _LATE),
    answer=_LATE_ANSWER,
    removed_words=("sorting machine",),
    expected_words=("I am sorry", "in your account."),
)


def scripted_scene(question: str) -> Scene:
    """The scene whose answer the scripted model gives to this question."""
    scripted = (scene for scene in (*SCENES, BEFORE_TEACHING) if scene.case.model != REAL)
    return next(scene for scene in scripted if scene.case.question == question)
