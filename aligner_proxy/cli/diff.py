"""Terminal output: tables, a coloured word diff, and segments with their scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from aligner_proxy.text import word_diff as words
from aligner_proxy.text.hidden import escape_hidden
from aligner_proxy.types import Outcome, SegmentScore, Status

_CHANGES = {words.WordChange.KEPT: "", words.WordChange.REMOVED: "red strike", words.WordChange.ADDED: "green"}
_SIGNS = {
    words.WordChange.KEPT: ("", ""),
    words.WordChange.REMOVED: ("[-", "-]"),
    words.WordChange.ADDED: ("{+", "+}"),
}
_MIN_WIDTH = 8
"""Fewest characters of a column in which a text can be read."""
_FRAME = 3
"""Characters between two columns."""
_STYLES = {
    Status.CORRECTED: "yellow",
    Status.UNCHANGED: "green",
    Status.NOT_JUDGED: "cyan",
    Status.FAILED: "red",
    Status.SKIPPED: "cyan",
}


def render_diff(before: str, after: str, *, has_colours: bool = True) -> Text:
    """Render `after` with new words in green, and removed words of `before` struck out in red.

    Without colours, as in a pipe, new words stand between {+ and +}, and removed ones between [- and -].
    """
    text = Text()
    for change, passage in words.word_diff(escape_hidden(before), escape_hidden(after)):
        opening, closing = ("", "") if has_colours else _SIGNS[change]
        body = passage.rstrip()
        text.append(f"{opening}{body}{closing}{passage[len(body) :]}", style=_CHANGES[change])
    return text


def can_show_colours(console: Console) -> bool:
    """Whether colours can be seen where the console prints."""
    return console.color_system is not None and not console.no_color


class TextTable:
    """A table of plain texts; markup and control characters in them are escaped.

    Nothing is cut off if the terminal is narrow: the first column, of names, is never wrapped, and other cells are. If
    the names leave no room for the others, each row is a list of its cells.
    """

    def __init__(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self._head = head
        self._rows = [[escape_hidden(cell) for cell in row] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name_width = max((cell_len(row[0]) for row in self._rows), default=0)
        others = [max(cell_len(name), *(cell_len(row[i]) for row in self._rows), 0) for i, name in self._columns()]
        if name_width + sum(min(width, _MIN_WIDTH) + _FRAME for width in others) + _FRAME > options.max_width:
            yield Text(self._head[0], style="dim")
            yield from (text for row in self._rows for text in self._list_cells(row))
            return
        names = (Column(name, overflow="fold") for _, name in self._columns())
        table = Table(Column(self._head[0], no_wrap=True, min_width=name_width), *names)
        for row in self._rows:
            table.add_row(*map(escape, row))
        yield table

    def _columns(self) -> list[tuple[int, str]]:
        """Number and name of each column but the first."""
        return list(enumerate(self._head))[1:]

    def _list_cells(self, row: Sequence[str]) -> Iterator[Text]:
        """Yield a row as its name and a line for each other cell."""
        yield Text(row[0], style="bold")
        yield from (Text(f"  {name}: {row[i]}") for i, name in self._columns() if row[i])


def show_outcome(console: Console, answer: str, outcome: Outcome) -> None:
    """Print a status line, the diff, and the segments with their scores and the objectives that they violate."""
    correction = outcome.correction
    reason = f" ({outcome.reason})" if outcome.reason else ""
    cost = f", {correction.counts.forwards} forward passes" if correction else ""
    console.print(Text(f"{outcome.status.value}{reason}", style=_STYLES.get(outcome.status, "")), end="")
    console.print(Text(f" in {outcome.ms:.0f} ms{cost}", style="dim"))
    console.print(render_diff(answer, outcome.text or "", has_colours=can_show_colours(console)))
    if correction and any(segment.score is not None for segment in correction.segments):
        console.print(_segment_table(correction.segments, outcome))


def _segment_table(segments: tuple[SegmentScore, ...], outcome: Outcome) -> Table:
    """A table of segments with their scores; flagged segments are red."""
    against = Column("against", overflow="fold")
    table = Table("score", against, Column("segment", overflow="fold"), box=None, header_style="dim", padding=(0, 1))
    for segment in segments:
        style = "red" if segment.flagged else ""
        name = Text(escape_hidden(outcome.objective_of(segment) or ""))
        cell = (
            Text(escape_hidden(segment.text))
            if segment.text
            else Text("(missing at the end of the answer)", style="dim")
        )
        table.add_row(f"{segment.score or 0.0:+.2f}", name, cell, style=style)
    return table
