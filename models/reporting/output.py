"""Results as files: tables as Markdown and JSON, plots as SVG, the same bytes for the same result.

The only place that knows matplotlib, which is imported where something is drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from .statistics import Area, Rate


@contextmanager
def plot(
    path: Path, rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 4.0), **grid: Any
) -> Iterator[Any]:
    """A grid of axes, [rows, columns]; what is drawn on them is saved when the block ends without an error."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "aligner-proxy"}):
        figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, **grid)
        try:
            yield axes
            figure.tight_layout()
            figure.savefig(path, metadata={"Date": None})
        finally:
            pyplot.close(figure)


@contextmanager
def panels(path: Path, count: int, columns: int, size: tuple[float, float], **grid: Any) -> Iterator[Any]:
    """Axes for `count` panels of the same `size`, in lines of `columns`; what is left of the last line stays empty."""
    lines = math.ceil(count / columns)
    with plot(path, lines, columns, (columns * size[0], lines * size[1]), **grid) as axes:
        for axis in axes.flat[count:]:
            axis.set_visible(False)
        yield axes.flat[:count]


def whiskers(axis: Any, rates: Sequence[Rate | Area], labels: Sequence[str], **style: Any) -> None:
    """Draw a dot with its interval for each rate, the first on top; the line of a rate without cases stays empty."""
    places = range(len(rates), 0, -1)
    present = [(rate, place) for rate, place in zip(rates, places, strict=True) if rate.n]
    spread = list(zip(*(rate.whiskers for rate, _ in present), strict=True)) or None
    axis.errorbar(
        [rate.percent for rate, _ in present], [place for _, place in present], xerr=spread, **{"fmt": "o"} | style
    )
    axis.set_yticks(list(places), labels, fontsize=8)
    axis.set_ylim(0.3, len(rates) + 0.7)
    axis.set_xlim(-2, 102)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; a bar inside a cell does not end it."""
    lines = [_line(head), "|---" * len(head) + "|"]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"


def write(folder: Path, name: str, text: str, document: object) -> None:
    """`name`.md and `name`.json; frozen dataclasses become objects."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / f"{name}.md", text + "\n")
    _replace(folder / f"{name}.json", json.dumps(document, default=_plain, indent=1, ensure_ascii=False) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file by one rename, so that it is never half written."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _plain(value: object) -> object:
    """A dataclass as plain data, for json.dumps."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no place in a result")
