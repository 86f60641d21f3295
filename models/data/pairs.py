"""One training example, and its form on disk.

A pair says: this answer to this query, under these objectives, becomes that target; the labels say which segments of
the answer have to change. Files are JSON lines, packed (`.xz`) or not; a bad line is reported with its file, number
and reason.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aligner_proxy.text.structure import split

CHANGES = 1
STAYS = 0
UNKNOWN = -1
"""Labels of a segment: it has to change, it stays, or that is unknown."""
DIRECTIONS = ("better", "equal")


def combine_labels(labels: Collection[int]) -> int:
    """The label under several objectives: that of a change if one asks for it, else unknown if one is unknown."""
    return CHANGES if CHANGES in labels else UNKNOWN if UNKNOWN in labels else STAYS


class PairError(ValueError):
    """A training example that does not hold together; the text says where and what to mend."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One example. Fields with defaults may be empty, which means that nothing is known.

    `Pair("Is it cold?", ("Kindness: ...",), "You fool. Yes.", "Yes.", (CHANGES, STAYS), "defect:insult")`
    """

    query: str
    objectives: tuple[str, ...]
    answer: str
    target: str
    """The answer as it should become."""
    labels: tuple[int, ...]
    """The label of each segment of the answer, under all objectives together."""
    source: str
    direction: str = "better"
    """"equal" if target and answer are equally good."""
    kinds: tuple[str, ...] = ()
    """The kind of defect of each segment, "" for none."""
    themes: tuple[str, ...] = ()
    """The meaning of each objective, in one word."""
    lacks: tuple[int, ...] = ()
    """Of each objective, whether something that it asks for is missing at the end of the answer; a label."""
    relations: tuple[tuple[int, ...], ...] = ()
    """Labels [segments][objectives], if people gave them."""
    whole: tuple[bool, ...] = ()
    """Of each objective, whether some segment goes against it, though nobody said which."""

    @property
    def all_labels(self) -> tuple[int, ...]:
        """The labels of the segments, and last the label of the end of the answer."""
        lacks = self.lacks or (STAYS if self.kinds else UNKNOWN,)
        return (*self.labels, combine_labels(lacks))

    def __post_init__(self) -> None:
        if not self.objectives or not all(isinstance(text, str) and text.strip() for text in self.objectives):
            raise PairError(f"a pair from {self.source!r} needs at least one objective, each a text")
        if self.direction not in DIRECTIONS:
            raise PairError(f"unknown direction {self.direction!r}; known: {', '.join(DIRECTIONS)}")
        every_label = (*self.labels, *self.lacks, *(label for labels in self.relations for label in labels))
        if any(type(label) is not int or label not in (CHANGES, STAYS, UNKNOWN) for label in every_label):
            raise PairError("labels are 1 (changes), 0 (stays) or -1 (unknown), and something else is among them")
        self._check_lengths()

    def _check_lengths(self) -> None:
        """Raise `PairError` unless there is one entry for each segment or objective, or none at all."""
        count = len(split(self.answer))
        if len(self.labels) != count:
            raise PairError(f"{len(self.labels)} labels for an answer of {count} segments; give one per segment")
        objective_count = len(self.objectives)
        lengths = {
            "kinds": count,
            "themes": objective_count,
            "lacks": objective_count,
            "relations": count,
            "whole": objective_count,
        }
        for name, expected in lengths.items():
            if (length := len(getattr(self, name))) not in (0, expected):
                raise PairError(f"{length} {name} where {expected} are needed; give one each, or none at all")
        if any(len(labels) != objective_count for labels in self.relations):
            raise PairError(f"relations need {objective_count} labels for each segment, one of each objective")
        if not all(isinstance(word, str) for word in (*self.kinds, *self.themes)):
            raise PairError("kinds and themes are words, and something else is among them")


_OPTIONAL = {"direction", "kinds", "themes", "lacks", "relations", "whole"}
_KNOWN = frozenset(f.name for f in fields(Pair))
_REQUIRED = _KNOWN - _OPTIONAL
_LISTS = ("objectives", "labels", "kinds", "themes", "lacks", "relations", "whole")


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write the pairs as JSON lines, complete or not at all; return how many there are."""
    return write_lines(path, (asdict(pair) for pair in pairs))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON lines, complete or not at all; return how many there are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    count = 0
    try:
        with draft.open("w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def read_pairs(path: Path, on_bad: Callable[[PairError], None] | None = None) -> Iterator[Pair]:
    """Yield the pairs of a file; a bad line raises PairError that names file and line, or goes to `on_bad`."""
    for number, line in enumerate(_read_lines(path), 1):
        if line.strip():
            try:
                pair = _parse_pair(line, f"{path}:{number}")
            except PairError as error:
                if on_bad is None:
                    raise
                on_bad(error)
            else:
                yield pair


def _read_lines(path: Path) -> Iterator[str]:
    try:
        open_file = lzma.open if path.suffix == ".xz" else open
        with open_file(path, "rt", encoding="utf-8") as lines:
            yield from lines
    except (UnicodeDecodeError, lzma.LZMAError, EOFError):
        raise PairError(f"{path} is not UTF-8 text; write it again as UTF-8") from None
    except OSError as error:
        raise PairError(f"{path} cannot be read ({error.strerror}); models.data.mixture writes pairs") from None


def _parse_pair(line: str, where: str) -> Pair:
    """The pair of a line; `where` names the line in the `PairError` for a bad one."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise PairError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise PairError(f"{where}: expected a JSON object, found {type(row).__name__}")
    _check_fields(row, where)
    lists = {name: tuple(row[name]) for name in _LISTS if name in row}
    if "relations" in lists:
        lists["relations"] = tuple(map(tuple, lists["relations"]))
    try:
        return Pair(**{**row, **lists})
    except PairError as error:
        raise PairError(f"{where}: {error}") from error


def _check_fields(row: dict[str, Any], where: str) -> None:
    """Raise `PairError` for a field that is missing, unknown or of the wrong type."""
    if missing := sorted(_REQUIRED - row.keys()):
        raise PairError(f"{where}: missing field {', '.join(missing)}")
    if unknown_fields := sorted(row.keys() - _KNOWN):
        raise PairError(f"{where}: unknown field {', '.join(unknown_fields)}; known: {', '.join(sorted(_KNOWN))}")
    for name in _LISTS:
        if not isinstance(row.get(name, []), list):
            raise PairError(f"{where}: field {name} must be a list")
    if not all(isinstance(labels, list) for labels in row.get("relations", [])):
        raise PairError(f"{where}: field relations must be a list of lists")
    for name in ("query", "answer", "target", "source"):
        if not isinstance(row[name], str):
            raise PairError(f"{where}: field {name} must be a text")
