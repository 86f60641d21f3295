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
from .preference_sets import PreferenceError, RankedResponses, ScoredResponse, open_lines, parse_object

_TURN = "\n\nHuman:"
_REPLY = "\n\nAssistant:"
# By their names in UltraFeedback, our names of the rated objectives.
_RATED = {
    "instruction_following": "instruction-following",
    "honesty": "honest",
    "truthfulness": "truthful",
    "helpfulness": "helpful",
}
# The rated columns of IMHI's table, which are built-in objectives, too.
_IMHI = ("correct", "informative", "professional")
T = TypeVar("T")
OnBad = Callable[[PreferenceError], None]


@dataclass(frozen=True, slots=True)
class PublicRow:
    """One row of a published file, and its place: "rows.jsonl:12"."""

    row: dict[str, Any]
    where: str

    def read_text(self, name: str, fields: dict[str, Any] | None = None) -> str:
        """The text in a field of the row, or of `fields`; raises PreferenceError if it is no text."""
        value = (self.row if fields is None else fields).get(name)
        if not isinstance(value, str):
            raise PreferenceError(f"{self.where}: field {name} is {type(value).__name__}, expected a text")
        return value


def convert_hh_rlhf(line: PublicRow, objective: str) -> RankedResponses:
    """Two dialogues as one query, which they share, and two replies, of which the chosen one is better."""
    chosen_dialogue = line.read_text("chosen")
    rejected_dialogue = line.read_text("rejected")
    query, mark, better = chosen_dialogue.rpartition(_REPLY)
    if not mark or _TURN not in query:
        raise PreferenceError(f"{line.where}: field chosen is no dialogue; it needs a human turn and a last reply")
    worse = rejected_dialogue.removeprefix(query + mark)
    if worse == rejected_dialogue or _REPLY in worse:
        raise PreferenceError(f"{line.where}: the two dialogues differ before their last reply; nothing to compare")
    text = BUILT_IN[objective]
    replies = ScoredResponse(better.strip(), {text: 1.0}), ScoredResponse(worse.strip(), {text: 0.0})
    return RankedResponses(f"{query} {mark}", replies, "hh-rlhf")


def convert_ultrafeedback(line: PublicRow) -> RankedResponses:
    """An instruction with its completions and their ratings; a rating of "N/A" is left out."""
    completions = line.row.get("completions")
    if not isinstance(completions, list) or not all(isinstance(completion, dict) for completion in completions):
        raise PreferenceError(f"{line.where}: field completions must be a list of objects")
    responses = []
    for completion in completions:
        annotations = completion.get("annotations")
        if not isinstance(annotations, dict):
            raise PreferenceError(
                f"{line.where}: field annotations is {type(annotations).__name__}, expected an object"
            )
        scores = {
            BUILT_IN[ours]: _read_rating(annotations.get(theirs), line.where, theirs) for theirs, ours in _RATED.items()
        }
        present_scores = {text: score for text, score in scores.items() if score is not None}
        responses.append(
            ScoredResponse(
                line.read_text("response", completion).strip(), present_scores, str(completion.get("model", ""))
            )
        )
    return RankedResponses(line.read_text("instruction"), tuple(responses), "ultrafeedback")


def convert_imhi(table: Iterable[PublicRow], on_bad: OnBad) -> Iterator[RankedResponses]:
    """Yield each query of a table with its rated responses; the rows of one query have to be adjacent.

    The table has the columns query, response, correct, informative and professional.
    """
    rated = _convert_lines(table, lambda line: (line.read_text("query"), _read_imhi_response(line)), on_bad)
    for query, group in groupby(rated, key=lambda pair: pair[0]):
        yield RankedResponses(query, tuple(response for _, response in group), "imhi")


def _read_imhi_response(line: PublicRow) -> ScoredResponse:
    scores = {name: _read_number(line.row.get(name), line.where, name) for name in _IMHI}
    return ScoredResponse(line.read_text("response").strip(), {BUILT_IN[name]: score for name, score in scores.items()})


def _read_rating(value: object, where: str, name: str) -> float | None:
    """The number in UltraFeedback's `{"Rating": "4"}`; None where nobody rated."""
    if not isinstance(value, dict) or value.get("Rating") in (None, "N/A"):
        return None
    return _read_number(value["Rating"], where, f"Rating of {name}")


def _read_number(value: object, where: str, name: str) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise PreferenceError(f"{where}: field {name} is {value!r}, expected a number") from None


# ---------------------------------------------------------------- files


def read_ranked(form: str, source: str, pattern: str, objective: str, on_bad: OnBad) -> Iterator[RankedResponses]:
    """Yield all queries of a source that have at least two responses; raises PreferenceError if there are none."""
    empty = True
    rows = _read_rows(_find_files(source, pattern, form), on_bad)
    read = partial(convert_hh_rlhf, objective=objective) if form == "hh-rlhf" else convert_ultrafeedback
    converted = convert_imhi(rows, on_bad) if form == "imhi" else _convert_lines(rows, read, on_bad)
    for item in converted:
        if len(item.responses) > 1:
            empty = False
            yield item
    if empty:
        raise PreferenceError(f"{source}: no query with two responses in the form {form!r}; is it another form?")


def _convert_lines(lines: Iterable[PublicRow], read: Callable[[PublicRow], T], on_bad: OnBad) -> Iterator[T]:
    """Yield what `read` makes of each line; errors of bad lines go to `on_bad`."""
    for line in lines:
        try:
            yield read(line)
        except PreferenceError as error:
            on_bad(error)


def _find_files(source: str, pattern: str, form: str) -> list[Path]:
    """The files of a path, or of a dataset on the hub, that match `pattern`."""
    path = Path(source)
    if path.is_file():
        return [path]
    folder = path if path.is_dir() else _fetch_folder(source, pattern)
    endings = (".csv",) if form == "imhi" else (".jsonl", ".jsonl.gz")
    files = sorted(file for file in folder.glob(pattern) if file.name.endswith(endings))
    if not files:
        raise PreferenceError(f"{source}: no file like {pattern} that ends in {' or '.join(endings)}")
    return files


def _fetch_folder(source: str, pattern: str) -> Path:
    """Fetch the matching files of a dataset on the hub, and return their folder."""
    try:
        return Path(huggingface_hub.snapshot_download(source, repo_type="dataset", allow_patterns=[pattern]))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise PreferenceError(
            f"{source} is no file or folder here, and no dataset on the hub that can be fetched "
            f"({type(error).__name__}); check the name and the connection"
        ) from None


def _read_rows(files: Iterable[Path], on_bad: OnBad) -> Iterator[PublicRow]:
    for path in files:
        yield from _read_table(path) if path.suffix == ".csv" else _read_objects(path, on_bad)


def _read_table(path: Path) -> Iterator[PublicRow]:
    with open_lines(path) as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in ("query", "response", *_IMHI) if name not in (reader.fieldnames or ())]
        if missing:
            raise PreferenceError(f"{path}:1: missing column {', '.join(missing)}")
        for row in reader:
            yield PublicRow(row, f"{path}:{reader.line_num}")


def _read_objects(path: Path, on_bad: OnBad) -> Iterator[PublicRow]:
    """The JSON objects of a file of lines; bad lines go to `on_bad`."""
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield PublicRow(parse_object(line, f"{path}:{number}"), f"{path}:{number}")
                except PreferenceError as error:
                    on_bad(error)


# ---------------------------------------------------------------- command line


def write_scored(path: Path, items: Iterable[RankedResponses]) -> int:
    """Write queries in our own format, one in each line (`read_scored`); return how many there are."""
    return write_lines(path, ({"query": item.query, "responses": _list_scores(item)} for item in items))


def _list_scores(item: RankedResponses) -> list[dict[str, Any]]:
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
    options = parser.parse_args(argv)
    if options.form == "hh-rlhf" and options.objective is None:
        parser.error("hh-rlhf does not say what its replies were compared by; give --objective, such as harmless")
    bad: list[PreferenceError] = []
    try:
        items = read_ranked(
            options.form,
            options.source,
            options.files,
            options.objective,
            bad.append if options.bad_rows == "skip" else _raise_error,
        )
        summary = f"{options.out}: {write_scored(options.out, items)} queries"
    except PreferenceError as problem:
        sys.exit(str(problem))
    Console().print(summary + (f"; {len(bad)} bad rows left out, the first: {bad[0]}" if bad else ""))


def _raise_error(error: PreferenceError) -> None:
    raise error


if __name__ == "__main__":
    main()
