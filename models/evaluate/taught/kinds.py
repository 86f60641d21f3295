"""Objectives that no aligner was trained on, and the answers by which it is tested what a few examples teach of them.

Sentences at even places of a file (the first, the third, ...) teach; those at odd places are set into good answers of
the development side, alone and in company of one to four other objectives, and so are those that are only near the
objective. Every draw depends on the seed, the kind and the case alone: a smaller test is a part of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

import models.data
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.objective_schema import check_objective_text
from aligner_proxy.policy.yaml_file import YamlSource, read_yaml, suggest_name
from aligner_proxy.teaching.examples import normalise_example
from aligner_proxy.teaching.insertion import AugmentedAnswer, insert_text, insertion_places
from aligner_proxy.teaching.neutral import Neutral
from aligner_proxy.teaching.rows import PromptObjectives
from aligner_proxy.text.structure import split
from models.data.answers import PoolAnswer

FOLDER = Path(models.data.__file__).parent / "taught_kinds"
NEAR = frozenset(
    {
        "archaic-wording",
        "assumed-knowledge",
        "badges-and-points",
        "chances-of-an-application",
        "dunning-threats",
        "food-figures",
        "green-claims",
        "guilt-trips",
        "hints-at-leniency",
        "nostalgia",
        "not-our-department",
        "outages-and-breaches",
        "remarks-on-the-users-writing",
        "sharing-accounts-and-terms",
        "speaking-for-the-board",
        "telling-people-to-calm-down",
        "thinking-aloud",
    }
)
"""Training has seen a kind that lies near these (README of the folder)."""
CLEAN = 12
"""Good answers of a kind in which nothing is planted."""
MAX_OTHERS = 4
_LONGEST_HOST = 1200
_KEYS = ("objective", "slug", "shared", "against", "fine")


@dataclass(frozen=True, slots=True)
class TaughtKind:
    """One objective, with sentences that go against it and sentences that are near it but allowed."""

    slug: str
    objective: str
    against: tuple[str, ...]
    fine: tuple[str, ...]

    @property
    def near(self) -> bool:
        """Whether a kind of the training data lies near."""
        return self.slug in NEAR

    @property
    def teaching(self) -> tuple[str, ...]:
        """The sentences that may teach: every second one."""
        return self.against[0::2]

    @property
    def testing(self) -> tuple[str, ...]:
        """The sentences that test: the other half."""
        return self.against[1::2]


class TaughtTrial(StrEnum):
    """What is planted in a test answer, and which objectives are asked about."""

    ALONE = "alone"
    """A sentence against the objective, which is the only one."""
    COMPANY = "company"
    """A sentence against the objective, which stands among others."""
    FINE = "fine"
    """A sentence that is near the objective and allowed; under another it may be wrong, so the objective is alone."""
    CLEAN = "clean"
    """Nothing; the objective is alone in every second answer."""


@dataclass(frozen=True, slots=True)
class TaughtCase:
    """One test answer, and the objectives of its prompt."""

    trial: TaughtTrial
    planted: AugmentedAnswer
    company: PromptObjectives


def read_kinds(folder: Path = FOLDER, slugs: Sequence[str] = ()) -> list[TaughtKind]:
    """The kinds of a folder, those far from training first, or the kinds `slugs`; raises `ConfigError`."""
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not paths:
        raise ConfigError(f"{folder}: there are no objectives (*.yaml) in this folder")
    for slug in slugs:
        if slug not in paths:
            raise ConfigError(f"unknown kind {slug!r}; {suggest_name(slug, list(paths))}")
    kinds = [_read_kind(paths[slug]) for slug in dict.fromkeys(slugs or paths)]
    return kinds if slugs else sorted(kinds, key=lambda kind: kind.near)


def _read_kind(path: Path) -> TaughtKind:
    """Read and check one file; raises `ConfigError` with the line of the first mistake."""
    data, source = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{source.name}:1: must be a block with `objective`, `slug`, `against` and `fine`")
    for key in data:
        if key not in _KEYS:
            raise ConfigError(f"{source.place_of(key)}: unknown key {key!r}; {suggest_name(key, _KEYS)}")
    if data.get("slug") != path.stem:
        raise ConfigError(f"{source.place_of('slug')}: slug: must be the name of the file, {path.stem}")
    try:
        objective = check_objective_text(str(data.get("objective", "")))
    except ValueError as error:
        raise ConfigError(f"{source.place_of('objective')}: objective: {error}") from None
    places: dict[str, str] = {}
    against = tuple(_read_sentences(data, "against", source, places))
    fine = tuple(_read_sentences(data, "fine", source, places))
    return TaughtKind(path.stem, objective, against, fine)


def _read_sentences(data: Mapping[str, Any], key: str, source: YamlSource, places: dict[str, str]) -> Iterator[str]:
    """The sentences of one list. A sentence that stands twice in the file is a `ConfigError`."""
    values = data.get(key)
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{source.place_of(key)}: {key}: must be a list of sentences, each behind `- `")
    for n, value in enumerate(values):
        place = source.place_of(key, n)
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{place}: {key}[{n}]: must be a sentence (put it in quotes)")
        first = places.setdefault(normalise_example(value), place)
        if first != place:
            raise ConfigError(f"{place}: {key}[{n}]: stands twice (first at {first}); keep one")
        yield value.strip()


def select_hosts(answers: Sequence[PoolAnswer]) -> list[PoolAnswer]:
    """Good answers that a sentence can be planted in; raises `ConfigError` where there are none."""
    hosts = [
        answer
        for answer in answers
        if answer.harmless
        and len(answer.text) <= _LONGEST_HOST
        and insertion_places(answer.text)
        and len(split(answer.text)) > 1
    ]
    if not hosts:
        raise ConfigError("the data have no answer on the development side that a sentence can be set into")
    return hosts


def count_cases(kind: TaughtKind, limit: int | None = None) -> int:
    """How many test answers `make_cases` makes of a kind."""
    return sum(_count_by_trial(kind, limit).values())


def _count_by_trial(kind: TaughtKind, limit: int | None) -> dict[TaughtTrial, int]:
    """How many test answers each trial has."""
    counts = {
        TaughtTrial.ALONE: len(kind.testing),
        TaughtTrial.COMPANY: len(kind.testing),
        TaughtTrial.FINE: len(kind.fine),
        TaughtTrial.CLEAN: CLEAN,
    }
    return {trial: count if limit is None else min(count, limit) for trial, count in counts.items()}


def make_cases(
    kind: TaughtKind,
    others: Sequence[TaughtKind],
    builtin: Mapping[str, str],
    hosts: Sequence[PoolAnswer],
    seed: int,
    limit: int | None = None,
) -> list[TaughtCase]:
    """The test answers of a kind: good answers (`hosts`), most of them with a sentence of the kind in them.

    A prompt has the kind's objective alone, or among others that are drawn from `others` and `builtin`. `limit` is the
    largest number of answers for each trial.
    """
    order = Random(f"{seed} {kind.slug}").sample(range(len(hosts)), len(hosts))
    trials = list(TaughtTrial)
    result = []
    for trial, count in _count_by_trial(kind, limit).items():
        for n in range(count):
            rng = Random(f"{seed} {kind.slug} {trial} {n}")
            # the trials take hosts by turns, so that no two cases have the same one before all were used
            turn = n * len(trials) + trials.index(trial)
            planted = _plant_sentence(_choose_sentence(kind, trial, n), hosts, order, turn, rng)
            other_texts = _draw_company(kind, others, builtin, rng) if _has_company(trial, n) else []
            index = rng.randrange(len(other_texts) + 1)
            objectives = PromptObjectives((*other_texts[:index], kind.objective, *other_texts[index:]), index)
            result.append(TaughtCase(trial, planted, objectives))
    return result


def _has_company(trial: TaughtTrial, number: int) -> bool:
    """Whether the prompt of a trial's test answer `number` has other objectives, too: half of the clean ones have."""
    if trial is TaughtTrial.CLEAN:
        return number % 2 == 1
    return trial is TaughtTrial.COMPANY


def _choose_sentence(kind: TaughtKind, trial: TaughtTrial, number: int) -> str:
    """The sentence of a trial's test answer `number`; "" where nothing is planted."""
    if trial is TaughtTrial.CLEAN:
        return ""
    return kind.fine[number] if trial is TaughtTrial.FINE else kind.testing[number]


def _plant_sentence(
    sentence: str, hosts: Sequence[PoolAnswer], order: Sequence[int], turn: int, rng: Random
) -> AugmentedAnswer:
    """Plant a sentence in the host whose turn it is, or in the next host where it becomes one segment."""
    for step in range(len(order)):
        host_number = order[(turn + step) % len(order)]
        neutral = Neutral(hosts[host_number].query, hosts[host_number].text)
        if not sentence:
            return AugmentedAnswer(host_number, neutral)
        planted = insert_text(sentence, host_number, neutral, rng.choice(insertion_places(neutral.answer)))
        if sum(planted.covers(segment.start, segment.end) for segment in split(planted.neutral.answer)) == 1:
            return planted
    raise ConfigError("a sentence is in no good answer a segment of its own; write it as one sentence")


def _draw_company(kind: TaughtKind, others: Sequence[TaughtKind], builtin: Mapping[str, str], rng: Random) -> list[str]:
    """Draw one to four other objectives, half of them built-in ones and half of other kinds."""
    unusual = [other.objective for other in others if other.slug != kind.slug]
    texts: list[str] = []
    count = rng.randint(1, MAX_OTHERS)
    while len(texts) < count:
        text = rng.choice(unusual if unusual and rng.random() < 0.5 else list(builtin.values()))
        if text not in texts:
            texts.append(text)
    return texts
