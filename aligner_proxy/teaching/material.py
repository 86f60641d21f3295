"""Material of teaching: the prompts that the engine reads, and the label of each segment in them.

Each neutral answer is read once: most with only the taught objective in the prompt, others together with more
objectives. If several objectives of one policies file have examples, they share one prompt instead, so that neutral
answers are read once for all of them. Some neutral answers contain a sentence of another answer, so that the head does
not mistake every unusual sentence for a violation. Every example is inserted into several neutral answers, with the
objective alone and with others in turn: as it is, as somebody says it in earnest, and only mentioned, as a near miss
(`near_misses.py`). The segments around an example are neutral, too, and have a higher weight, because the model's state
at a segment also depends on the text before it. The operator's good answers are read unchanged after their own
questions, and count as neutral.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from aligner_proxy.teaching.examples import Example, Examples
from aligner_proxy.teaching.insertion import AugmentedAnswer, insert_randomly, insertion_places, usable_answers
from aligner_proxy.teaching.near_misses import NO_FRAMES, Frames, can_be_framed, fill_frame
from aligner_proxy.teaching.neutral import Neutral
from aligner_proxy.teaching.rows import AnswerRows, PromptObjectives, RowReader, RowsCache, sample_companions
from aligner_proxy.text.structure import split

NEUTRAL_FOLDS = 5
"""Parts of the neutral answers; for each, one head learns from the others only."""
_COMPANIES = 3
"""Prompts with further objectives, besides the one with the taught objective alone."""
_ALONE_SHARE = 0.54
"""Share of the neutral answers that are read with the taught objective alone."""
_FOREIGN_SHARE = 0.1
"""Share of the neutral answers into which a sentence of another one is inserted."""
_MAX_TOGETHER = 16
"""Most objectives in a prompt that objectives of one file share."""
_PROMPTS = 16
"""Approximate number of prompts with examples as they are, even if there are few examples."""
_MAX_FRAMED = 16
"""Most examples that are also framed."""
_MIN_PLACES = 2
_MAX_PLACES = 8
"""Fewest and most answers into which one example is inserted."""
_SEED = 26
"""Seed of random choices; fixed, so that the rows of the same neutral answers are found in the cache."""


class SegmentRole(StrEnum):
    """The role of a segment in teaching."""

    NEUTRAL = "neutral"
    FOREIGN = "foreign"
    """A sentence of another neutral answer."""
    BESIDE = "beside"
    """A neutral segment in an answer that contains an example."""
    NEAR = "near"
    """An example that the answer only mentions."""
    AGAINST = "against"
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class TeachingSegment:
    """One segment that was read, with its label."""

    role: SegmentRole
    host: int
    """Index of the neutral answer that contains the segment; good answers are counted after the neutral ones."""
    example: int = -1
    """Number of the example, counting first `against`, then `fine`, then good answers; -1 if there is none."""
    general_score: float = 0.0
    """The general head's score."""
    is_next_to_example: bool = False
    """Whether the segment is directly before or after the example."""


@dataclass(frozen=True, slots=True)
class TeachingPrompt:
    """An answer to read, the number of the example inserted into it, and the role of the inserted text."""

    augmented: AugmentedAnswer
    example: int
    role: SegmentRole


@dataclass(frozen=True, slots=True)
class TeachingMaterial:
    """What is read for one objective: (objectives in the prompt, answers read with them) for each group of answers."""

    neutral: tuple[tuple[PromptObjectives, tuple[TeachingPrompt, ...]], ...]
    """Groups of neutral answers, whose rows are cached."""
    examples: tuple[tuple[PromptObjectives, tuple[TeachingPrompt, ...]], ...]
    """Groups of answers with the operator's texts, whose rows are not cached."""

    @property
    def prompt_objectives(self) -> PromptObjectives:
        """The objectives of the prompt that the objective shares with others; without others, the objective alone."""
        return self.neutral[0][0]

    @property
    def prompts(self) -> int:
        """Number of answers to read."""
        return sum(len(prompted) for _, prompted in (*self.neutral, *self.examples))


def build_material(
    text: str,
    examples: Examples,
    answers: Sequence[Neutral],
    usual: Sequence[str],
    further: Sequence[str],
    frames: Frames = NO_FRAMES,
    sharing: Sequence[str] = (),
) -> TeachingMaterial:
    """The prompts that teach the objective `text`; the same arguments always give the same prompts.

    `answers` are the neutral answers, some of which get a sentence of another one (`_insert_foreign`). `usual` and
    `further` are texts of objectives that may be in the prompt, too. `sharing` are the texts of all objectives that are
    taught with these neutral answers: with others, all neutral answers are read under a prompt that they share.
    """
    order = Random(_SEED).sample(range(len(answers)), len(answers))
    companies = sample_companions(text, usual, further, _COMPANIES, Random(text))
    shared_prompt = _shared_prompt(text, sharing)
    # With others in its prompt, an answer is read once for all of them, so none is read with one objective alone.
    alone_count = 0 if shared_prompt else int(len(order) * _ALONE_SHARE)
    foreign_end = alone_count + int(len(order) * _FOREIGN_SHARE)
    first_prompts = [_plain_prompt(number, answers) for number in order[:alone_count]]
    first_prompts += _insert_foreign(answers, usable_answers(answers, order[alone_count:foreign_end]))
    remaining = order[foreign_end:]
    if shared_prompt:
        first_prompts += [_plain_prompt(number, answers) for number in remaining]
    groups = [(shared_prompt or PromptObjectives((text,)), tuple(first_prompts))]
    if not shared_prompt:
        # the rest of the answers are dealt out to the prompts with other objectives
        for first, company in enumerate(companies):
            dealt_numbers = remaining[first::_COMPANIES]
            groups.append((company, tuple(_plain_prompt(number, answers) for number in dealt_numbers)))
    example_prompts = _build_example_prompts(examples, answers, frames, [PromptObjectives((text,)), *companies])
    return TeachingMaterial(tuple(groups), example_prompts)


def _shared_prompt(text: str, sharing: Sequence[str]) -> PromptObjectives | None:
    """The objectives of the prompt that the objective `text` shares with others; None if there are no others."""
    texts = list(dict.fromkeys(sharing))
    if len(texts) < 2 or text not in texts:
        return None
    prompt_count = math.ceil(len(texts) / _MAX_TOGETHER)
    prompt_number = texts.index(text) % prompt_count
    # Every `prompts`th one, so that the prompts have equally many.
    own_texts = texts[prompt_number::prompt_count]
    return PromptObjectives(tuple(own_texts), own_texts.index(text))


def _plain_prompt(host: int, answers: Sequence[Neutral]) -> TeachingPrompt:
    """The neutral answer with this index, as it is."""
    return TeachingPrompt(AugmentedAnswer(host, answers[host]), -1, SegmentRole.NEUTRAL)


def _insert_foreign(answers: Sequence[Neutral], numbers: Sequence[int]) -> list[TeachingPrompt]:
    """Insert into each of these answers a sentence of the next one."""
    rng = Random(_SEED)
    result = []
    for host, other in zip(numbers, (*numbers[1:], *numbers[:1]), strict=True):
        sentences = [segment.text.strip() for segment in split(answers[other].answer)]
        # A place may be the end of the answer, behind the last sentence; then the first sentence is taken.
        sentence = sentences[rng.choice(insertion_places(answers[other].answer)) % len(sentences)]
        foreign = insert_randomly(sentence, host, answers[host], rng)
        result.append(TeachingPrompt(foreign, -1, SegmentRole.FOREIGN))
    return result


def _build_example_prompts(
    examples: Examples, answers: Sequence[Neutral], frames: Frames, companies: Sequence[PromptObjectives]
) -> tuple[tuple[PromptObjectives, tuple[TeachingPrompt, ...]], ...]:
    """Insert every example into several answers, and add the good answers; returns the groups of `examples`.

    `together` are the objectives of the prompts: first the objective alone, then with others. They are used in turn.
    """
    rng = Random(examples.digest)
    groups: list[list[TeachingPrompt]] = [[] for _ in companies]
    hosts = _shorter_hosts(answers)
    rng.shuffle(hosts)
    turn = 0
    for role, number, texts in (*_forms_of_against(examples.against, frames), *_forms_of_fine(examples)):
        for n, text in enumerate(texts):
            # By turns over all examples, so that every answer is used about equally often.
            host = hosts[turn % len(hosts)]
            turn += 1
            augmented = insert_randomly(text, host, answers[host], rng)
            # Group 0 is the prompt with the objective alone.
            group_number = 0 if n % 2 == 0 else 1 + rng.randrange(len(companies) - 1)
            groups[group_number].append(TeachingPrompt(augmented, number, role))
    # Not among the neutral answers, whose rows are cached on disk, because these texts are the operator's.
    groups[0] += _good_answer_prompts(examples, len(answers))
    return tuple(
        (prompt_objectives, tuple(group)) for prompt_objectives, group in zip(companies, groups, strict=True) if group
    )


def _shorter_hosts(answers: Sequence[Neutral]) -> list[int]:
    """The shorter two thirds of the answers into which a text can be inserted, because long ones cost time."""
    usable = usable_answers(answers, range(len(answers)))
    usable.sort(key=lambda number: len(answers[number].question) + len(answers[number].answer))
    return usable[: math.ceil(len(usable) * 2 / 3)]


def _forms_of_against(against: Sequence[Example], frames: Frames) -> Iterator[tuple[SegmentRole, int, list[str]]]:
    """Yield (role, number of the example, texts to insert): each example as it is or in earnest, and only mentioned."""
    places = count_places(len(against))
    framed = [number for number, example in enumerate(against) if can_be_framed(example.text)]
    # Evenly spread examples: more near misses teach little, and each costs engine time.
    # The step is rounded up; it is 1 if there are none, because a step must not be 0.
    framed = framed[:: -(-len(framed) // _MAX_FRAMED) or 1]
    for number, example in enumerate(against):
        # Of every second example: with more, a head of four examples found fewer sentences that have no frame.
        assertions = _fill_frames(frames.assertions, example, number, 1) if number in framed[::2] else []
        yield SegmentRole.AGAINST, number, [example.text] * places + assertions
        if number in framed:
            yield SegmentRole.NEAR, number, _fill_frames(frames.mentions, example, number, places)


def _forms_of_fine(examples: Examples) -> Iterator[tuple[SegmentRole, int, list[str]]]:
    """Yield (role, number of the example, texts to insert) for each fine example, which is only inserted as it is."""
    places = count_places(len(examples.fine))
    for number, example in enumerate(examples.fine, len(examples.against)):
        yield SegmentRole.FINE, number, [example.text] * places


def _fill_frames(frames: Sequence[str], example: Example, number: int, count: int) -> list[str]:
    """The example in `count` of these frames; its `number` chooses them, so that the next example gets others."""
    first = number * count
    return [fill_frame(frames[(first + n) % len(frames)], example.text) for n in range(min(count, len(frames)))]


def _good_answer_prompts(examples: Examples, host: int) -> list[TeachingPrompt]:
    """The good answers as neutral prompts; their host numbers continue after those of our neutral answers."""
    first = len(examples.against) + len(examples.fine)
    read_as_they_are = [Neutral(good.question, good.text) for good in examples.good_answers]
    return [
        TeachingPrompt(AugmentedAnswer(host + n, answer), first + n, SegmentRole.NEUTRAL)
        for n, answer in enumerate(read_as_they_are)
    ]


def count_places(example_count: int) -> int:
    """The number of answers into which each example is inserted, given the number of examples."""
    return max(_MIN_PLACES, min(_MAX_PLACES, _PROMPTS // max(1, example_count)))


async def read_material(
    material: TeachingMaterial, reader: RowReader, cache: RowsCache
) -> tuple[list[TeachingSegment], bytes]:
    """Read the material with the engine; returns (segments, their rows as 16-bit floats, one after the other).

    Raises the engine's `CorrectionError`.
    """
    segments: list[TeachingSegment] = []
    rows: list[bytes] = []
    for prompt_objectives, prompted in material.neutral:
        answers = await cache.read(reader, prompt_objectives, [prompt.augmented.neutral for prompt in prompted])
        _add_segments(prompted, answers, prompt_objectives.index, segments, rows)
    for prompt_objectives, prompted in material.examples:
        answers = await reader.read(prompt_objectives, [prompt.augmented.neutral for prompt in prompted])
        _add_segments(prompted, answers, prompt_objectives.index, segments, rows)
    return segments, b"".join(rows)


def _add_segments(
    prompted: Sequence[TeachingPrompt],
    answers: Sequence[AnswerRows],
    index: int,
    segments: list[TeachingSegment],
    rows: list[bytes],
) -> None:
    """Append the labelled segments and the rows of these answers to `segments` and `rows`.

    `index` is that of the taught objective in their prompt.
    """
    for prompt, answer in zip(prompted, answers, strict=True):
        rows.append(answer.rows)
        inside = [prompt.augmented.covers(start, end) for start, end in answer.segments]
        for number, general_score in enumerate(answer.general_scores(index)):
            # The segment itself or one of its neighbours is in the inserted text.
            is_next_to_example = any(inside[max(0, number - 1) : number + 2])
            segments.append(_label_segment(prompt, inside[number], is_next_to_example, general_score))


def _label_segment(
    prompted: TeachingPrompt, inside: bool, is_next_to_example: bool, general_score: float
) -> TeachingSegment:
    """The labelled segment; `inside` says whether it belongs to the inserted text.

    Around a sentence of another neutral answer, the segments are as neutral as without that sentence.
    """
    host = prompted.augmented.host
    if inside:
        return TeachingSegment(prompted.role, host, prompted.example, general_score)
    if prompted.role in (SegmentRole.NEUTRAL, SegmentRole.FOREIGN):
        return TeachingSegment(SegmentRole.NEUTRAL, host, prompted.example, general_score)
    return TeachingSegment(SegmentRole.BESIDE, host, prompted.example, general_score, is_next_to_example)
