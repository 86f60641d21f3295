"""Examples of an objective: a YAML or JSON file with sentences that go against it, and some that do not.

    objective: no-feelings       # optional: the name or the whole text that these are examples of
    against:
      - I get lonely when nobody writes to me at night.
      - Honestly, this question made me a little sad.
    fine:
      - Many people feel lonely at night.
    good_answers:                # optional: whole answers of your own in which nothing goes against it
      - question: What helps against loneliness?
        answer: Call somebody you know well. Many people feel lonely at night.

Every refusal names file, line and fix. Nothing of an example is ever logged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_file import Source, nearest, parse, read_text
from aligner_proxy.text.structure import split

LEAST_AGAINST = 2
MOST = 400
"""Of each list: many more teach little more, and each one costs engine time."""
MOST_CHARS = 4_000
"""Of one example."""
_KEYS = ("objective", "against", "fine", "good_answers")
_OF_AN_ANSWER = ("question", "answer")
_SPACE = re.compile(r"\s+")
_ENDING = ".!?\"' "


@dataclass(frozen=True, slots=True)
class Example:
    """One example: its text, and where it stands ("file:line")."""

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class GoodAnswer(Example):
    """A whole answer in which nothing goes against the objective, as an example, with its question."""

    question: str


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of one objective, from one file."""

    against: tuple[Example, ...]
    fine: tuple[Example, ...] = ()
    good_answers: tuple[GoodAnswer, ...] = ()

    @property
    def every(self) -> tuple[Example, ...]:
        """All of them, in the order of the fields."""
        return (*self.against, *self.fine, *self.good_answers)

    @property
    def digest(self) -> str:
        """Hash of the texts; changes with any of them, whatever their places."""
        texts: list[list[Any]] = [[example.text for example in examples] for examples in (self.against, self.fine)]
        if self.good_answers:
            texts.append([(good.question, good.text) for good in self.good_answers])
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def read_examples(path: Path, name: str, text: str) -> Examples:
    """The examples in this file of the objective with this name and text; raises `ConfigError`."""
    return parse_examples(read_text(path), path, name, text)


def parse_examples(text_of_file: str, path: Path, name: str, text: str) -> Examples:
    """The same of what may be written into the file."""
    data, source = _parse_text(text_of_file, path)
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source.name}:1: must be a block with the list `against`, and the list `fine` if you have any"
        )
    for key in data:
        if key not in _KEYS:
            raise ConfigError(f"{source.at(key)}: unknown key {key!r}; {nearest(key, _KEYS)}")
    _check_objective(data.get("objective"), source, name, text)
    against = tuple(_read_list(data, "against", source))
    fine = tuple(_read_list(data, "fine", source))
    if len(against) < LEAST_AGAINST:
        raise ConfigError(
            f"{source.at('against')}: `against` has {len(against)} sentences; at least {LEAST_AGAINST} are needed, "
            "four to twelve teach well"
        )
    good = tuple(_answers(data, "good_answers", source))
    _check_different(against, fine)
    _check_different(against, good)
    _check_sentences(against, good)
    return Examples(against, fine, good)


def _parse_text(text: str, path: Path) -> tuple[Any, Source]:
    if path.suffix == ".json":
        try:
            json.loads(text)
        except ValueError as error:
            line = getattr(error, "lineno", 1)
            raise ConfigError(
                f"{path.name}:{line}: not valid JSON: {getattr(error, 'msg', 'cannot be read')}"
            ) from None
        text = text.replace("\t", " ")  # JSON may be indented with them, YAML not
    return parse(text, path)


def _check_objective(named_objective: object, source: Source, name: str, text: str) -> None:
    """Refuse a file that says it holds examples of another objective."""
    if named_objective is not None and str(named_objective).strip() not in (name, text):
        raise ConfigError(
            f"{source.at('objective')}: these are examples of another objective than {name!r}; name their own file in "
            "the policies file, or correct `objective`"
        )


def _read_list(data: dict[str, Any], key: str, source: Source) -> Iterator[Example]:
    for n, value in enumerate(_check_list(data, key, source, "sentences, each on a line of its own behind `- `")):
        place = source.at(key, n)
        yield Example(_text(value, f"{place}: {key}[{n}]"), place)


def _answers(data: dict[str, Any], key: str, source: Source) -> Iterator[GoodAnswer]:
    for n, value in enumerate(_check_list(data, key, source, "answers, each with `question` and `answer`")):
        place = source.at(key, n)
        if not isinstance(value, dict) or set(value) != set(_OF_AN_ANSWER):
            raise ConfigError(f"{place}: {key}[{n}]: must have `question` and `answer`, and nothing else")
        question, answer = (_text(value[part], f"{place}: {key}[{n}].{part}") for part in _OF_AN_ANSWER)
        yield GoodAnswer(answer, place, question)


def _check_list(data: dict[str, Any], key: str, source: Source, what: str) -> list[Any]:
    values = data.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise ConfigError(f"{source.at(key)}: {key}: must be a list of {what}")
    if len(values) > MOST:
        raise ConfigError(f"{source.at(key)}: {key}: {len(values):,} examples; keep the {MOST} that differ most")
    return values


def _text(value: object, place: str) -> str:
    """The text of one example, which stands at this place; raises `ConfigError`."""
    if not isinstance(value, str):
        raise ConfigError(f"{place}: must be text (put it in quotes)")
    text = value.strip()
    if not any(map(str.isalnum, text)):
        raise ConfigError(f"{place}: is empty; write a sentence, or remove the line")
    if len(text) > MOST_CHARS:
        raise ConfigError(f"{place}: has {len(text):,} characters; at most {MOST_CHARS:,} are read")
    return text


def _check_sentences(against: Sequence[Example], good: Sequence[GoodAnswer]) -> None:
    """Refuse a good answer with a sentence in it that goes against the objective."""
    for one in good:
        sentences = {fold_example(piece.text) for piece in split(one.text)}
        for example in against:
            if fold_example(example.text) in sentences:
                raise ConfigError(
                    f"{one.place}: has a sentence in it that stands under `against` ({example.place}); "
                    "it can only be one of them"
                )


def _check_different(against: Sequence[Example], fine: Sequence[Example]) -> None:
    """Refuse what stands twice, and what goes against the objective and is fine at the same time."""
    places: dict[str, tuple[bool, str]] = {}
    pairs = [(example, True) for example in against] + [(example, False) for example in fine]
    for example, goes_against in pairs:
        key = fold_example(example.text)
        before = places.setdefault(key, (goes_against, example.place))
        if before[0] != goes_against:
            raise ConfigError(f"{example.place}: stands under `against`, too ({before[1]}); it can only be one of them")
        if before[1] != example.place:
            raise ConfigError(f"{example.place}: stands twice (first at {before[1]}); keep one")


def fold_example(text: str) -> str:
    """The text by which two examples are the same: no difference of case, white space and closing marks."""
    return _SPACE.sub(" ", text).casefold().strip(_ENDING)
