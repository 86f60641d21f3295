"""What is one training example, and how is it kept on disk?

A pair says: this answer to this query, under these objectives, becomes that target; the labels say which segments of
the answer have to change. Files are JSON lines; a bad line is reported with its file, number and reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aligner_proxy.segments import split

CHANGES, STAYS, UNKNOWN = 1, 0, -1
DIRECTIONS = ("better", "equal")


class PairError(ValueError):
    """A training example that does not hold together; the text says where and what to mend."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One example; `labels` has one entry per segment of the answer (1 changes, 0 stays, -1 unknown)."""

    query: str
    objectives: tuple[str, ...]
    answer: str
    target: str
    labels: tuple[int, ...]
    source: str
    direction: str = "better"

    def __post_init__(self) -> None:
        if not self.objectives or not all(isinstance(o, str) and o.strip() for o in self.objectives):
            raise PairError(f"a pair from {self.source!r} needs at least one objective, each a text")
        if self.direction not in DIRECTIONS:
            raise PairError(f"unknown direction {self.direction!r}; known: {', '.join(DIRECTIONS)}")
        if set(self.labels) - {CHANGES, STAYS, UNKNOWN}:
            raise PairError(f"labels are 1 (changes), 0 (stays) or -1 (unknown), not {sorted(set(self.labels))}")
        count = len(split(self.answer))
        if len(self.labels) != count:
            raise PairError(f"{len(self.labels)} labels for an answer of {count} segments; give one per segment")


_REQUIRED = frozenset(f.name for f in fields(Pair)) - {"direction"}
_KNOWN = _REQUIRED | {"direction"}


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write the pairs as JSON lines and say how many there were; nothing half-written is left under `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    count = 0
    with draft.open("w", encoding="utf-8") as out:
        for pair in pairs:
            out.write(json.dumps(asdict(pair), ensure_ascii=False) + "\n")
            count += 1
    draft.replace(path)
    return count


def read_pairs(path: Path) -> Iterator[Pair]:
    """Read pairs one by one; raises PairError naming file and line at the first one that is not a pair."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parse(line, f"{path}:{number}")


def _parse(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise PairError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise PairError(f"{where}: expected a JSON object, found {type(row).__name__}")
    _check_fields(row, where)
    try:
        return Pair(**{**row, "objectives": tuple(row["objectives"]), "labels": tuple(row["labels"])})
    except PairError as error:
        raise PairError(f"{where}: {error}") from error


def _check_fields(row: dict[str, Any], where: str) -> None:
    if missing := sorted(_REQUIRED - row.keys()):
        raise PairError(f"{where}: missing field {', '.join(missing)}")
    if unknown := sorted(row.keys() - _KNOWN):
        raise PairError(f"{where}: unknown field {', '.join(unknown)}; known: {', '.join(sorted(_KNOWN))}")
    for name in ("objectives", "labels"):
        if not isinstance(row[name], list):
            raise PairError(f"{where}: field {name} must be a list")
    for name in ("query", "answer", "target", "source"):
        if not isinstance(row[name], str):
            raise PairError(f"{where}: field {name} must be a text")
