"""Answers under the objectives of one prompt, with what is known of each segment under each of them.

What a detector head alone is trained on and measured by: pairs of the generators, the answers written for this project,
other people's labelled replies, good answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from models.data import labelled_replies
from models.data.labelled_replies import COMPANIES, HARMLESS, TEST_KINDS, USUAL, LabelledReply, question_of

OWN_COMPANIES = (("",), ("", *USUAL), (*USUAL, ""))
"""The same for an objective of its own, which "" stands for."""


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """One answer under the objectives of its prompt.

    `labels` says of each segment and each objective whether it goes against it (`AGAINST`, `FINE`, `UNKNOWN`); `whole`
    of each objective whether some segment does though nobody said which.
    """

    id: str
    source: str
    query: str
    answer: str
    objectives: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    whole: tuple[bool, ...]
    slug: str = ""
    harmful: bool = False
    """Whether anything in it goes against its own objective."""
    own: str = ""
    """The objective that it was written or labelled for."""


def ask_reply(reply: LabelledReply, company: Sequence[str]) -> LabelledCase:
    """A labelled reply in company of other objectives; "" stands for its own one."""
    objectives = tuple(reply.objective if text == "" else text for text in company)
    return LabelledCase(
        reply.id,
        reply.source,
        question_of(reply),
        reply.answer,
        objectives,
        reply.label_segments(objectives),
        reply.flag_whole_reply(objectives),
        reply.slug,
        reply.harmful,
        reply.objective,
    )


def ask_replies(replies: Sequence[LabelledReply], companies: Sequence[Sequence[str]]) -> list[LabelledCase]:
    """Each reply in one of the companies."""
    return [ask_reply(reply, company) for reply, company in zip(replies, cycle(companies), strict=False)]


def read_written_cases() -> tuple[list[LabelledCase], list[LabelledCase]]:
    """Written answers: those about harm under the built-in objective, and all under an objective of their own."""
    answers = [reply for reply in labelled_replies.read_written_answers() if reply.slug not in TEST_KINDS]
    harm = [_ask_about_harm(reply) for reply in answers if reply.about_harm]
    own = [reply for reply in answers if not reply.about_harm]
    return ask_replies(harm, COMPANIES), ask_replies(own, OWN_COMPANIES)


def _ask_about_harm(reply: LabelledReply) -> LabelledReply:
    return replace(reply, objective=HARMLESS)
