"""Terminal output: tables, a coloured word diff, and segments with their scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from aligner_proxy.text import word_diff as words
from aligner_proxy.text.hidden import escape_hidden
from aligner_proxy.types import Outcome, SegmentScore, Status

_CHANGES = {words.WordChange.KEPT: "", words.WordChange.REMOVED: "red strike", words.WordChange.ADDED: "green"}
_STYLES = {
    Status.CORRECTED: "yellow",
    Status.UNCHANGED: "green",
    Status.NOT_JUDGED: "cyan",
    Status.FAILED: "red",
    Status.SKIPPED: "cyan",
}


def render_diff(before: str, after: str) -> Text:
    """Render `after` with new words in green, and removed words of `before` struck out in red."""
    text = Text()
    for change, passage in words.word_diff(escape_hidden(before), escape_hidden(after)):
        text.append(passage, style=_CHANGES[change])
    return text


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Make a table of plain texts; markup and control characters in them are escaped.

    Nothing is cut off if the terminal is narrow: the first column, of names, is never wrapped, and other cells are.
    """
    cells = [[escape_hidden(cell) for cell in row] for row in rows]
    name_width = max((cell_len(row[0]) for row in cells), default=0)
    table = Table(
        Column(head[0], no_wrap=True, min_width=name_width), *(Column(name, overflow="fold") for name in head[1:])
    )
    for row in cells:
        table.add_row(*map(escape, row))
    return table


def show_outcome(console: Console, answer: str, outcome: Outcome) -> None:
    """Print a status line, the diff, and the segments with their scores and the objectives that they violate."""
    correction = outcome.correction
    reason = f" ({outcome.reason})" if outcome.reason else ""
    cost = f", {correction.counts.forwards} forward passes" if correction else ""
    console.print(Text(f"{outcome.status.value}{reason}", style=_STYLES.get(outcome.status, "")), end="")
    console.print(Text(f" in {outcome.ms:.0f} ms{cost}", style="dim"))
    console.print(render_diff(answer, outcome.text or ""))
    if correction and any(segment.score is not None for segment in correction.segments):
        console.print(_segment_table(correction.segments, outcome))


def _segment_table(segments: tuple[SegmentScore, ...], outcome: Outcome) -> Table:
    """A table of segments with their scores; flagged segments are red."""
    table = Table("score", "against", "segment", box=None, header_style="dim", padding=(0, 1))
    for segment in segments:
        style = "red" if segment.flagged else ""
        against = Text(escape_hidden(outcome.objective_of(segment) or ""))
        cell = (
            Text(escape_hidden(segment.text))
            if segment.text
            else Text("(missing at the end of the answer)", style="dim")
        )
        table.add_row(f"{segment.score or 0.0:+.2f}", against, cell, style=style)
    return table
