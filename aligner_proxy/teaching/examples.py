"""Examples of an objective: a YAML or JSON file with sentences that violate it, and some that do not.

    objective: no-feelings       # optional: the name or the whole text of the objective
    against:
      - I get lonely when nobody writes to me at night.
      - Honestly, this question made me a little sad.
    fine:
      - Many people feel lonely at night.
    good_answers:                # optional: whole answers of your own without any violation
      - question: What helps against loneliness?
        answer: Call somebody you know well. Many people feel lonely at night.

Every error names file, line and fix. The text of an example is never logged.
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
from aligner_proxy.policy.yaml_file import YamlSource, parse_yaml, read_text, suggest_name
from aligner_proxy.text.structure import split

MIN_AGAINST = 2
MAX_EXAMPLES = 400
"""Most items of each list; more items teach little, and each one costs engine time."""
MAX_CHARS = 4_000
_FILE_KEYS = ("objective", "against", "fine", "good_answers")
_ANSWER_KEYS = ("question", "answer")
_WHITE_SPACE = re.compile(r"\s+")
_IGNORED_AT_ENDS = ".!?\"' "
"""Signs at the ends of an example in which two equal examples may differ."""


@dataclass(frozen=True, slots=True)
class Example:
    """One example: its text, and its position in the file ("file:line")."""

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class GoodAnswer(Example):
    """An example that is a whole answer without any violation of the objective, with its question."""

    question: str


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of one objective, from one file."""

    against: tuple[Example, ...]
    """Sentences that violate the objective."""
    fine: tuple[Example, ...] = ()
    """Sentences that do not violate the objective, although they resemble violations."""
    good_answers: tuple[GoodAnswer, ...] = ()
    """Whole answers of the operator without any violation."""

    @property
    def all_examples(self) -> tuple[Example, ...]:
        """All examples, in the order of the fields."""
        return (*self.against, *self.fine, *self.good_answers)

    @property
    def digest(self) -> str:
        """Hash of all texts, without their positions in the file."""
        texts: list[list[Any]] = [[example.text for example in examples] for examples in (self.against, self.fine)]
        # added only if there are good answers, so that a file without them keeps the digest of earlier versions
        if self.good_answers:
            texts.append([(good.question, good.text) for good in self.good_answers])
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def read_examples(path: Path, name: str, text: str) -> Examples:
    """Read the examples from the file of the objective with this `name` and `text`. Raises `ConfigError`."""
    return parse_examples(read_text(path), path, name, text)


def parse_examples(text_of_file: str, path: Path, name: str, text: str) -> Examples:
    """Parse and check the text of an examples file, which need not be written yet; raises `ConfigError`.

    `name` and `text` are those of the objective; `path` is the file's, for errors.
    """
    data, source = _parse_text(text_of_file, path)
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source.name}:1: must be a block with the list `against`, and the list `fine` if you have any"
        )
    for key in data:
        if key not in _FILE_KEYS:
            raise ConfigError(f"{source.place_of(key)}: unknown key {key!r}; {suggest_name(key, _FILE_KEYS)}")
    _check_objective(data.get("objective"), source, name, text)
    against = tuple(_read_list(data, "against", source))
    fine = tuple(_read_list(data, "fine", source))
    if len(against) < MIN_AGAINST:
        raise ConfigError(
            f"{source.place_of('against')}: `against` has {len(against)} sentences; at least {MIN_AGAINST} are needed, "
            "four to twelve teach well"
        )
    good_answers = tuple(_read_answers(data, "good_answers", source))
    _refuse_duplicates(against, fine)
    _refuse_duplicates(against, good_answers)
    _refuse_violations_in_answers(against, good_answers)
    return Examples(against, fine, good_answers)


def _parse_text(text: str, path: Path) -> tuple[Any, YamlSource]:
    """Parse the text of a file, as JSON if the file's name says so, else as YAML. Raises `ConfigError`.

    Returns the data, and the source that says in which line of the file each item is.
    """
    if path.suffix == ".json":
        # YAML would accept more than JSON, so the text is checked as JSON first
        try:
            json.loads(text)
        except RecursionError:
            raise ConfigError(f"{path.name}:1: not valid JSON: too many levels; remove brackets") from None
        except ValueError as error:
            line = getattr(error, "lineno", 1)
            raise ConfigError(
                f"{path.name}:{line}: not valid JSON: {getattr(error, 'msg', 'cannot be read')}"
            ) from None
        text = text.replace("\t", " ")  # JSON may be indented with tabs, YAML may not
    return parse_yaml(text, path)


def _check_objective(named_objective: object, source: YamlSource, name: str, text: str) -> None:
    """Raise `ConfigError` if `named_objective`, the file's key `objective`, is neither this name nor this text."""
    if named_objective is not None and str(named_objective).strip() not in (name, text):
        raise ConfigError(
            f"{source.place_of('objective')}: these are examples of another objective than {name!r}; "
            "name their own file in the policies file, or correct `objective`"
        )


def _read_list(data: dict[str, Any], key: str, source: YamlSource) -> Iterator[Example]:
    """Yield the sentences of the list under `key`; raises `ConfigError`."""
    values = _read_values(data, key, source, "sentences, each on a line of its own behind `- `")
    for index, value in enumerate(values):
        place = source.place_of(key, index)
        yield Example(_check_text(value, f"{place}: {key}[{index}]"), place)


def _read_answers(data: dict[str, Any], key: str, source: YamlSource) -> Iterator[GoodAnswer]:
    """Yield the whole answers of the list under `key`; raises `ConfigError`."""
    values = _read_values(data, key, source, "answers, each with `question` and `answer`")
    for index, value in enumerate(values):
        place = source.place_of(key, index)
        if not isinstance(value, dict) or set(value) != set(_ANSWER_KEYS):
            raise ConfigError(f"{place}: {key}[{index}]: must have `question` and `answer`, and nothing else")
        question = _check_text(value["question"], f"{place}: {key}[{index}].question")
        answer = _check_text(value["answer"], f"{place}: {key}[{index}].answer")
        yield GoodAnswer(answer, place, question)


def _read_values(data: dict[str, Any], key: str, source: YamlSource, expected: str) -> list[Any]:
    """Return the list under `key`, empty if the key is missing; raises `ConfigError` if it is no list or too long.

    `expected` says, in the error, what the list should contain.
    """
    values = data.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise ConfigError(f"{source.place_of(key)}: {key}: must be a list of {expected}")
    if len(values) > MAX_EXAMPLES:
        raise ConfigError(
            f"{source.place_of(key)}: {key}: {len(values):,} examples; keep the {MAX_EXAMPLES} that differ most"
        )
    return values


def _check_text(value: object, place: str) -> str:
    """Return the text `value` of an example, without white space around it; `place` begins the message of errors.

    Raises `ConfigError` if the value is no text, has no letter or digit, or is too long.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{place}: must be text (put it in quotes)")
    text = value.strip()
    if not any(map(str.isalnum, text)):
        raise ConfigError(f"{place}: is empty; write a sentence, or remove the line")
    if len(text) > MAX_CHARS:
        raise ConfigError(f"{place}: has {len(text):,} characters; at most {MAX_CHARS:,} are read")
    return text


def _refuse_violations_in_answers(against: Sequence[Example], good_answers: Sequence[GoodAnswer]) -> None:
    """Raise `ConfigError` for a good answer that contains one of the sentences under `against`."""
    for answer in good_answers:
        sentences = {normalise_example(segment.text) for segment in split(answer.text)}
        for example in against:
            if normalise_example(example.text) in sentences:
                raise ConfigError(
                    f"{answer.place}: has a sentence in it that stands under `against` ({example.place}); "
                    "it can only be one of them"
                )


def _refuse_duplicates(against: Sequence[Example], fine: Sequence[Example]) -> None:
    """Raise `ConfigError` for an example that appears twice in a list, or in both lists."""
    first_against: dict[str, Example] = {}
    for example in against:
        _refuse_repetition(example, first_against.setdefault(normalise_example(example.text), example))
    first_fine: dict[str, Example] = {}
    for example in fine:
        normalised_text = normalise_example(example.text)
        if normalised_text in first_against:
            place = first_against[normalised_text].place
            raise ConfigError(f"{example.place}: stands under `against`, too ({place}); it can only be one of them")
        _refuse_repetition(example, first_fine.setdefault(normalised_text, example))


def _refuse_repetition(example: Example, first: Example) -> None:
    """Raise `ConfigError` if `first`, the first example with this text, stands in another place than `example`."""
    if first.place != example.place:
        raise ConfigError(f"{example.place}: is given twice (first at {first.place}); keep one")


def normalise_example(text: str) -> str:
    """Return a form of an example for comparison, without differences of case, white space and final punctuation."""
    return _WHITE_SPACE.sub(" ", text).casefold().strip(_IGNORED_AT_ENDS)
