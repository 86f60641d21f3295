"""Where a command prints: texts of strangers reach a terminal with what would act on it escaped.

Answers, questions, names of models and tenants, errors of other machines: all may hold escapes that colour a terminal,
move its cursor, write its title or its clipboard. Commands print by `Terminal`, `echo` and `echo_json` alone, so none
of them has to remember it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from aligner_proxy.text.hidden import escape_hidden, is_hidden


class Terminal(Console):
    """rich's console, whose texts hold no character that acts on a terminal; colours are those of rich alone."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with every such character as its number."""
        if isinstance(renderable, Text):
            renderable = _escaped(renderable)
        elif isinstance(renderable, str):
            renderable = escape_hidden(renderable)
        return super().render(renderable, options)


def _escaped(text: Text) -> Text:
    """The same text, colours included, with each hidden character as its number."""
    places = [place for place, char in enumerate(text.plain) if is_hidden(char)]
    if not places:
        return text
    pieces = text.divide(sorted({cut for place in places for cut in (place, place + 1)}))
    shown = text.blank_copy()
    for piece in pieces:
        if len(piece) == 1 and is_hidden(piece.plain):
            piece = Text(escape_hidden(piece.plain), style=piece.spans[0].style if piece.spans else "")
        shown.append_text(piece)
    return shown


def echo(*parts: str | tuple[str, str], err: bool = False) -> None:
    """Print a line of texts; one with a colour is a pair of both."""
    shown = (
        escape_hidden(part) if isinstance(part, str) else click.style(escape_hidden(part[0]), fg=part[1])
        for part in parts
    )
    click.echo("".join(shown), err=err)


def echo_json(value: object, *, indent: int | None = None, ascii_alone: bool = True) -> None:
    """Print JSON for programs, which a terminal may show as well."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_alone)
    click.echo("".join(_json_number(char) if is_hidden(char) else char for char in text))


def _json_number(char: str) -> str:
    """A hidden character in a JSON string as its number. JSON itself lets DEL stand as it is."""
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]
