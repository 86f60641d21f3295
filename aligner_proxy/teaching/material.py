"""Material of a lesson: which prompts are read, and what is known of each segment in them.

The neutral answers are read once each: most with the objective alone, others in company of further objectives, some
with a sentence of another answer in them, so that what stands out is not taken for what is against the objective. Every
example is set into several neutral answers, now alone, now in company. What stands beside it there is neutral, too, and
counts more: the state of a segment carries what stands before it. Good answers of the operator's are read as they
are, behind their own questions, and are neutral ones like ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from aligner_proxy.teaching.examples import Examples
from aligner_proxy.teaching.insertion import AugmentedAnswer, insert_each, insert_text, insertion_places, usable_answers
from aligner_proxy.teaching.neutral import Neutral
from aligner_proxy.teaching.rows import AnswerRows, PromptObjectives, RowReader, RowsCache, sample_companions
from aligner_proxy.text.structure import split

NEUTRAL_FOLDS = 5
_COMPANIES = 3
_ALONE_SHARE = 0.54
_FOREIGN_SHARE = 0.1
_PROMPTS = 32
"""About so many prompts show the examples, however few they are."""
_FEWEST_PLACES = 2
_MOST_PLACES = 8
_SEED = 26


class SegmentRole(StrEnum):
    """What a segment is to the lesson."""

    NEUTRAL = "neutral"
    FOREIGN = "foreign"
    """A sentence of another neutral answer."""
    BESIDE = "beside"
    """It stands in an answer with an example."""
    AGAINST = "against"
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class LessonSegment:
    """One segment that was read: its kind, the neutral answer around it, the example, the general head's score."""

    kind: SegmentRole
    host: int
    example: int = -1
    """Number of the example: those against, those that are fine, good answers; -1 where there is none."""
    general: float = 0.0
    beside_next: bool = False
    """Whether it stands directly before or behind the example."""


@dataclass(frozen=True, slots=True)
class LessonPrompt:
    """A planted answer, its example, and whether that goes against the objective."""

    augmented: AugmentedAnswer
    example: int
    kind: SegmentRole


@dataclass(frozen=True, slots=True)
class LessonMaterial:
    """What is read for one objective: neutral answers and planted examples, by the company of the prompt."""

    neutral: tuple[tuple[PromptObjectives, tuple[LessonPrompt, ...]], ...]
    examples: tuple[tuple[PromptObjectives, tuple[LessonPrompt, ...]], ...]

    @property
    def prompts(self) -> int:
        """Answers to read."""
        return sum(len(prompted) for _, prompted in (*self.neutral, *self.examples))


def build_material(
    text: str, examples: Examples, answers: Sequence[Neutral], usual: Sequence[str], further: Sequence[str]
) -> LessonMaterial:
    """The prompts that teach an objective; the same ones for the same arguments."""
    order = Random(_SEED).sample(range(len(answers)), len(answers))
    together = sample_companions(text, usual, further, _COMPANIES, Random(text))
    alone = int(len(order) * _ALONE_SHARE)
    foreign = int(len(order) * _FOREIGN_SHARE)
    groups = [(PromptObjectives((text,)), [_plain(n, answers) for n in order[:alone]])]
    groups[0][1].extend(_with_foreign(answers, usable_answers(answers, order[alone : alone + foreign])))
    for n, company in enumerate(together):
        groups.append((company, [_plain(number, answers) for number in order[alone + foreign + n :: _COMPANIES]]))
    example_prompts = _example_prompts(examples, answers, [PromptObjectives((text,)), *together])
    return LessonMaterial(tuple((company, tuple(prompted)) for company, prompted in groups), example_prompts)


def _plain(host: int, answers: Sequence[Neutral]) -> LessonPrompt:
    return LessonPrompt(AugmentedAnswer(host, answers[host]), -1, SegmentRole.NEUTRAL)


def _with_foreign(answers: Sequence[Neutral], numbers: Sequence[int]) -> list[LessonPrompt]:
    """Each of these answers with a sentence of the one after it."""
    rng = Random(_SEED)
    result = []
    for host, other in zip(numbers, (*numbers[1:], *numbers[:1]), strict=True):
        sentences = [segment.text.strip() for segment in split(answers[other].answer)]
        sentence = sentences[rng.choice(insertion_places(answers[other].answer)) % len(sentences)]
        [foreign] = insert_each(sentence, answers, [host], rng)
        result.append(LessonPrompt(foreign, -1, SegmentRole.FOREIGN))
    return result


def _example_prompts(
    examples: Examples, answers: Sequence[Neutral], together: Sequence[PromptObjectives]
) -> tuple[tuple[PromptObjectives, tuple[LessonPrompt, ...]], ...]:
    """Every example in several answers, the first of its prompts alone, then one in company, and so on."""
    rng = Random(examples.digest)
    groups: list[list[LessonPrompt]] = [[] for _ in together]
    possible = usable_answers(answers, range(len(answers)))
    rng.shuffle(possible)
    turn = 0
    for kind, first, examples_of_kind in (
        (SegmentRole.AGAINST, 0, examples.against),
        (SegmentRole.FINE, len(examples.against), examples.fine),
    ):
        for number, example in enumerate(examples_of_kind, first):
            for n in range(places_of(len(examples_of_kind))):
                host = possible[turn % len(possible)]
                turn += 1
                place = rng.choice(insertion_places(answers[host].answer))
                company = 0 if n % 2 == 0 else 1 + rng.randrange(len(together) - 1)
                groups[company].append(
                    LessonPrompt(insert_text(example.text, host, answers[host], place), number, kind)
                )
    # Not with the neutral answers, whose rows are kept on disk: these are the operator's.
    groups[0] += _good_answer_prompts(examples, len(answers))
    return tuple((company, tuple(group)) for company, group in zip(together, groups, strict=True) if group)


def _good_answer_prompts(examples: Examples, host: int) -> list[LessonPrompt]:
    """The good answers, as further hosts behind ours."""
    first = len(examples.against) + len(examples.fine)
    read_as_they_are = [Neutral(good.question, good.text) for good in examples.good_answers]
    return [
        LessonPrompt(AugmentedAnswer(host + n, answer), first + n, SegmentRole.NEUTRAL)
        for n, answer in enumerate(read_as_they_are)
    ]


def places_of(examples: int) -> int:
    """In how many answers each of so many examples is set."""
    return max(_FEWEST_PLACES, min(_MOST_PLACES, _PROMPTS // max(1, examples)))


async def read_material(
    material: LessonMaterial, reader: RowReader, cache: RowsCache
) -> tuple[list[LessonSegment], bytes]:
    """What was read: a line and a row of each segment. Raises `CorrectionError`."""
    lines: list[LessonSegment] = []
    rows: list[bytes] = []
    for company, prompted in material.neutral:
        answers = await cache.read(reader, company, [prompt.augmented.neutral for prompt in prompted])
        _add(prompted, answers, lines, rows)
    for company, prompted in material.examples:
        answers = await reader.read(company, [prompt.augmented.neutral for prompt in prompted])
        _add(prompted, answers, lines, rows)
    return lines, b"".join(rows)


def _add(
    prompted: Sequence[LessonPrompt], answers: Sequence[AnswerRows], lines: list[LessonSegment], rows: list[bytes]
) -> None:
    for prompt, answer in zip(prompted, answers, strict=True):
        rows.append(answer.rows)
        inside = [prompt.augmented.covers(start, end) for start, end in answer.segments]
        for n, general in enumerate(answer.general):
            near = any(inside[max(0, n - 1) : n + 2])
            lines.append(_line(prompt, inside[n], near, general))


def _line(prompted: LessonPrompt, inside: bool, near: bool, general: float) -> LessonSegment:
    host = prompted.augmented.host
    if inside:
        return LessonSegment(prompted.kind, host, prompted.example, general)
    if prompted.kind in (SegmentRole.NEUTRAL, SegmentRole.FOREIGN):
        return LessonSegment(SegmentRole.NEUTRAL, host, prompted.example, general)
    return LessonSegment(SegmentRole.BESIDE, host, prompted.example, general, near)
