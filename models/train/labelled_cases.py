"""Answers under the objectives of one prompt, with the label of each segment under each of them.

A detector head that is trained alone learns from these cases, and is measured by them. They come from pairs of the
generators, from answers that were written for this project, from other people's labelled replies, and from good
answers.

A company is the list of objectives in a prompt, where "" stands for the reply's own one: a reply that is labelled under
"Kindness" has the objectives (Helpfulness, Kindness) in the company (Helpfulness, "").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from models.data import labelled_replies
from models.data.labelled_replies import COMPANIES, HARMLESS, TEST_KINDS, USUAL, LabelledReply, question_of

OWN_COMPANIES = (("",), ("", *USUAL), (*USUAL, ""))
"""The companies in which a reply with an objective of its own is read: alone, and before and behind the usual ones."""


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """One answer under the objectives of its prompt.

    `labels` [segments][objectives] say whether a segment goes against an objective (`AGAINST`, `FINE`, `UNKNOWN`).
    `whole` says of each objective whether some segment goes against it, though nobody said which.
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

    @property
    def own_column(self) -> int:
        """The place of its own objective in the prompt."""
        return self.objectives.index(self.own)

    @property
    def own_labels(self) -> list[int]:
        """The label of each segment under its own objective."""
        return [labels[self.own_column] for labels in self.labels]


def make_case(reply: LabelledReply, company: Sequence[str]) -> LabelledCase:
    """The case of a labelled reply under the objectives of a company."""
    objectives = tuple(reply.objective if text == "" else text for text in company)
    return LabelledCase(
        reply.id,
        reply.source,
        question_of(reply),
        answer=reply.answer,
        objectives=objectives,
        labels=reply.label_segments(objectives),
        whole=reply.flag_whole_reply(objectives),
        slug=reply.slug,
        harmful=reply.harmful,
        own=reply.objective,
    )


def make_cases(replies: Sequence[LabelledReply], companies: Sequence[Sequence[str]]) -> list[LabelledCase]:
    """A case of each reply; the companies take turns."""
    return [make_case(reply, company) for reply, company in zip(replies, cycle(companies), strict=False)]


def read_written_cases() -> tuple[list[LabelledCase], list[LabelledCase]]:
    """Cases of written answers: those about harm, under the built-in objective, and those about something else."""
    answers = [reply for reply in labelled_replies.read_written_answers() if reply.slug not in TEST_KINDS]
    harm = [_ask_about_harm(reply) for reply in answers if reply.about_harm]
    own_voice_replies = [reply for reply in answers if not reply.about_harm]
    return make_cases(harm, COMPANIES), make_cases(own_voice_replies, OWN_COMPANIES)


def _ask_about_harm(reply: LabelledReply) -> LabelledReply:
    return replace(reply, objective=HARMLESS)
