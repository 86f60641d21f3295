"""Material of teaching: the prompts that the engine reads, and the label of each segment in them. A neutral answer
violates no objective. A host is the neutral answer into which an example is inserted. Companions are further objectives
in the prompt.

Each neutral answer is read once: most with only the taught objective in the prompt, others together with more
objectives. If several objectives of one policies file have examples, they share one prompt instead, so that neutral
answers are read once for all of them. Some neutral answers contain a sentence of another answer, so that the head does
not mistake every unusual sentence for a violation. Every example is inserted into several neutral answers, with the
objective alone and with others in turn: as it is, as somebody says it in earnest, and only mentioned, as a near miss
(`near_misses.py`, which calls the sentence around the example a frame). The segments around an example are neutral,
too, and have a higher weight, because the model's state at a segment also depends on the text before it. The operator's
good answers are read unchanged after their own questions, and count as neutral.
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
"""Number of parts of the neutral answers; for each part, one head learns only from the other parts."""
_COMPANION_PROMPTS = 3
"""Number of prompts with companions, besides the prompt with the taught objective alone."""
_ALONE_SHARE = 0.54
"""Share of the neutral answers that are read with the taught objective alone."""
_FOREIGN_SHARE = 0.1
"""Share of the neutral answers into which a sentence of another neutral answer is inserted."""
_MAX_TOGETHER = 16
"""Most objectives in a prompt that objectives of one file share."""
_EXAMPLE_PROMPTS = 16
"""Approximate number of answers with an example as it is, even if there are few examples."""
_MAX_FRAMED = 16
"""Most examples that are also inserted within a frame."""
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
    """What is read for one objective, in groups: (objectives in the prompt, answers that are read with this prompt)."""

    neutral: tuple[tuple[PromptObjectives, tuple[TeachingPrompt, ...]], ...]
    """Groups of neutral answers, whose rows are cached."""
    examples: tuple[tuple[PromptObjectives, tuple[TeachingPrompt, ...]], ...]
    """Groups of answers with the operator's texts, whose rows are not cached."""

    @property
    def prompt_objectives(self) -> PromptObjectives:
        """The objectives of the prompt that the taught objective shares with others; without others, it alone."""
        first_objectives, _ = self.neutral[0]
        return first_objectives

    @property
    def prompts(self) -> int:
        """Number of answers to read."""
        return sum(len(prompts) for _, prompts in (*self.neutral, *self.examples))


def build_material(
    text: str,
    examples: Examples,
    answers: Sequence[Neutral],
    usual: Sequence[str],
    further: Sequence[str],
    frames: Frames = NO_FRAMES,
    sharing: Sequence[str] = (),
) -> TeachingMaterial:
    """Return the prompts that teach the objective `text`; the same arguments always give the same prompts.

    `answers` are the neutral answers, some of which get a sentence of another one (`_insert_foreign`). `usual` and
    `further` are texts of objectives that may be companions. `frames` are the sentences in which examples are mentioned
    or asserted. `sharing` are the texts of all objectives that are taught with these neutral answers: if there are
    several, all neutral answers are read under a prompt that they share.
    """
    order = Random(_SEED).sample(range(len(answers)), len(answers))
    companion_prompts = sample_companions(text, usual, further, _COMPANION_PROMPTS, Random(text))
    shared_prompt = _find_shared_prompt(text, sharing)
    # under a shared prompt an answer is read once for all its objectives, so no answer is read with one objective alone
    alone_count = 0 if shared_prompt else int(len(order) * _ALONE_SHARE)
    foreign_end = alone_count + int(len(order) * _FOREIGN_SHARE)
    first_prompts = [_make_plain_prompt(host, answers) for host in order[:alone_count]]
    first_prompts += _insert_foreign(answers, usable_answers(answers, order[alone_count:foreign_end]))
    remaining_hosts = order[foreign_end:]
    if shared_prompt:
        first_prompts += [_make_plain_prompt(host, answers) for host in remaining_hosts]
    alone_prompt = PromptObjectives((text,))
    groups = [(shared_prompt or alone_prompt, tuple(first_prompts))]
    if not shared_prompt:
        # the remaining answers are dealt out to the prompts with companions
        for first, companion_prompt in enumerate(companion_prompts):
            dealt_hosts = remaining_hosts[first::_COMPANION_PROMPTS]
            groups.append((companion_prompt, tuple(_make_plain_prompt(host, answers) for host in dealt_hosts)))
    example_groups = _build_example_groups(examples, answers, frames, [alone_prompt, *companion_prompts])
    return TeachingMaterial(tuple(groups), example_groups)


def _find_shared_prompt(text: str, sharing: Sequence[str]) -> PromptObjectives | None:
    """Return the objectives of the prompt that the objective `text` shares with others; None if there are no others.

    `sharing` are the texts of all objectives with the same neutral answers, dealt out to as many prompts as are needed.
    """
    texts = list(dict.fromkeys(sharing))
    if len(texts) < 2 or text not in texts:
        return None
    prompt_count = math.ceil(len(texts) / _MAX_TOGETHER)
    prompt_index = texts.index(text) % prompt_count
    # every `prompt_count`th text, so that the prompts have equally many
    own_texts = texts[prompt_index::prompt_count]
    return PromptObjectives(tuple(own_texts), own_texts.index(text))


def _make_plain_prompt(host: int, answers: Sequence[Neutral]) -> TeachingPrompt:
    """Return the neutral answer with the index `host`, without an example in it."""
    return TeachingPrompt(AugmentedAnswer(host, answers[host]), example=-1, role=SegmentRole.NEUTRAL)


def _insert_foreign(answers: Sequence[Neutral], hosts: Sequence[int]) -> list[TeachingPrompt]:
    """Insert into each answer with an index in `hosts` a sentence of the next one of these answers."""
    rng = Random(_SEED)
    prompts = []
    next_hosts = (*hosts[1:], *hosts[:1])
    for host, next_host in zip(hosts, next_hosts, strict=True):
        next_answer = answers[next_host].answer
        sentences = [segment.text.strip() for segment in split(next_answer)]
        # the place after the last sentence stands for the first sentence
        sentence = sentences[rng.choice(insertion_places(next_answer)) % len(sentences)]
        augmented = insert_randomly(sentence, host, answers[host], rng)
        prompts.append(TeachingPrompt(augmented, example=-1, role=SegmentRole.FOREIGN))
    return prompts


def _build_example_groups(
    examples: Examples, answers: Sequence[Neutral], frames: Frames, prompt_objectives: Sequence[PromptObjectives]
) -> tuple[tuple[PromptObjectives, tuple[TeachingPrompt, ...]], ...]:
    """Insert every example into several answers, and add the good answers; return the groups as `examples` has them.

    There is a group for each of `prompt_objectives`: first the taught objective alone, then with companions.
    """
    rng = Random(examples.digest)
    groups: list[list[TeachingPrompt]] = [[] for _ in prompt_objectives]
    hosts = _list_shorter_hosts(answers)
    rng.shuffle(hosts)
    insertion_count = 0
    for role, number, texts in (*_vary_violations(examples.against, frames), *_repeat_fine_examples(examples)):
        for text_index, text in enumerate(texts):
            # the hosts take turns over all examples, so that every answer is used about equally often
            host = hosts[insertion_count % len(hosts)]
            insertion_count += 1
            augmented = insert_randomly(text, host, answers[host], rng)
            # every second text is read with the objective alone
            group_index = 0 if text_index % 2 == 0 else 1 + rng.randrange(len(prompt_objectives) - 1)
            groups[group_index].append(TeachingPrompt(augmented, number, role))
    # Good answers are not among the neutral answers, whose rows are cached on disk, because they are the operator's.
    groups[0] += _make_good_answer_prompts(examples, first_host=len(answers))
    paired_groups = zip(prompt_objectives, groups, strict=True)
    return tuple((objectives, tuple(group)) for objectives, group in paired_groups if group)


def _list_shorter_hosts(answers: Sequence[Neutral]) -> list[int]:
    """Return the indices of answers into which a text can be inserted: of the shorter two thirds, to save time."""
    hosts = usable_answers(answers, range(len(answers)))
    hosts.sort(key=lambda host: len(answers[host].question) + len(answers[host].answer))
    return hosts[: math.ceil(len(hosts) * 2 / 3)]


def _vary_violations(against: Sequence[Example], frames: Frames) -> Iterator[tuple[SegmentRole, int, list[str]]]:
    """Yield (role, number of the example, texts to insert) for the violating examples.

    Each example is inserted as it is; some are also asserted in a frame, and some only mentioned in a frame.
    """
    places = count_places(len(against))
    framed_numbers = [number for number, example in enumerate(against) if can_be_framed(example.text)]
    # Evenly spread examples are framed: more near misses teach little, and each costs engine time. The step is rounded
    # up; `or 1`, because a step must not be 0.
    framed_numbers = framed_numbers[:: -(-len(framed_numbers) // _MAX_FRAMED) or 1]
    # every second one is asserted: with more, a head of four examples found fewer sentences that have no frame
    asserted_numbers = framed_numbers[::2]
    for number, example in enumerate(against):
        assertions = _fill_frames(frames.assertions, example, number, 1) if number in asserted_numbers else []
        yield SegmentRole.AGAINST, number, [example.text] * places + assertions
        if number in framed_numbers:
            yield SegmentRole.NEAR, number, _fill_frames(frames.mentions, example, number, places)


def _repeat_fine_examples(examples: Examples) -> Iterator[tuple[SegmentRole, int, list[str]]]:
    """Yield (role, number of the example, texts to insert) for each fine example, which is only inserted as it is."""
    places = count_places(len(examples.fine))
    for number, example in enumerate(examples.fine, len(examples.against)):
        yield SegmentRole.FINE, number, [example.text] * places


def _fill_frames(frames: Sequence[str], example: Example, number: int, count: int) -> list[str]:
    """Return the example in `count` of these frames, or in all if there are fewer.

    The example's `number` chooses the frames, so that the next example gets other frames.
    """
    first = number * count
    return [fill_frame(frames[(first + n) % len(frames)], example.text) for n in range(min(count, len(frames)))]


def _make_good_answer_prompts(examples: Examples, first_host: int) -> list[TeachingPrompt]:
    """Return the good answers as neutral prompts, which count as hosts from the number `first_host` on."""
    first_number = len(examples.against) + len(examples.fine)
    prompts = []
    for index, good_answer in enumerate(examples.good_answers):
        answer = AugmentedAnswer(first_host + index, Neutral(good_answer.question, good_answer.text))
        prompts.append(TeachingPrompt(answer, example=first_number + index, role=SegmentRole.NEUTRAL))
    return prompts


def count_places(example_count: int) -> int:
    """Return into how many answers each of `example_count` examples is inserted."""
    return max(_MIN_PLACES, min(_MAX_PLACES, _EXAMPLE_PROMPTS // max(1, example_count)))


async def read_material(
    material: TeachingMaterial, reader: RowReader, cache: RowsCache
) -> tuple[list[TeachingSegment], bytes]:
    """Read the material with the engine; return the segments, and their rows as 16-bit floats, one after the other.

    Rows of neutral answers come from `cache` where it has them. Raises the engine's `CorrectionError`.
    """
    segments: list[TeachingSegment] = []
    rows: list[bytes] = []
    for prompt_objectives, prompts in material.neutral:
        answers = await cache.read(reader, prompt_objectives, [prompt.augmented.neutral for prompt in prompts])
        _add_segments(prompts, answers, prompt_objectives.index, segments, rows)
    for prompt_objectives, prompts in material.examples:
        answers = await reader.read(prompt_objectives, [prompt.augmented.neutral for prompt in prompts])
        _add_segments(prompts, answers, prompt_objectives.index, segments, rows)
    return segments, b"".join(rows)


def _add_segments(
    prompts: Sequence[TeachingPrompt],
    answers: Sequence[AnswerRows],
    objective_index: int,
    segments: list[TeachingSegment],
    rows: list[bytes],
) -> None:
    """Append the labelled segments and the rows of these answers to `segments` and `rows`.

    `answers` are what the engine computed for `prompts`; `objective_index` is that of the taught objective in them.
    """
    for prompt, answer in zip(prompts, answers, strict=True):
        rows.append(answer.rows)
        are_inserted = [prompt.augmented.covers(start, end) for start, end in answer.segments]
        for index, general_score in enumerate(answer.general_scores(objective_index)):
            # the segment itself or one of its neighbours is in the inserted text
            is_next_to_example = any(are_inserted[max(0, index - 1) : index + 2])
            segments.append(_label_segment(prompt, are_inserted[index], is_next_to_example, general_score))


def _label_segment(
    prompt: TeachingPrompt, is_inserted: bool, is_next_to_example: bool, general_score: float
) -> TeachingSegment:
    """Return the labelled segment of a prompt's answer; `is_inserted` says whether it belongs to the inserted text.

    Around a sentence of another neutral answer, the segments are as neutral as without this sentence.
    """
    host = prompt.augmented.host
    if is_inserted:
        return TeachingSegment(prompt.role, host, prompt.example, general_score)
    if prompt.role in (SegmentRole.NEUTRAL, SegmentRole.FOREIGN):
        return TeachingSegment(SegmentRole.NEUTRAL, host, prompt.example, general_score)
    return TeachingSegment(SegmentRole.BESIDE, host, prompt.example, general_score, is_next_to_example)
