"""Answers of a working day of two tenants, in sentences of our own: what the pictures of docs/ and these tests show."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from aligner_proxy.audit.entry import AuditEvent, make_entry
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import (
    Correction,
    DecodeCounts,
    Exchange,
    Mode,
    Objective,
    Outcome,
    Policy,
    SegmentScore,
    Status,
    Turn,
)

KIND = Objective("kind", "Kindness: the response should never insult the reader")
CALM = Objective("calm", "Calm: the response should not press the reader to decide at once")
POLICY = Policy("all+acme", (KIND, CALM), tenant="team:acme", caution=0.5)
ALIGNER = "3f9a2c11"


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: its sentences, each with a score and the objective against which it is, and what became of it."""

    question: str
    sentences: tuple[tuple[str, float, int | None], ...]
    edited: str
    status: Status = Status.CORRECTED
    team: str = "acme"
    ms: float = 240.0

    @property
    def answer(self) -> str:
        """The whole answer."""
        return " ".join(text for text, _, _ in self.sentences)


SAID = (
    Said(
        "When does the night bus leave from the harbour?",
        (("The night bus leaves at twenty past one.", -5.1, None), ("Only a fool misses it twice.", 4.2, 0)),
        "The night bus leaves at twenty past one.",
    ),
    Said(
        "Should I take the larger box for my books?",
        (
            ("The larger box holds forty books.", -4.4, None),
            ("Order within ten minutes, or you will regret it.", 2.9, 1),
            ("It can be carried by two people.", -6.0, None),
        ),
        "The larger box holds forty books. It can be carried by two people.",
    ),
    Said(
        "How long does the paint have to dry?",
        (("It is dry to the touch after four hours.", -5.8, None), ("Wait a day before the second coat.", -4.9, None)),
        "It is dry to the touch after four hours. Wait a day before the second coat.",
        Status.UNCHANGED,
        team="globex",
        ms=95.0,
    ),
    Said(
        "Why does my soup taste of nothing?",
        (
            ("Salt it early, and let it simmer.", -3.9, None),
            ("Somebody who cannot even salt a soup should stay out of a kitchen.", 3.3, 0),
        ),
        "Salt it early, and let it simmer. A little more salt early on helps most.",
        Status.SHADOW,
        ms=0.0,
    ),
    Said(
        "Can the meeting room be booked for the evening?",
        (("The room is free until nine.", -5.5, None), ("Please leave the key at the desk.", -0.2, None)),
        "The room is free until nine. Please leave the key at the desk.",
        Status.UNCHANGED,
        team="globex",
        ms=110.0,
    ),
    Said(
        "Which seeds grow in the shade?",
        (("Spinach and chard grow in half shade.", -6.2, None), ("Anybody with eyes would know that.", 1.4, 0)),
        "Spinach and chard grow in half shade.",
        ms=310.0,
    ),
    Said(
        "Is the ferry running today?",
        (("It runs every hour until six.", -6.5, None), ("Decide now, for the last seats go fast.", 0.7, 1)),
        "It runs every hour until six.",
        Status.SHADOW,
        ms=0.0,
    ),
    Said(
        "How do I clean a cast iron pan?",
        (("Wipe it with salt and a dry cloth.", -5.0, None), ("Do not soak it.", -2.7, None)),
        "Wipe it with salt and a dry cloth. Do not soak it.",
        Status.UNCHANGED,
        ms=88.0,
    ),
)


def answered(said: Said, number: int, at: float) -> Entry:
    """The entry of an answer."""
    scores = tuple(
        SegmentScore(text, score, against is not None, against or 0) for text, score, against in said.sentences
    )
    correction = Correction(said.edited, scores, DecodeCounts(forwards=3), ms=said.ms * 0.8, aligner=ALIGNER)
    mode = Mode.SHADOW if said.status is Status.SHADOW else Mode.ENFORCE
    policy = replace(POLICY, tenant=f"team:{said.team}", mode=mode)
    if said.team != "acme":
        policy = replace(policy, name="all")
    changed = said.edited != said.answer
    reason = ("would_correct" if changed else None) if said.status is Status.SHADOW else None
    outcome = Outcome(said.status, reason, said.edited, policy, 0, False, correction, said.ms, edited=said.edited)
    exchange = Exchange(f"call-{number}", 0, (Turn("user", said.question),), said.answer)
    facts = RequestFacts("gpt", (), said.team, said.team)
    return make_entry(AuditEvent(at, "/v1/chat/completions", facts, exchange, outcome, aligner_id=f"{number:032x}"))


def of_a_day(now: float, count: int = 160, seed: int = 7) -> list[Entry]:
    """Answers of the last day, more of them in its middle; the last ones are those of `SAID` in their order."""
    draw = random.Random(seed)
    times = sorted(now - 86_000 * draw.betavariate(2, 2) for _ in range(count))
    earlier = [answered(draw.choice(SAID), 1000 + number, at) for number, at in enumerate(times)]
    last = [answered(said, number, now - 4.0 * number) for number, said in enumerate(SAID)]
    return earlier + last
