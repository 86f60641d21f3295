"""Results of rows: figures with what each must reach, kept as JSON by aligner, data and sample."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path
from typing import Any

from aligner_proxy.engine.loader import EngineSettings, prepare
from aligner_proxy.policy import config
from models.reporting.statistics import Area, Rate

HASH_CHARS = 12
"""Characters of a hash in the name of a file."""
_POINTS = 1.96 * 100
"""Half a 95 % interval in percentage points, for each unit of standard deviation."""
_OWN_CASES = (
    "data/operator_cases/*.yaml",
    "data/own_answers/**/*.jsonl",
    "data/taught_kinds/*.yaml",
    "evaluate/forms.yaml",
)


@dataclass(frozen=True, slots=True)
class Bound:
    """The percentage that a figure must reach or, of a ceiling, must not exceed."""

    percent: float
    is_ceiling: bool = False

    def holds(self, figure: Rate | Area) -> bool:
        """Whether the figure itself is on the right side of the bound, whatever its interval."""
        return figure.percent <= self.percent if self.is_ceiling else figure.percent >= self.percent

    def is_sure(self, figure: Rate | Area) -> bool:
        """Whether the whole interval of the figure is on one side of the bound."""
        below, above = figure.whiskers
        return not figure.percent - below < self.percent < figure.percent + above

    def judge(self, figure: Rate | Area) -> str:
        """`yes` or `**no**`, with `, not sure` where the interval includes the bound."""
        if not figure.n:
            return "not measured"
        verdict = "yes" if self.holds(figure) else "**no**"
        return verdict if self.is_sure(figure) else f"{verdict}, not sure"

    def __str__(self) -> str:
        return f"{'<=' if self.is_ceiling else '>='} {self.percent:g} %"


@dataclass(frozen=True, slots=True)
class RowResult:
    """What one row measured of one aligner."""

    row: str
    aligner: str
    """The hash of the aligner."""
    data: str
    """The hash of the data."""
    sample: int
    """How many answers the row was allowed to read."""
    figures: Mapping[str, Rate | Area]
    scorer: str = ""
    """How often what scores the row is right, where that was measured, too."""
    seconds: float = field(default=0.0, compare=False)


class ResultFolder:
    """The results in a folder. A result of a larger sample answers for a smaller one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, result: RowResult) -> None:
        """Write a result. A crash leaves the old file, never half a file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        figures = {name: _to_counts(figure) for name, figure in result.figures.items()}
        document = {name: getattr(result, name) for name in ("row", "aligner", "data", "sample", "scorer", "seconds")}
        path = self._folder / f"{self._stem(result.row, result.aligner, result.data)}-{result.sample}.json"
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps(document | {"figures": figures}, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)

    def find(self, row: str, aligner: str, data: str, sample: int = 0) -> RowResult | None:
        """The result of the largest sample, if it has at least `sample` answers; else None."""
        stem = self._stem(row, aligner, data)
        results = [_read(path) for path in self._folder.glob(f"{stem}-*.json")]
        large = [
            result for result in results if result.sample >= sample and (result.aligner, result.data) == (aligner, data)
        ]
        return max(large, key=lambda result: result.sample, default=None)

    def _stem(self, row: str, aligner: str, data: str) -> str:
        return f"{re.sub('[^a-z0-9]+', '_', row)}-{aligner[:HASH_CHARS]}-{data[:HASH_CHARS]}"


def _to_counts(figure: Rate | Area) -> dict[str, float]:
    """A figure as the numbers that `_from_counts` reads."""
    if isinstance(figure, Rate):
        return {"hits": figure.hits, "n": figure.n}
    return {"auc": figure.auc, "high": figure.high, "low": figure.low}


def _from_counts(counts: Mapping[str, Any]) -> Rate | Area:
    return Area(**counts) if "auc" in counts else Rate.from_counts(**counts)


def _read(path: Path) -> RowResult:
    document = json.loads(path.read_text(encoding="utf-8"))
    figures = {name: _from_counts(counts) for name, counts in document["figures"].items()}
    return RowResult(**document | {"figures": figures})


def compare_figures(new: Rate | Area, old: Rate | Area) -> str:
    """The difference in percentage points with its 95 % interval (of rates by Newcombe's method)."""
    if not (new.n and old.n):
        return "-"
    difference = new.percent - old.percent
    if isinstance(new, Area) and isinstance(old, Area):
        below = above = _POINTS * hypot(new.deviation, old.deviation)
    else:
        below = hypot(new.whiskers[0], old.whiskers[1])
        above = hypot(new.whiskers[1], old.whiskers[0])
    return f"{difference:+.1f} [{difference - below:+.1f}, {difference + above:+.1f}]"


def hash_aligner(folder: Path) -> str:
    """The hash of the weights, head and template, as an engine computes it."""
    prepared, _ = prepare(EngineSettings(folder), config.home_folder())
    return prepared.content_hash


def hash_data(data: Path) -> str:
    """A hash of the research data and of the project's own cases."""
    project_folder = Path(__file__).parents[2]
    files = [(path.relative_to(data), path) for path in data.rglob("*.gz")]
    files += [
        (path.relative_to(project_folder), path) for pattern in _OWN_CASES for path in project_folder.glob(pattern)
    ]
    digest = hashlib.sha256()
    for name, path in sorted(files):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
