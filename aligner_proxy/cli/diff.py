"""Terminal output: tables, a coloured word diff, and segments with their scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from aligner_proxy.text import word_diff as words
from aligner_proxy.text.hidden import escape_hidden
from aligner_proxy.types import Outcome, SegmentScore, Status

_COLOURS = {words.WordChange.KEPT: "", words.WordChange.REMOVED: "red strike", words.WordChange.ADDED: "green"}
_SIGNS = {
    words.WordChange.KEPT: ("", ""),
    words.WordChange.REMOVED: ("[-", "-]"),
    words.WordChange.ADDED: ("{+", "+}"),
}
_MIN_WIDTH = 8
"""Fewest characters of a column in which a text can be read."""
_COLUMN_GAP = 3
"""Characters between two columns."""
_STATUS_STYLES = {
    Status.CORRECTED: "yellow",
    Status.UNCHANGED: "green",
    Status.NOT_JUDGED: "cyan",
    Status.FAILED: "red",
    Status.SKIPPED: "cyan",
}


def render_diff(before: str, after: str, *, has_colours: bool = True) -> Text:
    """Render `after` with new words in green, and removed words of `before` struck out in red.

    Without colours, as in a pipe, new words are between {+ and +}, and removed words between [- and -].
    """
    text = Text()
    for change, passage in words.word_diff(escape_hidden(before), escape_hidden(after)):
        opening, closing = ("", "") if has_colours else _SIGNS[change]
        stripped_passage = passage.rstrip()
        trailing_space = passage[len(stripped_passage) :]
        text.append(f"{opening}{stripped_passage}{closing}{trailing_space}", style=_COLOURS[change])
    return text


def can_show_colours(console: Console) -> bool:
    """Whether colours can be seen where the console prints."""
    return console.color_system is not None and not console.no_color


class TextTable:
    """A table of plain texts; markup and control characters in them are escaped.

    Nothing is cut off if the terminal is narrow. The first column, of names, is never wrapped, but the other cells are.
    If the names leave no room for the other columns, each row is printed as a list of its cells.
    """

    def __init__(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self._head = head
        self._rows = [[escape_hidden(cell) for cell in row] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table or, if the names leave no room for the other columns, each row as a list of its cells."""
        name_width = max((cell_len(row[0]) for row in self._rows), default=0)
        other_columns = list(enumerate(self._head))[1:]
        other_widths = [
            max(cell_len(title), *(cell_len(row[index]) for row in self._rows), 0) for index, title in other_columns
        ]
        # Each other column needs its width, but at most `_MIN_WIDTH`, since its cells can be wrapped.
        least_width = name_width + sum(min(width, _MIN_WIDTH) + _COLUMN_GAP for width in other_widths) + _COLUMN_GAP
        if least_width > options.max_width:
            yield Text(self._head[0], style="dim")
            for row in self._rows:
                yield Text(row[0], style="bold")
                yield from (Text(f"  {title}: {row[index]}") for index, title in other_columns if row[index])
            return
        columns = [Column(title, overflow="fold") for _, title in other_columns]
        table = Table(Column(self._head[0], no_wrap=True, min_width=name_width), *columns)
        for row in self._rows:
            table.add_row(*map(escape, row))
        yield table


def show_outcome(console: Console, answer: str, outcome: Outcome) -> None:
    """Print a status line, the diff, and the segments with their scores and the objectives that they violate."""
    correction = outcome.correction
    reason = f" ({outcome.reason})" if outcome.reason else ""
    cost = f", {correction.counts.forwards} forward passes" if correction else ""
    console.print(Text(f"{outcome.status.value}{reason}", style=_STATUS_STYLES.get(outcome.status, "")), end="")
    console.print(Text(f" in {outcome.ms:.0f} ms{cost}", style="dim"))
    console.print(render_diff(answer, outcome.text or "", has_colours=can_show_colours(console)))
    if correction and any(segment.score is not None for segment in correction.segments):
        console.print(_segment_table(correction.segments, outcome))


def _segment_table(segments: tuple[SegmentScore, ...], outcome: Outcome) -> Table:
    """Return a table of segments with their scores and the objectives that they violate; flagged segments are red."""
    columns = [Column("score"), Column("against", overflow="fold"), Column("segment", overflow="fold")]
    table = Table(*columns, box=None, header_style="dim", padding=(0, 1))
    for segment in segments:
        objective_name = Text(escape_hidden(outcome.objective_of(segment) or ""))
        text = Text(escape_hidden(segment.text))
        if not segment.text:
            text = Text("(missing at the end of the answer)", style="dim")
        style = "red" if segment.flagged else ""
        table.add_row(f"{segment.score or 0.0:+.2f}", objective_name, text, style=style)
    return table
