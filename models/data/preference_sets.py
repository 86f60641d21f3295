"""Readers of preference sets: the research files in a folder, and a plain JSONL format of our own.

Each reader checks the fields that it needs, and names file and line if one is missing. Files whose licence excludes
training, such as AlpacaEval, have readers of their own for evaluations.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class PreferenceError(ValueError):
    """A file of preference data that cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """One answer with its scores by objective text (higher is better) and, when known, who wrote it."""

    text: str
    scores: dict[str, float] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True, slots=True)
class RankedResponses:
    """A query with the responses that were compared with each other."""

    query: str
    responses: tuple[ScoredResponse, ...]
    source: str


GUARD_SETS = ("harmbench", "xstest", "beavertails", "saferlhf")
"""Public sets of harmful and harmless replies by which guards are measured."""
_TEXT = (str,)
_NUMBER = (int, float)
_SCHEMAS: dict[str, dict[str, tuple[type, ...]]] = {
    "hh_rlhf_harmless_pairs": {"prompt": _TEXT, "chosen": _TEXT, "rejected": _TEXT},
    "metaaligner_hh_outputs": {"prompt": _TEXT, "golden": _TEXT, "model": _TEXT, "output": _TEXT},
    "metaaligner_ultrafeedback_outputs": {"prompt": _TEXT, "golden": _TEXT, "model": _TEXT, "output": _TEXT},
    "imhi_outputs": {"task": _TEXT, "query": _TEXT, "golden": _TEXT, "model": _TEXT, "output": _TEXT},
    "pandalm_pairs": {"prompt": _TEXT, "response_1": _TEXT, "response_2": _TEXT, "preference": _NUMBER},
    "llmbar_pairs": {"prompt": _TEXT, "response_1": _TEXT, "response_2": _TEXT, "preference": _NUMBER},
    "finegrained_rlhf_dev": {
        "prompt": _TEXT,
        "response_1": _TEXT,
        "response_2": _TEXT,
        "preference": _NUMBER,
        "gold": _TEXT,
        "idx": (int, str),
    },
    # Labelled replies (labelled_replies.py): harmful or not, by people or by a judge model.
    "natural/gptfuzz_labelled_replies": {"prompt": _TEXT, "output": _TEXT, "harmful": _NUMBER},
    "natural/jailbreakbench_replies": {"prompt": _TEXT, "output": _TEXT, "harmful": _NUMBER},
    "natural/diasafety_replies": {"prompt": _TEXT, "output": _TEXT, "harmful": _NUMBER},
}
KNOWN_FILES = tuple(_SCHEMAS)
# Files whose licence permits no training; only evaluations read them.
_EVALUATION_ONLY: dict[str, dict[str, tuple[type, ...]]] = {
    "alpaca_eval_outputs": {"prompt": _TEXT, "model": _TEXT, "output": _TEXT},
    **{f"guard/{name}": {"prompt": _TEXT, "answer": _TEXT, "harmful": _NUMBER} for name in GUARD_SETS},
}
JUDGED = {
    "hh_rlhf_harmless_pairs": "harmless",
    "pandalm_pairs": "helpful",
    "llmbar_pairs": "instruction-following",
    "finegrained_rlhf_dev": "informative",
}
"""By file, the name of the built-in objective by which people judged its replies; other files have no judgements."""


def read_rows(data_dir: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of one research file, checked against its schema."""
    if name not in _SCHEMAS:
        raise PreferenceError(f"unknown or not permitted data {name!r}; known: {', '.join(KNOWN_FILES)}")
    return _read_file(data_dir, name, _SCHEMAS[name])


def read_completions(data_dir: Path, name: str) -> Iterator[dict[str, Any]]:
    """Rows with `prompt`, `model` and `output` for an evaluation, also of files that may not be used for training."""
    schema: dict[str, tuple[type, ...]] = {"prompt": _TEXT, "model": _TEXT, "output": _TEXT}
    if not schema.keys() <= (_SCHEMAS | _EVALUATION_ONLY).get(name, {}).keys():
        raise PreferenceError(f"{name!r} holds no completions of models")
    return _read_file(data_dir, name, schema)


def read_further_rows(data_dir: Path, name: str) -> Iterator[dict[str, Any]]:
    """Rows of a file in `more/` (harm_replies.py); their field `harmful` is null if that is unknown."""
    schema: dict[str, tuple[type, ...]] = {"prompt": _TEXT, "answer": _TEXT, "harmful": (bool, type(None))}
    return _read_file(data_dir, f"more/{name}", schema | {"extra": (dict,)})


def read_guard_rows(data_dir: Path, name: str) -> Iterator[dict[str, Any]]:
    """Rows of one of `GUARD_SETS` with `prompt`, `answer` and `harmful`, for an evaluation."""
    return _read_file(data_dir, f"guard/{name}", _EVALUATION_ONLY[f"guard/{name}"])


def _read_file(data_dir: Path, name: str, schema: dict[str, tuple[type, ...]]) -> Iterator[dict[str, Any]]:
    """The rows of a file of research data, checked against `schema`."""
    path = data_dir / f"{name}.jsonl.gz"
    if not path.is_file():
        raise PreferenceError(f"{path} is not there; give the folder that holds the research data")
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            yield _check_fields(parse_object(line, f"{path}:{number}"), schema, f"{path}:{number}")


def load_judged(data_dir: Path, name: str, objectives: dict[str, str]) -> Iterator[RankedResponses]:
    """Yield the judged pairs of one research file; `objectives` are the texts of the built-in objectives by name."""
    if name not in JUDGED:
        raise PreferenceError(f"{name!r} holds no judgements; judged are: {', '.join(JUDGED)}")
    objective = objectives[JUDGED[name]]
    for row in read_rows(data_dir, name):
        first, second, preference = _read_comparison(row)
        if not (first.strip() and second.strip()):
            continue
        # the preference is 1 if the first response is better, 2 if the second is, so each gets 1 where it wins
        first_scored = ScoredResponse(first, {objective: 2 - preference})
        second_scored = ScoredResponse(second, {objective: preference - 1})
        yield RankedResponses(row["prompt"], (first_scored, second_scored), name)


def read_scored(path: Path, on_bad: Callable[[PreferenceError], None] | None = None) -> Iterator[RankedResponses]:
    """Our own format: `{"query": ..., "responses": [{"text": ..., "scores": {objective text: number}}, ...]}`.

    A line that is none raises PreferenceError naming file and line, or goes to `on_bad`. A file in which no objective
    is scored in two responses of a query has nothing to compare, and is refused at its end.
    """
    if not path.is_file():
        raise PreferenceError(f"{path} is not there")
    has_comparison = False
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    ranked = _parse_ranked(parse_object(line, f"{path}:{number}"), f"{path}:{number}")
                except PreferenceError as error:
                    if on_bad is None:
                        raise
                    on_bad(error)
                else:
                    has_comparison = has_comparison or _has_objective(ranked)
                    yield ranked
    if not has_comparison:
        raise PreferenceError(
            f"{path} has no objectives: in none of its rows is one objective scored in two responses; "
            'give each response "scores" by objective text'
        )


def _has_objective(ranked: RankedResponses) -> bool:
    """Whether two responses have a score of the same objective, so that they can be compared."""
    count = Counter(objective for response in ranked.responses for objective in response.scores)
    return max(count.values(), default=0) >= 2


def _read_comparison(row: dict[str, Any]) -> tuple[str, str, float]:
    """Two responses, and which is better: 1.0 the first, 2.0 the second, 1.5 neither."""
    if "chosen" in row:
        return row["chosen"], row["rejected"], 1.0
    return row["response_1"], row["response_2"], float(row["preference"])


def _parse_ranked(row: dict[str, Any], where: str) -> RankedResponses:
    _refuse_other_fields(row, {"query", "responses"}, where)
    _check_fields(row, {"query": _TEXT, "responses": (list,)}, where)
    responses = tuple(_parse_response(item, f"{where}, response {i}") for i, item in enumerate(row["responses"], 1))
    if len(responses) < 2:
        raise PreferenceError(f"{where}: at least two responses are needed to compare, found {len(responses)}")
    return RankedResponses(row["query"], responses, "scored")


def _parse_response(item: object, where: str) -> ScoredResponse:
    if not isinstance(item, dict):
        raise PreferenceError(f"{where}: expected an object, found {type(item).__name__}")
    _refuse_other_fields(item, {"text", "scores"}, where)
    _check_fields(item, {"text": _TEXT, "scores": (dict,)}, where)
    for objective, score in item["scores"].items():
        if isinstance(score, bool) or not isinstance(score, _NUMBER):
            raise PreferenceError(f"{where}: the score of {objective!r} is not a number")
    return ScoredResponse(item["text"], {objective: float(score) for objective, score in item["scores"].items()})


@contextmanager
def open_lines(path: Path) -> Iterator[Iterable[str]]:
    """A context with the lines of a text file, packed (`.gz`) or not; raises PreferenceError if it cannot be read.

    It is no generator, because a generator that is left by an error keeps its file open as long as the error exists.
    """
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rt", encoding="utf-8", newline="") as stream:
            yield stream
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PreferenceError(f"{path} cannot be read as UTF-8 text ({type(error).__name__})") from None


def parse_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object in a line; raises PreferenceError that names the place `where` ("rows.jsonl:12") for others."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise PreferenceError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise PreferenceError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def _check_fields(row: dict[str, Any], schema: dict[str, tuple[type, ...]], where: str) -> dict[str, Any]:
    """Return the row; raises PreferenceError if a field of the schema is missing or of another type."""
    for name, types in schema.items():
        if name not in row:
            raise PreferenceError(f"{where}: missing field {name}")
        if not isinstance(row[name], types):
            expected = " or ".join(t.__name__ for t in types)
            raise PreferenceError(f"{where}: field {name} is {type(row[name]).__name__}, expected {expected}")
    return row


def _refuse_other_fields(row: dict[str, Any], allowed: set[str], where: str) -> None:
    """Raise `PreferenceError` for a field that is not allowed."""
    if unknown_fields := sorted(row.keys() - allowed):
        raise PreferenceError(
            f"{where}: unknown field {', '.join(unknown_fields)}; known: {', '.join(sorted(allowed))}"
        )
