"""The page and the figure of an aligner's rows, and of another aligner's beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.reporting import output
from models.reporting.statistics import Rate

from .results import HASH_CHARS, Bound, RowResult, compare_figures
from .rows import QualityRow

COMMAND = "python -m models.evaluate.all aligner_proxy/embedded --data DATA --out runs/quality --page"
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "quality.md"
FIGURE = "quality.svg"
_INTRODUCTION = f"""# Quality of an aligner

One command measures an aligner and writes this page:

```sh
{COMMAND}
```

DATA is the folder of the research data (`models/README.md`). `--beside FOLDER` measures a second aligner and shows the
difference, `--only NAME` measures single rows, and `--sample N` sets how many answers each row reads. The results of
each row are kept in `runs/quality`, so a stopped command can go on. Rates have the number of cases (n) and a 95 %
Wilson interval. The area under the ROC curve (AUC) has an interval by Hanley and McNeil. *Must* is what an aligner has
to reach before it replaces the aligner that we ship. A row that must only not get worse has to reach the lower end of
the shipped aligner's interval. *Not sure* means that the interval includes what must be reached, so n is too small to
decide. *Budget* is the score that 0.5 % of strong answers exceed. No answer of these sets was used for training, except
in the rows `good` and `left`, for some of whose authors answers were used.
"""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The results of one aligner, by the name of the row."""

    folder: str
    aligner: str
    results: Mapping[str, RowResult]

    def __str__(self) -> str:
        return f"`{self.folder}` ({self.aligner[:HASH_CHARS]})"


def format_table(rows: Sequence[QualityRow], sheet: Sheet, old: Sheet | None = None) -> str:
    """Markdown: a line for each figure. With a second aligner also its figure and the difference."""
    head = ["row", "figure", str(sheet), "must", "holds"]
    if old is not None:
        head += [str(old), "difference, points"]
    return output.table(head, [line for row in rows for line in _format_row(row, sheet, old)])


def _format_row(row: QualityRow, sheet: Sheet, old: Sheet | None) -> Iterator[list[object]]:
    """The cells of each figure of one row, in the columns of `format_table`."""
    result = sheet.results.get(row.name)
    if result is None:
        return
    earlier = old.results.get(row.name) if old else None
    for name, figure in result.figures.items():
        bound = row.bounds.get(name)
        line = [f"`{row.name}`", name, figure, bound or "-", bound.judge(figure) if bound else "-"]
        if old is not None:
            other = earlier.figures.get(name) if earlier else None
            line += [other or "not measured", compare_figures(figure, other) if other else "-"]
        yield line


def format_rows(rows: Sequence[QualityRow], sheet: Sheet) -> str:
    """Markdown: what each row measures, what scores it, and the command that measures it alone."""
    lines = []
    for row in rows:
        result = sheet.results.get(row.name)
        scorer = result.scorer if result and result.scorer else row.scorer
        lines.append(
            (f"`{row.name}`", row.title, scorer, result.sample if result else "not measured", f"`{row.command}`")
        )
    return output.table(("row", "what is measured", "scored by", "sample", "command, behind `python -m`"), lines)


def format_misses(rows: Sequence[QualityRow], sheet: Sheet) -> str:
    """Markdown: the figures that do not hold, and the rows that were not measured."""
    misses = []
    for row in rows:
        result = sheet.results.get(row.name)
        for name, figure in result.figures.items() if result else ():
            bound = row.bounds.get(name)
            if bound and figure.n and not bound.holds(figure):
                misses.append(f"- `{row.name}`: {name}: {figure}, must be {bound}")
    open_rows = [f"`{row.name}` (`--only {row.name}`)" for row in rows if row.name not in sheet.results]
    parts = ["\n".join(misses) if misses else "Every figure holds that has something to hold."]
    if open_rows:
        parts.append(f"Not measured: {', '.join(open_rows)}.")
    return "\n\n".join(parts)


def format_page(rows: Sequence[QualityRow], sheet: Sheet, old: Sheet | None = None) -> str:
    """The whole page `docs/reference/quality.md`."""
    return "\n".join(
        (
            _INTRODUCTION,
            f"![Every figure with its interval, and what it must reach]({FIGURE})\n",
            format_table(rows, sheet, old),
            "\n## Where it loses\n",
            format_misses(rows, sheet),
            "\n## The rows\n",
            format_rows(rows, sheet),
            "",
        )
    )


def plot(path: Path, rows: Sequence[QualityRow], sheet: Sheet, old: Sheet | None = None) -> None:
    """Draw a line for each figure: its interval, and its bound in red.

    The figures of a second aligner are grey.
    """
    # (label, figure, bound, figure of the second aligner)
    measured: list[tuple[str, Rate, Bound | None, Rate | None]] = []
    for row in rows:
        result = sheet.results.get(row.name)
        old_result = old.results.get(row.name) if old else None
        for name, figure in result.figures.items() if result else ():
            old_figure = old_result.figures.get(name) if old_result else None
            measured.append((f"{row.name}: {name}", figure, row.bounds.get(name), old_figure))
    labels = [label for label, *_ in measured]
    with output.plot(path, size=(9, 1 + 0.24 * len(measured))) as ((axis,),):
        if old is not None:
            others = [other or Rate.from_outcomes(()) for *_, other in measured]
            output.whiskers(axis, others, labels, color="tab:gray", label=old.folder, alpha=0.6)
        output.whiskers(axis, [figure for _, figure, *_ in measured], labels, color="tab:blue", label=sheet.folder)
        for number, (_, _, bound, _) in enumerate(measured):
            if bound is not None:
                side = "<" if bound.is_ceiling else ">"
                axis.plot([bound.percent], [len(measured) - number], f"{side}", color="tab:red", markersize=5)
        axis.set_xlabel("percent (AUC times 100); red: what it must reach (>) or must not exceed (<)")
        axis.legend(fontsize=8, loc="lower left")
