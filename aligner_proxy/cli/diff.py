"""Terminal output: tables, a coloured word diff, and segments with their scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
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


def word_diff(before: str, after: str) -> Text:
    """`after` with new words in green, and removed words struck out in red."""
    text = Text()
    for change, passage in words.word_diff(escape_hidden(before), escape_hidden(after)):
        text.append(passage, style=_CHANGES[change])
    return text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of plain texts; markup in them is escaped."""
    shown = Table(*head)
    for row in rows:
        shown.add_row(*(escape(escape_hidden(cell)) for cell in row))
    return shown


def show(console: Console, answer: str, outcome: Outcome) -> None:
    """Status line, diff, and the segments with their scores and the objective that flagged them."""
    correction = outcome.correction
    reason = f" ({outcome.reason})" if outcome.reason else ""
    cost = f", {correction.counts.forwards} forwards" if correction else ""
    console.print(Text(f"{outcome.status.value}{reason}", style=_STYLES.get(outcome.status, "")), end="")
    console.print(Text(f" in {outcome.ms:.0f} ms{cost}", style="dim"))
    console.print(word_diff(answer, outcome.text or ""))
    if correction and any(segment.score is not None for segment in correction.segments):
        console.print(_segments(correction.segments, outcome))


def _segments(scored: tuple[SegmentScore, ...], outcome: Outcome) -> Table:
    table = Table("score", "against", "segment", box=None, header_style="dim", padding=(0, 1))
    for segment in scored:
        style = "red" if segment.flagged else ""
        against = Text(escape_hidden(outcome.named(segment) or ""))
        shown = (
            Text(escape_hidden(segment.text))
            if segment.text
            else Text("(missing at the end of the answer)", style="dim")
        )
        table.add_row(f"{segment.score or 0.0:+.2f}", against, shown, style=style)
    return table
