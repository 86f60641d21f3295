"""Converter of public preference sets: one row in, one query with its scored responses out.

    python -m models.data.public_sets hh-rlhf Anthropic/hh-rlhf --files harmless-base/train.jsonl.gz \
        --objective harmless --out runs/data/scored.jsonl

A source is a file, a folder or a dataset on the hub. `hh-rlhf`: two dialogues that differ in their last reply.
`ultrafeedback`: an instruction, its completions and their ratings. `imhi`: a table with a row for every response, rated
for what the paper rates (its rated set itself was never released). `models.data.metaaligner` makes pairs of what comes
out.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from rich.console import Console

from models.defects.objectives import BUILT_IN

from .pairs import write_lines
from .preference_sets import PreferenceError, Ranked, Response, open_lines, parsed

_TURN = "\n\nHuman:"
_REPLY = "\n\nAssistant:"
_RATED = {
    "instruction_following": "instruction-following",
    "honesty": "honest",
    "truthfulness": "truthful",
    "helpfulness": "helpful",
}
_IMHI = ("correct", "informative", "professional")
T = TypeVar("T")
OnBad = Callable[[PreferenceError], None]


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a published file, and where it stands."""

    row: dict[str, Any]
    where: str

    def text(self, name: str, of: dict[str, Any] | None = None) -> str:
        """A field that has to be a text."""
        value = (self.row if of is None else of).get(name)
        if not isinstance(value, str):
            raise PreferenceError(f"{self.where}: field {name} is {type(value).__name__}, expected a text")
        return value


def hh_rlhf(line: Line, objective: str) -> Ranked:
    """Of two dialogues the part that they share is the query; the chosen reply is better for `objective`."""
    chosen = line.text("chosen")
    rejected = line.text("rejected")
    query, mark, better = chosen.rpartition(_REPLY)
    if not mark or _TURN not in query:
        raise PreferenceError(f"{line.where}: field chosen is no dialogue; it needs a human turn and a last reply")
    worse = rejected.removeprefix(query + mark)
    if worse == rejected or _REPLY in worse:
        raise PreferenceError(f"{line.where}: the two dialogues differ before their last reply; nothing to compare")
    text = BUILT_IN[objective]
    replies = Response(better.strip(), {text: 1.0}), Response(worse.strip(), {text: 0.0})
    return Ranked(f"{query} {mark}", replies, "hh-rlhf")


def ultrafeedback(line: Line) -> Ranked:
    """Each completion with the ratings that it has; "N/A" is none."""
    completions = line.row.get("completions")
    if not isinstance(completions, list) or not all(isinstance(completion, dict) for completion in completions):
        raise PreferenceError(f"{line.where}: field completions must be a list of objects")
    responses = []
    for completion in completions:
        given = completion.get("annotations")
        if not isinstance(given, dict):
            raise PreferenceError(f"{line.where}: field annotations is {type(given).__name__}, expected an object")
        scores = {BUILT_IN[ours]: _rating(given.get(theirs), line.where, theirs) for theirs, ours in _RATED.items()}
        known = {text: score for text, score in scores.items() if score is not None}
        responses.append(Response(line.text("response", completion).strip(), known, str(completion.get("model", ""))))
    return Ranked(line.text("instruction"), tuple(responses), "ultrafeedback")


def imhi(table: Iterable[Line], on_bad: OnBad) -> Iterator[Ranked]:
    """Rows with the columns query, response, correct, informative and professional; those of a query stand together."""
    rated = _each(table, lambda line: (line.text("query"), _imhi(line)), on_bad)
    for query, group in groupby(rated, key=lambda pair: pair[0]):
        yield Ranked(query, tuple(response for _, response in group), "imhi")


def _imhi(line: Line) -> Response:
    scores = {name: _number(line.row.get(name), line.where, name) for name in _IMHI}
    return Response(line.text("response").strip(), {BUILT_IN[name]: score for name, score in scores.items()})


def _rating(given: object, where: str, name: str) -> float | None:
    if not isinstance(given, dict) or given.get("Rating") in (None, "N/A"):
        return None
    return _number(given["Rating"], where, f"Rating of {name}")


def _number(given: object, where: str, name: str) -> float:
    try:
        return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise PreferenceError(f"{where}: field {name} is {given!r}, expected a number") from None


# ---------------------------------------------------------------- files


def ranked(form: str, source: str, pattern: str, objective: str, on_bad: OnBad) -> Iterator[Ranked]:
    """All queries of a source with at least two responses; raises PreferenceError where there is none."""
    empty = True
    rows = _rows(_files(source, pattern, form), on_bad)
    read = partial(hh_rlhf, objective=objective) if form == "hh-rlhf" else ultrafeedback
    converted = imhi(rows, on_bad) if form == "imhi" else _each(rows, read, on_bad)
    for item in converted:
        if len(item.responses) > 1:
            empty = False
            yield item
    if empty:
        raise PreferenceError(f"{source}: no query with two responses in the form {form!r}; is it another form?")


def _each(given: Iterable[Line], read: Callable[[Line], T], on_bad: OnBad) -> Iterator[T]:
    for line in given:
        try:
            yield read(line)
        except PreferenceError as error:
            on_bad(error)


def _files(source: str, pattern: str, form: str) -> list[Path]:
    """The files of a path or of a dataset on the hub."""
    path = Path(source)
    if path.is_file():
        return [path]
    folder = path if path.is_dir() else _fetched(source, pattern)
    endings = (".csv",) if form == "imhi" else (".jsonl", ".jsonl.gz")
    found = sorted(file for file in folder.glob(pattern) if file.name.endswith(endings))
    if not found:
        raise PreferenceError(f"{source}: no file like {pattern} that ends in {' or '.join(endings)}")
    return found


def _fetched(source: str, pattern: str) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(source, repo_type="dataset", allow_patterns=[pattern]))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise PreferenceError(
            f"{source} is no file or folder here, and no dataset on the hub that can be fetched "
            f"({type(error).__name__}); check the name and the connection"
        ) from None


def _rows(files: Iterable[Path], on_bad: OnBad) -> Iterator[Line]:
    for path in files:
        yield from _table(path) if path.suffix == ".csv" else _objects(path, on_bad)


def _table(path: Path) -> Iterator[Line]:
    with open_lines(path) as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in ("query", "response", *_IMHI) if name not in (reader.fieldnames or ())]
        if missing:
            raise PreferenceError(f"{path}:1: missing column {', '.join(missing)}")
        for row in reader:
            yield Line(row, f"{path}:{reader.line_num}")


def _objects(path: Path, on_bad: OnBad) -> Iterator[Line]:
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield Line(parsed(line, f"{path}:{number}"), f"{path}:{number}")
                except PreferenceError as error:
                    on_bad(error)


# ---------------------------------------------------------------- command line


def write_scored(path: Path, items: Iterable[Ranked]) -> int:
    """Our own format, one query a line (`models.data.preference_sets`); says how many there were."""
    return write_lines(path, ({"query": item.query, "responses": _scores(item)} for item in items))


def _scores(item: Ranked) -> list[dict[str, Any]]:
    return [{"text": response.text, "scores": response.scores} for response in item.responses]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.data.public_sets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("form", choices=("hh-rlhf", "ultrafeedback", "imhi"))
    parser.add_argument("source", help="a file, a folder, or a dataset on the hub (org/name)")
    parser.add_argument("--files", default="**/*", help="which files of a folder or dataset")
    parser.add_argument("--objective", choices=sorted(BUILT_IN), help="hh-rlhf: what the replies were compared by")
    parser.add_argument("--bad-rows", choices=("stop", "skip"), default="stop")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(argv)
    if given.form == "hh-rlhf" and given.objective is None:
        parser.error("hh-rlhf does not say what its replies were compared by; give --objective, such as harmless")
    bad: list[PreferenceError] = []
    try:
        items = ranked(
            given.form, given.source, given.files, given.objective, bad.append if given.bad_rows == "skip" else _stop
        )
        summary = f"{given.out}: {write_scored(given.out, items)} queries"
    except PreferenceError as problem:
        sys.exit(str(problem))
    Console().print(summary + (f"; {len(bad)} bad rows left out, the first: {bad[0]}" if bad else ""))


def _stop(error: PreferenceError) -> None:
    raise error


if __name__ == "__main__":
    main()
