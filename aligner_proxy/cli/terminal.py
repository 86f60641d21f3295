"""Terminal output of commands, with control characters in untrusted text escaped.

Answers, questions, names of models and tenants, and errors of other machines may contain escape sequences that colour a
terminal, move its cursor, or write its title or clipboard. Commands print only through `Terminal`, `echo` and
`echo_json`, which escape them.
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
    """A rich console that escapes control characters in all texts; only rich itself can set colours."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with every control character replaced by its number."""
        if isinstance(renderable, Text):
            renderable = _escape_text(renderable)
        elif isinstance(renderable, str):
            renderable = escape_hidden(renderable)
        return super().render(renderable, options)


def _escape_text(text: Text) -> Text:
    """Replace each hidden character of a text by its number; keeps the colours."""
    places = [place for place, char in enumerate(text.plain) if is_hidden(char)]
    if not places:
        return text
    # Cut before and after each hidden character, so that it becomes a piece of its own.
    pieces = text.divide(sorted({cut for place in places for cut in (place, place + 1)}))
    result = text.blank_copy()
    for piece in pieces:
        if len(piece) == 1 and is_hidden(piece.plain):
            piece = Text(escape_hidden(piece.plain), style=piece.spans[0].style if piece.spans else "")
        result.append_text(piece)
    return result


def echo(*parts: str | tuple[str, str], err: bool = False) -> None:
    """Print texts as one line; a coloured text is given as a pair (text, colour)."""
    texts = (
        escape_hidden(part) if isinstance(part, str) else click.style(escape_hidden(part[0]), fg=part[1])
        for part in parts
    )
    click.echo("".join(texts), err=err)


def echo_json(value: object, *, indent: int | None = None, ascii_only: bool = True) -> None:
    """Print JSON for programs, with hidden characters escaped because a terminal may show it."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    click.echo("".join(_json_escape(char) if is_hidden(char) else char for char in text))


def print_progress(done: int, of: int) -> None:
    """Print that `done` of `of` steps are finished, as a line of JSON for a program that runs the command."""
    echo_json({"done": done, "of": of})


def _json_escape(char: str) -> str:
    """The JSON escape of a hidden character; DEL is handled separately, because JSON does not escape it."""
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]
